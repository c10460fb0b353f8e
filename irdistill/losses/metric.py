"""Losses that approximate a ranking measure by ranks or rank differences."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from irdistill.losses.batch import ScoreBatch
from irdistill.losses.loss_base import Loss, order_needs, register
from irdistill.losses.parameter_checks import AtLeast, Positive


def soft_ranks(scores: Tensor, usable: Tensor, tau: float) -> Tensor:
    """(B, N) differentiable ranks ``1 + sum_{j != i} sigmoid((s_j - s_i) / tau)`` (ApproxNDCG)."""
    above = ((scores[:, None, :] - scores[:, :, None]) / tau).sigmoid()
    diagonal = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    return 1.0 + above.masked_fill(~usable[:, None, :] | diagonal, 0.0).sum(dim=2)


def average_ranks(values: Tensor, usable: Tensor) -> Tensor:
    """(B, N) ranks from 1 for the highest value; ties share the mean of their ranks."""
    counted = usable[:, None, :]
    higher = ((values[:, None, :] > values[:, :, None]) & counted).sum(dim=2)
    equal = ((values[:, None, :] == values[:, :, None]) & counted).sum(dim=2)
    return (higher + (equal + 1) / 2).to(values.dtype)


def gains(batch: ScoreBatch, by: str) -> tuple[Tensor, Tensor]:
    """(B, N) gains, and (B, N) bool where they are known.

    By label ``2^label - 1``. A teacher's scores are not grades, so by teacher the gain is linear in
    the rank: 1 for the first of n items, 1/n for the last, and the mean for ties.
    """
    values, usable = batch.targets(by)
    if by == "label":
        return torch.exp2(values) - 1.0, usable
    count = usable.sum(dim=1, keepdim=True).clamp_min(1)
    return ((count + 1 - average_ranks(values, usable)) / count).masked_fill(~usable, 0.0), usable


def best_dcg(gain: Tensor, depth: int | None = None) -> Tensor:
    """(B,) DCG of the first ``depth`` items of the ideal order."""
    ordered = gain.sort(dim=1, descending=True).values[:, :depth]
    return (ordered / torch.log2(torch.arange(2, ordered.shape[1] + 2, device=gain.device))).sum(
        dim=1
    )


@register("ADRMSE", needs=order_needs)
class ADRMSE(Loss):
    """Approximate discounted rank MSE: ``1/n sum_i discount(r_i) * (rhat_i - r_i)^2``.

    Rank-DistiLLM, arXiv 2405.07920, with ``rhat_i = 1 + sum_{j != i} sigmoid((s_j - s_i) / tau)``.
    Tied targets share their mean rank, so that 0 can be reached. The value grows with the square of
    the list's length: a learning rate found with 100 documents is wrong for 20, unless
    ``normalize`` is set. O(N^2).

    Attributes:
        tau: divides the student's scores; sentence-transformers' ``alpha`` is 1/tau.
        discount: ``"log2"`` for 1/log2(r + 1), ``"reciprocal"`` for 1/r, ``"none"``.
        normalize: divide ranks by the list's length.
        by: whose order: the ``"teacher"``'s or that of the ``"label"``s.
    """

    tau: Positive = 1.0
    discount: Literal["log2", "reciprocal", "none"] = "log2"
    normalize: bool = False
    by: Literal["teacher", "label"] = "teacher"

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the documents of the batch."""
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


@register("ApproxNDCG", needs=order_needs)
class ApproxNDCG(Loss):
    """``1 - nDCG`` with soft ranks: ``1 - 1/maxDCG sum_i g_i / log2(1 + rhat_i)``.

    Qin, Liu and Li 2010. O(N^2).

    Attributes:
        tau: divides the student's scores; small values follow the measure more closely and have
            smaller gradients.
        by: ``"label"``: gains ``2^label - 1``. ``"teacher"``: gains linear in the teacher's rank,
            because its scores are not grades.
    """

    tau: Positive = 1.0
    by: Literal["teacher", "label"] = "teacher"

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the lists with a document of positive gain."""
        gain, usable = gains(batch, self.by)
        gain = gain.masked_fill(~usable, 0.0)
        most = best_dcg(gain)
        rows = (usable.sum(dim=1) >= 2) & (most > 0)
        if not rows.any():
            return batch.zero()
        ranks = soft_ranks(batch.student.masked_fill(~usable, 0.0)[rows], usable[rows], self.tau)
        return (1.0 - (gain[rows] / torch.log2(1.0 + ranks)).sum(dim=1) / most[rows]).mean()


@register("LambdaLoss", needs=order_needs)
class LambdaLoss(Loss):
    """Mean of ``w_ij * log2(1 + e^{-(s_i - s_j)/tau})``: pairs weighted by their effect on nDCG.

    Wang et al., CIKM 2018. O(N^2).

    Attributes:
        scheme: ``"ndcg1"`` weights by the gain and discount of item i, over all pairs. ``"ndcg2"``
            weights by the difference of gains and the discounts at the two items' distance,
            ``"lambdarank"`` by the differences of gains and discounts, and ``"ndcg2++"`` is ``mu *
            ndcg2 + lambdarank``; these three take pairs in which i is above j.
        k: use only pairs with an item among the student's first k, and maxDCG at k; None uses all.
        tau: divides the student's scores.
        mu: of ``ndcg2++``.
        by: gains as of `ApproxNDCG`.
    """

    scheme: Literal["ndcg1", "ndcg2", "lambdarank", "ndcg2++"] = "ndcg2++"
    k: Annotated[int, AtLeast(1)] | None = None
    tau: Positive = 1.0
    mu: Positive = 10.0
    by: Literal["teacher", "label"] = "teacher"

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the weighted pairs of the batch."""
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
        """(B, N, N) or (B, N, 1) weights of items in the student's order, of gain / maxDCG."""
        places = torch.arange(1, gain.shape[1] + 1, device=gain.device)
        discount = torch.log2(1.0 + places).to(gain.dtype)
        if self.scheme == "ndcg1":
            return (gain / discount)[:, :, None]
        difference = (gain[:, :, None] - gain[:, None, :]).abs()
        weights = torch.zeros_like(difference)
        if self.scheme in ("lambdarank", "ndcg2++"):
            weights = weights + (1 / discount[:, None] - 1 / discount[None, :]).abs() * difference
        if self.scheme in ("ndcg2", "ndcg2++"):
            distance = (places[:, None] - places[None, :]).abs().to(gain.dtype)
            step = (
                1 / torch.log2(1.0 + distance.clamp_min(1)) - 1 / torch.log2(2.0 + distance)
            ).masked_fill(distance == 0, 0.0)
            weights = weights + (self.mu if self.scheme == "ndcg2++" else 1.0) * step * difference
        return weights
