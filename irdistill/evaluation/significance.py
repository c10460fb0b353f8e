"""Whether a difference is real: paired tests, corrections, intervals and effect sizes.

Paired t-test and randomization test as compared by Smucker et al. (2007, CIKM, "A Comparison of
Statistical Significance Tests for Information Retrieval Evaluation"); Holm (1979) for the table;
the percentile bootstrap over queries (Sakai 2006, SIGIR). The difference that a test can detect:
Sakai 2016 (Information Retrieval Journal, "Topic set size design").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from irdistill.errors import InputError

ROUNDS = 10_000
LEVEL, POWER = 0.05, 0.8
FEW = 50
"""Smaller query sets get a warning: with a d_z of 0.4, a t-test on 50 queries finds a difference in
4 of 5 sets.
"""
_EXACT = 14
_CELLS = 8_000_000
_EQUAL = 1e-12
"""Values that differ by less, as a share of the greatest value if that is above 1, are equal: sums
of the same numbers in another order differ by less.
"""


@dataclass(frozen=True)
class Difference:
    """A system minus its baseline, over the same queries.

    Attributes:
        mean: mean of the differences per query.
        low: lower end of its 95% bootstrap interval.
        high: upper end of that interval.
        p: two-sided paired t-test. Where all differences are the same, t is not defined, and this
            is ``p_random``.
        p_random: two-sided randomization (sign-flip) test.
        effect: Cohen's d_z, the mean in standard deviations of the differences; 0 where nothing
            differs, None where all differences are the same, or for one query.
        detectable: see `detectable`.
        wins: number of queries on which the system is better.
        ties: number of queries without a difference.
        losses: number of queries on which the system is worse.
    """

    mean: float
    low: float
    high: float
    p: float
    p_random: float
    effect: float | None
    detectable: float | None
    wins: int
    ties: int
    losses: int


def _paired(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(Q,) differences without rounding noise."""
    left, right = np.asarray(values, np.float64), np.asarray(other, np.float64)
    if left.shape != right.shape or left.ndim != 1 or not len(left):
        raise InputError(
            f"a paired test got values of shapes {left.shape} and {right.shape}; one value per"
            " query was expected, of the same queries."
        )
    difference = left - right
    limit = equal_within(left, right)
    difference[np.abs(difference) < limit] = 0.0
    if np.ptp(difference) < limit:
        difference[:] = difference[0]  # not the mean, which rounds
    return difference


def equal_within(*values: np.ndarray) -> float:
    """The distance below which two of these values are equal up to the rounding of sums."""
    return _EQUAL * max(1.0, *(float(np.abs(part).max(initial=0.0)) for part in values))


def without_noise(values: np.ndarray) -> np.ndarray:
    """(N,) values; those equal up to the rounding of sums become the same, so that they tie."""
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values, np.float64)[order]
    new = np.append(True, np.diff(ordered) >= equal_within(ordered))[: len(ordered)]
    cleaned = np.empty_like(ordered)
    cleaned[order] = ordered[np.flatnonzero(new)][np.cumsum(new) - 1]
    return cleaned


def paired_t(values: np.ndarray, other: np.ndarray) -> float:
    """p of a two-sided paired t-test; 1 where nothing differs or for one query.

    Where all queries differ by the same amount, t is not defined, and this is the p of
    `randomization`.
    """
    difference = _paired(values, other)
    if len(difference) < 2 or not difference.any():
        return 1.0
    if np.ptp(difference) == 0:
        return randomization(values, other)
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(difference, 0).pvalue)


def detectable(
    values: np.ndarray, other: np.ndarray, level: float = LEVEL, power: float = POWER
) -> float | None:
    """The smallest true mean difference that a two-sided paired t-test finds with this power.

    (t of 1 - level/2 + t of power) standard errors, with the spread of these differences. None
    where all differences are the same, or for one query, as their spread is then unknown.
    """
    difference = _paired(values, other)
    count = len(difference)
    if count < 2 or np.ptp(difference) == 0:
        return None
    from scipy.stats import t

    quantiles = t.ppf([1 - level / 2, power], count - 1)
    return float(quantiles.sum() * difference.std(ddof=1) / np.sqrt(count))


