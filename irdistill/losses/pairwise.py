"""Losses that compare two documents of one query."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from irdistill.losses.base import Loss, needs_of_order, register
from irdistill.losses.batch import ScoreBatch


@register("MarginMSE")
@dataclass(frozen=True)
class MarginMSE(Loss):
    """Mean over pairs of ``[scale * (s_i - s_j) - (t_i - t_j)]^2`` (Hofstaetter et al., arXiv 2010.02666).

    No temperature and raw scores on both sides: it does not change when either side is shifted by a constant
    per query, but it does with the scale. The mean goes over all pairs of the batch, as in the paper, so a
    list with more pairs weighs more. Items without a teacher score are in no pair.

    Attributes:
        pairs: ``"positive"`` compares each document labelled relevant with each that is not (the paper's
            triples); ``"all"`` compares every two documents once and needs no labels.
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
        lists, left, right = _label_pairs(batch) if self.pairs == "positive" else _all_pairs(batch)
        if len(lists) == 0:
            return batch.zero()
        assert batch.teacher is not None
        margins = batch.student[lists, left] - batch.student[lists, right]
        targets = batch.teacher[lists, left] - batch.teacher[lists, right]
        return (self.scale * margins - targets).square().mean()


@register("RankNet")
@dataclass(frozen=True)
class RankNet(Loss):
    """Mean over pairs with i above j of ``log(1 + exp(-(s_i - s_j) / tau))`` (Burges et al., ICML 2005).

    Of the teacher only the order is used; tied items are in no pair with each other. The mean goes over all pairs of the
    batch. ``tau`` divides; lightning-ir multiplies scores by its ``temperature``.

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
        lists, above, below = _ordered_pairs(batch, self.by)
        if len(lists) == 0:
            return batch.zero()
        return F.softplus((batch.student[lists, below] - batch.student[lists, above]) / self.tau).mean()


@register("Hinge")
@dataclass(frozen=True)
class Hinge(Loss):
    """Mean over pairs with i above j of ``max(0, margin - scale * (s_i - s_j))``.

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
        lists, above, below = _ordered_pairs(batch, self.by)
        if len(lists) == 0:
            return batch.zero()
        margins = batch.student[lists, above] - batch.student[lists, below]
        return F.relu(self.margin - self.scale * margins).mean()


@register("Preference")
@dataclass(frozen=True)
class Preference(Loss):
    """Mean over pairs of ``-log sigmoid(beta * [scale * (s+ - s-) - (t+ - t-)])``.

    RankNet with the teacher's margin as an offset, which is direct preference optimisation with the teacher as the reference
    (LLaVA-MoD, arXiv 2408.15881): on labelled pairs the student is pushed beyond its teacher. With a teacher of zeros and
    ``beta=1`` it is `RankNet` by label. Use it after a loss that imitates (KL), and on labels that can be trusted.

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
        lists, left, right = _label_pairs(batch, ~batch.suspected)
        if len(lists) == 0:
            return batch.zero()
        assert batch.teacher is not None
        margins = batch.student[lists, left] - batch.student[lists, right]
        offsets = batch.teacher[lists, left] - batch.teacher[lists, right]
        return F.softplus(-self.beta * (self.scale * margins - offsets)).mean()


Pairs = tuple[Tensor, ...]


def _label_pairs(batch: ScoreBatch, allowed: Tensor | None = None) -> Pairs:
    """(P,) lists and items: each relevant item with each that is not (and is ``allowed``), both scored by the teacher."""
    first, second = batch.scored & batch.relevant, batch.scored & ~batch.relevant
    if allowed is not None:
        second = second & allowed
    return (first[:, :, None] & second[:, None, :]).nonzero(as_tuple=True)


def _all_pairs(batch: ScoreBatch) -> Pairs:
    """(P,) lists and items: every two scored items once."""
    usable = batch.scored
    return (usable[:, :, None] & usable[:, None, :]).triu(1).nonzero(as_tuple=True)


def _ordered_pairs(batch: ScoreBatch, by: str) -> Pairs:
    """(P,) lists and items: the first strictly above the second, by the teacher or by label."""
    values, usable = batch.targets(by)
    both = usable[:, :, None] & usable[:, None, :]
    return (both & (values[:, :, None] > values[:, None, :])).nonzero(as_tuple=True)
