"""Losses between token vectors of two tokenizers, pooled over the spans of text that both share."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from irdistill.losses.batch import ScoreBatch
from irdistill.losses.embedding import ProjectedLoss, TowerSide, VectorLoss
from irdistill.losses.loss_base import register
from irdistill.losses.parameter_checks import AtLeast, Positive
from irdistill.losses.relational import relational_divergence
from irdistill.losses.representations import SpanVectors, TokenVectors, evenly_spaced


class SpanLoss(VectorLoss):
    """A loss between the vectors of the spans of one side."""

    @property
    def representations(self) -> frozenset[str]:
        """The spans of the side, which only the teacher's `BatchRepresentations` hold."""
        return frozenset({f"{self.side}_spans"})

    def vectors(self, batch: ScoreBatch) -> tuple[Tensor, Tensor]:
        """Vectors (s, D) of the student and (s, E) of the teacher, for all spans of the batch.

        Raises:
            ValueError: the batch lacks the student's tokens or the spans, or they do not fit.
        """
        tokens = getattr(batch.student_representations, f"{self.side}_tokens", None)
        spans = getattr(batch.teacher_representations, f"{self.side}_spans", None)
        if tokens is None or spans is None:
            raise ValueError(
                f"this needs {self.side}_tokens in student_representations and {self.side}_spans in"
                " teacher_representations"
            )
        return pooled_tokens(tokens, spans), spans.vectors[spans.mask].to(tokens.vectors.dtype)


def pooled_tokens(tokens: TokenVectors, spans: SpanVectors) -> Tensor:
    """The mean (s, D) of the student's token vectors in each span.

    Raises:
        ValueError: a text has another number of tokens than the spans were made for.
    """
    count, width = spans.mask.shape
    if not torch.equal(tokens.mask.sum(dim=1), spans.counts):
        raise ValueError("the token vectors of the student are not those that the spans are of")
    texts, places = tokens.mask.nonzero(as_tuple=True)
    numbers = spans.places[texts, places]
    known = numbers >= 0
    rows = texts[known] * width + numbers[known]
    vectors = tokens.vectors[texts[known], places[known]]
    sums = vectors.new_zeros(count * width, vectors.shape[-1]).index_add(0, rows, vectors)
    sizes = vectors.new_zeros(count * width).index_add(0, rows, vectors.new_ones(len(rows)))
    return (sums / sizes.clamp_min(1)[:, None])[spans.mask.reshape(-1)]


@register("SpanCosine", needs={"representation"})
class SpanCosine(SpanLoss, ProjectedLoss):
    """``1 - cos(P x, y)`` of the vectors of a span, mean over the spans of the batch.

    x and y are the means of the student's and of the teacher's token vectors in a span. The spans
    are the smallest parts of a text that both tokenizers cut it into, so teacher and student may
    have different tokenizers. A span in which one model has no token vector is left out. ``P`` is a
    trained linear map if the dimensions differ, else the identity. After cross-tokenizer
    distillation (ALM, Minixhofer et al., arXiv 2503.20083), which compares likelihoods of such
    spans.

    Attributes:
        side: the tokens of ``"document"``s or of the ``"query"``.
    """

    side: TowerSide = "document"

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the spans with tokens of both models."""
        student, teacher = self.projected(batch)
        if not len(student):
            return batch.zero()
        return (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()


@register("SpanRelation", needs={"representation"})
class SpanRelation(SpanLoss):
    """``mean_i KL(A_T[i] || A_S[i])`` with ``A[i] = softmax over j != i of cos(x_i, x_j) / tau``.

    As `Relational`, of spans instead of texts: x are the means of the token vectors in the spans
    that both tokenizers share (see `SpanCosine`). Only similarities are compared, so the dimensions
    may differ and nothing is projected. It is `TRG` for different tokenizers.

    Attributes:
        side: the tokens of ``"document"``s or of the ``"query"``.
        tau: divides the cosines of both models.
        spans: number of spans, evenly spread over the batch, that are compared; the cost is its
            square.
    """

    has_parameters: ClassVar[bool] = False
    side: TowerSide = "document"
    tau: Positive = 0.1
    spans: Annotated[int, AtLeast(3)] = 512

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the chosen spans; fewer than three give no loss."""
        student, teacher = self.vectors(batch)
        if len(student) < 3:
            return batch.zero()
        if len(student) > self.spans:
            chosen = evenly_spaced(len(student), self.spans, student.device)
            student, teacher = student[chosen], teacher[chosen]
        return relational_divergence(student, teacher, self.tau)
