"""A loss between the token similarities of teacher and student."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from irdistill.errors import InputError, OptionError
from irdistill.losses.batch import ScoreBatch
from irdistill.losses.listwise import masked_divergence
from irdistill.losses.loss_base import Loss, register
from irdistill.losses.parameter_checks import AtLeast, NonNegative, Positive
from irdistill.losses.representations import TokenVectors, both_models, evenly_spaced

_SIDES = {"query": "query_tokens", "document": "document_tokens"}
#: Similarities of one model that are computed at a time within texts: 64 MiB in float32.
_ELEMENTS = 1 << 24


@register("TRG", needs={"representation"})
class TRG(Loss):
    """``cross * L_TRG + within * L_ctx``: match the teacher's graph of token similarities.

    For a token i, ``A[i] = softmax_j(x_i . x_j / tau)`` over other tokens, of vectors of length 1.
    Each term is ``mean_i KL(A_T[i] || A_S[i])``. In ``L_TRG`` the tokens j are those of the other
    texts of the batch, in ``L_ctx`` the other tokens of i's text. Only similarities are compared,
    so the dimensions of teacher and student may differ. But the vectors must belong to the same
    tokens: both models need the same tokenizer and must leave out the same tokens. The idea is the
    token-level relationship graph of Zhang et al. (arXiv 2306.12442), from images; this form for
    late interaction is new.

    Attributes:
        side: the tokens of ``"document"``s or of the ``"query"``.
        tau: divides the similarities of both models.
        tokens: number of tokens, evenly spread over the batch, that are compared across texts; the
            cost is its square.
        neighbors: keep this many of the teacher's nearest tokens in each row across texts; None
            keeps all.
        cross: weight of ``L_TRG``; 0 leaves it out.
        within: weight of ``L_ctx``; 0 leaves it out.
    """

    side: Literal["query", "document"] = "document"
    tau: Positive = 0.1
    tokens: Annotated[int, AtLeast(2)] = 512
    neighbors: Annotated[int, AtLeast(2)] | None = None
    cross: NonNegative = 1.0
    within: NonNegative = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.cross and not self.within:
            raise OptionError("TRG(cross=0, within=0) compares nothing; set one of them above 0.")

    @property
    def representations(self) -> frozenset[str]:
        """The field of the side."""
        return frozenset({_SIDES[self.side]})

    def compute(self, batch: ScoreBatch) -> Tensor:
        """The weighted sum of both terms."""
        student, teacher, mask = _aligned(*both_models(batch, _SIDES[self.side]))
        total = batch.zero()
        if self.cross:
            total = total + self.cross * self._across(student, teacher, mask)
        if self.within:
            total = total + self.within * self._inside(student, teacher, mask)
        return total

    def _across(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """The term between tokens of different texts."""
        texts, places = mask.nonzero(as_tuple=True)
        if len(texts) > self.tokens:
            chosen = evenly_spaced(len(texts), self.tokens, texts.device)
            texts, places = texts[chosen], places[chosen]
        allowed = texts[:, None] != texts[None, :]
        student, teacher = student[texts, places], teacher[texts, places]
        targets = teacher @ teacher.T
        if self.neighbors is not None and self.neighbors < len(texts):
            nearest = targets.masked_fill(~allowed, -torch.inf).topk(self.neighbors, dim=1).indices
            allowed = allowed & torch.zeros_like(allowed).scatter(1, nearest, True)
        return _divergence(targets / self.tau, student @ student.T / self.tau, allowed)

    def _inside(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """The term between tokens of one text, over as many texts as fit into memory."""
        count, length = mask.shape
        most = max(1, _ELEMENTS // max(1, length * length))
        if count > most:
            chosen = evenly_spaced(count, most, mask.device)
            student, teacher, mask = student[chosen], teacher[chosen], mask[chosen]
        others = ~torch.eye(length, dtype=torch.bool, device=mask.device)
        allowed = mask[:, :, None] & mask[:, None, :] & others
        return _divergence(
            teacher @ teacher.mT / self.tau, student @ student.mT / self.tau, allowed
        )


def _aligned(student: TokenVectors, teacher: TokenVectors) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors of length 1 of student (n, L, D) and teacher (n, L, E), and their mask (n, L).

    A text without teacher vectors is left out.
    """
    counts, teacher_counts = student.mask.sum(dim=1), teacher.mask.sum(dim=1)
    differ = (counts != teacher_counts) & (teacher_counts > 0)
    if bool(differ.any()):
        text = int(differ.nonzero()[0])
        raise InputError(
            f"a text has {int(counts[text])} token vectors of the student and"
            f" {int(teacher_counts[text])} of the teacher; TRG compares them one by one. Use a"
            " teacher and a student with the same tokenizer, lengths, prompts, query expansion and"
            " punctuation mask."
        )
    length = min(student.mask.shape[1], teacher.mask.shape[1])
    vectors = [
        F.normalize(side.vectors[:, :length].masked_fill(~side.mask[:, :length, None], 0.0), dim=-1)
        for side in (student, teacher)
    ]
    mask = student.mask[:, :length] & teacher.mask[:, :length]
    return vectors[0], vectors[1].to(vectors[0].dtype), mask


def _divergence(teacher: Tensor, student: Tensor, allowed: Tensor) -> Tensor:
    """`masked_divergence` over the rows with at least two allowed places."""
    rows = allowed.sum(dim=-1) >= 2
    if not rows.any():
        return student.sum() * 0.0
    return masked_divergence(teacher[rows], student[rows], allowed[rows])
