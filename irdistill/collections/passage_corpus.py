"""The passages of a corpus: a corpus of their own, and the document of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from irdistill.collections.corpus import Corpus
from irdistill.errors import NotFoundError

NO_PASSAGE = -1
"""The number of a passage that is not known; null on disk."""


class Passages:
    """The P passages of N documents, in the order of the documents.

    Each document has at least one passage, also an empty one. Passage 3 of the document ``d`` has
    the id ``d#3``; its text begins with the title of the document.

    Attributes:
        corpus: the passages.
        starts: (N + 1,) int64: the passages of document i are the rows ``starts[i]`` to
            ``starts[i + 1] - 1`` of ``corpus``.
        settings: how the documents were split, as JSON values.

    Examples:
        >>> from irdistill.collections import Document
        >>> passages = Passages(
        ...     Corpus.in_memory([Document("d#0", "", "one"), Document("d#1", "", "two")]),
        ...     np.array([0, 2]), {})
        >>> passages.rows([0], [1]), passages.corpus.texts(passages.all_of([0]))
        (array([1]), ['one', 'two'])
    """

    def __init__(self, corpus: Corpus, starts: np.ndarray, settings: Mapping[str, Any]) -> None:
        self.corpus, self.starts, self.settings = corpus, starts, dict(settings)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the ids and texts of all passages."""
        return self.corpus.fingerprint

    @cached_property
    def documents(self) -> np.ndarray:
        """(P,) int32: the row of the document of each passage."""
        count = np.diff(self.starts)
        return np.repeat(np.arange(len(count), dtype=np.int32), count)

    def documents_of(self, rows: np.ndarray) -> np.ndarray:
        """(n,) int64: the rows of the documents of some passages."""
        return np.searchsorted(self.starts, np.asarray(rows, np.int64), side="right") - 1

    def numbers(self, rows: np.ndarray) -> np.ndarray:
        """(n,) int32: the numbers of some passages within their documents, from 0."""
        rows = np.asarray(rows, np.int64)
        return (rows - self.starts[self.documents_of(rows)]).astype(np.int32)

    def rows(self, documents: Any, numbers: Any) -> np.ndarray:
        """(n,) int64: the rows of passages, given by document rows and numbers.

        Raises:
            NotFoundError: a document has no passage with that number.
        """
        documents, numbers = np.asarray(documents, np.int64), np.asarray(numbers, np.int64)
        rows: np.ndarray = self.starts[documents] + numbers
        wrong = np.flatnonzero((numbers < 0) | (rows >= self.starts[documents + 1]))
        if len(wrong):
            document = int(documents[wrong[0]])
            raise NotFoundError(
                f"document {document} of the corpus has"
                f" {int(self.starts[document + 1] - self.starts[document])} passages, and passage"
                f" {int(numbers[wrong[0]])} (from 0) was named; was it split in another way?"
            )
        return rows

    def all_of(self, documents: Any) -> np.ndarray:
        """(n,) int64: the rows of all passages of some documents, document by document."""
        documents = np.asarray(documents, np.int64)
        starts = self.starts[documents]
        lengths = self.starts[documents + 1] - starts
        before = np.cumsum(lengths) - lengths
        return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))

    def counts(self, documents: Any) -> np.ndarray:
        """(n,) int64: the number of passages of some documents."""
        documents = np.asarray(documents, np.int64)
        counts: np.ndarray = self.starts[documents + 1] - self.starts[documents]
        return counts

    def of_documents(self, documents: Sequence[int]) -> Passages:
        """The passages of some documents, in memory."""
        rows = self.all_of(documents).tolist()
        corpus = Corpus.in_memory(self.corpus.document(row) for row in rows)
        starts = np.append(0, np.cumsum(self.counts(documents)))
        return Passages(corpus, starts.astype(np.int64), self.settings)

    def __len__(self) -> int:
        return len(self.corpus)

    def __repr__(self) -> str:
        return f"Passages({len(self)} of {len(self.starts) - 1} documents, {self.fingerprint})"


def passage_id(doc_id: str, number: int) -> str:
    """The id of a passage.

    Examples:
        >>> passage_id("guide.md", 3)
        'guide.md#3'
    """
    return f"{doc_id}#{number}"


def reading_corpus(corpus: Corpus) -> Corpus:
    """What a model reads whole: the passages of a corpus if it has any, else its documents."""
    return corpus if corpus.passages is None else corpus.passages.corpus
