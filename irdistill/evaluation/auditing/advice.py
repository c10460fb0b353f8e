"""Which loss suits a teacher's scores, written in the loss language and checked against it."""

from __future__ import annotations

from dataclasses import dataclass

from irdistill.evaluation.auditing.margins import Margins
from irdistill.evaluation.auditing.matching import USUAL_TAU, Matching
from irdistill.evaluation.auditing.scale import COSINE, RANKS, RAW, Scale

REACH = 2.0
"""The largest margin of two cosines."""


@dataclass(frozen=True)
class Advice:
    """Losses that the scores can feed, as they are.

    Attributes:
        loss: the first choice, an expression that `parse_loss` reads; None where the scores must be
            made anew first.
        other: a second choice. words: sentences on how the numbers came about and what to look out
            for.
    """

    loss: str | None
    other: str | None
    words: tuple[str, ...]


def advise(scale: Scale, found: Matching, margins: Margins, labelled: bool) -> Advice:
    """Choose losses.

    KL with the temperatures of `match`; for ranks RankNet where it is known, as it asks for no
    distances. MarginMSE is the second choice for raw scores and cosines alone, as no other scale
    has margins that mean the same in all lists.
    """
    from irdistill.losses import parse_loss
    from irdistill.losses.base import REGISTRY

    if scale.spoilt:
        return Advice(
            None, None, (scale.remedy, "Audit the new scores for a loss and a temperature.")
        )
    if found.teacher_tau is None:
        return Advice(
            None, None, ("No temperature can be given: the best documents of the lists are tied.",)
        )
    tau = found.tau if found.tau is not None else USUAL_TAU
    kl = str(parse_loss(f"KL(tau={tau!r}, teacher_tau={found.teacher_tau!r})"))
    words = [_sharpness(found)]
    if scale.kind == RANKS and "RankNet" in REGISTRY:
        return Advice(str(parse_loss("RankNet")), kl, tuple(words))
    if scale.kind not in (RAW, COSINE):
        return Advice(kl, None, tuple(words))
    pairs = "" if labelled else 'pairs="all"'
    if found.scale is not None:
        words.append(
            f"MarginMSE: half of the teacher's margins are above {found.teacher_margin:.3g}, half"
            f" of the student's above {found.student_margin:.3g}, so scale={found.scale:g} brings"
            " them together."
        )
        if found.unreachable:
            words.append(
                f"Beware of MarginMSE without a scale: {found.unreachable:.1%} of the teacher's"
                f" margins are above {REACH:g}, which no two cosines reach"
                + (
                    f"; with scale={found.scale:g} {found.unreachable_scaled:.1%} are out of reach."
                    if found.unreachable_scaled is not None
                    else "."
                )
            )
        inner = ", ".join(filter(None, (pairs, f"scale={found.scale!r}")))
        return Advice(kl, str(parse_loss(f"MarginMSE({inner})")), tuple(words))
    if margins.any is not None and margins.any[-1] > REACH:
        words.append(
            f"One in twenty of the teacher's margins is above {margins.any[-1]:.3g}; a cosine"
            f" student reaches {REACH:g}, so MarginMSE needs a scale: give --student for the one"
            " that fits."
        )
    return Advice(kl, None, tuple(words))


def _sharpness(found: Matching) -> str:
    kept = "is kept at 1" if found.teacher_tau == 1.0 else f"is set to {found.teacher_tau:g}"
    text = (
        f"Over lists of {found.list_size} the teacher's softmax has {found.entropy_at_one:.1%} of"
        f" the most possible entropy, so teacher_tau {kept}, which gives {found.entropy:.1%}."
    )
    if found.student is None:
        return (
            f"{text} tau={USUAL_TAU:g} is a usual value for a student that compares by cosine; give"
            " --student for the one that fits."
        )
    if found.tau is None:
        return (
            f"{text} No tau makes the student {found.student} as sharp; tau={USUAL_TAU:g} is only a"
            " usual value for cosines."
        )
    return (
        f"{text} With tau={found.tau:g} the untrained student is as sharp"
        f" ({found.student_entropy:.1%})."
    )
