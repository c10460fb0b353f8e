"""Losses that compare two documents of one query."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from irdistill.losses.base import Loss, register
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
        usable = batch.scored
        if self.pairs == "positive":
            first, second = usable & batch.relevant, usable & ~batch.relevant
            pairs = first[:, :, None] & second[:, None, :]
        else:
            pairs = (usable[:, :, None] & usable[:, None, :]).triu(1)
        lists, left, right = pairs.nonzero(as_tuple=True)
        if len(lists) == 0:
            return batch.zero()
        assert batch.teacher is not None
        margins = batch.student[lists, left] - batch.student[lists, right]
        targets = batch.teacher[lists, left] - batch.teacher[lists, right]
        return (self.scale * margins - targets).square().mean()
