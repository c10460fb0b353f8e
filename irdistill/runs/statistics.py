"""Counts and statistics of a run, and how two runs differ."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from irdistill.runs.interchange import as_run
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run
from irdistill.storage.files import differences


def stats(run: Any) -> dict[str, Any]:
    """Counts, depths and score statistics (float64 over all scored rows) of a run.

    Args:
        run: anything that `as_run` accepts.

    Examples:
        >>> from irdistill.runs import stats
        >>> summary = stats({"q": {"a": 1.0, "b": 3.0, "c": None}})
        >>> summary["rows"], summary["nulls"], summary["score_mean"]
        (3, 1, 2.0)
    """
    opened = as_run(run)
    statistics = RunStatistics()
    for row in opened:
        statistics.add(row)
    return statistics.summary(opened)


class RunStatistics:
    """The statistics of `stats`, list by list."""

    def __init__(self) -> None:
        self._depths: list[int] = []
        self._flags: Counter[str] = Counter()
        self._null_flags: Counter[str] = Counter()
        self._count, self._ties, self._total, self._squares = 0, 0, 0.0, 0.0
        self._low, self._high = np.inf, -np.inf

    def add(self, row: RankedList) -> None:
        """Count one list."""
        self._depths.append(len(row.doc_ids))
        empty = np.isnan(row.scores)
        for flag, null in zip(row.flags or (), empty.tolist(), strict=bool(row.flags)):
            if flag:
                self._flags[flag] += 1
                self._null_flags[flag] += null
        values = row.scores[~empty].astype(np.float64)
        if len(values):
            self._count += len(values)
            self._ties += int((values[1:] == values[:-1]).sum())
            self._total, self._squares = (
                self._total + values.sum(),
                self._squares + (values**2).sum(),
            )
            self._low = min(self._low, float(values.min()))
            self._high = max(self._high, float(values.max()))

    def summary(self, run: Run) -> dict[str, Any]:
        """The statistics of a run whose lists were all added."""
        depths, count = self._depths, self._count
        mean = float(self._total / count) if count else None
        size = sum(part.bytes for part in run.manifest.parts)
        deviation = (
            float(np.sqrt(max(0.0, self._squares / count - mean**2))) if mean is not None else None
        )
        return {
            "run": str(run.path or "in memory"),
            "kind": run.identity.kind,
            "fingerprint": run.fingerprint,
            "collection": run.identity.collection.get("id"),
            "queries": len(run),
            "rows": run.num_rows,
            "nulls": run.num_rows - count,
            "flags": dict(sorted(self._flags.items())),
            "null_flags": {flag: n for flag, n in sorted(self._null_flags.items()) if n},
            "empty_lists": depths.count(0),
            "depth_min": min(depths, default=0),
            "depth_median": float(np.median(depths)) if depths else 0.0,
            "depth_max": max(depths, default=0),
            "score_min": self._low if count else None,
            "score_max": self._high if count else None,
            "score_mean": mean,
            "score_sd": deviation,
            "tied_rows": self._ties,
            "bytes": size,
            "bytes_per_row": size / run.num_rows if run.num_rows else None,
            "usage": dict(run.manifest.usage),
        }


def diff(left: Any, right: Any) -> dict[str, Any]:
    """How two runs differ: identity, queries, documents, scores and order.

    ``kendall_tau`` is the mean over queries of tau-b on the documents that both scored (at least
    2). ``overlap_10`` is the mean share of the first ten documents that both have.

    Args:
        left: anything that `as_run` accepts.
        right: as ``left``.
    """
    from scipy.stats import kendalltau

    a, b = as_run(left), as_run(right)
    shared = [query_id for query_id in a.query_ids if query_id in b]
    only_a = only_b = equal = compared = 0
    worst = 0.0
    taus, overlaps = [], []
    for query_id in shared:
        row, other = a[query_id], b[query_id]
        first = dict(zip(row.doc_ids, row.scores.tolist(), strict=True))
        second = dict(zip(other.doc_ids, other.scores.tolist(), strict=True))
        both = [
            doc
            for doc in first
            if doc in second and first[doc] == first[doc] and second[doc] == second[doc]
        ]
        only_a, only_b = (
            only_a + len(first.keys() - second.keys()),
            only_b + len(second.keys() - first.keys()),
        )
        x, y = np.array([first[doc] for doc in both]), np.array([second[doc] for doc in both])
        if len(both):
            compared += len(both)
            equal += int((x == y).sum())
            worst = max(worst, float(np.abs(x - y).max()))
        if len(both) > 1 and x.std() > 0 and y.std() > 0:
            taus.append(float(kendalltau(x, y).statistic))
        ten = min(10, len(row.doc_ids), len(other.doc_ids))
        if ten:
            overlaps.append(len(set(row.doc_ids[:ten]) & set(other.doc_ids[:ten])) / ten)
    return {
        "identical": a.fingerprint == b.fingerprint,
        "identity": differences(a.manifest.plan(), b.manifest.plan()),
        "queries_only_left": len(a) - len(shared),
        "queries_only_right": len(b) - len(shared),
        "queries_shared": len(shared),
        "documents_only_left": only_a,
        "documents_only_right": only_b,
        "scores_compared": compared,
        "scores_equal": equal,
        "largest_difference": worst,
        "kendall_tau": float(np.mean(taus)) if taus else None,
        "overlap_10": float(np.mean(overlaps)) if overlaps else None,
    }
