"""A whole run described: its statistics, and the checks of an audit that need no first stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from irdistill.evaluation.auditing.query_sample import Grades, sampled_queries
from irdistill.evaluation.auditing.run_scores import RunScores, describe_lists
from irdistill.evaluation.auditing.sections import margins_section, scores_section
from irdistill.evaluation.reporting.findings import Finding, Table
from irdistill.runs import Run
from irdistill.runs.statistics import RunStatistics

SAMPLE, LIST_SIZE, SEED = 2000, 8, 42
"""The defaults of `audit`."""


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

    @property
    def sample_words(self) -> str:
        """Which queries the checks of `audit` looked at, as a sentence."""
        judged = f"{self.judged:,} of them judged"
        if self.sampled == self.population:
            return f"Over all {self.population:,} queries, {judged}."
        return (
            f"Over {self.sampled:,} queries drawn at random of {self.population:,} (seed {SEED}),"
            f" {judged}; the statistics of the run are of all."
        )

    def findings(self) -> list[Finding]:
        """The sections on scores and margins, as in an audit, and the flags."""
        sections = [scores_section([self.scores]), margins_section([self.scores])]
        flags, nulls = self.statistics["flags"], self.statistics["null_flags"]
        if flags:
            rows = [[flag, f"{n}", f"{nulls.get(flag, 0)}"] for flag, n in flags.items()]
            table = Table(["flag", "documents", "of these without a score"], rows)
            sections.insert(1, Finding("flags", "Flags", tables=[table]))
        return sections


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
    scores = describe_lists(lists, run.identity.producer, qrels, LIST_SIZE, SEED, name=name)
    judged = sum(query in qrels for query in chosen)
    return DescribedRun(statistics.summary(run), scores, len(chosen), len(known), judged)
