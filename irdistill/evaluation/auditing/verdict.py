"""Whether to learn from a teacher, by fixed rules; nDCG@10 against the first stage decides.

1. It scored nothing, or gives all documents of every list one score: no.
2. Nothing is judged, no first stage was given, or the two share no document: cannot tell.
3. It orders the shared documents exactly as the first stage does: no.
4. Its nDCG@10 on the same queries and documents does not differ from the first stage's: no
   evidence. The test is a paired t-test at 0.05, with Holm's correction over the audited teachers.
5. It is below: no.
6. It is above: learn. But repair the scores first where the numbers are spoilt (output of a sigmoid
   or softmax, logarithms crowded at 0), most neighbors are tied, or half of the documents have no
   score.

Everything else (RR@10, judged share, ties, bias, agreement) is a caution and changes no verdict.
"""

from __future__ import annotations

from dataclasses import dataclass

from irdistill.console.terminal import counted
from irdistill.evaluation.auditing.advice import Advice
from irdistill.evaluation.auditing.agreement import Agreement
from irdistill.evaluation.auditing.bias import Bias
from irdistill.evaluation.auditing.distribution import Distribution
from irdistill.evaluation.auditing.quality import DECIDING, AgainstFirstStage, Quality
from irdistill.evaluation.auditing.scale import Scale
from irdistill.evaluation.reporting.findings import Severity
from irdistill.evaluation.significance import FEW, LEVEL

LEARN, REPAIR, NO, UNKNOWN, NO_EVIDENCE = "learn", "repair", "no", "cannot tell", "no evidence"
HEADLINES = {
    LEARN: "Learn from {}.",
    REPAIR: "Repair the scores of {} before you learn from them.",
    NO_EVIDENCE: "There is no evidence that {} would teach more than the first stage.",
    UNKNOWN: "Nothing here tells whether to learn from {}.",
    NO: "Do not learn from {}.",
}
"""Each decision about some teachers in a sentence."""
HOLES = 0.1
MOSTLY = 0.5
ALIKE = 0.95
"""From this Kendall tau on a teacher orders the documents as the untrained student does."""
_SEVERITIES: dict[str, Severity] = {LEARN: "good", NO: "bad"}


