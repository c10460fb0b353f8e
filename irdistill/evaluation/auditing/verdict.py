"""Learn from this teacher, or not, and why: in words, by fixed rules, of which nDCG@10 against the
first stage decides.

1. It scored nothing, or gives all documents of every list one score: no.
2. Nothing is judged, no first stage was given, or the two share no document: cannot tell.
3. It orders the shared documents exactly as the first stage does: no.
4. Its nDCG@10 is below the first stage's on the same queries and documents, p < 0.05 in a paired
   t-test after Holm's correction over the teachers audited: no.
5. It is above, p < 0.05: learn. But where its numbers are spoilt (a sigmoid's or a softmax's
   output, logarithms crowded at 0), most neighbours are tied, or half of the documents have no
   score: repair the scores first.
6. Otherwise there is no evidence that it is better.

Everything else (RR@10, judged share, ties, bias, agreement) is told as a reason or a caution and
changes no verdict.
"""

from __future__ import annotations

from dataclasses import dataclass

from irdistill.evaluation.auditing.advice import Advice
from irdistill.evaluation.auditing.agreement import Agreement
from irdistill.evaluation.auditing.bias import Bias
from irdistill.evaluation.auditing.distribution import Distribution
from irdistill.evaluation.auditing.quality import DECIDING, AgainstFirstStage, Quality
from irdistill.evaluation.auditing.scale import Scale

LEARN, REPAIR, NO, UNKNOWN, NO_EVIDENCE = "learn", "repair", "no", "cannot tell", "no evidence"
LEVEL = 0.05
FEW_QUERIES = 50
HOLES = 0.1
MOSTLY = 0.5
ALIKE = 0.95
"""From this Kendall tau on a teacher orders the documents as the untrained student does already."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of the rules.

    Attributes:
        decision: ``learn``, ``repair``, ``no``, ``cannot tell`` or ``no evidence``.
        headline: it, and what decided it, in a sentence.
        cautions: what else to know, a sentence each.
        loss: the loss to learn with; None unless the decision is ``learn``.
    """

    decision: str
    headline: str
    cautions: tuple[str, ...]
    loss: str | None = None

    @property
    def words(self) -> str:
        """The headline and the cautions."""
        return " ".join((self.headline, *self.cautions))


def judge(
    spread: Distribution,
    scale: Scale,
    quality: Quality | None,
    p: float | None,
    advice: Advice,
    leaning: Bias,
    student: Agreement | None = None,
) -> Verdict:
    """Apply the rules.

    Args:
        p: of the comparison by nDCG@10, corrected over all teachers; None where there is none.
        student: how far the untrained student agrees with the teacher, where one was given.
    """
    scored = spread.rows - spread.unscored
    cautions = tuple(_cautions(spread, scale, quality, leaning, student))
    if not scored:
        return Verdict(NO, "Do not learn from it: it scored nothing.", ())
    if spread.constant == 1:
        return Verdict(NO, "Do not learn from it: all scores of a list are equal.", cautions)
    if quality is None:
        return Verdict(
            UNKNOWN, "Cannot tell whether to learn from it: nothing is judged.", cautions
        )
    if quality.against is None or p is None:
        return Verdict(
            UNKNOWN,
            f"Cannot tell whether to learn from it: its {DECIDING} is"
            f" {quality.values[DECIDING]:.4f}, and there is no first stage to compare it with"
            " (--first-stage RUN), or none of its documents is there.",
            cautions,
        )
    against = quality.against
    gain = against.deciding.difference.mean
    figures = _figures(against, p)
    if against.same_order == 1:
        return Verdict(
            NO,
            "Do not learn from it: it orders the documents exactly as the first stage does, so it"
            f" adds nothing ({DECIDING} {against.deciding.teacher:.4f}).",
            cautions,
        )
    if p >= LEVEL:
        return Verdict(
            NO_EVIDENCE,
            f"No evidence that it is better than the first stage: {figures}. {_power(against)}",
            cautions,
        )
    if gain < 0:
        return Verdict(
            NO, f"Do not learn from it: it is below the first stage: {figures}.", cautions
        )
    faults = _faults(spread, scale)
    if faults:
        return Verdict(
            REPAIR,
            f"Its order is worth learning ({figures}), but not these scores: {'; '.join(faults)}.",
            (*(advice.words if scale.spoilt else ()), *cautions),
        )
    how = f", with {advice.loss}" if advice.loss else ""
    return Verdict(LEARN, f"Learn from it{how}: {figures}.", cautions, advice.loss)


