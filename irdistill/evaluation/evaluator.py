"""The verb *evaluate*: collection × runs → figures with significance."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from irdistill.collections import Collection, QrelsLike, as_qrels
from irdistill.errors import InputError, OptionError
from irdistill.evaluation.figures import Evaluation, Row
from irdistill.evaluation.measure_names import parse_measures
from irdistill.evaluation.measures import PerQuery, per_query
from irdistill.evaluation.ranking_policies import (
    PolicyRun,
    RunSource,
    SelfMatch,
    measured_run,
    warn_of_self_matches,
)
from irdistill.evaluation.significance import compare, holm, intervals
from irdistill.evaluation.unseen_collections import trained_on

logger = logging.getLogger(__name__)

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "R@100")
Baseline = str | Mapping[str, str | Sequence[str]]
"""One baseline for all systems, or each system's own."""


def check_baseline(systems: Iterable[str], baseline: Baseline | None) -> dict[str, list[str]]:
    """For each system that is compared, its baselines; arguments as in `evaluate`."""
    names = list(systems)
    if baseline is None:
        return {}
    if isinstance(baseline, str):
        against = {system: [baseline] for system in names if system != baseline}
    else:
        against = {
            system: [others] if isinstance(others, str) else list(others)
            for system, others in baseline.items()
        }
    for system, others in against.items():
        for other in others:
            if system not in names or other not in names or system == other:
                raise OptionError(
                    f"{system!r} cannot be compared with {other!r}: two different systems of"
                    f" {', '.join(names)} were expected."
                )
        if len(set(others)) != len(others) or not others:
            raise OptionError(f"the baselines of {system!r} are {others}; expected different ones.")
    return against


def evaluate(
    collection: Collection | QrelsLike,
    runs: Mapping[str, RunSource],
    measures: str | Sequence[str] = DEFAULT_MEASURES,
    baseline: Baseline | None = None,
    seed: int = 42,
    name: str | None = None,
    self_match: SelfMatch = "keep",
) -> Evaluation:
    """Measure runs on a collection's judged queries.

    Every query of the qrels counts; a query that a run lacks counts as 0. Ties are ordered as in
    trec_eval. Documents that a query excludes are left out.

    Args:
        collection: a collection, or judgments alone: whatever `irdistill.collections.as_qrels`
            accepts. With judgments alone it is not checked that the runs belong to the collection.
        runs: system -> run: whatever `irdistill.runs.as_run` accepts. The names go into the table.
        measures: as in ir-measures, a text or a list.
        baseline: the system that the others are compared with, or a mapping of each compared
            system to its baseline, or to several. Each further baseline adds rows.
        seed: random seed of intervals and randomization tests.
        name: name of the dataset in the table; the collection's id by default.
        self_match: ``drop`` leaves out a document that has the query's own id, as needed where
            queries are documents (ArguAna, Quora); ``keep`` counts it, with a warning.

    Raises:
        WrongCollectionError: a run belongs to another collection.
        InputError: there are no judgments.
        OptionError: a baseline is not among the runs, or a measure is unknown or cannot be
            computed.

    Examples:
        >>> judgments = {"q1": {"d1": 1}, "q2": {"d2": 1}}
        >>> runs = {
        ...     "BM25": {"q1": {"d1": 2.0, "d2": 1.0}, "q2": {"d1": 3.0, "d2": 1.0}},
        ...     "student": {"q1": {"d1": 2.0, "d2": 1.0}, "q2": {"d1": 1.0, "d2": 3.0}},
        ... }
        >>> evaluate(judgments, runs, "RR@10").row("student", "qrels", "RR@10").value
        1.0
    """
    names = [str(measure) for measure in parse_measures(measures)]
    check_baseline(runs, baseline)
    whole = collection if isinstance(collection, Collection) else None
    qrels = collection.qrels if isinstance(collection, Collection) else as_qrels(collection)
    dataset = name or (whole.id if whole is not None else "qrels")
    values, fingerprints, trained = {}, {}, {}
    corpus = None if whole is None else whole.corpus.fingerprint
    for system, source in runs.items():
        run = measured_run(source, whole, self_match, once=True)
        values[system], fingerprints[system] = per_query(qrels, run, names), run.fingerprint
        trained[system] = trained_on(run, corpus)
        if isinstance(run, PolicyRun) and run.left_out.self_matches:
            logger.info(
                "%s: %d documents with the query's own id were left out",
                system,
                run.left_out.self_matches,
            )
        warn_of_self_matches(values[system].self_matches, len(qrels), whole, system)
    return evaluate_values(values, dataset, baseline, seed, fingerprints, trained)


