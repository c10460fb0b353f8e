"""Which loss fits a teacher's scores, as an expression of the loss language."""

from __future__ import annotations

from dataclasses import dataclass

from irdistill.evaluation.auditing.margins import Margins
from irdistill.evaluation.auditing.matching import USUAL_TAU, Matching
from irdistill.evaluation.auditing.scale import COSINE, RANKS, RAW, Scale

REACH = 2.0
"""The largest margin of two cosines."""


@dataclass(frozen=True)
class Advice:
    """Losses for the scores as they are.

    Attributes:
        loss: first choice, an expression that `parse_loss` reads; None where the documents must be
            scored again first.
        other: second choice.
        words: sentences on the origin of the numbers and on what to look out for.
    """

    loss: str | None
    other: str | None
    words: tuple[str, ...]


def advise(scale: Scale, matching: Matching, margins: Margins) -> Advice:
    """Choose losses.

    KL with the temperatures of `matching`; for ranks RankNet, which needs no distances. MarginMSE
    is the second choice for raw scores and cosines only, as on the other scales margins differ in
    meaning from list to list.
    """
    from irdistill.losses import parse_loss

    if scale.spoilt:
        again = "Audit the new scores for a loss and a temperature."
        return Advice(None, None, (scale.remedy, again))
    if matching.teacher_tau is None:
        tied = "No temperature can be given: the best documents of the lists are tied."
        return Advice(None, None, (tied,))
    tau = matching.tau if matching.tau is not None else USUAL_TAU
    kl = str(parse_loss(f"KL(tau={tau!r}, teacher_tau={matching.teacher_tau!r})"))
    words = [_sharpness(matching)]
    if scale.kind == RANKS:
        return Advice(str(parse_loss("RankNet")), kl, tuple(words))
    if scale.kind not in (RAW, COSINE):
        return Advice(kl, None, tuple(words))
    if matching.scale is not None:
        words += _reach(matching)
        pairs = "" if margins.labelled is not None else 'pairs="all", '
        margin_mse = str(parse_loss(f"MarginMSE({pairs}scale={matching.scale!r})"))
        return Advice(kl, margin_mse, tuple(words))
    if margins.any is not None and margins.any[-1] > REACH:
        words.append(
            f"One in twenty of the teacher's margins is above {margins.any[-1]:.3g}; a cosine"
            f" student reaches {REACH:g}, so MarginMSE needs a scale: give --student to fit one."
        )
    return Advice(kl, None, tuple(words))


def _reach(matching: Matching) -> list[str]:
    words = [
        f"MarginMSE: half of the teacher's margins are above {matching.teacher_margin:.3g}, half"
        f" of the student's above {matching.student_margin:.3g}, so scale={matching.scale:g}"
        " brings them together."
    ]
    if matching.unreachable:
        scaled = matching.unreachable_scaled
        words.append(
            f"Beware of MarginMSE without a scale: {matching.unreachable:.1%} of the teacher's"
            f" margins are above {REACH:g}, which no two cosines reach"
            + ("." if scaled is None else f"; with scale={matching.scale:g} {scaled:.1%} are.")
        )
    return words


def _sharpness(matching: Matching) -> str:
    kept = "is kept at 1" if matching.teacher_tau == 1.0 else f"is set to {matching.teacher_tau:g}"
    text = (
        f"Over lists of {matching.list_size} the teacher's softmax has"
        f" {matching.entropy_at_one:.1%} of the maximum entropy, so teacher_tau {kept}, which gives"
        f" {matching.entropy:.1%}."
    )
    if matching.student is None:
        return (
            f"{text} tau={USUAL_TAU:g} is a usual value for a student that compares by cosine; give"
            " --student to fit it."
        )
    if matching.tau is None:
        return (
            f"{text} No tau makes the student {matching.student} as sharp; tau={USUAL_TAU:g} is"
            " only a usual value for cosines."
        )
    return (
        f"{text} With tau={matching.tau:g} the untrained student is as sharp"
        f" ({matching.student_entropy:.1%})."
    )