def _figures(against: AgainstFirstStage, p: float) -> str:
    seen = against.deciding
    gap = seen.difference
    return (
        f"{DECIDING} {seen.teacher:.4f} against {seen.first_stage:.4f} over the same documents,"
        f" {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}],"
        f" {'corrected ' if p != gap.p else ''}{probability_words(p)}, {against.queries} queries"
    )


def _power(against: AgainstFirstStage) -> str:
    if against.deciding.difference.detectable is None and against.queries > 1:
        return (
            f"All {against.queries} queries differ by the same amount, so it is unknown how large a"
            " difference would be found."
        )
    few = "only " if against.queries < FEW_QUERIES else ""
    if against.detectable >= 1:
        return f"With {few}{against.queries} queries no difference could be shown."
    return (
        f"With {few}{against.queries} queries that differ so much from one another, a true"
        f" difference of {against.detectable:.3f} would be found four times in five, a smaller one"
        " less often."
    )


def _faults(spread: Distribution, scale: Scale) -> list[str]:
    faults = []
    if scale.spoilt:
        faults.append(f"they are {scale.words}")
    if spread.tied > MOSTLY:
        faults.append(f"{spread.tied:.0%} of neighbours are tied, so lists teach little")
    if spread.unscored > MOSTLY * spread.rows:
        faults.append(f"{spread.unscored} of {spread.rows} documents have no score")
    return faults


def _cautions(
    spread: Distribution,
    scale: Scale,
    quality: Quality | None,
    leaning: Bias,
    student: Agreement | None,
) -> list[str]:
    found = []
    if student is not None and student.tau is not None and student.tau >= ALIKE:
        found.append(
            f"But {student.right} orders the documents almost so already (Kendall tau"
            f" {student.tau:.3f}), so it has little to learn from it."
        )
    if spread.unscored:
        found.append(
            f"{spread.unscored} of {spread.rows} documents have no score; losses leave them out."
        )
    if spread.tied > 0.1 and spread.constant < 1:
        found.append(f"{spread.tied:.0%} of neighbours are tied.")
    if spread.tied_top > 0.1 and spread.constant < 1:
        found.append(
            f"In {spread.tied_top:.0%} of the lists the best score is shared by several documents."
        )
    if scale.grid:
        found.append(scale.grid_words)
    if quality is not None:
        found += _quality_cautions(quality)
    if leaning.length.notable and leaning.length.value is not None:
        way = leaning.length.excess if leaning.length.excess is not None else leaning.length.value
        found.append(
            f"It prefers {'longer' if way > 0 else 'shorter'} documents"
            f"{' more than the judgments do' if leaning.length.excess is not None else ''}."
        )
    place = leaning.position
    if (
        place is not None
        and place.notable
        and (place.excess if place.excess is not None else place.value or 0.0) > 0
    ):
        found.append(
            "It keeps to the first stage's order more than the judgments do."
            if place.excess is not None
            else (
                "It keeps much of the first stage's order (Spearman's correlation"
                f" {place.value:.2f})."
            )
        )
    if leaning.unchanged is not None and 0.1 < leaning.unchanged < 1:
        found.append(
            f"{leaning.unchanged:.0%} of the lists have the first stage's order unchanged."
        )
    return found


def _quality_cautions(quality: Quality) -> list[str]:
    found = []
    if quality.answered < quality.queries:
        found.append(
            f"It scored nothing for {quality.queries - quality.answered} of {quality.queries}"
            " judged queries."
        )
    against = quality.against
    if against is None:
        return found
    if quality.negatives and against.judged < against.first_judged - HOLES:
        alone = against.judged_only
        second = (
            f" On judged documents alone its {DECIDING} is {alone.teacher:.4f} against"
            f" {alone.first_stage:.4f} ({probability_words(alone.difference.p)})."
            if alone is not None
            else ""
        )
        found.append(
            f"Only {against.judged:.0%} of its first ten are judged, of the first stage's"
            f" {against.first_judged:.0%}; what is not judged counts as not relevant, so its figure"
            f" may be too low.{second}"
        )
    for other in against.measures[1:]:
        if (
            other.difference.p < LEVEL
            and other.difference.mean * against.deciding.difference.mean < 0
        ):
            found.append(
                f"By {other.measure} it is the other way round: {other.teacher:.4f} against"
                f" {other.first_stage:.4f} ({probability_words(other.difference.p)})."
            )
    return found


def probability_words(p: float) -> str:
    """``p < 0.0001`` or ``p = 0.03``."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"
