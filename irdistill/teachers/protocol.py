"""What a teacher is: it owns its model; the engine owns batches, parts, resume and progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from irdistill.collections import Query


class Pair(NamedTuple):
    """A query and a document: its row in the corpus, and its text."""

    query: Query
    row: int
    text: str


class Scores(NamedTuple):
    """One score a pair.

    Attributes:
        values: (n,) float32 raw scores (logits, inner products); NaN only where a flag says why.
        flags: why a score is missing or doubtful, for each pair; None where no pair has a flag.
    """

    values: np.ndarray
    flags: list[str | None] | None = None


@runtime_checkable
class Teacher(Protocol):
    """A pointwise teacher.

    Attributes:
        identity: everything that decides its scores; goes into the run's manifest word for word.
    """

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def score(self, pairs: Sequence[Pair]) -> Scores:
        """Score pairs, in their order."""
        ...


@runtime_checkable
class BatchTeacher(Protocol):
    """A teacher whose model takes padded batches; the engine makes them, by length, within a token budget."""

    @property
    def identity(self) -> Mapping[str, Any]: ...

    @property
    def token_budget(self) -> int:
        """Padded tokens that suit one forward pass on its device."""
        ...

    def tokenize(self, pairs: Sequence[Pair]) -> tuple[Any, np.ndarray]:
        """What ``forward`` takes, and the pairs' lengths in tokens, (n,) int64."""
        ...

    def forward(self, tokens: Any, rows: np.ndarray) -> np.ndarray:
        """(len(rows),) float32 raw scores of the pairs at these places."""
        ...
