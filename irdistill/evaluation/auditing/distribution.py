"""How a teacher's scores are spread: quantiles, shape, ties, ends, and what has no score or a
flag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from irdistill.evaluation.auditing.sample import scored
from irdistill.runs import RankedList

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
BINS = 40
END = 1e-3
"""How near to the least or the greatest score is *at the end*, as a share of the distance between
the two.
"""


@dataclass(frozen=True)
class Histogram:
    """Counts between edges, (bins,) and (bins + 1,)."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Distribution:
    """One teacher's scores; None where there is too little to compute a figure.

    Attributes:
        queries, rows: lists and documents looked at.
        unscored: documents without a score. flags: reason -> documents.
        quantiles: of all scores, at QUANTILES.
        skew: the third standardised moment of all scores: above 0 where the upper tail is the
            longer one.
        spread: mean standard deviation within a list. reach: median distance from a list's best
            score to its worst.
        tied: share of neighbouring ranks with one score. tied_rows: share of documents with the
            score of another of the list.
        tied_top: share of lists whose best score is shared.
        low_end, high_end: share of scores within END of the least and of the greatest.
        constant: share of the lists with two documents or more in which all scores are equal.
    """

    queries: int
    rows: int
    unscored: int
    flags: dict[str, int]
    quantiles: tuple[float, ...] | None
    mean: float | None
    deviation: float | None
    skew: float | None
    spread: float
    reach: float
    tied: float
    tied_rows: float
    tied_top: float
    low_end: float
    high_end: float
    constant: float
    histogram: Histogram | None


def describe(lists: Iterable[RankedList]) -> Distribution:
    """Describe all scores of one teacher."""
    flags: Counter[str] = Counter()
    values, spreads, reaches = [], [], []
    queries = rows = unscored = neighbours = tied = tied_rows = tied_top = 0
    for found in lists:
        queries, rows = queries + 1, rows + len(found.doc_ids)
        flags.update(flag for flag in found.flags or () if flag)
        scores = scored(found).scores
        unscored += len(found.doc_ids) - len(scores)
        values.append(scores)
        if len(scores) < 2:
            continue
        same = np.diff(scores) == 0
        neighbours, tied = neighbours + len(same), tied + int(same.sum())
        tied_rows += int((np.append(same, False) | np.append(False, same)).sum())
        tied_top += bool(same[0])
        spreads.append(float(scores.std()))
        reaches.append(float(scores[0] - scores[-1]))
    everything = np.concatenate(values) if values else np.empty(0)
    counted = len(everything)
    low, high = (everything.min(), everything.max()) if counted else (0.0, 0.0)
    width = high - low
    deviation = float(everything.std()) if counted else None
    return Distribution(
        queries,
        rows,
        unscored,
        dict(flags.most_common()),
        tuple(np.quantile(everything, QUANTILES).tolist()) if counted else None,
        float(everything.mean()) if counted else None,
        deviation,
        float((((everything - everything.mean()) / deviation) ** 3).mean()) if deviation else None,
        float(np.mean(spreads)) if spreads else 0.0,
        float(np.median(reaches)) if reaches else 0.0,
        tied / neighbours if neighbours else 0.0,
        tied_rows / counted if counted else 0.0,
        tied_top / len(spreads) if spreads else 0.0,
        float(np.mean(everything <= low + END * width)) if counted else 0.0,
        float(np.mean(everything >= high - END * width)) if counted else 0.0,
        sum(reach == 0 for reach in reaches) / len(reaches) if reaches else 0.0,
        histogram(everything) if counted else None,
    )


def histogram(values: np.ndarray, bins: int = BINS) -> Histogram:
    """Counts over the whole range of the values."""
    counts, edges = np.histogram(values, bins=bins)
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))