@dataclass(frozen=True)
class Verdict:
    """The outcome of the rules.

    Attributes:
        decision: ``learn``, ``repair``, ``no``, ``cannot tell`` or ``no evidence``.
        headline: the decision and its reason in a sentence.
        cautions: further sentences.
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

    @property
    def severity(self) -> Severity:
        """The severity of the finding."""
        return _SEVERITIES.get(self.decision, "caution")


def decide(
    spread: Distribution,
    scale: Scale,
    quality: Quality | None,
    p: float | None,
    advice: Advice,
    bias: Bias,
    student: Agreement | None = None,
) -> Verdict:
    """Apply the rules.

    Args:
        p: of the comparison by nDCG@10, corrected over all teachers; None without a comparison.
        student: agreement of the untrained student with the teacher, where one was given.
    """
    if spread.rows == spread.unscored:
        return Verdict(NO, "Do not learn from it: it scored nothing.", ())
    cautions = (
        *_student_cautions(student),
        *_score_cautions(spread, scale),
        *(_quality_cautions(quality) if quality is not None else []),
        *_bias_cautions(bias),
    )
    if spread.constant == 1:
        return Verdict(NO, "Do not learn from it: all scores of a list are equal.", cautions)
    unknown = "Cannot tell whether to learn from it:"
    if quality is None:
        return Verdict(UNKNOWN, f"{unknown} nothing is judged.", cautions)
    if quality.against is None or p is None:
        headline = (
            f"{unknown} its {DECIDING} is {quality.values[DECIDING]:.4f}, and there is no first"
            " stage to compare it with (--first-stage RUN), or the two share no document."
        )
        return Verdict(UNKNOWN, headline, cautions)
    decision, headline, loss = _compared(quality.against, p, advice, score_faults(spread, scale))
    remedy = advice.words if decision == REPAIR and scale.spoilt else ()
    return Verdict(decision, headline, (*remedy, *cautions), loss)


def _compared(
    against: AgainstFirstStage, p: float, advice: Advice, faults: list[str]
) -> tuple[str, str, str | None]:
    """Decision, headline and loss of a teacher that is compared with the first stage."""
    deciding, gap = against.deciding, against.deciding.difference
    figures = (
        f"{DECIDING} {deciding.teacher:.4f} against {deciding.first_stage:.4f} over the same"
        f" documents, {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}],"
        f" {'corrected ' if p != gap.p else ''}{probability_words(p)},"
        f" {counted(against.queries, 'query')}"
    )
    if against.same_order == 1:
        headline = (
            "Do not learn from it: it orders the documents exactly as the first stage does, so it"
            f" adds nothing ({DECIDING} {deciding.teacher:.4f})."
        )
        return NO, headline, None
    if p >= LEVEL:
        headline = f"No evidence that it is better than the first stage: {figures}."
        return NO_EVIDENCE, f"{headline} {_power(against)}", None
    if gap.mean < 0:
        return NO, f"Do not learn from it: it is below the first stage: {figures}.", None
    if faults:
        headline = f"Its order is worth learning ({figures}), but not these scores:"
        return REPAIR, f"{headline} {'; '.join(faults)}.", None
    how = f", with {advice.loss}" if advice.loss else ""
    return LEARN, f"Learn from it{how}: {figures}.", advice.loss


def _power(against: AgainstFirstStage) -> str:
    detectable = against.deciding.difference.detectable
    few = "only " if against.queries < FEW else ""
    if detectable is None and against.queries > 1:
        return (
            f"All {against.queries} queries differ by the same amount, so it is unknown how large a"
            " difference would be found."
        )
    if detectable is None or detectable >= 1:
        return f"With {few}{counted(against.queries, 'query')} no difference could be shown."
    return (
        f"With {few}{against.queries} queries that differ this much from one another, a true"
        f" difference of {detectable:.3f} would be found four times in five, a smaller one"
        " less often."
    )


def score_faults(spread: Distribution, scale: Scale) -> list[str]:
    """What keeps a loss from learning from these numbers, as ends of sentences."""
    faults = [f"they are {scale.words}"] if scale.spoilt else []
    if spread.tied > MOSTLY:
        faults.append(f"{spread.tied:.0%} of neighbors are tied, so lists teach little")
    if spread.unscored > MOSTLY * spread.rows:
        faults.append(f"{spread.unscored} of {spread.rows} documents have no score")
    return faults


def _student_cautions(student: Agreement | None) -> list[str]:
    if student is None or student.tau is None or student.tau < ALIKE:
        return []
    return [
        f"But {student.right} orders the documents almost so already (Kendall tau"
        f" {student.tau:.3f}), so it has little to learn from it."
    ]


def _score_cautions(spread: Distribution, scale: Scale) -> list[str]:
    cautions = []
    if spread.unscored:
        cautions.append(
            f"{spread.unscored} of {spread.rows} documents have no score; losses leave them out."
        )
    if spread.tied > 0.1 and spread.constant < 1:
        cautions.append(f"{spread.tied:.0%} of neighbors are tied.")
    if spread.tied_top > 0.1 and spread.constant < 1:
        cautions.append(
            f"In {spread.tied_top:.0%} of the lists the best score is shared by several documents."
        )
    return [*cautions, *([scale.grid_words] if scale.grid else [])]


def _quality_cautions(quality: Quality) -> list[str]:
    cautions = []
    if quality.answered < quality.queries:
        cautions.append(
            f"It scored nothing for {quality.queries - quality.answered} of {quality.queries}"
            " judged queries."
        )
    against = quality.against
    if against is None:
        return cautions
    if quality.negatives and against.judged < against.first_judged - HOLES:
        alone = against.judged_only
        second = (
            f" On judged documents alone its {DECIDING} is {alone.teacher:.4f} against"
            f" {alone.first_stage:.4f} ({probability_words(alone.difference.p)})."
            if alone is not None
            else ""
        )
        cautions.append(
            f"Only {against.judged:.0%} of its first ten are judged, of the first stage's"
            f" {against.first_judged:.0%}; what is not judged counts as not relevant, so its figure"
            f" may be too low.{second}"
        )
    gain = against.deciding.difference.mean
    cautions += [
        f"By {other.measure} it is the other way round: {other.teacher:.4f} against"
        f" {other.first_stage:.4f} ({probability_words(other.difference.p)})."
        for other in against.measures[1:]
        if other.difference.p < LEVEL and other.difference.mean * gain < 0
    ]
    return cautions


def _bias_cautions(bias: Bias) -> list[str]:
    cautions = []
    if bias.length.notable:
        compared = " more than the judgments do" if bias.length.excess is not None else ""
        kind = "longer" if bias.length.direction > 0 else "shorter"
        cautions.append(f"It prefers {kind} documents{compared}.")
    place = bias.position
    if place is not None and place.notable and place.direction > 0:
        cautions.append(
            "It keeps to the first stage's order more than the judgments do."
            if place.excess is not None
            else f"It keeps much of the first stage's order (Spearman's correlation"
            f" {place.value:.2f})."
        )
    if bias.unchanged is not None and 0.1 < bias.unchanged < 1:
        cautions.append(
            f"{bias.unchanged:.0%} of the lists have the first stage's order unchanged."
        )
    return cautions


def probability_words(p: float) -> str:
    """``p < 0.0001`` or ``p = 0.03``."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"
