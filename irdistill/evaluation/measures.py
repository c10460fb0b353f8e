"""Measures of one run per query, with the figures of trec_eval.

Measures are written as in ir-measures (MacAvaney et al. 2022, ECIR, "Streamlining Evaluation with
ir-measures"). `irdistill.evaluation.formulas` computes the common ones over arrays, the providers
of ir-measures the others. The providers break ties in different ways, so each gets the same strict
order: float32 score, then document id, both descending, as trec_eval sorts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irdistill.collections import as_qrels
from irdistill.errors import InputError, OptionError, WrongCollectionError, one_line
from irdistill.evaluation.formulas import formula, judged_share
from irdistill.evaluation.hits import Judgments
from irdistill.evaluation.measure_names import is_count, parse_measures, program_of
from irdistill.runs import RankedList, Run, as_run

ScoresByQuery = Mapping[str, Mapping[str, float]]
JUDGED = 10
_BATCH = 1 << 19
"""Documents per call of a provider, which takes a Python object for each."""


@dataclass(frozen=True)
class PerQuery:
    """The values of one run.

    Attributes:
        query_ids: the queries of the qrels, in their order.
        values: measure -> (Q,) float64.
        missing: number of queries of the qrels for which the run has no document; each counts as 0.
        unscored: number of documents without a score; they are left out.
        unknown_queries: number of queries of the run that are not in the qrels; they do not count.
        low, high: measure -> (Q,) lowest and highest value over all orders of documents with equal
            scores; only of the measures in `irdistill.evaluation.formulas`.
        judged: (Q,) share of the first 10 documents that are judged (Judged@10); 0 for a missing
            query.
        holes: measure -> (Q,) share of unjudged documents among those that the measure looks at.
        counts: the measures that count (``NumRet``, ``NumRel``, ``NumQ``); their figure is the sum
            over queries.
        self_matches: query -> rank of the document that has the query's own id, if in the list.
    """

    query_ids: list[str]
    values: dict[str, np.ndarray]
    missing: int
    unscored: int
    unknown_queries: int
    low: dict[str, np.ndarray] = field(default_factory=dict)
    high: dict[str, np.ndarray] = field(default_factory=dict)
    judged: np.ndarray = field(default_factory=lambda: np.empty(0))
    holes: dict[str, np.ndarray] = field(default_factory=dict)
    counts: frozenset[str] = frozenset()
    self_matches: dict[str, int] = field(default_factory=dict)

    def figure(self, measure: str) -> float:
        """The figure of the run: the mean over all queries, or the sum of a measure that counts."""
        values = self.values[measure]
        return float(values.sum() if measure in self.counts else values.mean())


def strict_order(ranked: RankedList) -> dict[str, float]:
    """Document -> a number that falls by 1 per rank; documents without a score are left out."""
    pairs = zip(ranked.doc_ids, ranked.scores.tolist(), strict=True)
    scored = [doc for doc, score in pairs if score == score]
    return {doc: float(len(scored) - rank) for rank, doc in enumerate(scored)}


def per_query(
    qrels: Mapping[str, Mapping[str, int]], run: Run | ScoresByQuery, measures: str | Sequence[str]
) -> PerQuery:
    """Compute measures for every query of the qrels.

    Args:
        qrels: query -> document -> grade.
        run: a run, or query -> document -> score.

    Examples:
        >>> per_query({"q": {"d": 1}}, {"q": {"x": 2.0, "d": 1.0}}, "RR@10").values["RR@10"]
        array([0.5])
    """
    parsed = parse_measures(measures)
    qrels = as_qrels(qrels)
    judged = Judgments(qrels)
    if not len(judged):
        raise InputError(
            "there are no relevance judgments to evaluate with; give a collection that has qrels."
        )
    opened = run if isinstance(run, Run) else as_run(run)
    hits = judged.find(opened)
    if not hits.retrieved.any() and hits.unknown_queries:
        raise WrongCollectionError(
            f"none of the {hits.unknown_queries} queries of the run is among the {len(judged)}"
            " judged ones; they belong to different collections."
        )
    best, worst = hits.best(), hits.worst()
    values, low, high, holes = {}, {}, {}, {}
    for measure in parsed:
        name, compute = str(measure), formula(measure)
        share = judged_share(judged, hits, measure.params.get("cutoff"))
        holes[name] = np.where(hits.retrieved > 0, 1 - share, 0.0)
        if compute is not None:
            values[name], low[name], high[name] = (
                compute(judged, order) for order in (hits, worst, best)
            )
    for measure in parsed:
        if str(measure) not in values:
            values[str(measure)] = _by_program(measure, qrels, opened, judged)
    return PerQuery(
        judged.query_ids,
        {str(measure): values[str(measure)] for measure in parsed},
        int((hits.retrieved == 0).sum()),
        hits.unscored,
        hits.unknown_queries,
        low,
        high,
        judged_share(judged, hits, JUDGED),
        holes,
        frozenset(str(measure) for measure in parsed if is_count(measure)),
        hits.self_matches,
    )


_TREC_EVAL_GREATEST = 1_000_000
"""trec_eval keeps a table of all grades up to the greatest; if memory is too small, it gives 0."""
_GDEVAL_GREATEST = 4


def _by_program(
    measure: Any, qrels: Mapping[str, Mapping[str, int]], run: Run, judged: Judgments
) -> np.ndarray:
    """(Q,) values of a provider of ir-measures.

    Each measure needs a separate call, as several in one call can replace each other.
    """
    program = program_of(measure)
    gains = measure.params.get("gains", {})
    # pytrec_eval does not return from a query that has only negative grades
    plain = {
        query: dict(documents)
        for query, documents in qrels.items()
        if max((gains.get(grade, grade) for grade in documents.values()), default=-1) >= 0
    }
    _check_grades(measure, program.NAME, plain, gains)
    # gdeval takes only numbers as query ids, and cuts off what precedes a hyphen
    names = {
        query: str(judged.places[query] + 1) if program.NAME == "gdeval" else query
        for query in plain
    }
    queries = {name: query for query, name in names.items()}
    values = np.zeros(len(judged))
    computed: set[str] = set()
    lists = 0
    try:
        for some, order in _batches(run, plain):
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
            raise InputError(
                f"the measure {measure} cannot be computed by {program.NAME}:"
                f" {one_line(error, 200)}."
            ) from error
        computed.clear()
    if program.NAME == "accuracy" and lists and len(computed) < len(judged):
        raise InputError(
            f"the measure {measure} is not defined for all {len(judged)} judged queries: it needs a"
            " relevant document and one that is not relevant in each list. A mean over the other"
            " queries would be of another set for each run; take AP or nDCG."
        )
    if not np.isfinite(values).all():
        raise OptionError(
            f"the measure {measure} is not finite for some query; check its parameters."
        )
    return values


def _batches(run: Run, qrels: ScoresByQuery) -> Iterator[tuple[ScoresByQuery, ScoresByQuery]]:
    """Judgments and lists of some queries at a time.

    The last batch includes the judgments of queries without a list.
    """
    left, order = dict(qrels), dict[str, dict[str, float]]()
    documents = 0
    for ranked in run:
        if ranked.query_id in qrels and (scores := strict_order(ranked)):
            if documents >= _BATCH:
                yield {query: left.pop(query) for query in order}, order
                order, documents = {}, 0
            order[ranked.query_id] = scores
            documents += len(scores)
    if order:
        yield left, order


def _check_grades(
    measure: Any, program: str, qrels: Mapping[str, Mapping[str, int]], gains: Mapping[int, int]
) -> None:
    most = {"pytrec_eval": _TREC_EVAL_GREATEST, "gdeval": _GDEVAL_GREATEST}.get(program)
    greatest = max(
        (gains.get(grade, grade) for documents in qrels.values() for grade in documents.values()),
        default=0,
    )
    if most is not None and greatest > most:
        raise InputError(
            f"the measure {measure} is computed by {program}, which takes grades up to {most}, and"
            f" the judgments have {greatest}; scale the grades, or use nDCG@10."
        )
