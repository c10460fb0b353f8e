"""The interfaces of teachers. A teacher owns its model; the engine owns batches, parts, resuming
and progress.
"""

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
    """One score per pair.

    Attributes:
        values: (n,) float32 raw scores (logits, inner products); NaN only with a flag.
        flags: why a score is missing or doubtful, per pair; None if no pair has a flag.
        usage: what the scores took (``tokens``, ``requests``, ``cost``, …). A repeated call must
            give the same numbers. They are summed into the run's manifest.
    """

    values: np.ndarray
    flags: list[str | None] | None = None
    usage: Mapping[str, float] = NO_USAGE


class PartialOrder(NamedTuple):
    """How a listwise or pairwise teacher orders the documents of one query; it may leave some out.

    Attributes:
        order: positions of the ranked documents in the list, best first, each once.
        flags: (n,) why a document is not ranked, or why its rank is doubtful; else None. Each
            document that is not in ``order`` has a flag.
        values: (n,) float32 scores of the method (such as the number of wins), NaN if not ranked.
            If None, the engine gives the first of n documents the score n, the next n - 1, and so
            on.
        usage: as in `TeacherScores`.
    """

    order: list[int]
    flags: list[str | None]
    values: np.ndarray | None = None
    usage: Mapping[str, float] = NO_USAGE


@runtime_checkable
class Teacher(Protocol):
    """A pointwise teacher.

    Attributes:
        identity: everything that determines its scores; written to the run's manifest.
    """

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that determines its scores."""
        ...

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        """Score pairs, in their order."""
        ...


@runtime_checkable
class BatchTeacher(Protocol):
    """A teacher whose model takes padded batches; the engine forms them by length, within a token
    budget.
    """

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that determines its scores."""
        ...

    @property
    def token_budget(self) -> int:
        """Padded tokens that suit one forward pass on its device."""
        ...

    def tokenize(self, pairs: Sequence[TextPair]) -> tuple[Any, np.ndarray]:
        """The argument of ``forward``, and the pairs' lengths in tokens, (n,) int64.

        A pair of length 0, or of ``TOO_LONG_LENGTH``, cannot be read: it is not passed to
        ``forward``, and is null with a flag.
        """
        ...

    def forward(self, tokens: Any, rows: np.ndarray) -> np.ndarray:
        """(len(rows),) float32 raw scores of the pairs ``rows``."""
        ...


@runtime_checkable
class ListwiseTeacher(Protocol):
    """A teacher that reads several documents of a query at a time."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that determines its scores."""
        ...

    def rank(self, lists: Sequence[Sequence[TextPair]]) -> list[PartialOrder]:
        """Order the documents of each query.

        Args:
            lists: the pairs of each query, in the order of its candidates. Several queries are
                passed at once, so that a model which answers many requests at a time is busy.
        """
        ...
