"""FLOPS and L1 by hand; the estimate does not depend on the size of the batch."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from irdistill.losses.regularizers import anti_zero, flops, l1, ramp


def test_values_by_hand() -> None:
    vectors = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
    assert float(flops(vectors)) == pytest.approx(1 * 3)
    assert float(l1(vectors)) == pytest.approx((3 + 3) / 2)
    assert float(flops(vectors[:1])) == pytest.approx(5)
    assert float(flops(vectors[:0])) == float(l1(vectors[:0])) == 0


def test_flops_of_small_batches_is_on_average_that_of_the_large_one() -> None:
    """Over all batches of each size drawn from six vectors; the usual estimator falls with the
    size.
    """
    vectors = torch.rand(
        6, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ).relu()
    whole = float(flops(vectors))
    usual = []
    for size in (2, 3, 5):
        batches = [vectors[list(chosen)] for chosen in combinations(range(6), size)]
        assert sum(float(flops(batch)) for batch in batches) / len(batches) == pytest.approx(
            whole, rel=1e-9
        )
        usual.append(
            sum(float(batch.mean(dim=0).square().sum()) for batch in batches) / len(batches)
        )
    assert usual[0] > usual[1] > usual[2] > whole


def test_ramp_is_quadratic_and_ends() -> None:
    assert [ramp(step, 4) for step in (0, 1, 2, 4, 9)] == [0, 1 / 16, 1 / 4, 1, 1]
    assert ramp(0, 0) == 1


def test_anti_zero_by_hand() -> None:
    queries, documents = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert float(anti_zero(queries, documents)) == pytest.approx(1 / 1**2 + 1 / 2**2, rel=1e-5)
    assert float(anti_zero(queries.repeat(7, 1), documents)) == pytest.approx(1.25, rel=1e-5)
    assert float(anti_zero(torch.zeros(3, 2), documents)) == pytest.approx(1e6 + 0.25)
    small = torch.full((2, 3), 0.01, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda vectors: anti_zero(vectors, vectors), small)
    anti_zero(small, documents.double()).backward()
    assert (small.grad < 0).all()  # it pushes weights up


def process(rank: int, folder: str) -> None:
    """Of two processes with 1 and 4 of five vectors: values, and gradients averaged as in training,
    to a file.
    """
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    vectors = torch.load(f"{folder}/vectors.pt")[slice(1) if rank == 0 else slice(1, None)]
    result = []
    for penalty in (flops, l1):
        scale = torch.ones(
            3, dtype=torch.float64, requires_grad=True
        )  # a weight that both processes share
        value = penalty(vectors * scale, shared_out=True)
        value.backward()
        distributed.all_reduce(scale.grad)
        result.append((value.detach(), scale.grad / 2))
    torch.save(result, f"{folder}/found-{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_make_one_batch(tmp_path: Path) -> None:
    """Shares of different sizes; the same value and the same gradient of a weight as one process
    with all vectors.
    """
    vectors = torch.rand(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.save(vectors, tmp_path / "vectors.pt")
    multiprocessing.spawn(process, (str(tmp_path),), nprocs=2)
    for rank in (0, 1):
        for penalty, (value, gradient) in zip(
            (flops, l1), torch.load(tmp_path / f"found-{rank}.pt"), strict=True
        ):
            scale = torch.ones(3, dtype=torch.float64, requires_grad=True)
            whole = penalty(vectors * scale)
            whole.backward()
            assert float(value) == pytest.approx(float(whole), rel=1e-12)
            assert torch.allclose(gradient, scale.grad, rtol=1e-12)
