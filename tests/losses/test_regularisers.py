"""FLOPS and L1 by hand; the estimate does not depend on the size of the batch."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from irdistill.losses.regularisers import flops, l1, ramp


def test_values_by_hand() -> None:
    vectors = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
    assert float(flops(vectors)) == pytest.approx(1 * 3)
    assert float(l1(vectors)) == pytest.approx((3 + 3) / 2)
    assert float(flops(vectors[:1])) == pytest.approx(5)
    assert float(flops(vectors[:0])) == float(l1(vectors[:0])) == 0


def test_flops_of_small_batches_is_on_average_that_of_the_large_one() -> None:
    """Over all batches of each size drawn from six vectors; the usual estimator falls with the size."""
    vectors = torch.rand(6, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64).relu()
    whole = float(flops(vectors))
    usual = []
    for size in (2, 3, 5):
        batches = [vectors[list(chosen)] for chosen in combinations(range(6), size)]
        assert sum(float(flops(batch)) for batch in batches) / len(batches) == pytest.approx(whole, rel=1e-9)
        usual.append(sum(float(batch.mean(dim=0).square().sum()) for batch in batches) / len(batches))
    assert usual[0] > usual[1] > usual[2] > whole


def test_ramp_is_quadratic_and_ends() -> None:
    assert [ramp(step, 4) for step in (0, 1, 2, 4, 9)] == [0, 1 / 16, 1 / 4, 1, 1]
    assert ramp(0, 0) == 1
