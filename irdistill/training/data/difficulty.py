"""The difficulty of a query's list, by the scores of its teachers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def difficulties(lists: Iterable[np.ndarray], by: str) -> np.ndarray:
    """(Q,) the difficulty of each list, from 0 to 1; the mean over several teachers.

    Each teacher ranks the lists, so that their scales do not matter: by the ``gap`` between its two
    highest scores, the largest first, or by the ``entropy`` of ``softmax(t / s)`` as a share of the
    maximum, the lowest first, where ``s`` is the median over the lists of the scores' standard
    deviation. A teacher has no opinion about a list in which it scored fewer than two documents;
    lists about which no teacher has one are the most difficult.

    Args:
        lists: for each query the scores (T, n), NaN where not scored.
    """
    tables = [np.atleast_2d(scores) for scores in lists]
    difficulty = np.full((len(tables[0]), len(tables)), np.nan)
    for teacher, row in enumerate(difficulty):
        scored = [table[teacher][~np.isnan(table[teacher])].astype(np.float64) for table in tables]
        ranked = np.array([len(scores) > 1 for scores in scored])
        scored = [scores for scores in scored if len(scores) > 1]
        scale = float(np.median([scores.std() for scores in scored])) if scored else 1.0
        values = np.array([_difficulty(scores, by, scale or 1.0) for scores in scored])
        ranks = np.searchsorted(np.sort(values), values, side="left")
        row[ranked] = ranks / max(1, len(values) - 1)
    known = ~np.isnan(difficulty)
    total = np.where(known, difficulty, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(1, known.sum(axis=0)), 1.0)


def _difficulty(scores: np.ndarray, by: str, scale: float) -> float:
    if by == "gap":
        second, first = np.partition(scores, -2)[-2:]
        return float(second - first)
    weights = np.exp((scores - scores.max()) / scale)
    shares = weights / weights.sum()
    return float(-(shares * np.log(np.maximum(shares, 1e-300))).sum() / np.log(len(shares)))
