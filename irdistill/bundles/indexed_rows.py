"""What the rows of an index stand for: documents, or passages of documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from irdistill.collections import Corpus
from irdistill.collections.passage_corpus import reading_corpus


class IndexedText(NamedTuple):
    """The text of one row of an index.

    Attributes:
        id: of the document.
        passage: number of the passage in its document; None if the row is a whole document.
        title: of the document.
        text: of the document, or of the passage, which begins with the title.
    """

    id: str
    passage: int | None
    title: str
    text: str


class IndexedRows:
    """The rows of a corpus that are encoded: its passages, if it is split, else its documents.

    Attributes:
        corpus: the texts that are encoded.
        passages: whether they are passages.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._whole, self._passages = corpus, corpus.passages
        self.corpus, self.passages = reading_corpus(corpus), corpus.passages is not None

    def texts(self, rows: Sequence[int] | np.ndarray) -> list[IndexedText]:
        """The texts of some rows, in this order."""
        places = np.asarray(rows, dtype=np.int64)
        if self._passages is None:
            documents = (self.corpus.document(row) for row in places.tolist())
            return [IndexedText(one.id, None, one.title, one.text) for one in documents]
        owners = [self._whole.document(row) for row in self._passages.documents_of(places).tolist()]
        numbers, texts = self._passages.numbers(places), self.corpus.texts(places)
        return [
            IndexedText(owner.id, number, owner.title, text)
            for owner, number, text in zip(owners, numbers.tolist(), texts, strict=True)
        ]

    def blocks(self, rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """The rows in blocks of at most ``size``."""
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
