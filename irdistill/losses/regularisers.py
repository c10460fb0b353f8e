"""Regularisers of sparse vectors: functions of non-negative weights (n, V), without a model."""

from __future__ import annotations

from torch import Tensor


def flops(vectors: Tensor) -> Tensor:
    """``sum_v E[x_v]^2``, the expected cost of matching two texts (Paria et al. 2020, arXiv:2004.05665), a scalar.

    The usual estimator, ``sum_v (mean_b x_bv)^2``, is too large by the variance over the number of texts, so the same lambda
    presses harder on small batches. Here the products of a text with itself are left out,
    ``sum_v ((sum_b x_bv)^2 - sum_b x_bv^2) / (n (n - 1))``, whose expectation is the same for any n of at least 2. A single
    text has no other: then it is ``sum_v x_v^2``.
    """
    count = len(vectors)
    if count == 0:
        return vectors.sum()
    squares = vectors.square().sum()
    if count == 1:
        return squares
    return (vectors.sum(dim=0).square().sum() - squares) / (count * (count - 1))


def l1(vectors: Tensor) -> Tensor:
    """``mean_b sum_v |x_bv|``, a scalar; it does not depend on the number of texts."""
    return vectors.abs().sum(dim=-1).mean() if len(vectors) else vectors.sum()


def ramp(step: int, length: int) -> float:
    """The share of a lambda in optimiser step ``step`` (from 0): ``min(1, (step / length)^2)``, as SPLADE grows it."""
    return 1.0 if length <= 0 else min(1.0, (step / length) ** 2)
