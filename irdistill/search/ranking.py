"""The best k of many scores, in the order of trec_eval: score, then document id, both
descending.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from irdistill.collections import Corpus


class SearchHits(NamedTuple):
    """What was found for a query, best first: rows int64 and scores float32, both (at most k,)."""

    rows: np.ndarray
    scores: np.ndarray


def best_rows(
    corpus: Corpus,
    scores: np.ndarray,
    k: int,
    rows: np.ndarray | None = None,
    above: float | None = None,
) -> SearchHits:
    """The k best-scored documents, with ties decided by id at the cut-off too.

    Args:
        scores: (n,) float32.
        rows: (n,) the documents' row numbers; all documents in order where None.
        above: leave out scores that are not greater than this.
    """
    places = np.arange(len(scores)) if above is None else np.flatnonzero(scores > above)
    if k <= 0 or not len(places):
        return SearchHits(np.empty(0, np.int64), np.empty(0, np.float32))
    if len(places) > k:
        values = scores[places]
        threshold = np.partition(values, len(values) - k)[len(values) - k]
        places = places[values >= threshold]
    chosen = places if rows is None else rows[places]
    values = scores[places].astype(np.float32)
    order = np.argsort(-values, kind="stable")
    chosen, values = chosen[order].astype(np.int64), values[order]
    start = 0
    for end in [*(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]:
        if end - start > 1:
            tied = chosen[start:end].tolist()
            chosen[start:end] = sorted(tied, key=lambda row: corpus.id(row), reverse=True)
        start = end
    return SearchHits(chosen[:k], values[:k])


class TopK:
    """The k best of one query, as documents are scored block by block.

    Args:
        above: leave out scores that are not greater than this.
    """

    def __init__(self, corpus: Corpus, k: int, above: float | None = None) -> None:
        self.corpus, self.k, self.above = corpus, k, above
        self.hits = best_rows(corpus, np.empty(0, np.float32), k)

    def add(self, scores: np.ndarray, first: int) -> None:
        """Take the scores (n,) of the documents from the row ``first`` on."""
        least = self.above
        if not self.k:
            return
        if len(self.hits.scores) == self.k:  # an equal score may still win by its id
            worst = np.nextafter(self.hits.scores[-1], np.float32(-np.inf), dtype=np.float32)
            least = float(worst) if least is None else max(least, float(worst))
        rows, values = best_rows(self.corpus, scores, self.k, above=least)
        if len(rows):
            self.hits = best_rows(
                self.corpus,
                np.concatenate([self.hits.scores, values]),
                self.k,
                np.concatenate([self.hits.rows, rows + first]),
            )
