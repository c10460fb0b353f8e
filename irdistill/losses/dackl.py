"""KL with a learned mask over the part of the teacher's list that is worth learning."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irdistill.losses.batch import ScoreBatch
from irdistill.losses.listwise import masked_divergence
from irdistill.losses.loss_base import Loss, register
from irdistill.losses.parameter_checks import Positive
from irdistill.losses.representations import FittingSample

#: The network reads the sorted scores at this many evenly spaced ranks, and this many statistics.
_POINTS, _STATISTICS = 8, 3
_HIDDEN = 16
#: How far the bounds may leave [0, 1], in widths of the mask's edge: far enough to mask nothing.
_SLACK = 10.0
#: Inputs of the network are clipped to this size.
_LARGEST = 10.0


@register("DACKL", needs={"score"}, compares="distributions")
class DACKL(Loss):
    """``KL(P~_T || P~_S)`` with ``P~ = m P / sum(m P)``, ``P`` as in `KL` and ``m`` a learned mask.

    ``m_i = sigmoid((F_i - lo) / width) * sigmoid((hi - F_i) / width)``. ``F_i`` in [0, 1] is item
    i's rank in the teacher's list from below (1 for the first; ties share their mean rank). A small
    network computes the bounds ``lo`` and ``hi`` from the teacher's list: its standardized scores
    in order, their entropy and gaps. Items labeled relevant are never masked. The idea is the
    distribution-adaptive clipping of "Multi-Granularity Semantic Revision for Large Language Model
    Distillation" (arXiv 2407.10068); this form for ranked lists is new.

    The network learns from the loss alone and would mask all that is hard. So a mask that keeps
    fewer than ``least`` items per list, averaged over the batch, is blended with the open mask
    until it keeps that many: a collapsed mask is an open one, and the loss is plain KL. `KL` with
    ``top`` is the form without a network. O(N^2).

    Attributes:
        tau: divides the scores of the student.
        teacher_tau: divides the scores of the teacher.
        width: width of the mask's edges, as a share of the list.
        least: items that the mask keeps per list, averaged over the batch; shorter lists keep all.
    """

    has_parameters: ClassVar[bool] = True
    tau: Positive = 1.0
    teacher_tau: Positive = 1.0
    width: Positive = 0.1
    least: Positive = 3.0

    def make_parameters(self, example: ScoreBatch, sample: FittingSample | None) -> nn.Module:
        """The network, with a mask that is almost open for all lists."""
        network = nn.Sequential(
            nn.Linear(_POINTS + _STATISTICS, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, 2)
        )
        last = network[2]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, -1.0)
        return network

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the lists with at least two scored documents."""
        usable = batch.scored
        rows = usable.sum(dim=1) >= 2
        if not rows.any():
            return batch.zero()
        assert batch.teacher is not None
        usable, scores = usable[rows], batch.teacher[rows]
        kept = batch.relevant[rows] if batch.labels is not None else torch.zeros_like(usable)
        mask = self.mask(self.parameters_in(batch), scores, usable, kept)
        weight = mask.clamp_min(torch.finfo(mask.dtype).tiny).log()
        return masked_divergence(
            scores / self.teacher_tau + weight, batch.student[rows] / self.tau + weight, usable
        )

    def mask(self, network: nn.Module, scores: Tensor, usable: Tensor, kept: Tensor) -> Tensor:
        """(B, N) weights in [0, 1], 0 where not usable.

        Args:
            network: from `make_parameters`.
            scores: (B, N) of one teacher.
            usable: (B, N) bool, at least two in each list.
            kept: (B, N) bool, never masked.
        """
        slack = _SLACK * self.width
        low, high = (
            network(features(scores, usable, self.teacher_tau)).sigmoid().unsqueeze(2).unbind(dim=1)
        )
        ranks = rank_from_below(scores, usable)
        low, high = (1 + slack) * low - slack, (1 + slack) * (1 - high)
        soft = ((ranks - low) / self.width).sigmoid() * ((high - ranks) / self.width).sigmoid()
        soft = torch.where(kept, 1.0, soft).masked_fill(~usable, 0.0)
        counts = usable.sum(dim=1)
        least = counts.clamp_max(self.least).mean(dtype=soft.dtype)
        most = counts.mean(dtype=soft.dtype)
        weight = soft.sum(dim=1).mean()
        share = (least - weight).clamp_min(0.0) / (most - weight).clamp_min(1e-6)
        return torch.where(usable, soft + share * (1 - soft), 0.0)


def rank_from_below(scores: Tensor, usable: Tensor) -> Tensor:
    """(B, N) the share of the other items below each item, ties counted half; 0 if not usable."""
    both = usable[:, :, None] & usable[:, None, :]
    above = (scores[:, :, None] > scores[:, None, :]) & both
    tied = (scores[:, :, None] == scores[:, None, :]) & both
    below = above.sum(dim=2) + (tied.sum(dim=2).to(scores.dtype) - 1) / 2
    return torch.where(usable, below / (usable.sum(dim=1, keepdim=True) - 1), 0.0)


def features(scores: Tensor, usable: Tensor, tau: float) -> Tensor:
    """(B, F) inputs of the network: scores at even ranks, entropy, first and widest gap."""
    counts = usable.sum(dim=1, keepdim=True)
    known = torch.where(usable, scores, 0.0)
    mean = known.sum(dim=1, keepdim=True) / counts
    spread = (
        ((known - mean).square() * usable)
        .sum(dim=1, keepdim=True)
        .div(counts)
        .sqrt()
        .clamp_min(1e-6)
    )
    ordered = (
        torch.where(usable, (scores - mean) / spread, -torch.inf)
        .sort(dim=1, descending=True)
        .values
    )
    places = torch.linspace(0, 1, _POINTS, device=scores.device, dtype=scores.dtype) * (counts - 1)
    low, high = places.floor().long(), places.ceil().long().minimum(counts - 1)
    points = ordered.gather(1, low).lerp(ordered.gather(1, high), places - low)
    chances = (scores / tau).masked_fill(~usable, -torch.inf).softmax(dim=1)
    entropy = torch.special.entr(chances).sum(dim=1, keepdim=True) / counts.to(scores.dtype).log()
    gaps = (ordered[:, :-1] - ordered[:, 1:]).masked_fill(~ordered[:, 1:].isfinite(), 0.0)
    return F.hardtanh(
        torch.cat([points, entropy, gaps[:, :1], gaps.amax(dim=1, keepdim=True)], dim=1),
        -_LARGEST,
        _LARGEST,
    )
