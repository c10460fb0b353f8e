"""What a model makes of texts besides scores: the representations that some losses compare, and
what some are fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

#: The representations there are, by the names of the fields of `BatchRepresentations`.
REPRESENTATIONS = ("queries", "documents", "pairs", "query_tokens", "document_tokens")


def widened(values: Tensor) -> Tensor:
    """float32 for half precision and integers; float64 stays (gradient checks)."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


class TokenVectors(NamedTuple):
    """A vector for each token of n texts: (n, L, D), and (n, L) bool, False on padding and on texts
    that have none.
    """

    vectors: Tensor
    mask: Tensor


def padded_tokens(texts: Sequence[Tensor]) -> TokenVectors:
    """Of the token vectors (tokens, D) of each text; zeros stand on padding."""
    vectors = nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    lengths = torch.tensor([len(text) for text in texts], device=vectors.device)
    return TokenVectors(
        vectors, torch.arange(vectors.shape[1], device=vectors.device) < lengths[:, None]
    )


@dataclass(frozen=True)
class BatchRepresentations:
    """The representations that one model, student or teacher, has of a batch; None where it has
    none of the sort.

    A text or pair without one has NaN in its row, or no token. Half precision is widened to
    float32.

    Attributes:
        queries: (B, D) a vector for each query.
        documents: (U, D) a vector for each unique document of the batch.
        pairs: (B, N, D) the pooled last state of query and document read together.
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
        """On another device."""

        def moved(value: Tensor | TokenVectors | None) -> Any:
            if isinstance(value, TokenVectors):
                return TokenVectors(value.vectors.to(device), value.mask.to(device))
            return None if value is None else value.to(device)

        return BatchRepresentations(
            **{entry.name: moved(getattr(self, entry.name)) for entry in fields(self)}
        )

    def one_list(self, place: int) -> BatchRepresentations:
        """Of one list alone; documents are those of the whole batch."""
        own = slice(place, place + 1)
        tokens = self.query_tokens
        return replace(
            self,
            queries=None if self.queries is None else self.queries[own],
            pairs=None if self.pairs is None else self.pairs[own],
            query_tokens=(
                None if tokens is None else TokenVectors(tokens.vectors[own], tokens.mask[own])
            ),
        )

    def reordered(self, order: Tensor) -> BatchRepresentations:
        """With the pairs of each list at the places ``order`` (B, n)."""
        if self.pairs is None:
            return self
        return replace(
            self, pairs=self.pairs.gather(1, order[:, :, None].expand(-1, -1, self.pairs.shape[2]))
        )


@dataclass(frozen=True)
class FittingSample:
    """Scored pairs of the teacher, drawn from the whole training set, for what is fitted before the
    first step.

    Attributes:
        states: (n, D) pooled last states of pairs.
        scores: (n,) the teacher's scores of them.
        classifier: (C, D) weight of the linear layer that makes the teacher's scores of such
            states.
    """

    states: Tensor
    scores: Tensor
    classifier: Tensor


def pick(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors of student and teacher, (n, D) each, of what the teacher has a vector for;
    leading dimensions are joined.
    """
    there = ~targets.isnan().any(dim=-1)
    return states[there], targets[there].to(states.dtype)
