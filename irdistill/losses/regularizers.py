"""Regularisers of sparse vectors: functions of non-negative weights (n, V), without a model."""

from __future__ import annotations

from torch import Tensor, distributed


def over_processes(share: Tensor) -> Tensor:
    """The sum of a tensor over all processes of a training; with one process the tensor itself.

    Its gradient is that of this process's share, times the number of processes: they average their
    gradients afterwards, which makes it the gradient of the whole.
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
    """``sum_v E[x_v]^2``, the expected cost of matching two texts (Paria et al. 2020,
    arXiv:2004.05665), a scalar.

    The usual estimator, ``sum_v (mean_b x_bv)^2``, is too large by the variance over the number of
    texts, so the same lambda presses harder on small batches. Here the products of a text with
    itself are left out, ``sum_v ((sum_b x_bv)^2 - sum_b x_bv^2) / (n (n - 1))``, whose expectation
    is the same for any n of at least 2. A single text has no other: then it is ``sum_v x_v^2``.

    Args:
        shared_out: each process has vectors of its own; then sums and n are those of all processes,
            and the result is that of one process with all vectors. Left False where each has the
            vectors of all already.
    """
    total = over_processes if shared_out else _own
    count = total(vectors.new_full((), len(vectors)))
    squares = total(vectors.square().sum())
    products = (total(vectors.sum(dim=0)).square().sum() - squares) / (
        count * (count - 1)
    ).clamp_min(1)
    return products.where(count > 1, squares)


def l1(vectors: Tensor, shared_out: bool = False) -> Tensor:
    """``mean_b sum_v |x_bv|``, a scalar; it does not depend on the number of texts, nor, as in
    `flops`, on that of processes.
    """
    total = over_processes if shared_out else _own
    return total(vectors.abs().sum()) / total(vectors.new_full((), len(vectors))).clamp_min(1)


def _own(share: Tensor) -> Tensor:
    return share


def anti_zero(queries: Tensor, documents: Tensor) -> Tensor:
    """``1 / (sum q)^2 + 1 / (sum d)^2``, a scalar that grows as all weights of a side vanish, and
    is small elsewhere.

    A sum is that of a text's weights, averaged over the batch, so that it does not depend on the
    size of the batch. The squares are kept from 0 by 1e-6, so the value stays finite; vectors that
    are all zero have no gradient left.
    """
    return sum(
        (1 / (l1(side).square() + 1e-6) for side in (queries, documents)),
        start=queries.new_zeros(()),
    )


def ramp(step: int, length: int) -> float:
    """The share of a lambda in optimiser step ``step`` (from 0): ``min(1, (step / length)^2)``, as
    SPLADE grows it.
    """
    return 1.0 if length <= 0 else min(1.0, (step / length) ** 2)
