"""Top k of many scores in trec_eval's order: score, then document id, both descending."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from irdistill.collections import Corpus

EXTRA_NEIGHBORS = 32
"""Neighbors beyond k, so that ties at the cut-off are ordered by document id."""
MAX_EXTRA_ABSENT = 1024
"""Most extra neighbors for documents without a vector, which an approximate index contains too."""


class SearchHits(NamedTuple):
    """Top documents of a query: rows int64 and scores float32, both (at most k,).

    Attributes:
        passages: int32 number of the best passage of each; None if documents are searched whole.
    """

    rows: np.ndarray
    scores: np.ndarray
    passages: np.ndarray | None = None


def best_rows(
    corpus: Corpus,
    scores: np.ndarray,
    k: int,
    rows: np.ndarray | None = None,
    above: float | None = None,
) -> SearchHits:
    """Top k documents; ties, also at the cut-off, are ordered by id.

    Args:
        scores: (n,) float32.
        rows: (n,) rows of the documents (default: 0 to n - 1).
        above: leave out scores up to this value.
    """
    chosen = np.arange(len(scores)) if above is None else np.flatnonzero(scores > above)
    if k <= 0 or not len(chosen):
        return SearchHits(np.empty(0, np.int64), np.empty(0, np.float32))
    if len(chosen) > k:
        values = scores[chosen]
        chosen = chosen[values >= np.partition(values, len(values) - k)[len(values) - k]]
    values = scores[chosen].astype(np.float32)
    order = np.argsort(-values, kind="stable")
    top = (chosen if rows is None else rows[chosen])[order].astype(np.int64)
    values = values[order]
    start = 0
    for end in [*(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]:
        if end - start > 1:
            top[start:end] = sorted(top[start:end].tolist(), key=corpus.id, reverse=True)
        start = end
    return SearchHits(top[:k], values[:k])


class TopK:
    """Top k documents of a query that is scored block by block.

    Args:
        above: leave out scores up to this value.
    """

    def __init__(self, corpus: Corpus, k: int, above: float | None = None) -> None:
        self.corpus, self.k, self.above = corpus, k, above
        self.hits = best_rows(corpus, np.empty(0, np.float32), k)

    def add(self, scores: np.ndarray, first: int) -> None:
        """Add the scores (n,) of the documents in the rows from ``first`` on."""
        above = self.above
        if not self.k:
            return
        if len(self.hits.scores) == self.k:  # an equal score may still win by its id
            worst = np.nextafter(self.hits.scores[-1], np.float32(-np.inf), dtype=np.float32)
            above = float(worst) if above is None else max(above, float(worst))
        rows = np.arange(first, first + len(scores))
        rows, values, _ = best_rows(self.corpus, scores, self.k, rows, above)
        if len(rows):
            self.hits = best_rows(
                self.corpus,
                np.concatenate([self.hits.scores, values]),
                self.k,
                np.concatenate([self.hits.rows, rows]),
            )
