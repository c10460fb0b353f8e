"""How good a teacher's order is, and whether it is better than the first stage's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irdistill.evaluation.auditing.query_sample import Grades, Lists, shared_parts
from irdistill.evaluation.measures import per_query
from irdistill.evaluation.significance import Difference, compare

DECIDING = "nDCG@10"
_TOP = 10


@dataclass(frozen=True)
class MeasureComparison:
    """A measure of the teacher and of the first stage on the same queries and documents.

    Attributes:
        difference: teacher minus first stage.
    """

    measure: str
    teacher: float
    first_stage: float
    difference: Difference


@dataclass(frozen=True)
class AgainstFirstStage:
    """The teacher and the first stage, both cut to the documents that both scored.

    Attributes:
        queries: number of judged queries that have such documents.
        shared: mean share of a query's documents, of all that either scored, that both scored.
        measures: on all those documents; documents that are not judged count as not relevant.
        judged_only: nDCG@10 without the documents that are not judged (Sakai 2007, SIGIR,
            "Alternatives to Bpref"), on the queries that keep two grades; None if there are none.
        judged, first_judged: share of the first ten that is judged.
        same_order: share of queries on which both have the same order.
        changes: nDCG@10 of the teacher minus the first stage's, per query, sorted.
    """

    queries: int
    shared: float
    measures: tuple[MeasureComparison, ...]
    judged_only: MeasureComparison | None
    judged: float
    first_judged: float
    same_order: float
    changes: tuple[float, ...]

    @property
    def deciding(self) -> MeasureComparison:
        """The comparison by nDCG@10."""
        return self.measures[0]


@dataclass(frozen=True)
class Quality:
    """A teacher against the judgments.

    Attributes:
        queries: number of judged queries of the sample.
        answered: number of them for which the teacher scored a document.
        values: measure -> mean over ``queries``; a query without an answer counts as 0.
        judged: share of the first ten that is judged.
        negatives: whether any document is judged not relevant. If none is, the judgments do not say
            which documents were looked at.
        against: comparison with the first stage; None without one, or if the two share nothing.
    """

    queries: int
    answered: int
    values: dict[str, float]
    judged: float
    negatives: bool
    against: AgainstFirstStage | None


def quality_measures(relevant_from: int = 1) -> tuple[str, ...]:
    """nDCG@10, and RR@10 where documents of grade ``relevant_from`` or above are relevant."""
    return DECIDING, "RR@10" if relevant_from == 1 else f"RR(rel={relevant_from})@10"


def measure_quality(
    lists: Lists,
    first_stage: Lists | None,
    qrels: Grades,
    query_ids: Sequence[str],
    seed: int,
    relevant_from: int = 1,
) -> Quality | None:
    """Measure one teacher; None if no query of the sample is judged."""
    names = quality_measures(relevant_from)
    judged = {query: qrels[query] for query in query_ids if query in qrels}
    if not judged:
        return None
    negatives = any(grade <= 0 for grades in judged.values() for grade in grades.values())
    answers = {
        query: lists[query] for query in judged if query in lists and len(lists[query].doc_ids)
    }
    if not answers:
        return Quality(len(judged), 0, dict.fromkeys(names, 0.0), 0.0, negatives, None)
    values = _measure(judged, answers, names)
    return Quality(
        len(judged),
        len(answers),
        {name: float(numbers.mean()) for name, numbers in values.items()},
        _judged(judged, answers),
        negatives,
        _against(answers, first_stage, judged, names, seed) if first_stage is not None else None,
    )


def _against(
    answers: Lists, first_stage: Lists, judged: Grades, names: Sequence[str], seed: int
) -> AgainstFirstStage | None:
    ours, theirs, shares, same = {}, {}, [], []
    for query in (query for query in answers if query in first_stage):
        whole, other = answers[query], first_stage[query]
        left, right = shared_parts(whole, other)
        if not left.doc_ids:
            continue
        ours[query], theirs[query] = left, right
        common = len(left.doc_ids)
        shares.append(common / (len(whole.doc_ids) + len(other.doc_ids) - common))
        same.append(left.doc_ids == right.doc_ids)
    if not ours:
        return None
    grades = {query: judged[query] for query in ours}
    values, others = _measure(grades, ours, names), _measure(grades, theirs, names)
    return AgainstFirstStage(
        len(ours),
        float(np.mean(shares)),
        tuple(_compare(name, values[name], others[name], seed) for name in names),
        _judged_only(grades, ours, theirs, seed),
        _judged(grades, ours),
        _judged(grades, theirs),
        float(np.mean(same)),
        tuple(np.sort(values[DECIDING] - others[DECIDING]).tolist()),
    )


def _compare(name: str, values: np.ndarray, others: np.ndarray, seed: int) -> MeasureComparison:
    return MeasureComparison(
        name, float(values.mean()), float(others.mean()), compare(values, others, seed)
    )


def _measure(judged: Grades, lists: Lists, names: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Measure -> (Q,) values. Ranks replace the scores, so that float32 makes no ties."""
    ranks = {
        query: {doc: float(-rank) for rank, doc in enumerate(scores.doc_ids)}
        for query, scores in lists.items()
    }
    return per_query(judged, ranks, names).values


def _judged_only(judged: Grades, ours: Lists, theirs: Lists, seed: int) -> MeasureComparison | None:
    cut = {query: scores.only(judged[query]) for query, scores in ours.items()}
    kept = {
        query: scores
        for query, scores in cut.items()
        if len({judged[query][doc] for doc in scores.doc_ids}) > 1
    }
    if not kept:
        return None
    grades = {query: judged[query] for query in kept}
    others = {query: theirs[query].only(judged[query]) for query in kept}
    left = _measure(grades, kept, [DECIDING])[DECIDING]
    return _compare(DECIDING, left, _measure(grades, others, [DECIDING])[DECIDING], seed)


def _judged(judged: Grades, lists: Lists) -> float:
    shares = [
        np.mean([doc in judged[query] for doc in scores.doc_ids[:_TOP]])
        for query, scores in lists.items()
        if scores.doc_ids
    ]
    return float(np.mean(shares)) if shares else 0.0
