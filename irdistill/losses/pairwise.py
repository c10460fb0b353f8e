"""Losses that compare two documents of one query."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, inf
from torch.nn import functional as F

from irdistill.losses.batch import ScoreBatch
from irdistill.losses.loss_base import ListDocuments, Loss, order_needs, register
from irdistill.losses.parameter_checks import Positive


@register(
    "MarginMSE",
    needs=lambda loss: {"margin"} | ({"label"} if loss.pairs == "positive" else set()),
    compares="margins",
    lists_of_batch=True,
)
class MarginMSE(Loss):
    """Mean over pairs of ``[scale * (s_i - s_j) - (t_i - t_j)]^2``.

    Hofstaetter et al., arXiv 2010.02666. There is no temperature and both sides are raw scores: a
    constant added to all scores of a query changes nothing, a factor does. As in the paper, the
    mean goes over all pairs of the batch, so a list with more pairs weighs more. Documents without
    a teacher score are in no pair. O(N): no pair is formed.

    Attributes:
        pairs: ``"positive"`` compares each document labeled relevant with each that is not (the
            paper's triples). ``"all"`` compares every two documents once and needs no labels.
        scale: multiplies the student's scores. The margins of a cosine student end at 2, those of
            a cross-encoder's logits at about 20.
        negatives: the pairs are of the query's ``"list"``, or of all documents of the ``"batch"``
            by a retriever's in-batch scores.
    """

    pairs: Literal["positive", "all"] = "positive"
    scale: Positive = 1.0
    negatives: ListDocuments = "list"

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the pairs of the batch."""
        teacher, usable = batch.targets("teacher")
        first = usable & batch.relevant if self.pairs == "positive" else usable
        second = usable & ~batch.relevant if self.pairs == "positive" else usable
        left, right = first.sum(dim=1), second.sum(dim=1)
        pairs = (left * right).sum() if self.pairs == "positive" else (left * (left - 1)).sum()
        if pairs == 0:
            return batch.zero()
        # sum_ij (a_i - a_j)^2 = n_j sum a_i^2 + n_i sum a_j^2 - 2 sum a_i sum a_j, where a is the
        # difference of the two models, less its mean over the list
        gap = (self.scale * batch.student).masked_fill(~usable, 0.0) - teacher
        gap = gap - gap.sum(dim=1, keepdim=True) / usable.sum(dim=1, keepdim=True).clamp_min(1)
        one, two = gap.masked_fill(~first, 0.0), gap.masked_fill(~second, 0.0)
        squares = right * one.square().sum(dim=1) + left * two.square().sum(dim=1)
        return (squares - 2 * one.sum(dim=1) * two.sum(dim=1)).sum() / pairs


@register("RankNet", needs=order_needs)
class RankNet(Loss):
    """Mean over pairs with i above j of ``log(1 + exp(-(s_i - s_j) / tau))``.

    Burges et al., ICML 2005. Only the order of the teacher is used; tied documents form no pair.
    The mean goes over all pairs of the batch. ``tau`` divides; lightning-ir multiplies scores by
    its ``temperature``. O(N^2); by label O(N) for each relevant document.

    Attributes:
        tau: divides the student's scores.
        by: whose order: the ``"teacher"``'s or that of the ``"label"``s.
    """

    tau: Positive = 1.0
    by: Literal["teacher", "label"] = "teacher"

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the ordered pairs of the batch."""
        margins, pairs = _ordered_margins(batch, self.by)
        return _mean(F.softplus(-margins / self.tau), pairs) if pairs.any() else batch.zero()


@register("Hinge", needs=order_needs)
class Hinge(Loss):
    """Mean over pairs with i above j of ``max(0, margin - scale * (s_i - s_j))``.

    By label O(N) for each relevant document, by teacher O(N^2).

    Attributes:
        margin: the distance beyond which a pair costs nothing.
        scale: multiplies the student's scores.
        by: whose order: that of the ``"label"``s or the ``"teacher"``'s.
    """

    margin: Positive = 1.0
    scale: Positive = 1.0
    by: Literal["label", "teacher"] = "label"

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the ordered pairs of the batch."""
        margins, pairs = _ordered_margins(batch, self.by)
        if not pairs.any():
            return batch.zero()
        return _mean(F.relu(self.margin - self.scale * margins), pairs)


@register("Preference", needs={"margin", "label"})
class Preference(Loss):
    """Mean over pairs of ``-log sigmoid(beta * [scale * (s+ - s-) - (t+ - t-)])``.

    RankNet with the teacher's margin as an offset. This is direct preference optimization with the
    teacher as the reference (LLaVA-MoD, arXiv 2408.15881): on labeled pairs the student is pushed
    beyond its teacher. With a teacher of zeros and ``beta=1`` it is `RankNet` by label. Use it
    after a loss that imitates (KL), and on reliable labels. O(N) for each relevant document.

    Attributes:
        beta: multiplies the difference of margins.
        scale: multiplies the student's scores.
    """

    beta: Positive = 1.0
    scale: Positive = 1.0

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the labeled pairs of the batch."""
        teacher, usable = batch.targets("teacher")
        lists, items = (usable & batch.relevant).nonzero(as_tuple=True)
        pairs = (usable & ~batch.relevant & ~batch.suspected)[lists]
        if not pairs.any():
            return batch.zero()
        gap = self.scale * batch.student.masked_fill(~usable, 0.0) - teacher
        return _mean(F.softplus(-self.beta * (gap[lists, items][:, None] - gap[lists])), pairs)


def _ordered_margins(batch: ScoreBatch, by: str) -> tuple[Tensor, Tensor]:
    """(P, N) student margins of P upper documents over their lists, and which pairs are ordered."""
    values, usable = batch.targets(by)
    lowest = values.masked_fill(~usable, inf).amin(dim=1, keepdim=True)
    lists, items = (usable & (values > lowest)).nonzero(as_tuple=True)
    scores = batch.student.masked_fill(~usable, 0.0)
    margins = scores[lists, items][:, None] - scores[lists]
    return margins, usable[lists] & (values[lists] < values[lists, items][:, None])


def _mean(losses: Tensor, pairs: Tensor) -> Tensor:
    """The mean over the pairs. Multiplying by a mask is cheaper than selecting them."""
    return (losses * pairs).sum() / pairs.sum()
