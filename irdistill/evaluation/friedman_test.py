"""Many systems over many blocks: mean ranks, the Friedman test and the critical difference.

As recommended by Demsar (2006, JMLR 7, "Statistical Comparisons of Classifiers over Multiple Data
Sets"): the Friedman (1937) test, its less conservative form by Iman and Davenport (1980), and the
Nemenyi (1963) critical difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irdistill.errors import InputError
from irdistill.evaluation.significance import without_noise


@dataclass(frozen=True)
class Friedman:
    """Ranks of k systems over N blocks, 1 for the best of a block; ties share their mean rank.

    Attributes:
        ranks: system -> mean rank, the best first.
        statistic, p: chi-squared with k - 1 degrees of freedom, corrected for ties.
        f, p_f: statistic of Iman and Davenport, with k - 1 and (k - 1)(N - 1) degrees of freedom.
            Where all blocks agree, f is infinite and given as None, and p_f is exact: the
            probability that N random orders agree.
        critical_difference: mean ranks differ at ``level`` (Nemenyi) if they differ by this much.
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
        """The largest sets of at least two systems that do not differ; they may overlap."""
        names, ranks = list(self.ranks), list(self.ranks.values())
        groups: list[tuple[int, int]] = []
        for start, rank in enumerate(ranks):
            end = max(
                place
                for place, other in enumerate(ranks)
                if other - rank < self.critical_difference
            )
            if end > start and (not groups or end > groups[-1][1]):
                groups.append((start, end))
        return [names[start : end + 1] for start, end in groups]


def friedman(values: Mapping[str, Sequence[float] | np.ndarray], level: float = 0.05) -> Friedman:
    """Rank systems within each block and test whether they differ.

    Figures that are equal up to rounding errors tie. `scipy.stats.friedmanchisquare` gives the same
    statistic, but not for two systems, nor if all systems tie.

    Args:
        values: system -> (N,) one figure per block, higher is better, in the same order of blocks.

    Examples:
        >>> result = friedman({"a": [0.5, 0.6, 0.7], "b": [0.4, 0.5, 0.6]})
        >>> result.ranks, round(result.p, 4)
        ({'a': 1.0, 'b': 2.0}, 0.0833)
    """
    lengths = {len(row) for row in values.values()}
    if len(values) < 2 or len(lengths) != 1 or min(lengths) < 2:
        raise InputError(
            f"{len(values)} systems with {', '.join(map(str, sorted(lengths))) or 'no'} figures"
            " were given; at least two systems were expected, with one figure for each of the same"
            " two or more blocks."
        )
    table = np.array([np.asarray(row, np.float64) for row in values.values()]).T
    if not np.isfinite(table).all():
        raise InputError(
            "a figure to be ranked is not finite; leave the block out, or measure it again."
        )
    blocks, count = table.shape
    from scipy.stats import chi2, f, rankdata  # which takes a second to load

    ranks = rankdata([-without_noise(row) for row in table], axis=1)
    means, middle = ranks.mean(axis=0), (count + 1) / 2
    within = float(((ranks - middle) ** 2).sum()) / (blocks * (count - 1))
    statistic = blocks * float(((means - middle) ** 2).sum()) / within if within else 0.0
    statistic_f = iman_davenport(statistic, count, blocks)
    finite = math.isfinite(statistic_f)
    p_f = float(f.sf(statistic_f, count - 1, (count - 1) * (blocks - 1)))
    return Friedman(
        dict(sorted(zip(values, means.tolist(), strict=True), key=lambda pair: pair[1])),
        blocks,
        statistic,
        float(chi2.sf(statistic, count - 1)),
        statistic_f if finite else None,
        p_f if finite else _chance_of_agreement(ranks),
        level,
        critical_difference(count, blocks, level),
    )


def _chance_of_agreement(ranks: np.ndarray) -> float:
    """The probability that the orders of all N blocks agree if each is drawn at random.

    1 over the number of orders, where those of tied systems are one, to the power N - 1.
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
    """Nemenyi's ``q sqrt(k (k + 1) / (6 N))``, q the studentized range over sqrt(2)."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - level, systems, np.inf)) / math.sqrt(2)
    return q * math.sqrt(systems * (systems + 1) / (6 * blocks))
