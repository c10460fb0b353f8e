"""Is a difference real: paired tests, correction for many of them, intervals and effect sizes.

Paired t-test and randomisation test as compared by Smucker et al. (2007, CIKM, "A Comparison of
Statistical Significance Tests for Information Retrieval Evaluation"); Holm (1979) for the table;
the percentile bootstrap over queries (Sakai 2006, SIGIR). What a test of so many queries can see at
all: Sakai 2016 (Information Retrieval Journal, "Topic set size design").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from irdistill.errors import IrdistillError

ROUNDS = 10_000
LEVEL, POWER = 0.05, 0.8
FEW = 50
"""Query sets smaller than this get a warning: with a d_z of 0.4, a t-test finds a difference in 4
of 5 of such sets.
"""
_EXACT = 14
_CELLS = 8_000_000
_EQUAL = 1e-12
"""Values that differ by less are equal: sums of the same numbers in another order differ by less.
In shares of the greatest value where that is above 1.
"""


@dataclass(frozen=True)
class Difference:
    """A system minus the one it is compared with, over the same queries.

    Attributes:
        mean, low, high: of the per-query differences, with the 95% bootstrap interval.
        p: of the two-sided paired t-test. Where all differences are the same, t is not defined, and
            this is ``p_random``.
        p_random: of the two-sided randomisation (sign-flip) test.
        effect: Cohen's d_z, the mean in standard deviations of the differences; 0 where nothing
            differs, None where all differences are the same, or with one query.
        detectable: the smallest true mean difference that the t-test at 5% would find in 4 of 5
            such query sets; None where all differences are the same, or with one query, as nothing
            is known of their spread then.
        wins, ties, losses: queries.
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
    left, right = np.asarray(values, np.float64), np.asarray(other, np.float64)
    if left.shape != right.shape or left.ndim != 1 or not len(left):
        raise IrdistillError(
            f"a paired test got values of shapes {left.shape} and {right.shape}; one value a query"
            " was expected, of the same queries."
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
    """(N,) the values, those that are equal up to the rounding of sums made the same, so that they
    tie when ranked.
    """
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values, np.float64)[order]
    limit = equal_within(ordered)
    firsts = np.flatnonzero(np.append(True, np.diff(ordered) >= limit))[: len(ordered)]
    cleaned = np.empty_like(ordered)
    cleaned[order] = np.repeat(ordered[firsts], np.diff(np.append(firsts, len(ordered))))
    return cleaned


def paired_t(values: np.ndarray, other: np.ndarray) -> float:
    """The p of a two-sided paired t-test; 1 where nothing differs or there is one query.

    Where all queries differ by the same amount, t is not defined, and this is the p of
    `randomisation`.
    """
    difference = _paired(values, other)
    if len(difference) < 2 or not difference.any():
        return 1.0
    if np.ptp(difference) == 0:
        return randomisation(values, other)
    from scipy.special import stdtr

    count = len(difference)
    return float(
        2 * stdtr(count - 1, -abs(difference.mean()) / (difference.std(ddof=1) / np.sqrt(count)))
    )


def detectable(
    values: np.ndarray, other: np.ndarray, level: float = LEVEL, power: float = POWER
) -> float | None:
    """The smallest mean difference that a two-sided paired t-test finds with this power, were the
    spread as seen here.

    (t of 1 - level/2 + t of power) standard errors; None where all differences are the same, or
    with one query.
    """
    difference = _paired(values, other)
    count = len(difference)
    if count < 2 or np.ptp(difference) == 0:
        return None
    from scipy.special import stdtrit

    return float(
        (stdtrit(count - 1, 1 - level / 2) + stdtrit(count - 1, power))
        * difference.std(ddof=1)
        / np.sqrt(count)
    )


def randomisation(
    values: np.ndarray, other: np.ndarray, seed: int = 42, rounds: int = ROUNDS
) -> float:
    """The p of a two-sided randomisation test: how often random signs give as large a mean
    difference.

    All sign patterns for up to 14 queries that differ, else ``rounds`` random ones, with one added
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
        signs = (
            generator.integers(0, 2, size=(size, count), dtype=np.int8).astype(np.float64) * 2 - 1
        )
        reached += int(np.sum(np.abs(signs @ difference) >= observed))
    return (reached + 1) / (rounds + 1)


def interval(
    values: np.ndarray, seed: int = 42, rounds: int = ROUNDS, level: float = 0.95
) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean over queries."""
    return intervals(np.asarray(values, np.float64)[None, :], seed, rounds, level)[0]


def intervals(
    values: np.ndarray, seed: int = 42, rounds: int = ROUNDS, level: float = 0.95
) -> list[tuple[float, float]]:
    """The percentile bootstrap interval of each of (M, Q) means over the same queries, drawn once
    for all.
    """
    if not values.shape[1]:
        raise IrdistillError("an interval was asked for over no queries; give at least one value.")
    generator = np.random.default_rng(seed)
    means = np.empty((len(values), rounds))
    start = 0
    for size in _chunks(rounds, values.shape[1]):
        drawn = generator.integers(0, values.shape[1], size=(size, values.shape[1]), dtype=np.int32)
        for row, numbers in zip(means, values, strict=True):
            row[start : start + size] = numbers[drawn].mean(axis=1)
        start += size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p, in the order given, at most 1.

    Raises:
        IrdistillError: a value is no probability.
    """
    numbers = np.asarray(values, np.float64)
    if len(numbers) and not ((numbers >= 0) & (numbers <= 1)).all():
        raise IrdistillError(f"p-values from 0 to 1 were expected, got {numbers.tolist()}.")
    order = np.argsort(numbers, kind="stable")
    scaled = numbers[order] * np.arange(len(numbers), 0, -1)
    adjusted = np.empty_like(numbers)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled)) if len(numbers) else scaled
    return adjusted.tolist()


def compare(
    values: np.ndarray, other: np.ndarray, seed: int = 42, rounds: int = ROUNDS
) -> Difference:
    """Everything about the difference of two systems on the same queries, (Q,) values each."""
    difference = _paired(values, other)
    mean = float(difference[0]) if np.ptp(difference) == 0 else float(difference.mean())
    low, high = interval(difference, seed, rounds)
    p_random = randomisation(values, other, seed, rounds)
    effect: float | None
    if np.ptp(difference) > 0:
        p, effect = paired_t(values, other), mean / float(difference.std(ddof=1))
    else:
        # one query, or all the same: t is not defined
        p, effect, low, high = p_random, 0.0 if mean == 0 else None, mean, mean
    return Difference(
        mean,
        low,
        high,
        p,
        p_random,
        effect,
        detectable(values, other),
        int((difference > 0).sum()),
        int((difference == 0).sum()),
        int((difference < 0).sum()),
    )


def _chunks(rounds: int, width: int) -> Iterator[int]:
    """Cut rounds up so that no matrix has more than some million cells."""
    size = max(1, _CELLS // max(1, width))
    for start in range(0, rounds, size):
        yield min(size, rounds - start)
