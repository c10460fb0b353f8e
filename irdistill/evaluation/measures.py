"""Measures of one run, query by query, with the figures of trec_eval.

The measures are written as those of ir-measures (MacAvaney et al. 2022, ECIR, "Streamlining Evaluation with
ir-measures"). The common ones are computed over arrays (`irdistill.evaluation.formulas`), the others by its providers.
These break ties in different ways, so each is handed the same strict order: float32 score, then document id, both
descending, as trec_eval sorts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ir_measures
import numpy as np

from irdistill.errors import IrdistillError
from irdistill.evaluation.formulas import formula, known
from irdistill.evaluation.hits import Judgments
from irdistill.runs import MemoryRun, RankedList, Run, RunIdentity

Scores = Mapping[str, Mapping[str, float]]
JUDGED = 10
_TOGETHER = 1 << 19
"""Documents whose lists the libraries are handed at a time, a Python object for each."""


@dataclass(frozen=True)
class PerQuery:
    """Values of one run.

    Attributes:
        query_ids: the queries of the qrels, in their order.
        values: measure -> (Q,) float64.
        missing: queries of the qrels that the run lacks or gives no document; each counts as 0.
        unscored: documents left out because they have no score.
        strangers: queries of the run that the qrels lack; they do not count.
        low, high: measure -> (Q,) the least and greatest value over all orders of documents with equal scores; only of
            the measures of `irdistill.evaluation.formulas`.
        judged: (Q,) the share of the first 10 documents that are judged (Judged@10); 0 for a missing query.
        holes: measure -> (Q,) the share of unjudged documents among those that the measure looks at.
    """

    query_ids: list[str]
    values: dict[str, np.ndarray]
    missing: int
    unscored: int
    strangers: int
    low: dict[str, np.ndarray] = field(default_factory=dict)
    high: dict[str, np.ndarray] = field(default_factory=dict)
    judged: np.ndarray = field(default_factory=lambda: np.empty(0))
    holes: dict[str, np.ndarray] = field(default_factory=dict)


def parse_measures(measures: str | Sequence[str]) -> list[Any]:
    """Read measures such as ``"nDCG@10 RR@10 R(rel=2)@100"`` or a list of them.

    Raises:
        IrdistillError: one is unknown, none is given, or one comes twice.
    """
    names = measures.split() if isinstance(measures, str) else list(measures)
    parsed = []
    for name in names:
        try:
            parsed.append(ir_measures.parse_measure(str(name)))
        except (ValueError, NameError, SyntaxError, KeyError) as error:
            raise IrdistillError(
                f"the measure {name!r} is not one of ir-measures ({error}). Write it as nDCG@10, RR@10, R@100, AP, "
                "P(rel=2)@5."
            ) from error
    if not parsed or len(set(map(str, parsed))) != len(parsed):
        raise IrdistillError(f"the measures given are {list(map(str, names))}; at least one was expected, and each once.")
    return parsed


def strict_order(found: RankedList) -> dict[str, float]:
    """Document -> a number that falls by one from rank to rank; a document without a score is left out."""
    scored = [doc for doc, score in zip(found.doc_ids, found.scores.tolist(), strict=True) if score == score]
    return {doc: float(len(scored) - rank) for rank, doc in enumerate(scored)}


def per_query(qrels: Mapping[str, Mapping[str, int]], run: Run | Scores, measures: str | Sequence[str]) -> PerQuery:
    """Compute measures for every query of the qrels.

    Args:
        qrels: query -> document -> grade.
        run: a run, or query -> document -> score.

    Raises:
        IrdistillError: a measure is unknown or none of the libraries here computes it, the qrels are empty, or the
            run has none of their queries.
    """
    parsed = parse_measures(measures)
    judged = Judgments(qrels)
    if not len(judged):
        raise IrdistillError("there are no relevance judgments to evaluate with; give a collection that has qrels.")
    opened = run if isinstance(run, Run) else MemoryRun(RunIdentity("imported", {}, {}), [
        RankedList(query, list(scores), np.array(list(scores.values()), np.float32)) for query, scores in run.items()
    ])
    hits = judged.find(opened)
    if not hits.retrieved.any() and hits.strangers:
        raise IrdistillError(
            f"none of the {hits.strangers} queries of the run is among the {len(judged)} judged ones; they belong to "
            "different collections."
        )
    best, worst = hits.best(), hits.worst()
    values, low, high, holes = {}, {}, {}, {}
    others = []
    for measure in parsed:
        name, compute = str(measure), formula(measure)
        holes[name] = np.where(hits.retrieved > 0, 1 - known(judged, hits, measure.params.get("cutoff")), 0.0)
        if compute is None:
            others.append(measure)
        else:
            values[name], low[name], high[name] = (compute(judged, order) for order in (hits, worst, best))
    if others:
        values |= _by_library(others, qrels, opened, judged)
    return PerQuery(judged.query_ids, {str(measure): values[str(measure)] for measure in parsed},
                    int((hits.retrieved == 0).sum()), hits.unscored, hits.strangers, low, high, known(judged, hits, JUDGED), holes)


def _by_library(measures: list[Any], qrels: Mapping[str, Mapping[str, int]], run: Run, judged: Judgments) -> dict[str, np.ndarray]:
    """What ir-measures' providers give."""
    values = {str(measure): np.zeros(len(judged)) for measure in measures}
    # pytrec_eval never comes back from a query that has negative grades only
    plain = {query: dict(documents) for query, documents in qrels.items() if max(documents.values(), default=-1) >= 0}
    order: dict[str, dict[str, float]] = {}
    documents = 0
    for found in run:
        if found.query_id in plain and (ranked := strict_order(found)):
            order[found.query_id] = ranked
            documents += len(ranked)
        if documents >= _TOGETHER:
            _calculate(measures, {query: plain.pop(query) for query in order}, order, judged, values)
            order, documents = {}, 0
    _calculate(measures, plain, order, judged, values)
    return values


def _calculate(measures: list[Any], qrels: Scores, order: Scores, judged: Judgments, values: dict[str, np.ndarray]) -> None:
    """Set the values of the queries of ``qrels``."""
    try:
        for metric in ir_measures.iter_calc(measures, qrels, order) if order else ():
            values[str(metric.measure)][judged.places[metric.query_id]] = metric.value
    except (ValueError, RuntimeError) as error:
        raise IrdistillError(f"the measures {', '.join(values)} cannot be computed here: {error}") from error
