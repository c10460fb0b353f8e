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


class SpanVectors(NamedTuple):
    """The teacher's vectors of the spans that two tokenizers share, and the student's tokens there.

    Attributes:
        vectors, mask: (n, S, E) means of the teacher's token vectors in each span of n texts, and
            (n, S), False on padding.
        places: (n, L) the span of each token vector of the student; -1 for none.
        counts: (n,) number of token vectors that the student has of each text.
    """

    vectors: Tensor
    mask: Tensor
    places: Tensor
    counts: Tensor


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
        query_spans, document_spans: of the teacher only, for B queries and U documents.
    """

    queries: Tensor | None = None
    documents: Tensor | None = None
    pairs: Tensor | None = None
    query_tokens: TokenVectors | None = None
    document_tokens: TokenVectors | None = None
    query_spans: SpanVectors | None = None
    document_spans: SpanVectors | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, TokenVectors | SpanVectors):
                entered = value._replace(vectors=widened(value.vectors), mask=value.mask.bool())
                object.__setattr__(self, entry.name, entered)
            elif value is not None:
                object.__setattr__(self, entry.name, widened(value))

    def to(self, device: torch.device) -> BatchRepresentations:
        """A copy on another device."""

        def moved(value: Tensor | TokenVectors | SpanVectors | None) -> Any:
            if isinstance(value, TokenVectors | SpanVectors):
                return type(value)(*(part.to(device) for part in value))
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

        def cut(parts: Any) -> Any:
            return None if parts is None else type(parts)(*(part[row] for part in parts))

        return replace(
            self,
            queries=None if self.queries is None else self.queries[row],
            pairs=None if self.pairs is None else self.pairs[row],
            query_tokens=cut(self.query_tokens),
            query_spans=cut(self.query_spans),
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


def evenly_spaced(count: int, chosen: int, device: torch.device) -> Tensor:
    """``chosen`` of ``count`` places, evenly spaced."""
    return torch.linspace(0, count - 1, chosen, device=device).round().long()


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
