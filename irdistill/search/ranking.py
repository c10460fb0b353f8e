"""The best k of many scores, in the order of trec_eval: score, then document id, both descending."""

from __future__ import annotations

import numpy as np

from irdistill.collections import Corpus


def best_rows(corpus: Corpus, scores: np.ndarray, k: int, rows: np.ndarray | None = None,
              above: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k best-scored documents, with ties decided by id at the cut-off too.

    Args:
        scores: (n,) float32.
        rows: (n,) the documents' row numbers; all documents in order where None.
        above: leave out scores that are not greater than this.

    Returns:
        rows int64 and scores float32, both (at most k,), best first.
    """
    places = np.arange(len(scores)) if above is None else np.flatnonzero(scores > above)
    if k <= 0 or not len(places):
        return np.empty(0, np.int64), np.empty(0, np.float32)
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
    return chosen[:k], values[:k]
