"""Distances between a teacher's scores within a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irdistill.evaluation.auditing.distribution import Histogram, histogram
from irdistill.evaluation.auditing.sample import Scored

PERCENTILES = (5, 25, 50, 75, 95)
MOST_PAIRS = 2000
"""Pairs taken of one list; more are drawn from at random."""


@dataclass(frozen=True)
class Margins:
    """Differences of two scores of one list.

    Attributes:
        labelled: at PERCENTILES, of a relevant document's score minus that of one that is not
            judged relevant; None where nothing is judged. pairs: how many. wrong: the share in
            which the relevant one is not above.
        top: at PERCENTILES, of the best document's score minus each other's.
        any: at PERCENTILES, of the absolute difference of any two.
        histogram: of the labelled ones.
    """

    labelled: tuple[float, ...] | None
    pairs: int
    wrong: float | None
    top: tuple[float, ...] | None
    any: tuple[float, ...] | None
    histogram: Histogram | None


def margins(
    lists: Sequence[Scored],
    qrels: Mapping[str, Mapping[str, int]],
    seed: int,
    relevant_from: int = 1,
) -> Margins:
    """Margins of all lists; documents of grade ``relevant_from`` or above are relevant."""
    random = np.random.default_rng(seed)
    labelled, top, anyone = [], [], []
    for found in lists:
        scores = found.scores
        if len(scores) < 2:
            continue
        top.append(scores[0] - scores[1:])
        left, right = np.triu_indices(len(scores), 1)
        anyone.append(_some(scores[left] - scores[right], random))
        grades = qrels.get(found.query_id, {})
        relevant = np.array([grades.get(doc, 0) >= relevant_from for doc in found.doc_ids])
        if relevant.any() and not relevant.all():
            labelled.append(
                _some((scores[relevant][:, None] - scores[~relevant][None, :]).ravel(), random)
            )
    known = np.concatenate(labelled) if labelled else np.empty(0)
    return Margins(
        _percentiles(labelled),
        len(known),
        float(np.mean(known <= 0)) if len(known) else None,
        _percentiles(top),
        _percentiles(anyone),
        histogram(known) if len(known) else None,
    )


def _some(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return values if len(values) <= MOST_PAIRS else random.choice(values, MOST_PAIRS, replace=False)


def _percentiles(values: Sequence[np.ndarray]) -> tuple[float, ...] | None:
    return tuple(np.percentile(np.concatenate(values), PERCENTILES).tolist()) if values else None
