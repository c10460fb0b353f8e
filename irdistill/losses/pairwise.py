"""Losses that compare two documents of one query."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from irdistill.losses.base import Loss, needs_of_order, register
from irdistill.losses.batch import ScoreBatch


@register("MarginMSE")
@dataclass(frozen=True)
class MarginMSE(Loss):
    """Mean over pairs of ``[scale * (s_i - s_j) - (t_i - t_j)]^2`` (Hofstaetter et al., arXiv
    2010.02666).

    No temperature and raw scores on both sides: it does not change when either side is shifted by a
        constant
    per query, but it does with the scale. The mean goes over all pairs of the batch, as in the
    paper, so a list with more pairs weighs more. Items without a teacher score are in no pair.
    O(N): no pair is formed.

    Attributes:
        pairs: ``"positive"`` compares each document labelled relevant with each that is not (the
            paper's triples); ``"all"`` compares every two documents once and needs no labels.
        scale: multiplies the student's scores. The margins of a cosine student end at 2, those of a
            cross-encoder's logits at about 20.
    """

    pairs: str = "positive"
    scale: float = 1.0

    def __post_init__(self) -> None:
        self.check_choice("pairs", ("positive", "all"))
        self.check_positive("scale")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"margin", "label"} if self.pairs == "positive" else {"margin"})

    def compute(self, batch: ScoreBatch) -> Tensor:
        teacher, usable = batch.targets("teacher")
        first = usable & batch.relevant if self.pairs == "positive" else usable
        second = usable & ~batch.relevant if self.pairs == "positive" else usable
        left, right = first.sum(dim=1), second.sum(dim=1)
        pairs = (left * right).sum() if self.pairs == "positive" else (left * (left - 1)).sum()
        if pairs == 0:
            return batch.zero()
        # sum_ij (a_i - a_j)^2 = n_j sum a_i^2 + n_i sum a_j^2 - 2 sum a_i sum a_j, of differences
        # with the list's mean
        apart = (self.scale * batch.student).masked_fill(~usable, 0.0) - teacher
        apart = apart - apart.sum(dim=1, keepdim=True) / usable.sum(dim=1, keepdim=True).clamp_min(
            1
        )
        one, two = apart.masked_fill(~first, 0.0), apart.masked_fill(~second, 0.0)
        squares = right * one.square().sum(dim=1) + left * two.square().sum(dim=1)
        return (squares - 2 * one.sum(dim=1) * two.sum(dim=1)).sum() / pairs


@register("RankNet")
@dataclass(frozen=True)
class RankNet(Loss):
    """Mean over pairs with i above j of ``log(1 + exp(-(s_i - s_j) / tau))`` (Burges et al., ICML
    2005).

    Of the teacher only the order is used; tied items are in no pair with each other. The mean goes
    over all pairs of the batch. ``tau`` divides; lightning-ir multiplies scores by its
    ``temperature``. O(N^2); by label O(N) for each relevant item.

    Attributes:
        tau: divides the student's scores.
        by: whose order: the ``"teacher"``'s, or the ``"label"``s'.
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
        margins, pairs = _ordered_margins(batch, self.by)
        return _mean(F.softplus(-margins / self.tau), pairs) if pairs.any() else batch.zero()


@register("Hinge")
@dataclass(frozen=True)
class Hinge(Loss):
    """Mean over pairs with i above j of ``max(0, margin - scale * (s_i - s_j))``.

    By label O(N) for each relevant item, by teacher O(N^2).

    Attributes:
        margin: how far apart the student is to bring them; further apart costs nothing.
        scale: multiplies the student's scores.
        by: whose order: the ``"label"``s', or the ``"teacher"``'s.
    """

    margin: float = 1.0
    scale: float = 1.0
    by: str = "label"

    def __post_init__(self) -> None:
        self.check_positive("margin", "scale")
        self.check_choice("by", ("label", "teacher"))

    @property
    def needs(self) -> frozenset[str]:
        return needs_of_order(self.by)

    def compute(self, batch: ScoreBatch) -> Tensor:
        margins, pairs = _ordered_margins(batch, self.by)
        return (
            _mean(F.relu(self.margin - self.scale * margins), pairs)
            if pairs.any()
            else batch.zero()
        )


@register("Preference")
@dataclass(frozen=True)
class Preference(Loss):
    """Mean over pairs of ``-log sigmoid(beta * [scale * (s+ - s-) - (t+ - t-)])``.

    RankNet with the teacher's margin as an offset, which is direct preference optimisation with the
    teacher as the reference (LLaVA-MoD, arXiv 2408.15881): on labelled pairs the student is pushed
    beyond its teacher. With a teacher of zeros and ``beta=1`` it is `RankNet` by label. Use it
    after a loss that imitates (KL), and on labels that can be trusted. O(N) for each relevant item.

    Attributes:
        beta: multiplies the difference of margins.
        scale: multiplies the student's scores.
    """

    beta: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        self.check_positive("beta", "scale")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"margin", "label"})

    def compute(self, batch: ScoreBatch) -> Tensor:
        teacher, usable = batch.targets("teacher")
        lists, items = (usable & batch.relevant).nonzero(as_tuple=True)
        pairs = (usable & ~batch.relevant & ~batch.suspected)[lists]
        if not pairs.any():
            return batch.zero()
        apart = self.scale * batch.student.masked_fill(~usable, 0.0) - teacher
        return _mean(F.softplus(-self.beta * (apart[lists, items][:, None] - apart[lists])), pairs)


def _ordered_margins(batch: ScoreBatch, by: str) -> tuple[Tensor, Tensor]:
    """(P, N) student margins of each item that may stand above another over all of its list, and
    whether it does, strictly.
    """
    values, usable = batch.targets(by)
    lowest = values.masked_fill(~usable, torch.inf).amin(dim=1, keepdim=True)
    lists, items = (usable & (values > lowest)).nonzero(as_tuple=True)
    scores = batch.student.masked_fill(~usable, 0.0)
    margins = scores[lists, items][:, None] - scores[lists]
    return margins, usable[lists] & (values[lists] < values[lists, items][:, None])


def _mean(losses: Tensor, pairs: Tensor) -> Tensor:
    """The mean over the pairs that are some; without taking them out, which costs more than the
    losses of the others.
    """
    return (losses * pairs).sum() / pairs.sum()
