"""Regularizers of sparse vectors: functions of non-negative weights (n, V)."""

from __future__ import annotations

from torch import Tensor, distributed


def over_processes(share: Tensor) -> Tensor:
    """The sum of a tensor over all training processes; with one process the tensor itself.

    The gradient is that of this process's share times the number of processes, because processes
    average their gradients afterwards.
    """
    if (
        not (distributed.is_available() and distributed.is_initialized())
        or distributed.get_world_size() == 1
    ):
        return share
    total = share.detach().clone()
    distributed.all_reduce(total)
    return total + distributed.get_world_size() * (share - share.detach())


def flops(vectors: Tensor, shared_out: bool = False) -> Tensor:
    """``sum_v E[x_v]^2``, a scalar: the expected cost of matching two texts.

    Paria et al. 2020, arXiv:2004.05665. The usual estimator, ``sum_v (mean_b x_bv)^2``, is too
    large by the variance divided by the number of texts, so one lambda would press harder on small
    batches. Here the products of a text with itself are left out: ``sum_v ((sum_b x_bv)^2 - sum_b
    x_bv^2) / (n (n - 1))`` has the same expectation for every n >= 2. For n = 1 the result is
    ``sum_v x_v^2``.

    Args:
        shared_out: each process holds other vectors; sums and n then go over all processes. False
            if each process holds all vectors.

    Examples:
        >>> import torch
        >>> flops(torch.tensor([[1.0, 0.0], [1.0, 2.0]]))
        tensor(1.)
    """
    total = over_processes if shared_out else _unchanged
    count = total(vectors.new_full((), len(vectors)))
    squares = total(vectors.square().sum())
    products = (total(vectors.sum(dim=0)).square().sum() - squares) / (
        count * (count - 1)
    ).clamp_min(1)
    return products.where(count > 1, squares)


def l1(vectors: Tensor, shared_out: bool = False) -> Tensor:
    """``mean_b sum_v |x_bv|``, a scalar; ``shared_out`` as in `flops`."""
    total = over_processes if shared_out else _unchanged
    return total(vectors.abs().sum()) / total(vectors.new_full((), len(vectors))).clamp_min(1)


def _unchanged(share: Tensor) -> Tensor:
    return share


def longer_than(vectors: Tensor, active: int) -> Tensor:
    """Set vectors (n, V) to zero that have at most this number of active dimensions.

    A penalty of the result is the one of Shen et al. 2025, arXiv:2504.14839: texts that are sparse
    enough do not pay, and count in the mean.

    Examples:
        >>> import torch
        >>> longer_than(torch.tensor([[1.0, 0.0], [1.0, 2.0]]), 1)
        tensor([[0., 0.],
                [1., 2.]])
    """
    return vectors * ((vectors > 0).sum(dim=1, keepdim=True) > active)


def anti_zero(queries: Tensor, documents: Tensor) -> Tensor:
    """``1 / (sum q)^2 + 1 / (sum d)^2``, a scalar that is large when all weights of a side vanish.

    The sum of a text's weights is averaged over the batch. The squares are kept above 1e-6, so the
    value is finite; vectors that are all zero have no gradient.
    """
    return sum(
        (1 / (l1(side).square() + 1e-6) for side in (queries, documents)),
        start=queries.new_zeros(()),
    )


def ramp(step: int, length: int) -> float:
    """The share of a lambda at optimizer step ``step`` (from 0): ``min(1, (step / length)^2)``.

    SPLADE raises its lambdas this way.
    """
    return 1.0 if length <= 0 else min(1.0, (step / length) ** 2)
