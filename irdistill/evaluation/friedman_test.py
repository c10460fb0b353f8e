"""Many systems over many blocks: mean ranks, the Friedman test, and how far apart ranks must be to
differ.

As recommended by Demsar (2006, JMLR 7, "Statistical Comparisons of Classifiers over Multiple Data
Sets"): the Friedman (1937) test, its less conservative form by Iman and Davenport (1980), and the
Nemenyi (1963) critical difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irdistill.errors import IrdistillError
from irdistill.evaluation.significance import without_noise


@dataclass(frozen=True)
class Friedman:
    """Ranks of k systems over N blocks, 1 for the best of a block; tied ones share the mean of
    their ranks.

    Attributes:
        ranks: system -> mean rank, the best first.
        statistic, p: chi-squared with k - 1 degrees of freedom, corrected for ties.
        f, p_f: of Iman and Davenport, with k - 1 and (k - 1)(N - 1) degrees of freedom. Where all
            blocks agree, f would be infinite and is None, and p_f is exact: the probability that N
            orders drawn at random agree.
        critical_difference: mean ranks that differ by this much or more differ at ``level``
            (Nemenyi).
    """

    ranks: dict[str, float]
    blocks: int
    statistic: float
    p: float
    f: float | None
    p_f: float
    level: float
    critical_difference: float

    @property
    def groups(self) -> list[list[str]]:
        """The largest sets of two and more systems of which no two differ; they may overlap."""
        names, ranks = list(self.ranks), list(self.ranks.values())
        found: list[tuple[int, int]] = []
        for start, rank in enumerate(ranks):
            end = max(
                place
                for place, other in enumerate(ranks)
                if other - rank < self.critical_difference
            )
            if end > start and (not found or end > found[-1][1]):
                found.append((start, end))
        return [names[start : end + 1] for start, end in found]


def friedman(values: Mapping[str, Sequence[float] | np.ndarray], level: float = 0.05) -> Friedman:
    """Rank systems within each block and test whether they differ; figures that are equal up to
    rounding errors tie.

    Args:
        values: system -> (N,) one figure a block, higher is better; block n is the same for all.

    Raises:
        IrdistillError: fewer than two systems or blocks, different numbers of blocks, or a figure
            that is no number.
    """
    lengths = {len(row) for row in values.values()}
    if len(values) < 2 or len(lengths) != 1 or min(lengths) < 2:
        raise IrdistillError(
            f"{len(values)} systems with {', '.join(map(str, sorted(lengths))) or 'no'} figures"
            " were given; at least two systems were expected, with one figure for each of the same"
            " two or more blocks."
        )
    table = np.array([np.asarray(row, np.float64) for row in values.values()]).T
    if not np.isfinite(table).all():
        raise IrdistillError(
            "a figure to be ranked is no finite number; leave the block out, or measure it again."
        )
    blocks, count = table.shape
    from scipy.stats import chi2, f, rankdata  # which takes a second to load

    ranks = rankdata([-without_noise(row) for row in table], axis=1)
    means = ranks.mean(axis=0)
    ties = sum(
        float((sizes**3 - sizes).sum())
        for sizes in (np.unique(row, return_counts=True)[1] for row in ranks)
    )
    spread = 1 - ties / (blocks * count * (count**2 - 1))
    statistic = 0.0
    if spread > 0:
        statistic = (
            12
            * blocks
            / (count * (count + 1))
            * float(((means - (count + 1) / 2) ** 2).sum())
            / spread
        )
    statistic_f = iman_davenport(statistic, count, blocks)
    order = sorted(zip(means.tolist(), values, strict=True), key=lambda pair: pair[0])
    return Friedman(
        {name: rank for rank, name in order},
        blocks,
        statistic,
        float(chi2.sf(statistic, count - 1)),
        statistic_f if math.isfinite(statistic_f) else None,
        (
            float(f.sf(statistic_f, count - 1, (count - 1) * (blocks - 1)))
            if math.isfinite(statistic_f)
            else _agreement(ranks)
        ),
        level,
        critical_difference(count, blocks, level),
    )


def _agreement(ranks: np.ndarray) -> float:
    """The probability that all (N, k) ranks are the same if each block's order is drawn at random:
    one over the number of orders, those of tied systems being one, to the power N - 1.
    """
    blocks, count = ranks.shape
    _, tied = np.unique(ranks[0], return_counts=True)
    orders = math.factorial(count) / math.prod(math.factorial(int(size)) for size in tied)
    return float(orders ** (1 - blocks))


def iman_davenport(statistic: float, systems: int, blocks: int) -> float:
    """``(N - 1) chi2 / (N (k - 1) - chi2)``; infinite where all blocks agree."""
    rest = blocks * (systems - 1) - statistic
    return (blocks - 1) * statistic / rest if rest > 1e-9 * blocks else math.inf


def critical_difference(systems: int, blocks: int, level: float = 0.05) -> float:
    """``q sqrt(k (k + 1) / (6 N))`` of Nemenyi's test, q the studentised range over the square root
    of 2.
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - level, systems, np.inf)) / math.sqrt(2)
    return q * math.sqrt(systems * (systems + 1) / (6 * blocks))
