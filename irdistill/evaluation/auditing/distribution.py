"""The distribution of a teacher's scores: quantiles, shape, ties, ends, nulls and flags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irdistill.evaluation.auditing.query_sample import scored
from irdistill.runs import RankedList

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
BINS = 40
END = 1e-3
"""A score this close to the least or the greatest, as a share of the range, is at the end."""


@dataclass(frozen=True)
class Histogram:
    """Counts between edges, (bins,) and (bins + 1,)."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Distribution:
    """One teacher's scores; fields are None where there are too few scores.

    Attributes:
        queries, rows: number of lists and of documents.
        unscored: number of documents without a score.
        flags: reason -> number of documents.
        quantiles: of all scores, at QUANTILES.
        skew: third standardized moment; above 0 where the upper tail is longer.
        spread: mean standard deviation within a list.
        reach: median distance between a list's best and worst score.
        tied: share of neighboring ranks with equal scores.
        tied_rows: share of documents with the score of another document of the list.
        tied_top: share of lists whose best score is shared.
        low_end, high_end: share of scores within END of the least and of the greatest.
        constant: share of lists of at least two documents in which all scores are equal.
        spreads: of the standard deviations within lists.
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
    spreads: Histogram | None = None


def describe_scores(lists: Iterable[RankedList]) -> Distribution:
    """Describe all scores of one teacher."""
    flags: Counter[str] = Counter()
    parts, spreads, reaches = [np.empty(0)], [], []
    queries = rows = neighbors = tied = tied_rows = tied_top = 0
    for ranked_list in lists:
        queries, rows = queries + 1, rows + len(ranked_list.doc_ids)
        flags.update(flag for flag in ranked_list.flags or () if flag)
        scores = scored(ranked_list).scores
        parts.append(scores)
        if len(scores) < 2:
            continue
        same = np.diff(scores) == 0
        neighbors, tied = neighbors + len(same), tied + int(same.sum())
        tied_rows += int((np.append(same, False) | np.append(False, same)).sum())
        tied_top += bool(same[0])
        spreads.append(float(scores.std()))
        reaches.append(float(scores[0] - scores[-1]))
    values = np.concatenate(parts)
    some = len(values) > 0
    low, high = (values.min(), values.max()) if some else (0.0, 0.0)
    end = END * (high - low)
    mean, deviation = (float(values.mean()), float(values.std())) if some else (None, None)
    skew = float((((values - values.mean()) / deviation) ** 3).mean()) if deviation else None
    return Distribution(
        queries,
        rows,
        rows - len(values),
        dict(flags.most_common()),
        tuple(np.quantile(values, QUANTILES).tolist()) if some else None,
        mean,
        deviation,
        skew,
        spread=_mean(spreads),
        reach=float(np.median(reaches)) if reaches else 0.0,
        tied=tied / max(1, neighbors),
        tied_rows=tied_rows / max(1, len(values)),
        tied_top=tied_top / max(1, len(spreads)),
        low_end=_mean(values <= low + end),
        high_end=_mean(values >= high - end),
        constant=_mean([reach == 0 for reach in reaches]),
        histogram=count_bins(values) if some else None,
        spreads=count_bins(np.array(spreads)) if spreads else None,
    )


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def count_bins(values: np.ndarray) -> Histogram:
    """A histogram over the whole range of the values."""
    counts, edges = np.histogram(values, bins=BINS)
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))
