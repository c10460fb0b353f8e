"""How hard a query's list is, by what its teachers say of it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def difficulties(lists: Iterable[np.ndarray], by: str) -> np.ndarray:
    """(Q,) how hard each list is, between 0 and 1; with several teachers the mean of what each
    says.

    Each teacher ranks the lists, so that their scales do not matter: by the ``gap`` between its two
    highest scores, the largest first, or by the ``entropy`` of ``softmax(t / s)`` as a share of the
    most that is possible, the lowest first, where ``s`` is the median over the lists of the scores'
    standard deviation. A list in which a teacher scored fewer than two documents it says nothing
    of; one of which none says anything is the hardest.

    Args:
        lists: for each query the scores (T, n), NaN where not scored.
    """
    held = [np.atleast_2d(scores) for scores in lists]
    found = np.full((len(held[0]), len(held)), np.nan)
    for teacher, row in enumerate(found):
        own = [scores[teacher][~np.isnan(scores[teacher])].astype(np.float64) for scores in held]
        heard = np.array([len(scores) > 1 for scores in own])
        scale = (
            float(np.median([scores.std() for scores in own if len(scores) > 1]))
            if heard.any()
            else 1.0
        )
        values = np.array(
            [_hardness(scores, by, scale or 1.0) for scores in own if len(scores) > 1]
        )
        ranks = np.searchsorted(np.sort(values), values, side="left")
        row[heard] = ranks / max(1, len(values) - 1)
    known = ~np.isnan(found)
    total = np.where(known, found, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(1, known.sum(axis=0)), 1.0)


def _hardness(scores: np.ndarray, by: str, scale: float) -> float:
    if by == "gap":
        second, first = np.partition(scores, -2)[-2:]
        return float(second - first)
    weights = np.exp((scores - scores.max()) / scale)
    shares = weights / weights.sum()
    return float(-(shares * np.log(np.maximum(shares, 1e-300))).sum() / np.log(len(shares)))
