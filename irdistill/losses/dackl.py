"""KL on the part of the teacher's list that a small network, learnt beside the student, holds to be
worth learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irdistill.losses.base import Loss, register
from irdistill.losses.batch import ScoreBatch
from irdistill.losses.representations import FittingSample

#: At how many evenly spaced places of a list the network sees the sorted scores, and what else it
#: sees.
_POINTS, _STATISTICS = 8, 3
_HIDDEN = 16
#: How far the bounds may leave [0, 1], in widths of the mask's edge: far enough that nothing at all
#: is masked.
_SLACK = 10.0
#: What the network sees of an extreme score.
_LARGEST = 10.0


@register("DACKL")
@dataclass(frozen=True)
class DACKL(Loss):
    """``KL(P~_T || P~_S)`` with ``P~ = m P / sum(m P)`` on both sides, ``P`` as in `KL` and ``m`` a
    learnt soft mask.

    ``m_i = sigmoid((F_i - lo) / width) * sigmoid((hi - F_i) / width)``, where ``F_i`` in [0, 1] is
    item i's rank in the teacher's list from below (1 for the first; ties share the mean of theirs),
    and the bounds ``lo`` and ``hi`` are what a small network makes of the teacher's list: its
    standardised scores in order, their entropy and gaps. Items labelled relevant are never masked.
    The idea is the distribution-adaptive clipping of "Multi-Granularity Semantic Revision for Large
    Language Model Distillation" (arXiv 2407.10068); this form of it, for ranked lists, is ours.

    The network learns from the loss alone and would mask all that is hard. So where the mask of a
    batch keeps fewer than ``least`` items a list on average, it is blended with the open mask until
    it keeps so many: a mask that collapses is an open one, and the loss plain KL, which gains the
    network nothing. `KL` with ``top`` is the form without a network. O(N^2).

    Attributes:
        tau, teacher_tau: divide the scores of student and teacher.
        width: of the mask's edges, as a share of the list.
        least: items that the mask keeps, on average over the lists of a batch; all of lists that
            have fewer.
    """

    has_parameters: ClassVar[bool] = True
    tau: float = 1.0
    teacher_tau: float = 1.0
    width: float = 0.1
    least: float = 3.0

    def __post_init__(self) -> None:
        self.check_positive("tau", "teacher_tau", "width", "least")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"score"})

    def make_parameters(self, example: ScoreBatch, sample: FittingSample | None) -> nn.Module:
        network = nn.Sequential(
            nn.Linear(_POINTS + _STATISTICS, _HIDDEN), nn.Tanh(), nn.Linear(_HIDDEN, 2)
        )
        last = network[2]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, -1.0)  # almost open, for all lists
        return network

    def compute(self, batch: ScoreBatch) -> Tensor:
        usable = batch.scored
        rows = usable.sum(dim=1) >= 2
        if not rows.any():
            return batch.zero()
        assert batch.teacher is not None
        usable, scores = usable[rows], batch.teacher[rows]
        kept = batch.relevant[rows] if batch.labels is not None else torch.zeros_like(usable)
        mask = self.mask(self.parameters_in(batch), scores, usable, kept)
        out = ~usable
        weight = mask.clamp_min(torch.finfo(mask.dtype).tiny).log()
        teacher = (
            (scores / self.teacher_tau + weight).masked_fill(out, -torch.inf).log_softmax(dim=1)
        )
        student = (
            (batch.student[rows] / self.tau + weight)
            .masked_fill(out, -torch.inf)
            .log_softmax(dim=1)
        )
        terms = teacher.exp() * (teacher.masked_fill(out, 0.0) - student.masked_fill(out, 0.0))
        return terms.sum(dim=1).mean()

    def mask(self, network: nn.Module, scores: Tensor, usable: Tensor, kept: Tensor) -> Tensor:
        """How much of each item counts, (B, N) in [0, 1], 0 where not usable.

        Args:
            network: as `learns` makes it.
            scores: (B, N) of one teacher, usable: (B, N) bool, at least two a list, kept: (B, N)
                bool, never masked.
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
        wanted, most = (
            counts.clamp_max(self.least).mean(dtype=soft.dtype),
            counts.mean(dtype=soft.dtype),
        )
        found = soft.sum(dim=1).mean()
        share = (wanted - found).clamp_min(0.0) / (most - found).clamp_min(1e-6)
        return torch.where(usable, soft + share * (1 - soft), 0.0)


def rank_from_below(scores: Tensor, usable: Tensor) -> Tensor:
    """(B, N) the share of a list's other items that stand below each, those tied with it counted
    half; 0 where not usable.
    """
    both = usable[:, :, None] & usable[:, None, :]
    above = (scores[:, :, None] > scores[:, None, :]) & both
    tied = (scores[:, :, None] == scores[:, None, :]) & both
    below = above.sum(dim=2) + (tied.sum(dim=2).to(scores.dtype) - 1) / 2
    return torch.where(usable, below / (usable.sum(dim=1, keepdim=True) - 1), 0.0)


def features(scores: Tensor, usable: Tensor, tau: float) -> Tensor:
    """(B, F) what the network sees of each list, whatever its length: scores at even places,
    entropy, first and widest gap.
    """
    counts = usable.sum(dim=1, keepdim=True)
    given = torch.where(usable, scores, 0.0)
    mean = given.sum(dim=1, keepdim=True) / counts
    spread = (
        ((given - mean).square() * usable)
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
