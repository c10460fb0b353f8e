"""Vectors of texts, which some losses compare, and samples to which some losses are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


def widened(values: Tensor) -> Tensor:
    """The values in float32; float64 stays float64, for gradient checks."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


class TokenVectors(NamedTuple):
    """Token vectors (n, L, D) of n texts and their mask (n, L), False on padding."""

    vectors: Tensor
    mask: Tensor


def padded_tokens(texts: Sequence[Tensor]) -> TokenVectors:
    """Pad the token vectors (tokens, D) of each text with zeros."""
    vectors = nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    lengths = torch.tensor([len(text) for text in texts], device=vectors.device)
    return TokenVectors(
        vectors, torch.arange(vectors.shape[1], device=vectors.device) < lengths[:, None]
    )


@dataclass(frozen=True)
class BatchRepresentations:
    """The vectors that one model, student or teacher, has for a batch; None for missing kinds.

    A text or pair without a vector has NaN in its row, or no token. Half precision is widened to
    float32.

    Attributes:
        queries: (B, D) a vector for each query.
        documents: (U, D) a vector for each unique document of the batch.
        pairs: (B, N, D) the pooled last state of each query-document pair.
        query_tokens: (B, L, D) with their mask.
        document_tokens: (U, L, D) with their mask.
    """

    queries: Tensor | None = None
    documents: Tensor | None = None
    pairs: Tensor | None = None
    query_tokens: TokenVectors | None = None
    document_tokens: TokenVectors | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, TokenVectors):
                object.__setattr__(
                    self, entry.name, TokenVectors(widened(value.vectors), value.mask.bool())
                )
            elif value is not None:
                object.__setattr__(self, entry.name, widened(value))

    def to(self, device: torch.device) -> BatchRepresentations:
        """A copy on another device."""

        def moved(value: Tensor | TokenVectors | None) -> Any:
            if isinstance(value, TokenVectors):
                return TokenVectors(value.vectors.to(device), value.mask.to(device))
            return None if value is None else value.to(device)

        return BatchRepresentations(
            **{entry.name: moved(getattr(self, entry.name)) for entry in fields(self)}
        )

    def first(self, dimension: int) -> BatchRepresentations:
        """The first numbers of each text's vector, for Matryoshka losses."""

        def cut(vectors: Tensor | None) -> Tensor | None:
            return None if vectors is None else vectors[:, :dimension]

        return replace(self, queries=cut(self.queries), documents=cut(self.documents))

    def one_list(self, place: int) -> BatchRepresentations:
        """The vectors of one list; documents are those of the whole batch."""
        row = slice(place, place + 1)
        tokens = self.query_tokens
        return replace(
            self,
            queries=None if self.queries is None else self.queries[row],
            pairs=None if self.pairs is None else self.pairs[row],
            query_tokens=(
                None if tokens is None else TokenVectors(tokens.vectors[row], tokens.mask[row])
            ),
        )

    def reordered(self, order: Tensor) -> BatchRepresentations:
        """The pairs of each list in the order (B, n); all else is unchanged."""
        if self.pairs is None:
            return self
        return replace(
            self, pairs=self.pairs.gather(1, order[:, :, None].expand(-1, -1, self.pairs.shape[2]))
        )


@dataclass(frozen=True)
class FittingSample:
    """Scored pairs of the teacher from the whole training set, to fit a loss before training.

    Attributes:
        states: (n, D) pooled last states of pairs.
        scores: (n,) their teacher scores.
        classifier: (C, D) weight of the linear layer that turns states into teacher scores.
    """

    states: Tensor
    scores: Tensor
    classifier: Tensor


def known_vectors(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors (n, D) and (n, E) of the texts for which the teacher has one."""
    known = ~teacher.isnan().any(dim=-1)
    return student[known], teacher[known].to(student.dtype)


def both_models(batch: Any, name: str) -> tuple[Any, Any]:
    """A field of the student's and of the teacher's `BatchRepresentations` in a `ScoreBatch`.

    Raises:
        ValueError: the batch lacks one of them.
    """
    values = [
        getattr(vectors, name, None)
        for vectors in (batch.student_representations, batch.teacher_representations)
    ]
    if any(value is None for value in values):
        raise ValueError(
            f"this needs the {name} in student_representations and teacher_representations"
        )
    return values[0], values[1]
