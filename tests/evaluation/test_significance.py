"""Tests, corrections and intervals against scipy and values by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import permutation_test, ttest_rel

from irdistill import IrdistillError
from irdistill.evaluation import compare, detectable, holm, interval, paired_t, randomization
from irdistill.evaluation.significance import intervals, without_noise


def two(seed: int, size: int, shift: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    left = draw.random(size)
    return left, left + draw.normal(shift, 0.3, size)


@pytest.mark.parametrize("seed", range(20))
def test_paired_t_equals_scipy(seed: int) -> None:
    left, right = two(seed, 30)
    assert paired_t(left, right) == pytest.approx(ttest_rel(left, right).pvalue, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_randomization_is_exact_for_few_queries(seed: int) -> None:
    left, right = two(seed, 9)
    exact = permutation_test(
        (left, right),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert randomization(left, right) == pytest.approx(exact.pvalue, abs=1e-12)


def test_randomization_of_three_queries() -> None:
    """Three queries, all won: of eight sign patterns two are as extreme."""
    assert randomization(np.array([1.0, 0.5, 0.7]), np.zeros(3)) == 2 / 8


@pytest.mark.parametrize("seed", range(5))
def test_sampled_randomization_is_near_t_and_repeats(seed: int) -> None:
    left, right = two(seed, 200, 0.04)
    assert randomization(left, right) == pytest.approx(paired_t(left, right), abs=0.03)
    assert randomization(left, right) == randomization(left, right)


def test_nothing_differs() -> None:
    same = np.random.default_rng(0).random(40)
    result = compare(same, same.copy())
    assert (result.p, result.p_random, result.mean, result.effect, result.ties) == (
        1.0,
        1.0,
        0.0,
        0.0,
        40,
    )


CONSTANT = [
    (np.array([0.9, 0.4]), np.array([0.8, 0.3]), 0.1),
    (
        np.array([0.1 + 0.2, 0.7]),
        np.array([0.2, 0.6]),
        0.1,
    ),  # 0.10000000000000003 and 0.09999999999999998
    (np.array([1e6 + 0.1, 2e6 + 0.1]), np.array([1e6, 2e6]), 0.1),
]


@pytest.mark.parametrize(("values", "other", "mean"), CONSTANT)
def test_two_queries_with_the_same_difference(
    values: np.ndarray, other: np.ndarray, mean: float
) -> None:
    """t and d_z are not defined; of four sign patterns two are as extreme."""
    result = compare(values, other)
    assert (result.p, result.p_random, result.effect, result.detectable) == (0.5, 0.5, None, None)
    assert result.mean == pytest.approx(mean) and result.low == result.high == result.mean
    assert (paired_t(values, other), result.wins, result.ties, result.losses) == (0.5, 2, 0, 0)


def test_many_queries_with_the_same_difference_are_significant() -> None:
    draw = np.random.default_rng(3).random(60)
    result = compare(draw + 0.1, draw)
    assert result.p == result.p_random == 1 / 10_001
    assert (result.effect, result.detectable, result.wins) == (None, None, 60)


def test_one_query() -> None:
    result = compare(np.array([0.9]), np.array([0.1]))
    assert (result.p, result.p_random, result.effect, result.detectable) == (1.0, 1.0, None, None)


def test_rounding_errors_do_not_count() -> None:
    left = np.array([0.1 + 0.2, 0.5, 1 - 0.9])
    result = compare(left, np.array([0.3, 0.5, 0.1]))
    assert (result.p, result.p_random, result.effect, result.detectable, result.ties) == (
        1.0,
        1.0,
        0.0,
        None,
        3,
    )


def test_without_noise() -> None:
    cleaned = without_noise(np.array([0.5, 0.1 + 0.2, 0.3, 0.5 - 1e-16, 0.3001]))
    assert cleaned.tolist() == [0.5 - 1e-16, 0.3, 0.3, 0.5 - 1e-16, 0.3001]
    assert without_noise(np.empty(0)).tolist() == []


def test_holm() -> None:
    """0.01 * 4; 0.03 * 3; 0.04 * 2, raised to the value before it; 0.5 * 1."""
    assert holm([0.03, 0.5, 0.01, 0.04]) == pytest.approx([0.09, 0.5, 0.04, 0.09])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(IrdistillError):
        holm([1.2])


def test_interval_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.2, 1000)
    low, high = interval(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(1000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-3)
    assert interval(np.full(10, 0.25)) == (0.25, 0.25)


def test_effect_and_counts() -> None:
    result = compare(np.array([1.0, 0.0, 0.5, 0.5]), np.array([0.0, 0.0, 0.0, 1.0]))
    difference = np.array([1.0, 0.0, 0.5, -0.5])
    assert (result.wins, result.ties, result.losses) == (2, 1, 1)
    assert result.effect == pytest.approx(0.25 / difference.std(ddof=1))


def test_different_queries_are_an_error() -> None:
    with pytest.raises(IrdistillError, match="same queries"):
        compare(np.zeros(3), np.zeros(4))


@pytest.mark.parametrize(("size", "expected"), [(25, 0.5842), (100, 0.2829)])
def test_detectable_has_80_percent_power(size: int, expected: float) -> None:
    """With t quantiles: (2.0639 + 0.8569) / 5, and (1.9842 + 0.8453) / 10."""
    difference = np.random.default_rng(0).normal(size=size)
    difference = (difference - difference.mean()) / difference.std(ddof=1)
    assert detectable(difference, np.zeros(size)) == pytest.approx(expected, abs=2e-4)


def test_detectable_is_found_in_four_of_five_samples() -> None:
    draw = np.random.default_rng(5)
    spread = 0.3
    least = (2.0096 + 0.8489) * spread / np.sqrt(50)  # of 49 degrees of freedom
    result = [paired_t(draw.normal(least, spread, 50), np.zeros(50)) < 0.05 for _ in range(2000)]
    assert np.mean(result) == pytest.approx(0.8, abs=0.03)


def test_intervals_equal_interval_of_each_row() -> None:
    values = np.random.default_rng(2).random((3, 17))
    assert intervals(values, rounds=500) == [interval(row, rounds=500) for row in values]


def test_ranx_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """ranx's t-test is equal; its randomization test draws other signs and is close."""
    pytest.importorskip("ranx")
    from importlib import import_module

    fisher = import_module("ranx.statistical_tests.fisher_randomization_test")
    student = import_module("ranx.statistical_tests.paired_student_t_test")
    # the Python that numba would compile, which takes longer than the test
    monkeypatch.setattr(fisher, "permute", fisher.permute.py_func)
    for seed, shift in ((3, 0.05), (4, 0.1)):
        left, right = two(seed, 40, shift)
        assert paired_t(left, right) == pytest.approx(
            float(student.paired_student_t_test(left, right)[0]), rel=1e-9
        )
        theirs = float(
            fisher.fisher_randomization_test.py_func(left, right, n_permutations=1500)[0]
        )
        assert randomization(left, right) == pytest.approx(theirs, abs=0.04)
