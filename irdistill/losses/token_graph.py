"""A loss between the token vectors of teacher and student: which tokens are like which."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from irdistill.errors import IrdistillError
from irdistill.losses.base import Loss, register
from irdistill.losses.batch import ScoreBatch
from irdistill.losses.representations import TokenVectors

_SIDES = {"query": "query_tokens", "document": "document_tokens"}
#: Similarities of one model that are held at a time within texts: 64 MiB in float32.
_ELEMENTS = 1 << 24


@register("TRG")
@dataclass(frozen=True)
class TRG(Loss):
    """``cross * L_TRG + within * L_ctx``: the student's graph of token similarities is to be the
    teacher's.

    For a token i, ``A[i] = softmax_j(x_i . x_j / tau)`` over other tokens, of vectors of length 1;
    each term is ``mean_i KL(A_T[i] || A_S[i])``. In ``L_TRG`` the tokens j are of the other texts
    of the batch, in ``L_ctx`` the other tokens of i's own text. It compares similarities and no
    vectors, so the dimensions of teacher and student may differ; but each vector has to stand for
    the same token, so both need one tokenizer and one way of leaving tokens out. The idea is the
    token-level relationship graph of Zhang et al. (arXiv 2306.12442), from images; this form, for
    late interaction, is ours.

    Attributes:
        side: the tokens of ``"document"``s or of the ``"query"``.
        tau: divides the similarities, of both.
        tokens: so many tokens, evenly spread over the batch, are compared across texts; the cost is
            their square.
        neighbours: of each token's row keep the teacher's nearest so many across texts; all where
            None.
        cross, within: weights of the two terms; 0 leaves one out.
    """

    side: str = "document"
    tau: float = 0.1
    tokens: int = 512
    neighbours: int | None = None
    cross: float = 1.0
    within: float = 1.0

    def __post_init__(self) -> None:
        self.check_choice("side", tuple(_SIDES))
        self.check_positive("tau")
        self.check_whole("tokens", 2)
        self.check_whole("neighbours", 2, optional=True)
        for name in ("cross", "within"):
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not 0 <= value < math.inf
            ):
                raise IrdistillError(
                    f"TRG({name}={value!r}): {name} must be a finite number of at least 0."
                )
            object.__setattr__(self, name, float(value))
        if not self.cross and not self.within:
            raise IrdistillError(
                "TRG(cross=0, within=0) compares nothing; leave one of them above 0."
            )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"representation"})

    @property
    def representations(self) -> frozenset[str]:
        return frozenset({_SIDES[self.side]})

    def compute(self, batch: ScoreBatch) -> Tensor:
        name = _SIDES[self.side]
        own, theirs = (
            getattr(states, name, None)
            for states in (batch.student_representations, batch.teacher_representations)
        )
        if own is None or theirs is None:
            raise ValueError(
                f"this needs the {name} in student_representations and teacher_representations"
            )
        student, teacher, there = _aligned(own, theirs)
        total = batch.zero()
        if self.cross:
            total = total + self.cross * self._across(student, teacher, there)
        if self.within:
            total = total + self.within * self._inside(student, teacher, there)
        return total

    def _across(self, student: Tensor, teacher: Tensor, there: Tensor) -> Tensor:
        """Of the tokens of different texts."""
        texts, places = there.nonzero(as_tuple=True)
        if len(texts) > self.tokens:
            chosen = (
                torch.linspace(0, len(texts) - 1, self.tokens, device=texts.device).round().long()
            )
            texts, places = texts[chosen], places[chosen]
        allowed = texts[:, None] != texts[None, :]
        own, theirs = student[texts, places], teacher[texts, places]
        theirs = theirs @ theirs.T
        if self.neighbours is not None and self.neighbours < len(texts):
            nearest = theirs.masked_fill(~allowed, -torch.inf).topk(self.neighbours, dim=1).indices
            allowed = allowed & torch.zeros_like(allowed).scatter(1, nearest, True)
        return _divergence(theirs / self.tau, own @ own.T / self.tau, allowed)

    def _inside(self, student: Tensor, teacher: Tensor, there: Tensor) -> Tensor:
        """Of the tokens of one text; of so many texts, evenly spread over the batch, as fit into
        memory.
        """
        count, length = there.shape
        most = max(1, _ELEMENTS // max(1, length * length))
        if count > most:
            chosen = torch.linspace(0, count - 1, most, device=there.device).round().long()
            student, teacher, there = student[chosen], teacher[chosen], there[chosen]
        allowed = (
            there[:, :, None]
            & there[:, None, :]
            & ~torch.eye(length, dtype=torch.bool, device=there.device)
        )
        return _divergence(
            teacher @ teacher.mT / self.tau, student @ student.mT / self.tau, allowed
        )


def _aligned(own: TokenVectors, theirs: TokenVectors) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors of length 1 of student (n, L, D) and teacher (n, L, E), and where there are some, (n,
    L) bool.

    A text without teacher vectors is left out.
    """
    counts, given = own.mask.sum(dim=1), theirs.mask.sum(dim=1)
    if bool(((counts != given) & (given > 0)).any()):
        text = int(((counts != given) & (given > 0)).nonzero()[0])
        raise IrdistillError(
            f"a text has {int(counts[text])} token vectors of the student and {int(given[text])} of"
            " the teacher; TRG compares them one by one. Use a teacher and a student of one"
            " tokenizer, with the same lengths, prompts, query expansion and punctuation mask."
        )
    length = min(own.mask.shape[1], theirs.mask.shape[1])
    student, teacher = (
        F.normalize(side.vectors[:, :length].masked_fill(~side.mask[:, :length, None], 0.0), dim=-1)
        for side in (own, theirs)
    )
    return student, teacher.to(student.dtype), own.mask[:, :length] & theirs.mask[:, :length]


def _divergence(teacher: Tensor, student: Tensor, allowed: Tensor) -> Tensor:
    """``KL(softmax(teacher) || softmax(student))`` over the allowed places, mean over the rows with
    at least two.
    """
    rows = allowed.sum(dim=-1) >= 2
    if not rows.any():
        return student.sum() * 0.0
    out = ~allowed[rows]
    target = teacher[rows].masked_fill(out, -torch.inf).log_softmax(dim=-1)
    found = student[rows].masked_fill(out, -torch.inf).log_softmax(dim=-1)
    return (
        (target.exp() * (target.masked_fill(out, 0.0) - found.masked_fill(out, 0.0)))
        .sum(dim=-1)
        .mean()
    )
