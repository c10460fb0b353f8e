"""What the rows of an index stand for: documents, or passages of documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from irdistill.collections import Corpus


class IndexedText(NamedTuple):
    """The text of one row of an index.

    Attributes:
        id: of the document.
        passage: number of the passage in its document; None if the row is a whole document.
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
        split: Any = getattr(corpus, "passages", None)
        self.whole, self.passages = corpus, split is not None
        self.corpus: Corpus = corpus if split is None else split.corpus
        self._documents = None if split is None else np.asarray(split.documents)

    def texts(self, rows: Sequence[int] | np.ndarray) -> list[IndexedText]:
        """The texts of some rows, in this order."""
        places = np.asarray(rows, dtype=np.int64)
        if self._documents is None:
            documents = (self.corpus.document(row) for row in places.tolist())
            return [IndexedText(one.id, None, one.title, one.text) for one in documents]
        owners = self._documents[places]
        numbers = places - np.searchsorted(self._documents, owners)
        ids = self.whole.ids_at(owners)
        texts = (self.corpus.document(row) for row in places.tolist())
        return [
            IndexedText(doc_id, number, one.title, one.text)
            for doc_id, number, one in zip(ids, numbers.tolist(), texts, strict=True)
        ]

    def blocks(self, rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """The rows in blocks of at most ``size``."""
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