def randomization(
    values: np.ndarray, other: np.ndarray, seed: int = 42, rounds: int = ROUNDS
) -> float:
    """p of a two-sided randomization test: how often random signs give as large a mean difference.

    All sign patterns for up to 14 queries that differ, else ``rounds`` random ones, with 1 added
    to both counts, so that p is never 0.
    """
    difference = _paired(values, other)
    difference = difference[difference != 0]
    count = len(difference)
    if not count:
        return 1.0
    observed = abs(difference.sum()) - equal_within(difference) * count
    if count <= _EXACT:
        patterns = np.arange(2**count)[:, None] >> np.arange(count) & 1
        return float(np.mean(np.abs((2 * patterns - 1) @ difference) >= observed))
    generator = np.random.default_rng(seed)
    reached = 0
    for size in _chunks(rounds, count):
        signs = generator.integers(0, 2, size=(size, count), dtype=np.int8).astype(np.float64)
        reached += int(np.sum(np.abs((signs * 2 - 1) @ difference) >= observed))
    return (reached + 1) / (rounds + 1)


def interval(
    values: np.ndarray, seed: int = 42, rounds: int = ROUNDS, level: float = 0.95
) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean over queries."""
    return intervals(np.asarray(values, np.float64)[None, :], seed, rounds, level)[0]


def intervals(
    values: np.ndarray, seed: int = 42, rounds: int = ROUNDS, level: float = 0.95
) -> list[tuple[float, float]]:
    """The percentile bootstrap interval of each of (M, Q) means over the same queries.

    All rows share the samples of queries.
    """
    count = values.shape[1]
    if not count:
        raise InputError("an interval over no queries is not defined; give at least one value.")
    generator = np.random.default_rng(seed)
    means = np.empty((len(values), rounds))
    start = 0
    for size in _chunks(rounds, count):
        drawn = generator.integers(0, count, size=(size, count), dtype=np.int32)
        for row, numbers in zip(means, values, strict=True):
            row[start : start + size] = numbers[drawn].mean(axis=1)
        start += size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values in the same order, at most 1.

    Raises:
        InputError: a value is not a probability.

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    numbers = np.asarray(values, np.float64)
    if len(numbers) and not ((numbers >= 0) & (numbers <= 1)).all():
        raise InputError(f"p-values from 0 to 1 were expected, got {numbers.tolist()}.")
    order = np.argsort(numbers, kind="stable")
    scaled = numbers[order] * np.arange(len(numbers), 0, -1)
    adjusted = np.empty_like(numbers)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled)) if len(numbers) else scaled
    return adjusted.tolist()


def compare(
    values: np.ndarray, other: np.ndarray, seed: int = 42, rounds: int = ROUNDS
) -> Difference:
    """Compare two systems on the same queries, (Q,) values each."""
    difference = _paired(values, other)
    p_random = randomization(values, other, seed, rounds)
    counts = [int((sign * difference > 0).sum()) for sign in (1, -1)]
    ties = len(difference) - sum(counts)
    if np.ptp(difference) == 0:
        # one query, or all the same: t is not defined
        mean = float(difference[0])
        effect = 0.0 if mean == 0 else None
        return Difference(
            mean, mean, mean, p_random, p_random, effect, None, counts[0], ties, counts[1]
        )
    mean = float(difference.mean())
    return Difference(
        mean,
        *interval(difference, seed, rounds),
        paired_t(values, other),
        p_random,
        mean / float(difference.std(ddof=1)),
        detectable(values, other),
        counts[0],
        ties,
        counts[1],
    )


def _chunks(rounds: int, width: int) -> Iterator[int]:
    """Split the rounds so that no matrix has more than _CELLS cells."""
    size = max(1, _CELLS // max(1, width))
    for start in range(0, rounds, size):
        yield min(size, rounds - start)
