"""The scores of one run as losses see them: distribution, scale, margins, temperatures, advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irdistill.evaluation.auditing.advice import Advice, advise
from irdistill.evaluation.auditing.distribution import Distribution, describe_scores
from irdistill.evaluation.auditing.margins import Margins, measure_margins
from irdistill.evaluation.auditing.matching import Matching, StudentScores, match_temperatures
from irdistill.evaluation.auditing.query_sample import Grades, scored
from irdistill.evaluation.auditing.scale import Scale, recognize_scale
from irdistill.evaluation.auditing.verdict import score_faults
from irdistill.evaluation.reporting.findings import Severity
from irdistill.runs import RankedList


@dataclass(frozen=True)
class RunScores:
    """The checks of an audit that need no first stage.

    Attributes:
        teacher: name of the run.
    """

    teacher: str
    distribution: Distribution
    scale: Scale
    margins: Margins
    matching: Matching
    advice: Advice

    @property
    def headline(self) -> str:
        """What the numbers are, and whether a loss can learn from them."""
        spread = self.distribution
        if spread.rows == spread.unscored:
            return "No document has a score."
        if spread.constant == 1:
            return "All scores of a list are equal, so there is no order to learn."
        faults = score_faults(spread, self.scale)
        if faults:
            return f"A loss learns less from these scores than it could: {'; '.join(faults)}."
        fit = self.matching
        if fit.teacher_tau is None or fit.entropy is None:
            return f"The scores are {self.scale.words}."
        return (
            f"The scores are {self.scale.words}. At temperature {fit.teacher_tau:g} a softmax over"
            f" lists of {fit.list_size} has {fit.entropy:.1%} of the maximum entropy."
        )

    @property
    def severity(self) -> Severity:
        """The severity of the headline."""
        spread = self.distribution
        if spread.rows == spread.unscored or spread.constant == 1:
            return "bad"
        return "caution" if score_faults(spread, self.scale) else "info"

    @property
    def hint(self) -> str:
        """What to know before the losses that fit are used."""
        return " (irdistill audit says whether to learn from it)"


def describe_lists(
    lists: Sequence[RankedList],
    producer: Mapping[str, Any],
    qrels: Grades,
    list_size: int,
    seed: int,
    relevant_from: int = 1,
    student: StudentScores | None = None,
    name: str = "",
) -> RunScores:
    """Describe lists of one teacher.

    Args:
        producer: the producer in the run's manifest.
        list_size: documents of a training list, for the temperatures.
    """
    ranked = {row.query_id: scored(row) for row in lists}
    scale = recognize_scale(list(ranked.values()), producer)
    margins = measure_margins(list(ranked.values()), qrels, seed, relevant_from)
    matching = match_temperatures(ranked, student, qrels, list_size, seed, relevant_from)
    advice = advise(scale, matching, margins)
    return RunScores(name, describe_scores(lists), scale, margins, matching, advice)
