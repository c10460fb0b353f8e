"""Measures of one run, query by query, with the figures of trec_eval.

The measures are written as those of ir-measures (MacAvaney et al. 2022, ECIR, "Streamlining
Evaluation with ir-measures"). The common ones are computed over arrays
(`irdistill.evaluation.formulas`), the others by its providers. These break ties in different ways,
so each is handed the same strict order: float32 score, then document id, both descending, as
trec_eval sorts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irdistill.collections import Qrels
from irdistill.errors import IrdistillError
from irdistill.evaluation.formulas import formula, known
from irdistill.evaluation.hits import Judgments
from irdistill.evaluation.measure_names import is_count, parse_measures, program_of
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
        low, high: measure -> (Q,) the least and greatest value over all orders of documents with
            equal scores; only of the measures of `irdistill.evaluation.formulas`.
        judged: (Q,) the share of the first 10 documents that are judged (Judged@10); 0 for a
            missing query.
        holes: measure -> (Q,) the share of unjudged documents among those that the measure looks
            at.
        counts: the measures that count (``NumRet``, ``NumRel``, ``NumQ``), whose figure is the sum
            over queries.
        self_matches: query -> rank of the document that has the query's own id, where the run has
            it.
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
    counts: frozenset[str] = frozenset()
    self_matches: dict[str, int] = field(default_factory=dict)

    def figure(self, measure: str) -> float:
        """The figure of the run: the mean over all queries; of a measure that counts the sum."""
        values = self.values[measure]
        return float(values.sum() if measure in self.counts else values.mean())


def strict_order(found: RankedList) -> dict[str, float]:
    """Document -> a number that falls by one from rank to rank; a document without a score is left
    out.
    """
    scored = [
        doc
        for doc, score in zip(found.doc_ids, found.scores.tolist(), strict=True)
        if score == score
    ]
    return {doc: float(len(scored) - rank) for rank, doc in enumerate(scored)}


def per_query(
    qrels: Mapping[str, Mapping[str, int]], run: Run | Scores, measures: str | Sequence[str]
) -> PerQuery:
    """Compute measures for every query of the qrels.

    Args:
        qrels: query -> document -> grade.
        run: a run, or query -> document -> score.

    Raises:
        IrdistillError: a measure is unknown or none of the libraries here computes it, the qrels
            are empty or have grades that are not whole numbers, or the run has none of their
            queries.
    """
    parsed = parse_measures(measures)
    qrels = qrels if isinstance(qrels, Qrels) else Qrels(qrels)
    judged = Judgments(qrels)
    if not len(judged):
        raise IrdistillError(
            "there are no relevance judgments to evaluate with; give a collection that has qrels."
        )
    opened = (
        run
        if isinstance(run, Run)
        else MemoryRun(
            RunIdentity("imported", {}, {}),
            [
                RankedList(query, list(scores), np.array(list(scores.values()), np.float32))
                for query, scores in run.items()
            ],
        )
    )
    hits = judged.find(opened)
    if not hits.retrieved.any() and hits.strangers:
        raise IrdistillError(
            f"none of the {hits.strangers} queries of the run is among the {len(judged)} judged"
            " ones; they belong to different collections."
        )
    best, worst = hits.best(), hits.worst()
    values, low, high, holes = {}, {}, {}, {}
    others = []
    for measure in parsed:
        name, compute = str(measure), formula(measure)
        holes[name] = np.where(
            hits.retrieved > 0, 1 - known(judged, hits, measure.params.get("cutoff")), 0.0
        )
        if compute is None:
            others.append(measure)
        else:
            values[name], low[name], high[name] = (
                compute(judged, order) for order in (hits, worst, best)
            )
    for measure in others:
        values[str(measure)] = _by_program(measure, qrels, opened, judged)
    return PerQuery(
        judged.query_ids,
        {str(measure): values[str(measure)] for measure in parsed},
        int((hits.retrieved == 0).sum()),
        hits.unscored,
        hits.strangers,
        low,
        high,
        known(judged, hits, JUDGED),
        holes,
        frozenset(str(measure) for measure in parsed if is_count(measure)),
        hits.self_matches,
    )


_MOST_GRADES = 1_000_000
"""trec_eval keeps a table of all grades up to the greatest one, and gives 0 where that does not fit
into memory.
"""
_GDEVAL_GREATEST = 4


def _by_program(
    measure: Any, qrels: Mapping[str, Mapping[str, int]], run: Run, judged: Judgments
) -> np.ndarray:
    """(Q,) what a provider of ir-measures gives, each measure by itself: several in one call can
    take each other's place.

    Raises:
        IrdistillError: it cannot compute the measure from these judgments and this run.
    """
    program = program_of(measure)
    gains = measure.params.get("gains", {})
    # pytrec_eval does not return from a query that has negative grades only
    plain = {
        query: dict(documents)
        for query, documents in qrels.items()
        if max((gains.get(grade, grade) for grade in documents.values()), default=-1) >= 0
    }
    _check_grades(measure, program.NAME, plain, gains)
    # gdeval takes numbers as query ids alone, and cuts off what precedes a hyphen
    names = {
        query: str(judged.places[query] + 1) if program.NAME == "gdeval" else query
        for query in plain
    }
    queries = {name: query for query, name in names.items()}
    values = np.zeros(len(judged))
    computed: set[str] = set()
    lists = 0
    try:
        for some, order in _some_lists(run, plain):
            lists += len(order)
            for metric in program.iter_calc(
                [measure],
                {names[query]: documents for query, documents in some.items()},
                {names[query]: documents for query, documents in order.items()},
            ):
                values[judged.places[queries[metric.query_id]]] = metric.value
                computed.add(metric.query_id)
    except Exception as error:  # the programs behind raise anything
        if program.NAME != "accuracy":
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise IrdistillError(
                f"the measure {measure} cannot be computed by {program.NAME}: {reason}."
            ) from error
        computed.clear()
    if program.NAME == "accuracy" and lists and len(computed) < len(judged):
        raise IrdistillError(
            f"the measure {measure} is not defined for all {len(judged)} judged queries: it needs a"
            " relevant document and one that is not relevant in each list. A mean over the other"
            " queries would be of another set for each run; take AP or nDCG."
        )
    if not np.isfinite(values).all():
        raise IrdistillError(
            f"the measure {measure} gives no finite number for some query; check its parameters."
        )
    return values


def _some_lists(run: Run, qrels: Scores) -> Iterator[tuple[Scores, Scores]]:
    """Judgments and lists of some queries at a time; the last ones come with the judgments of
    queries that have no list.
    """
    left, order = dict(qrels), dict[str, dict[str, float]]()
    documents = 0
    for ranked in run:
        if ranked.query_id in qrels and (scores := strict_order(ranked)):
            if documents >= _TOGETHER:
                yield {query: left.pop(query) for query in order}, order
                order, documents = {}, 0
            order[ranked.query_id] = scores
            documents += len(scores)
    if order:
        yield left, order


def _check_grades(
    measure: Any, program: str, qrels: Mapping[str, Mapping[str, int]], gains: Mapping[int, int]
) -> None:
    most = {"pytrec_eval": _MOST_GRADES, "gdeval": _GDEVAL_GREATEST}.get(program)
    greatest = max(
        (gains.get(grade, grade) for documents in qrels.values() for grade in documents.values()),
        default=0,
    )
    if most is not None and greatest > most:
        raise IrdistillError(
            f"the measure {measure} is computed by {program}, which takes grades up to {most}, and"
            f" the judgments have {greatest}; scale the grades, or take nDCG@10."
        )
