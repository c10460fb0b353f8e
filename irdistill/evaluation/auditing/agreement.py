"""How alike two rankers order the documents that both have scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from irdistill.evaluation.auditing.sample import Scored

TOP = 10


@dataclass(frozen=True)
class Agreement:
    """Two teachers, or a teacher and the untrained student, on the documents that both scored.

    Attributes:
        queries: those with two such documents or more.
        tau: mean over queries of Kendall's tau-b (Kendall 1945); queries where one side is all ties
            have none.
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
        """All of it in one line."""
        if not self.queries:
            return (
                f"{self.left} and {self.right}: no query for which both scored two of the same"
                " documents."
            )
        tau = "-" if self.tau is None else f"{self.tau:.3f}"
        return (
            f"{self.left} and {self.right}: Kendall tau {tau}, the same best document for"
            f" {self.top:.1%} of {self.queries} queries, {self.overlap:.1%} of the first ten in"
            " common."
        )


def agree(left: str, right: str, one: Mapping[str, Scored], two: Mapping[str, Scored]) -> Agreement:
    """Compare two rankers query by query."""
    from scipy.stats import kendalltau

    taus, tops, overlaps = [], [], []
    for query, found in one.items():
        if query not in two:
            continue
        first, second = found.only(two[query].doc_ids), two[query].only(found.doc_ids)
        if len(first.doc_ids) < 2:
            continue
        scores = second.to_dict()
        tau = float(kendalltau(first.scores, [scores[doc] for doc in first.doc_ids]).statistic)
        if tau == tau:
            taus.append(tau)
        tops.append(first.doc_ids[0] == second.doc_ids[0])
        depth = min(TOP, len(first.doc_ids))
        overlaps.append(len(set(first.doc_ids[:depth]) & set(second.doc_ids[:depth])) / depth)
    if not tops:
        return Agreement(left, right, 0, None, 0.0, 0.0)
    return Agreement(
        left,
        right,
        len(tops),
        float(np.mean(taus)) if taus else None,
        float(np.mean(tops)),
        float(np.mean(overlaps)),
    )
