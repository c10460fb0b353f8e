"""The scores of one run as losses see them: distribution, scale, margins, temperatures, advice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irdistill.evaluation.auditing.advice import Advice, advise
from irdistill.evaluation.auditing.distribution import Distribution, describe_scores
from irdistill.evaluation.auditing.margins import Margins, measure_margins
from irdistill.evaluation.auditing.matching import Matching, StudentScores, match_temperatures
from irdistill.evaluation.auditing.query_sample import Grades, sampled_queries, scored
from irdistill.evaluation.auditing.scale import Scale, recognize_scale
from irdistill.runs import RankedList, Run
from irdistill.runs.statistics import RunStatistics

SAMPLE, LIST_SIZE, SEED = 2000, 8, 42
"""The defaults of `audit`."""


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
    def hint(self) -> str:
        """What to know before the losses that fit are used."""
        return " (irdistill audit says whether to learn from it)"


@dataclass(frozen=True)
class DescribedRun:
    """A run's statistics, and its scores as losses see them.

    Attributes:
        statistics: what `runs stats` returns, over all queries.
        scores: over the sampled queries, as `audit` has them.
        sampled, population: number of queries looked at, and of those they were drawn from.
        judged: number of judged queries among the sampled ones.
    """

    statistics: Mapping[str, Any]
    scores: RunScores
    sampled: int
    population: int
    judged: int


def describe_lists(
    lists: Sequence[RankedList],
    producer: Mapping[str, Any],
    qrels: Grades,
    list_size: int = LIST_SIZE,
    seed: int = SEED,
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


def describe_run(
    run: Run,
    qrels: Grades,
    query_ids: Iterable[str] | None = None,
    name: str = "",
    advance: Callable[[int], object] = lambda queries: None,
) -> DescribedRun:
    """Read a run once: statistics of all lists, and the checks of `audit` on its sample.

    Args:
        query_ids: the collection's queries, of which `audit` draws (default: those of the run).
        advance: called with 1 for each query that was read.
    """
    known = run.query_ids if query_ids is None else [query for query in query_ids if query in run]
    chosen = sampled_queries(known, SAMPLE, SEED)
    sample = set(chosen)
    statistics, lists = RunStatistics(), []
    for row in run:
        statistics.add(row)
        if row.query_id in sample:
            lists.append(row)
        advance(1)
    scores = describe_lists(lists, run.identity.producer, qrels, name=name)
    judged = sum(query in qrels for query in chosen)
    return DescribedRun(statistics.summary(run), scores, len(chosen), len(known), judged)
