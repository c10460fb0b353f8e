"""What a teacher is: it owns its model; the engine owns batches, parts, resume and progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from irdistill.collections import Query


class TextPair(NamedTuple):
    """A query and a document: its row in the corpus, and its text."""

    query: Query
    row: int
    text: str


NO_TOKENS, TOO_LONG = "no tokens", "too long"
"""Flags of pairs that a model cannot read: of no tokens, or with a query that leaves no room for
the document.
"""
TOO_LONG_LENGTH = -1
"""What ``BatchTeacher.tokenize`` gives as the length of a pair with too long a query."""
NO_USAGE: Mapping[str, float] = MappingProxyType({})


class TeacherScores(NamedTuple):
    """One score a pair.

    Attributes:
        values: (n,) float32 raw scores (logits, inner products); NaN only where a flag says why.
        flags: why a score is missing or doubtful, for each pair; None where no pair has a flag.
        usage: what was used up for them (``tokens``, ``requests``, ``cost`` …), numbers that a
            repeated call would give again; summed into the run's manifest.
    """

    values: np.ndarray
    flags: list[str | None] | None = None
    usage: Mapping[str, float] = NO_USAGE


class PartialOrder(NamedTuple):
    """How a listwise or pairwise teacher orders one query's documents; it may leave some out.

    Attributes:
        order: places of the ranked documents in the list that was given, best first, each once.
        flags: (n,) for each document given why it is not ranked, or why its rank is doubtful; None
            otherwise. Every document that is not in ``order`` has a flag.
        values: (n,) float32 scores of the method's own, NaN where not ranked (the wins of all
            pairs, say); None where the order is all there is, and the engine gives the first of n
            documents the score n, the next n - 1, and so on.
        usage: as of `TeacherScores`.
    """

    order: list[int]
    flags: list[str | None]
    values: np.ndarray | None = None
    usage: Mapping[str, float] = NO_USAGE


@runtime_checkable
class Teacher(Protocol):
    """A pointwise teacher.

    Attributes:
        identity: everything that decides its scores; goes into the run's manifest word for word.
    """

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        """Score pairs, in their order."""
        ...


@runtime_checkable
class BatchTeacher(Protocol):
    """A teacher whose model takes padded batches; the engine makes them, by length, within a token
    budget.
    """

    @property
    def identity(self) -> Mapping[str, Any]: ...

    @property
    def token_budget(self) -> int:
        """Padded tokens that suit one forward pass on its device."""
        ...

    def tokenize(self, pairs: Sequence[TextPair]) -> tuple[Any, np.ndarray]:
        """What ``forward`` takes, and the pairs' lengths in tokens, (n,) int64.

        A pair of length 0, or of ``TOO_LONG_LENGTH``, cannot be read: it is not given to
        ``forward``, and is null with a flag.
        """
        ...

    def forward(self, tokens: Any, rows: np.ndarray) -> np.ndarray:
        """(len(rows),) float32 raw scores of the pairs at these places."""
        ...


@runtime_checkable
class ListwiseTeacher(Protocol):
    """A teacher that looks at several documents of a query at a time."""

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def rank(self, lists: Sequence[Sequence[TextPair]]) -> list[PartialOrder]:
        """Order the documents of each query; a list holds one query's pairs in the order of its
        candidates.

        MultiValueCommand queries are given at once so that a model which answers many requests at a
        time is kept busy.
        """
        ...
