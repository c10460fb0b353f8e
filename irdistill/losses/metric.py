"""Losses that stand for a ranking measure: ranks or rank differences instead of scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from irdistill.errors import IrdistillError
from irdistill.losses.base import Loss, needs_of_order, register
from irdistill.losses.batch import ScoreBatch


def soft_ranks(scores: Tensor, usable: Tensor, tau: float) -> Tensor:
    """(B, N) differentiable ranks ``1 + sum_{j != i} sigmoid((s_j - s_i) / tau)`` (Qin et al. 2010,
    ApproxNDCG).
    """
    above = ((scores[:, None, :] - scores[:, :, None]) / tau).sigmoid()
    own = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    return 1.0 + above.masked_fill(~usable[:, None, :] | own, 0.0).sum(dim=2)


def average_ranks(values: Tensor, usable: Tensor) -> Tensor:
    """(B, N) ranks from 1 for the highest; tied items share the mean of their ranks, as only that
    can be attained.
    """
    there = usable[:, None, :]
    higher = ((values[:, None, :] > values[:, :, None]) & there).sum(dim=2)
    equal = ((values[:, None, :] == values[:, :, None]) & there).sum(dim=2)
    return (higher + (equal + 1) / 2).to(values.dtype)


def gains(batch: ScoreBatch, by: str) -> tuple[Tensor, Tensor]:
    """What finding an item is worth, (B, N), and where that is known.

    ``2^label - 1`` by label. A teacher's scores are no grades, so by teacher it is linear in the
    rank: 1 for the first of n items and 1/n for the last, ties sharing the mean.
    """
    values, usable = batch.targets(by)
    if by == "label":
        return torch.exp2(values) - 1.0, usable
    count = usable.sum(dim=1, keepdim=True).clamp_min(1)
    return ((count + 1 - average_ranks(values, usable)) / count).masked_fill(~usable, 0.0), usable


def best_dcg(gain: Tensor, depth: int | None = None) -> Tensor:
    """(B,) DCG of the best order, of its first ``depth`` items."""
    ordered = gain.sort(dim=1, descending=True).values[:, :depth]
    return (ordered / torch.log2(torch.arange(2, ordered.shape[1] + 2, device=gain.device))).sum(
        dim=1
    )


@register("ADRMSE")
@dataclass(frozen=True)
class ADRMSE(Loss):
    """Approximate discounted rank MSE: ``1/n sum_i discount(r_i) * (rhat_i - r_i)^2``
    (Rank-DistiLLM, arXiv 2405.07920).

    ``rhat_i = 1 + sum_{j != i} sigmoid((s_j - s_i) / tau)``; tied targets share their mean rank, so
    that 0 can be reached. The mean goes over all items of the batch. It grows with the square of
    the list's length: a learning rate found with 100 documents is not right for 20, unless
    ``normalize`` is set. O(N^2).

    Attributes:
        tau: divides the student's scores; sentence-transformers' ``alpha`` is 1/tau.
        discount: ``"log2"`` for 1/log2(r + 1), ``"reciprocal"`` for 1/r, ``"none"``.
        normalize: divide ranks by the list's length.
        by: whose order: the ``"teacher"``'s, or the ``"label"``s'.
    """

    tau: float = 1.0
    discount: str = "log2"
    normalize: bool = False
    by: str = "teacher"

    def __post_init__(self) -> None:
        self.check_positive("tau")
        self.check_choice("discount", ("log2", "reciprocal", "none"))
        self.check_choice("by", ("teacher", "label"))

    @property
    def needs(self) -> frozenset[str]:
        return needs_of_order(self.by)

    def compute(self, batch: ScoreBatch) -> Tensor:
        values, usable = batch.targets(self.by)
        usable = usable & (usable.sum(dim=1, keepdim=True) >= 2)
        if not usable.any():
            return batch.zero()
        ranks = average_ranks(values, usable)
        errors = (
            soft_ranks(batch.student.masked_fill(~usable, 0.0), usable, self.tau) - ranks
        ).square()
        if self.discount == "log2":
            errors = errors / torch.log2(ranks + 1)
        elif self.discount == "reciprocal":
            errors = errors / ranks
        if self.normalize:
            errors = errors / usable.sum(dim=1, keepdim=True).clamp_min(1).square()
        return errors[usable].mean()


@register("ApproxNDCG")
@dataclass(frozen=True)
class ApproxNDCG(Loss):
    """``1 - nDCG`` with soft ranks: ``1 - 1/maxDCG sum_i g_i / log2(1 + rhat_i)`` (Qin, Liu and Li
    2010).

    Mean over the lists in which something is worth finding. O(N^2).

    Attributes:
        tau: divides the student's scores; small values follow the measure more closely and have
            fewer gradients.
        by: gains ``2^label - 1`` by ``"label"``; linear in the rank by ``"teacher"``, whose scores
            are no grades.
    """

    tau: float = 1.0
    by: str = "teacher"

    def __post_init__(self) -> None:
        self.check_positive("tau")
        self.check_choice("by", ("teacher", "label"))

    @property
    def needs(self) -> frozenset[str]:
        return needs_of_order(self.by)

    def compute(self, batch: ScoreBatch) -> Tensor:
        gain, usable = gains(batch, self.by)
        gain = gain.masked_fill(~usable, 0.0)
        most = best_dcg(gain)
        rows = (usable.sum(dim=1) >= 2) & (most > 0)
        if not rows.any():
            return batch.zero()
        ranks = soft_ranks(batch.student.masked_fill(~usable, 0.0)[rows], usable[rows], self.tau)
        return (1.0 - (gain[rows] / torch.log2(1.0 + ranks)).sum(dim=1) / most[rows]).mean()


@register("LambdaLoss")
@dataclass(frozen=True)
class LambdaLoss(Loss):
    """Mean of ``w_ij * log2(1 + e^{-(s_i - s_j)/tau})``: pairs weighted by what their order is
    worth in nDCG (Wang et al. 2018).

    O(N^2).

    Attributes:
        scheme: ``"ndcg1"`` weighs by the gain and discount of item i, over all pairs; ``"ndcg2"``
            by the difference of gains and of the discounts at the two items' distance;
            ``"lambdarank"`` by the differences of gains and discounts; ``"ndcg2++"`` is ``mu *
            ndcg2 + lambdarank``. All but the first take pairs in which i is above j.
        k: only pairs with an item among the student's first k, and maxDCG at k; all where None.
        tau: divides the student's scores.
        mu: of ``ndcg2++``.
        by: gains as of `ApproxNDCG`.
    """

    scheme: str = "ndcg2++"
    k: int | None = None
    tau: float = 1.0
    mu: float = 10.0
    by: str = "teacher"

    def __post_init__(self) -> None:
        self.check_positive("tau", "mu")
        self.check_choice("scheme", ("ndcg1", "ndcg2", "lambdarank", "ndcg2++"))
        self.check_choice("by", ("teacher", "label"))
        if self.k is not None and (
            isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1
        ):
            raise IrdistillError(
                f"LambdaLoss(k={self.k!r}): k must be a whole number of at least 1."
            )

    @property
    def needs(self) -> frozenset[str]:
        return needs_of_order(self.by)

    def compute(self, batch: ScoreBatch) -> Tensor:
        gain, usable = gains(batch, self.by)
        usable = usable & (usable.sum(dim=1, keepdim=True) >= 2)
        most = best_dcg(gain.masked_fill(~usable, 0.0), self.k)
        order = (
            batch.student.detach()
            .masked_fill(~usable, -torch.inf)
            .argsort(dim=1, descending=True, stable=True)
        )
        scores, gain, usable = (value.gather(1, order) for value in (batch.student, gain, usable))
        scores, gain = (
            scores.masked_fill(~usable, 0.0),
            gain.masked_fill(~usable, 0.0) / most.clamp_min(1e-10)[:, None],
        )
        pairs = usable[:, :, None] & usable[:, None, :]
        if self.scheme != "ndcg1":
            pairs = pairs & (gain[:, :, None] > gain[:, None, :])
        if self.k is not None:
            first = torch.arange(scores.shape[1], device=scores.device) < self.k
            pairs = pairs & (first[:, None] | first[None, :])
        if not pairs.any():
            return batch.zero()
        weights = self._weights(gain).expand_as(pairs)
        losses = F.softplus((scores[:, None, :] - scores[:, :, None]) / self.tau)
        return (weights * pairs * losses).sum() / (pairs.sum() * math.log(2))

    def _weights(self, gain: Tensor) -> Tensor:
        """(B, N, N), or (B, N, 1), for items in the student's order; ``gain`` is divided by
        maxDCG.
        """
        places = torch.arange(1, gain.shape[1] + 1, device=gain.device)
        discount = torch.log2(1.0 + places).to(gain.dtype)
        if self.scheme == "ndcg1":
            return (gain / discount)[:, :, None]
        apart = (gain[:, :, None] - gain[:, None, :]).abs()
        weights = torch.zeros_like(apart)
        if self.scheme in ("lambdarank", "ndcg2++"):
            weights = weights + (1 / discount[:, None] - 1 / discount[None, :]).abs() * apart
        if self.scheme in ("ndcg2", "ndcg2++"):
            distance = (places[:, None] - places[None, :]).abs().to(gain.dtype)
            step = (
                1 / torch.log2(1.0 + distance.clamp_min(1)) - 1 / torch.log2(2.0 + distance)
            ).masked_fill(distance == 0, 0.0)
            weights = weights + (self.mu if self.scheme == "ndcg2++" else 1.0) * step * apart
        return weights
