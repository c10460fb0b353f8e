"""Tests, corrections and intervals against scipy and values worked out by hand."""

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
def test_paired_t_is_scipys(seed: int) -> None:
    left, right = two(seed, 30)
    assert paired_t(left, right) == pytest.approx(ttest_rel(left, right).pvalue, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_randomization_is_exact_on_few_queries(seed: int) -> None:
    left, right = two(seed, 9)
    exact = permutation_test(
        (left, right),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert randomization(left, right) == pytest.approx(exact.pvalue, abs=1e-12)


def test_randomization_by_hand() -> None:
    """Three queries, all won: of eight sign patterns two are as extreme."""
    assert randomization(np.array([1.0, 0.5, 0.7]), np.zeros(3)) == 2 / 8


@pytest.mark.parametrize("seed", range(5))
def test_randomization_by_sampling_is_near_the_t_test_and_repeats(seed: int) -> None:
    left, right = two(seed, 200, 0.04)
    assert randomization(left, right) == pytest.approx(paired_t(left, right), abs=0.03)
    assert randomization(left, right) == randomization(left, right)


def test_nothing_differs() -> None:
    same = np.random.default_rng(0).random(40)
    found = compare(same, same.copy())
    assert (found.p, found.p_random, found.mean, found.effect, found.ties) == (
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
def test_two_queries_with_the_same_difference_say_one_thing(
    values: np.ndarray, other: np.ndarray, mean: float
) -> None:
    """t and d_z are not defined; of four sign patterns two are as extreme."""
    found = compare(values, other)
    assert (found.p, found.p_random, found.effect, found.detectable) == (0.5, 0.5, None, None)
    assert found.mean == pytest.approx(mean) and found.low == found.high == found.mean
    assert (paired_t(values, other), found.wins, found.ties, found.losses) == (0.5, 2, 0, 0)


def test_many_queries_with_the_same_difference_are_significant() -> None:
    draw = np.random.default_rng(3).random(60)
    found = compare(draw + 0.1, draw)
    assert found.p == found.p_random == 1 / 10_001
    assert (found.effect, found.detectable, found.wins) == (None, None, 60)


def test_one_query_tells_nothing() -> None:
    found = compare(np.array([0.9]), np.array([0.1]))
    assert (found.p, found.p_random, found.effect, found.detectable) == (1.0, 1.0, None, None)


def test_rounding_errors_are_no_difference() -> None:
    left = np.array([0.1 + 0.2, 0.5, 1 - 0.9])
    found = compare(left, np.array([0.3, 0.5, 0.1]))
    assert (found.p, found.p_random, found.effect, found.detectable, found.ties) == (
        1.0,
        1.0,
        0.0,
        None,
        3,
    )


def test_values_that_are_equal_up_to_rounding_become_equal() -> None:
    cleaned = without_noise(np.array([0.5, 0.1 + 0.2, 0.3, 0.5 - 1e-16, 0.3001]))
    assert cleaned.tolist() == [0.5 - 1e-16, 0.3, 0.3, 0.5 - 1e-16, 0.3001]
    assert without_noise(np.empty(0)).tolist() == []


def test_holm_by_hand() -> None:
    """0.01*4, 0.03*3 and 0.04*2 held up by it, 0.5*1."""
    assert holm([0.03, 0.5, 0.01, 0.04]) == pytest.approx([0.09, 0.5, 0.04, 0.09])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(IrdistillError):
        holm([1.2])


def test_interval_is_near_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.2, 1000)
    low, high = interval(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(1000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-3)
    assert interval(np.full(10, 0.25)) == (0.25, 0.25)


def test_effect_and_counts_by_hand() -> None:
    found = compare(np.array([1.0, 0.0, 0.5, 0.5]), np.array([0.0, 0.0, 0.0, 1.0]))
    difference = np.array([1.0, 0.0, 0.5, -0.5])
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert found.effect == pytest.approx(0.25 / difference.std(ddof=1))


def test_different_queries_stop() -> None:
    with pytest.raises(IrdistillError, match="same queries"):
        compare(np.zeros(3), np.zeros(4))


@pytest.mark.parametrize(("size", "expected"), [(25, 0.5842), (100, 0.2829)])
def test_detectable_is_the_difference_that_a_power_of_80_percent_needs(
    size: int, expected: float
) -> None:
    """By the t quantiles of size - 1 degrees of freedom: (2.0639 + 0.8569) / 5, and (1.9842 +
    0.8453) / 10.
    """
    difference = np.random.default_rng(0).normal(size=size)
    difference = (difference - difference.mean()) / difference.std(ddof=1)
    assert detectable(difference, np.zeros(size)) == pytest.approx(expected, abs=2e-4)


def test_detectable_is_found_in_four_of_five_samples() -> None:
    draw = np.random.default_rng(5)
    spread = 0.3
    least = (2.0096 + 0.8489) * spread / np.sqrt(50)  # of 49 degrees of freedom
    found = [paired_t(draw.normal(least, spread, 50), np.zeros(50)) < 0.05 for _ in range(2000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_intervals_are_those_of_each_row() -> None:
    values = np.random.default_rng(2).random((3, 17))
    assert intervals(values, rounds=500) == [interval(row, rounds=500) for row in values]


def test_ranx_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Student's test to its last digit; its randomization test, of other random signs, near
    ours.
    """
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
