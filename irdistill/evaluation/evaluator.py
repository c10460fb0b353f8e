"""The verb *evaluate*: collection x runs -> figures with significance."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections import Collection, Qrels
from irdistill.errors import IrdistillError
from irdistill.evaluation.measure_names import parse_measures
from irdistill.evaluation.measures import PerQuery, per_query
from irdistill.evaluation.ranking_policies import (
    PolicyRun,
    SelfMatch,
    measured_run,
    warn_of_self_matches,
)
from irdistill.evaluation.significance import compare, holm, intervals
from irdistill.runs import Run

logger = logging.getLogger(__name__)

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "R@100")


@dataclass(frozen=True)
class Row:
    """One figure: a system on a dataset by a measure; the fields from ``p`` on are None where
    nothing is compared.

    Attributes:
        n: queries of the qrels, all counted.
        value, low, high: the mean and its 95% bootstrap interval over queries. Of a measure that
            counts (``NumRet``, ``NumRel``, ``NumQ``) the sum, without an interval and without
            tests.
        p, p_random, p_holm: paired t-test, randomisation test, and ``p`` corrected over the whole
            table. Where the differences of all queries are the same, the t-test is not defined, and
            ``p`` is that of the randomisation test.
        against: the system compared with; ``difference`` is this one minus it.
        effect: Cohen's d_z; None where all queries differ by the same amount, or with one query.
        detectable: the smallest true difference that the test finds in 4 of 5 such query sets; None
            where all differences are the same, or with one query.
        tie_low, tie_high: the mean under the worst and the best order of documents with equal
            scores, and ``tied`` the queries whose value depends on that order; None where this is
            not known for the measure.
        judged: Judged@10, the mean share of judged documents among the first 10.
        holes: the mean share of unjudged documents among those that the measure looks at.
        missing: queries that the run gives nothing for; they count as 0.
        unscored: documents that have no score and are left out.
        run: the fingerprint of the run.
        self_matches: queries whose list holds the document with the query's own id, and which count
            it.
    """

    system: str
    dataset: str
    measure: str
    n: int
    value: float
    low: float | None
    high: float | None
    p: float | None = None
    p_random: float | None = None
    p_holm: float | None = None
    against: str | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    effect: float | None = None
    detectable: float | None = None
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None
    missing: int = 0
    unscored: int = 0
    run: str = ""
    tie_low: float | None = None
    tie_high: float | None = None
    tied: int | None = None
    judged: float | None = None
    holes: float | None = None
    self_matches: int = 0


@dataclass(frozen=True)
class Evaluation:
    """A table of figures, and the values query by query.

    Attributes:
        per_query: dataset -> system -> values.
    """

    rows: tuple[Row, ...]
    per_query: Mapping[str, Mapping[str, PerQuery]] = field(default_factory=dict, repr=False)

    @property
    def systems(self) -> list[str]:
        """In the order given."""
        return list(dict.fromkeys(row.system for row in self.rows))

    @property
    def datasets(self) -> list[str]:
        """In the order given."""
        return list(dict.fromkeys(row.dataset for row in self.rows))

    @property
    def measures(self) -> list[str]:
        """In the order given."""
        return list(dict.fromkeys(row.measure for row in self.rows))

    def row(self, system: str, dataset: str, measure: str) -> Row:
        """One row.

        Raises:
            IrdistillError: there is none.
        """
        for row in self.rows:
            if (row.system, row.dataset, row.measure) == (system, dataset, measure):
                return row
        raise IrdistillError(
            f"there is no figure of {system!r} on {dataset!r} by {measure!r}; there are the systems"
            f" {', '.join(self.systems)}, the datasets {', '.join(self.datasets)} and the measures"
            f" {', '.join(self.measures)}."
        )

    def under(self, dataset: str) -> Evaluation:
        """The figures of one dataset under another name, as a suite calls it."""
        (systems,) = self.per_query.values()
        return Evaluation(
            tuple(replace(row, dataset=dataset) for row in self.rows), {dataset: systems}
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """The rows as JSON holds them, at full precision."""
        return [asdict(row) for row in self.rows]


def check_compared(
    systems: Iterable[str], baseline: str | Mapping[str, str] | None
) -> dict[str, str]:
    """For each system that is compared the one it is compared with; arguments as of `evaluate`.

    Raises:
        IrdistillError: one of the two is not among the systems, or they are the same.
    """
    names = list(systems)
    against = (
        dict(baseline)
        if isinstance(baseline, Mapping)
        else {system: baseline for system in names if baseline is not None and system != baseline}
    )
    for system, other in against.items():
        if system not in names or other not in names or system == other:
            raise IrdistillError(
                f"{system!r} cannot be compared with {other!r}: two different systems of"
                f" {', '.join(names)} were expected."
            )
    return against


def evaluate(
    collection: Collection | Qrels,
    runs: Mapping[str, Run | str | Path],
    measures: str | Sequence[str] = DEFAULT_MEASURES,
    baseline: str | Mapping[str, str] | None = None,
    seed: int = 42,
    name: str | None = None,
    self_match: SelfMatch = "keep",
) -> Evaluation:
    """Measure runs on a collection's judged queries.

    Every query of the qrels counts; one that a run lacks counts as 0. Ties are ordered as trec_eval
    orders them. Documents that a query excludes are left out.

    Args:
        collection: or judgments alone, where it is not checked whether the runs are of their
            collection.
        runs: system -> run; the names go into the table.
        baseline: the system that the others are compared with, or for each system the one it is
            compared with.
        name: of the dataset in the table; the collection's id by default.
        self_match: ``drop`` leaves out a document that has the query's own id, as sets such as
            ArguAna and Quora need, where queries are documents; ``keep`` counts it, with a warning.

    Raises:
        IrdistillError: a run belongs to another collection, there are no judgments, a baseline is
            not among the runs, or a measure is unknown or cannot be computed.
    """
    names = [str(measure) for measure in parse_measures(measures)]
    against = check_compared(runs, baseline)
    whole, qrels = (
        (None, collection) if isinstance(collection, Qrels) else (collection, collection.qrels)
    )
    dataset = name or (whole.id if whole is not None else "qrels")
    values, fingerprints = {}, {}
    for system, source in runs.items():
        run = measured_run(source, whole, self_match, once=True)
        values[system], fingerprints[system] = per_query(qrels, run, names), run.fingerprint
        if isinstance(run, PolicyRun) and run.self_matches:
            logger.info(
                "%s: %d documents with the query's own id were left out", system, run.self_matches
            )
        warn_of_self_matches(values[system].self_matches, len(qrels), whole, system)
    rows = []
    for system, found in values.items():
        bounds = intervals(np.stack([found.values[measure] for measure in names]), seed)
        for measure, (low, high) in zip(names, bounds, strict=True):
            count = measure in found.counts
            row = Row(
                system,
                dataset,
                measure,
                len(found.query_ids),
                found.figure(measure),
                None if count else low,
                None if count else high,
                missing=found.missing,
                unscored=found.unscored,
                run=fingerprints[system],
                judged=float(np.mean(found.judged)),
                holes=float(np.mean(found.holes[measure])),
                self_matches=len(found.self_matches),
                **_ties(found, measure),
            )
            if system in against and not count:
                row = _compared(row, found, values[against[system]], against[system], seed)
            rows.append(row)
    return Evaluation(_corrected(rows), {dataset: values})


def _compared(row: Row, result: PerQuery, other: PerQuery, against: str, seed: int) -> Row:
    """The row with its difference from another system."""
    gap = compare(result.values[row.measure], other.values[row.measure], seed)
    return replace(
        row,
        p=gap.p,
        p_random=gap.p_random,
        against=against,
        difference=gap.mean,
        difference_low=gap.low,
        difference_high=gap.high,
        effect=gap.effect,
        wins=gap.wins,
        detectable=gap.detectable,
        ties=gap.ties,
        losses=gap.losses,
    )


def _ties(found: PerQuery, measure: str) -> dict[str, Any]:
    if measure not in found.low:
        return {}
    low, high = found.low[measure], found.high[measure]
    return {
        "tie_low": float(np.mean(low)),
        "tie_high": float(np.mean(high)),
        "tied": int((high - low > 1e-12).sum()),
    }


def combine(*evaluations: Evaluation) -> Evaluation:
    """One table of several datasets; the Holm correction is taken anew over all of it.

    Raises:
        IrdistillError: a dataset comes twice.
    """
    datasets = [dataset for found in evaluations for dataset in found.datasets]
    if len(set(datasets)) != len(datasets):
        raise IrdistillError(
            f"a dataset comes twice among {', '.join(datasets)}; evaluate each once."
        )
    rows = [row for found in evaluations for row in found.rows]
    return Evaluation(
        _corrected(rows),
        {key: value for found in evaluations for key, value in found.per_query.items()},
    )


def _corrected(rows: Sequence[Row]) -> tuple[Row, ...]:
    adjusted = iter(holm([row.p for row in rows if row.p is not None]))
    return tuple(row if row.p is None else replace(row, p_holm=next(adjusted)) for row in rows)
