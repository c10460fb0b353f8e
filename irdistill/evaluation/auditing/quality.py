"""How good a teacher's order is, and whether it is better than the first stage's order of the same
documents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irdistill.evaluation.auditing.sample import Scored
from irdistill.evaluation.measures import per_query
from irdistill.evaluation.significance import Difference, compare

DECIDING = "nDCG@10"
_TOP = 10
_DETECTABLE = 1.959964 + 0.841621
"""Standard errors that a true difference must have to be found at p < 0.05 in 80 of 100 samples
(normal approximation).
"""

Grades = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Comparison:
    """A measure of the teacher and of the first stage on the same queries and documents;
    ``difference`` is teacher minus it.
    """

    measure: str
    teacher: float
    first_stage: float
    difference: Difference


@dataclass(frozen=True)
class AgainstFirstStage:
    """The teacher and the first stage, each cut to the documents that both scored, on the judged
    queries that have any.

    Attributes:
        queries: how many.
        shared: mean share of a query's documents, of all that either scored, that both did.
        measures: on all those documents; what is not judged counts as not relevant.
        judged_only: nDCG@10 with the documents that are not judged taken out of both (Sakai 2007,
            SIGIR, "Alternatives to Bpref"), on the queries that keep two grades; None where there
            are none.
        judged, first_judged: share of the first ten that is judged.
        same_order: share of the queries on which both have the same order.
        detectable: the difference of nDCG@10 that so many queries would show at p < 0.05 four times
            in five.
        changes: nDCG@10 of the teacher minus the first stage's, query by query, sorted.
    """

    queries: int
    shared: float
    measures: tuple[Comparison, ...]
    judged_only: Comparison | None
    judged: float
    first_judged: float
    same_order: float
    detectable: float
    changes: tuple[float, ...]

    @property
    def deciding(self) -> Comparison:
        """The comparison by nDCG@10."""
        return self.measures[0]


@dataclass(frozen=True)
class Quality:
    """A teacher against the judgments.

    Attributes:
        queries: judged queries of the sample. answered: those for which the teacher scored a
            document.
        values: measure -> mean over ``queries``; a query without an answer counts as 0, as
            ``evaluate`` counts.
        judged: share of the first ten that is judged.
        negatives: whether any document is judged and not relevant; if none is, what is not judged
            may have been read or not.
        against: the comparison with the first stage, or None where none was given or the two share
            nothing.
    """

    queries: int
    answered: int
    values: dict[str, float]
    judged: float
    negatives: bool
    against: AgainstFirstStage | None


def measures(relevant_from: int = 1) -> tuple[str, ...]:
    """The deciding measure, and the reciprocal rank of the first document of grade
    ``relevant_from`` or above.
    """
    return DECIDING, "RR@10" if relevant_from == 1 else f"RR(rel={relevant_from})@10"


def quality(
    lists: Mapping[str, Scored],
    first_stage: Mapping[str, Scored] | None,
    qrels: Grades,
    query_ids: Sequence[str],
    seed: int,
    relevant_from: int = 1,
) -> Quality | None:
    """Measure one teacher; None where no query of the sample is judged."""
    names = measures(relevant_from)
    judged = {query: qrels[query] for query in query_ids if query in qrels}
    if not judged:
        return None
    negatives = any(grade <= 0 for grades in judged.values() for grade in grades.values())
    own = {query: lists[query] for query in judged if query in lists and len(lists[query].doc_ids)}
    if not own:
        return Quality(len(judged), 0, dict.fromkeys(names, 0.0), 0.0, negatives, None)
    values = _measure(judged, own, names)
    return Quality(
        len(judged),
        len(own),
        {name: float(numbers.mean()) for name, numbers in values.items()},
        _judged(judged, own),
        negatives,
        _against(own, first_stage, judged, names, seed) if first_stage is not None else None,
    )


def _against(
    own: Mapping[str, Scored],
    first_stage: Mapping[str, Scored],
    judged: Grades,
    names: Sequence[str],
    seed: int,
) -> AgainstFirstStage | None:
    ours, theirs, shares, same = {}, {}, [], []
    for query, found in own.items():
        other = first_stage.get(query)
        if other is None:
            continue
        one, two = found.only(other.doc_ids), other.only(found.doc_ids)
        if not one.doc_ids:
            continue
        ours[query], theirs[query] = one, two
        shares.append(
            len(one.doc_ids) / (len(found.doc_ids) + len(other.doc_ids) - len(one.doc_ids))
        )
        same.append(one.doc_ids == two.doc_ids)
    if not ours:
        return None
    grades = {query: judged[query] for query in ours}
    one_values, two_values = _measure(grades, ours, names), _measure(grades, theirs, names)
    compared = tuple(
        Comparison(
            name,
            float(one_values[name].mean()),
            float(two_values[name].mean()),
            compare(one_values[name], two_values[name], seed),
        )
        for name in names
    )
    changes = one_values[DECIDING] - two_values[DECIDING]
    # without a spread nothing is known of what could be detected
    spread = compared[0].difference.detectable is not None
    error = float(changes.std(ddof=1)) / math.sqrt(len(changes)) if spread else math.inf
    return AgainstFirstStage(
        len(ours),
        float(np.mean(shares)),
        compared,
        _judged_only(grades, ours, theirs, seed),
        _judged(grades, ours),
        _judged(grades, theirs),
        float(np.mean(same)),
        min(1.0, _DETECTABLE * error),
        tuple(np.sort(changes).tolist()),
    )


def _measure(
    judged: Grades, lists: Mapping[str, Scored], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Measure -> (Q,) values. Ranks stand for the scores, so that nothing rounds again."""
    ranks = {
        query: {doc: float(-rank) for rank, doc in enumerate(found.doc_ids)}
        for query, found in lists.items()
    }
    return per_query(judged, ranks, names).values


def _judged_only(
    judged: Grades, ours: Mapping[str, Scored], theirs: Mapping[str, Scored], seed: int
) -> Comparison | None:
    one = {query: found.only(judged[query]) for query, found in ours.items()}
    kept = [
        query
        for query, found in one.items()
        if len({judged[query][doc] for doc in found.doc_ids}) > 1
    ]
    if not kept:
        return None
    grades = {query: judged[query] for query in kept}
    left = _measure(grades, {query: one[query] for query in kept}, [DECIDING])[DECIDING]
    right = _measure(
        grades, {query: theirs[query].only(judged[query]) for query in kept}, [DECIDING]
    )[DECIDING]
    return Comparison(DECIDING, float(left.mean()), float(right.mean()), compare(left, right, seed))


def _judged(judged: Grades, lists: Mapping[str, Scored]) -> float:
    shares = [
        np.mean([doc in judged[query] for doc in found.doc_ids[:_TOP]])
        for query, found in lists.items()
        if found.doc_ids
    ]
    return float(np.mean(shares)) if shares else 0.0
