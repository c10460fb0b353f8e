"""The common measures over arrays, one value per query, as trec_eval computes them.

A run of the size of MS MARCO dev takes milliseconds. ir-measures computes the other measures (see
`irdistill.evaluation.measures`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from irdistill.evaluation.hits import JudgedHits, Judgments

Formula = Callable[[Judgments, JudgedHits], np.ndarray]


def formula(measure: Any) -> Formula | None:
    """Return the formula of one of ir-measures' measures, or None if there is none here."""
    parameters = dict(measure.params)
    make = _FORMULAS.get(measure.NAME)
    cut, level = parameters.pop("cutoff", None), parameters.pop("rel", 1)
    if make is None or parameters or (cut is not None and cut < 1) or level < 1:
        return None
    return make(cut, level)


def _sum(hits: JudgedHits, values: np.ndarray, chosen: np.ndarray, queries: int) -> np.ndarray:
    return np.bincount(hits.query[chosen], weights=values[chosen], minlength=queries)


def _share(part: np.ndarray, whole: np.ndarray | int) -> np.ndarray:
    """A quotient; 0 where the divisor is 0."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=np.asarray(whole) > 0)


def _above(hits: JudgedHits, cut: int | None) -> np.ndarray:
    return hits.rank <= cut if cut is not None else np.ones(len(hits.rank), bool)


def _ndcg(cut: int | None, level: int) -> Formula:
    """Linear gain, logarithmic discount (Järvelin and Kekäläinen 2002); the gain is the grade, at
    least 0.
    """

    def compute(judged: Judgments, hits: JudgedHits) -> np.ndarray:
        gain = np.maximum(hits.grade, 0) / np.log2(hits.rank + 1)
        ideal = np.maximum(judged.grade, 0) / np.log2(judged.position + 1)
        within = judged.position <= (cut or len(judged.position))
        whole = np.bincount(judged.query[within], weights=ideal[within], minlength=len(judged))
        return _share(_sum(hits, gain, _above(hits, cut), len(judged)), whole)

    return compute


def _recall(cut: int | None, level: int) -> Formula:
    return lambda judged, hits: _share(_count(judged, hits, cut, level), judged.relevant(level))


def _precision(cut: int | None, level: int) -> Formula:
    return lambda judged, hits: _count(judged, hits, cut, level) / (cut or 1)


def _success(cut: int | None, level: int) -> Formula:
    return lambda judged, hits: (_count(judged, hits, cut, level) > 0).astype(np.float64)


def _count(judged: Judgments, hits: JudgedHits, cut: int | None, level: int) -> np.ndarray:
    return _sum(
        hits, np.ones(len(hits.rank)), _above(hits, cut) & (hits.grade >= level), len(judged)
    )


def _reciprocal(cut: int | None, level: int) -> Formula:
    def compute(judged: Judgments, hits: JudgedHits) -> np.ndarray:
        chosen = _above(hits, cut) & (hits.grade >= level)
        values = np.zeros(len(judged))
        # from the last to the first, so that the first rank of each query stays
        values[hits.query[chosen][::-1]] = 1.0 / hits.rank[chosen][::-1]
        return values

    return compute


def _average(cut: int | None, level: int) -> Formula:
    def compute(judged: Judgments, hits: JudgedHits) -> np.ndarray:
        chosen = np.flatnonzero(_above(hits, cut) & (hits.grade >= level))
        query, rank = hits.query[chosen], hits.rank[chosen]
        starts = np.searchsorted(query, query, side="left")
        precision = (np.arange(len(query)) - starts + 1) / rank
        return _share(
            np.bincount(query, weights=precision, minlength=len(judged)), judged.relevant(level)
        )

    return compute


def _r_precision(cut: int | None, level: int) -> Formula:
    def compute(judged: Judgments, hits: JudgedHits) -> np.ndarray:
        relevant = judged.relevant(level)
        chosen = (hits.rank <= relevant[hits.query]) & (hits.grade >= level)
        return _share(_sum(hits, np.ones(len(hits.rank)), chosen, len(judged)), relevant)

    return compute


def judged_share(judged: Judgments, hits: JudgedHits, cut: int | None) -> np.ndarray:
    """(Q,) share of the first documents that are judged; 0 for a query without documents."""
    whole = hits.retrieved if cut is None else np.minimum(hits.retrieved, cut)
    return _share(_sum(hits, np.ones(len(hits.rank)), _above(hits, cut), len(judged)), whole)


def _judged(cut: int | None, level: int) -> Formula:
    return lambda judged, hits: judged_share(judged, hits, cut)


_FORMULAS: dict[str, Callable[[int | None, int], Formula]] = {
    "nDCG": _ndcg,
    "R": _recall,
    "P": _precision,
    "Success": _success,
    "RR": _reciprocal,
    "AP": _average,
    "Rprec": _r_precision,
    "Judged": _judged,
}
