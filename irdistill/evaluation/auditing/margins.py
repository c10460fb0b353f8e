"""Differences between a teacher's scores within a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from irdistill.evaluation.auditing.distribution import Histogram, count_bins
from irdistill.evaluation.auditing.query_sample import Grades, ScoredList

PERCENTILES = (5, 25, 50, 75, 95)
MAX_PAIRS = 2000
"""Pairs taken from one list; from longer lists they are drawn at random."""


@dataclass(frozen=True)
class Margins:
    """Differences of two scores of one list, at PERCENTILES.

    Attributes:
        labelled: a relevant document's score minus that of one that is not judged relevant; None
            where nothing is judged.
        pairs: number of such pairs.
        wrong: share of these pairs in which the relevant document is not above.
        top: the best document's score minus each other document's.
        any: absolute difference of any two.
        histogram: of the labelled margins.
    """

    labelled: tuple[float, ...] | None
    pairs: int
    wrong: float | None
    top: tuple[float, ...] | None
    any: tuple[float, ...] | None
    histogram: Histogram | None


def measure_margins(
    lists: Sequence[ScoredList], qrels: Grades, seed: int, relevant_from: int = 1
) -> Margins:
    """Measure the margins of all lists; documents of grade ``relevant_from`` are relevant."""
    random = np.random.default_rng(seed)
    labelled, top, any_two = [], [], []
    for ranked_list in lists:
        scores = ranked_list.scores
        if len(scores) < 2:
            continue
        top.append(scores[0] - scores[1:])
        left, right = np.triu_indices(len(scores), 1)
        any_two.append(_draw(scores[left] - scores[right], random))
        relevant = ranked_list.relevant(qrels.get(ranked_list.query_id, {}), relevant_from)
        if relevant.any() and not relevant.all():
            gaps = scores[relevant][:, None] - scores[~relevant][None, :]
            labelled.append(_draw(gaps.ravel(), random))
    known = np.concatenate(labelled) if labelled else np.empty(0)
    return Margins(
        _percentiles(labelled),
        len(known),
        float(np.mean(known <= 0)) if len(known) else None,
        _percentiles(top),
        _percentiles(any_two),
        count_bins(known) if len(known) else None,
    )


def _draw(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return values if len(values) <= MAX_PAIRS else random.choice(values, MAX_PAIRS, replace=False)


def _percentiles(values: Sequence[np.ndarray]) -> tuple[float, ...] | None:
    return tuple(np.percentile(np.concatenate(values), PERCENTILES).tolist()) if values else None
