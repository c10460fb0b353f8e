"""Ranks over blocks against scipy, and against the example and the table of Demsar (2006)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare

from irdistill import IrdistillError
from irdistill.evaluation.friedman_test import critical_difference, friedman, iman_davenport

#: q at 0.05 for 2 to 10 systems, table 5 of the paper.
STUDENTISED = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]


def test_example_of_the_paper() -> None:
    """Four systems on 14 data sets: chi-squared 9.28, F 3.69, critical differences 1.25 and 1.12."""
    assert iman_davenport(9.28, 4, 14) == pytest.approx(3.69, abs=0.005)
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=0.005)


@pytest.mark.parametrize(("systems", "q"), enumerate(STUDENTISED, 2))
def test_critical_difference_equals_the_table(systems: int, q: float) -> None:
    assert critical_difference(systems, 12) == pytest.approx(
        q * (systems * (systems + 1) / 72) ** 0.5, abs=2e-3
    )


@given(st.integers(0, 1000), st.integers(3, 6), st.integers(2, 12), st.integers(2, 40))
def test_statistic_equals_scipy_with_ties(
    seed: int, systems: int, blocks: int, levels: int
) -> None:
    table = np.random.default_rng(seed).integers(0, levels, size=(systems, blocks)).astype(float)
    table[0, 0], table[1, 0] = 0, levels  # not all the same
    result = friedman({str(number): row for number, row in enumerate(table)})
    expected = friedmanchisquare(*table)
    assert result.statistic == pytest.approx(expected.statistic)
    assert result.p == pytest.approx(expected.pvalue)
    assert sum(result.ranks.values()) == pytest.approx(systems * (systems + 1) / 2)


def test_two_systems() -> None:
    """a wins 4 of 5 blocks: mean ranks 1.2 and 1.8, chi-squared 5 * 0.6^2."""
    result = friedman({"b": [1, 2, 3, 4, 9], "a": [2, 3, 4, 5, 6]})
    assert result.ranks == {"a": 1.2, "b": 1.8}
    assert result.statistic == pytest.approx(1.8)
    assert result.f == pytest.approx(4 * 1.8 / (5 - 1.8))


def test_all_blocks_agree_or_all_tie() -> None:
    agreed = friedman({"a": [3, 3, 3], "b": [2, 2, 2], "c": [1, 1, 1]})
    assert (agreed.f, agreed.p_f) == (None, 1 / 36) and list(agreed.ranks.values()) == [1, 2, 3]
    same = friedman({"a": [1, 1], "b": [1, 1], "c": [1, 1]})
    assert (same.statistic, same.p, same.p_f) == (0.0, 1.0, 1.0) and set(same.ranks.values()) == {
        2.0
    }


def test_exact_p_of_agreeing_blocks() -> None:
    """Two blocks of two systems agree with probability 1/2; a tie leaves three orders of three."""
    two = friedman({"a": [3, 3], "b": [2, 2]})
    assert (two.f, two.p_f) == (None, 0.5) and two.p == pytest.approx(0.1573, abs=1e-4)
    tied = friedman({"a": [2, 2], "b": [2, 2], "c": [1, 1]})
    assert (tied.f, tied.p_f) == (None, pytest.approx(1 / 3))


def test_rounding_errors_tie() -> None:
    noise = 0.1 + 0.2 - 0.3
    result = friedman(
        {"a": [0.3 + noise, 0.3, 0.5], "b": [0.3, 0.3 + noise, 0.5 - noise], "c": [0.1, 0.1, 0.1]}
    )
    assert result.ranks == {"a": 1.5, "b": 1.5, "c": 3.0}


def test_groups_overlap() -> None:
    result = friedman({"a": [4] * 30, "b": [3] * 30, "c": [2] * 30, "d": [1] * 30})
    assert (
        result.critical_difference == pytest.approx(2.569 * (20 / 180) ** 0.5, abs=1e-3)
        and result.groups == []
    )
    few = friedman({"a": [4] * 5, "b": [3] * 5, "c": [2] * 5, "d": [1] * 5})  # 2.10
    assert few.groups == [["a", "b", "c"], ["b", "c", "d"]]


@pytest.mark.parametrize(
    "values",
    [{"a": [1, 2]}, {"a": [1, 2], "b": [1]}, {"a": [1], "b": [2]}, {"a": [1, np.nan], "b": [1, 2]}],
)
def test_bad_values_are_errors(values: dict[str, list[float]]) -> None:
    with pytest.raises(IrdistillError):
        friedman(values)
