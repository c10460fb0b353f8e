"""How similarly two rankers order the documents that both scored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irdistill.console.terminal import counted
from irdistill.evaluation.auditing.query_sample import Lists, shared_parts

TOP = 10


@dataclass(frozen=True)
class Agreement:
    """Two rankers on the documents that both scored.

    Attributes:
        queries: number of queries with at least two such documents.
        tau: mean Kendall's tau-b (Kendall 1945) over the queries in which neither side is all
            ties; None if there is no such query.
        top: share of queries with the same best document.
        overlap: mean share of common documents among the first ten.
    """

    left: str
    right: str
    queries: int
    tau: float | None
    top: float
    overlap: float

    @property
    def line(self) -> str:
        """The agreement in one line."""
        names = f"{self.left} and {self.right}"
        if not self.queries:
            return f"{names}: no query for which both scored two of the same documents."
        tau = "-" if self.tau is None else f"{self.tau:.3f}"
        return (
            f"{names}: Kendall tau {tau}, the same best document for {self.top:.1%} of"
            f" {counted(self.queries, 'query')}, {self.overlap:.1%} of the first ten in common."
        )


def compare_rankings(left: str, right: str, left_lists: Lists, right_lists: Lists) -> Agreement:
    """Compare two rankers, named ``left`` and ``right``, query by query."""
    from scipy.stats import kendalltau

    taus, tops, overlaps = [], [], []
    for query in (query for query in left_lists if query in right_lists):
        first, second = shared_parts(left_lists[query], right_lists[query])
        if len(first.doc_ids) < 2:
            continue
        scores = second.to_dict()
        tau = float(kendalltau(first.scores, [scores[doc] for doc in first.doc_ids]).statistic)
        if tau == tau:
            taus.append(tau)
        tops.append(first.doc_ids[0] == second.doc_ids[0])
        k = min(TOP, len(first.doc_ids))
        overlaps.append(len(set(first.doc_ids[:k]) & set(second.doc_ids[:k])) / k)
    if not tops:
        return Agreement(left, right, 0, None, 0.0, 0.0)
    tau_mean = float(np.mean(taus)) if taus else None
    return Agreement(
        left, right, len(tops), tau_mean, float(np.mean(tops)), float(np.mean(overlaps))
    )