def evaluate_values(
    values: Mapping[str, PerQuery],
    dataset: str,
    baseline: Baseline | None = None,
    seed: int = 42,
    fingerprints: Mapping[str, str] | None = None,
    trained: Mapping[str, bool | None] | None = None,
) -> Evaluation:
    """The figures of values that `per_query` computed, as `evaluate` gives them.

    Args:
        values: system -> values on the same queries.
        dataset: name in the table.
        fingerprints: of the runs; may be left out.
        trained: system -> whether its model was trained on the corpus.
    """
    against = check_baseline(values, baseline)
    runs, known = fingerprints or {}, trained or {}
    rows = []
    for system, result in values.items():
        rows_of_system = [
            replace(row, trained=known.get(system))
            for row in _rows(system, dataset, result, runs.get(system, ""), seed)
        ]
        rows += _compared_rows(rows_of_system, result, values, against.get(system, ()), seed)
    return Evaluation(_corrected(rows), {dataset: values})


def _rows(system: str, dataset: str, result: PerQuery, fingerprint: str, seed: int) -> list[Row]:
    """The figures of one system, without comparisons."""
    rows = []
    bounds = intervals(np.stack(list(result.values.values())), seed)
    for measure, (low, high) in zip(result.values, bounds, strict=True):
        count = measure in result.counts
        rows.append(
            Row(
                system,
                dataset,
                measure,
                len(result.query_ids),
                result.figure(measure),
                None if count else low,
                None if count else high,
                missing=result.missing,
                unscored=result.unscored,
                run=fingerprint,
                judged=float(np.mean(result.judged)),
                holes=float(np.mean(result.holes[measure])),
                self_matches=len(result.self_matches),
                **_ties(result, measure),
            )
        )
    return rows


def _compared_rows(
    rows: list[Row],
    result: PerQuery,
    values: Mapping[str, PerQuery],
    baselines: Sequence[str],
    seed: int,
) -> list[Row]:
    """The rows of a system beside its first baseline, then beside each further one."""
    compared = [
        [_compared(row, result, values[other], other, seed) for row in rows] for other in baselines
    ]
    first, *further = compared or [rows]
    return first + [row for group in further for row in group if row.against is not None]


def _compared(row: Row, result: PerQuery, other: PerQuery, against: str, seed: int) -> Row:
    """The row with its difference from the baseline; measures that count have none."""
    if row.measure in result.counts:
        return row
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
        detectable=gap.detectable,
        wins=gap.wins,
        ties=gap.ties,
        losses=gap.losses,
    )


def _ties(result: PerQuery, measure: str) -> dict[str, Any]:
    if measure not in result.low:
        return {}
    low, high = result.low[measure], result.high[measure]
    return {
        "tie_low": float(np.mean(low)),
        "tie_high": float(np.mean(high)),
        "tied": int((high - low > 1e-12).sum()),
    }


def combine(*evaluations: Evaluation) -> Evaluation:
    """One table of several datasets; Holm's correction is repeated over the whole table."""
    datasets = [dataset for evaluation in evaluations for dataset in evaluation.datasets]
    if len(set(datasets)) != len(datasets):
        raise InputError(f"duplicate dataset among {', '.join(datasets)}; evaluate each once.")
    rows = [row for evaluation in evaluations for row in evaluation.rows]
    values = {key: value for entry in evaluations for key, value in entry.per_query.items()}
    return Evaluation(_corrected(rows), values)


def _corrected(rows: Sequence[Row]) -> tuple[Row, ...]:
    adjusted = iter(holm([row.p for row in rows if row.p is not None]))
    return tuple(row if row.p is None else replace(row, p_holm=next(adjusted)) for row in rows)
