"""Which passages of a document stand for it: those that a run names, or that match the query."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from irdistill.collections import Corpus, Query
from irdistill.runs import RankedList
from irdistill.search.lexical.bm25 import BM25


class PassageChoice:
    """Chooses passages of the documents of a list.

    The first is the passage that the list names for a document. Where it names none, and after it,
    passages come by their BM25 for the query, ties in the order of the document.

    Args:
        corpus: documents with passages.
    """

    def __init__(self, corpus: Corpus) -> None:
        assert corpus.passages is not None
        self.corpus, self.passages = corpus, corpus.passages

    @cached_property
    def _bm25(self) -> BM25:
        return BM25(self.passages.corpus)

    def best(self, query: Query, ranked: RankedList) -> np.ndarray:
        """The number of one passage of each document, (n,) int32."""
        return np.array([numbers[0] for numbers in self.first(query, ranked, 1)], np.int32)

    def first(self, query: Query, ranked: RankedList, count: int | None) -> list[np.ndarray]:
        """The numbers of at most ``count`` passages of each document, best first; all, in the order
        of the document, for None.
        """
        documents = self.corpus.rows(ranked.doc_ids) if ranked.doc_ids else np.empty(0, np.int64)
        sizes = self.passages.counts(documents).tolist()
        if count is None:
            return [np.arange(size, dtype=np.int32) for size in sizes]
        named = [-1] * len(sizes) if ranked.passages is None else ranked.passages.tolist()
        chosen = []
        for document, size, number in zip(documents.tolist(), sizes, named, strict=True):
            if number >= 0:
                self.passages.rows([document], [number])  # raises for an unknown passage
            if size == 1 or (count == 1 and number >= 0):
                chosen.append(np.array([max(number, 0)], np.int32))
                continue
            scores = self._bm25.score(query.text, self.passages.all_of([document]))
            if number >= 0:
                scores[number] = np.inf
            chosen.append(np.argsort(-scores, kind="stable")[:count].astype(np.int32))
        return chosen
