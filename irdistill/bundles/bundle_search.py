"""Search in the index of a bundle, without torch: rows and scores of query vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.errors import MissingExtraError

FAISS_FILE = "index.faiss"
TERM_STARTS, POSTINGS, WEIGHTS = "term_starts.npy", "documents.npy", "weights.npy"
TOKEN_STARTS, TOKENS = "token_starts.npy", "tokens.npy"
_TOKEN_BYTES = 64 << 20
"""Bytes of token vectors that are scored at once."""


class RowSearch(ABC):
    """An opened index.

    Attributes:
        rows: number of rows.
    """

    rows: int

    @abstractmethod
    def top(self, queries: Any, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each query, scores (at most k,) float32 and rows, best first."""

    @abstractmethod
    def vector(self, row: int) -> np.ndarray:
        """What the index holds of a row: (D,), (V,) or (tokens, D) float32."""


class FaissSearch(RowSearch):
    """Inner products with the vectors in a FAISS index."""

    def __init__(self, path: Path) -> None:
        try:
            import faiss
        except ImportError as error:
            raise MissingExtraError(
                "faiss-cpu", "cpu", "search in a bundle", alternative=("faiss-gpu", "gpu")
            ) from error
        self._index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        self.rows = int(self._index.ntotal)

    def top(self, queries: np.ndarray, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Nearest rows of query vectors (Q, D)."""
        k = min(k, self.rows)
        if hasattr(self._index, "hnsw"):
            self._index.hnsw.efSearch = max(128, 2 * k)
        vectors = np.ascontiguousarray(queries, dtype=np.float32)
        scores, rows = self._index.search(vectors, k)
        present: np.ndarray = (rows >= 0) & vectors.any(axis=1, keepdims=True)
        return [
            (line[kept], neighbors[kept])
            for line, neighbors, kept in zip(scores, rows, present, strict=True)
        ]

    def vector(self, row: int) -> np.ndarray:
        """The vector (D,) of a row, as the index compares it."""
        if hasattr(self._index, "make_direct_map"):
            self._index.make_direct_map()
        vector: np.ndarray = self._index.reconstruct(row)
        return vector


class InvertedSearch(RowSearch):
    """Inner products of sparse vectors, through the documents of each term of the query."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.rows = rows
        self._starts = np.load(folder / TERM_STARTS)
        self._documents = np.load(folder / POSTINGS, mmap_mode="r")
        self._weights = np.load(folder / WEIGHTS, mmap_mode="r")

    def top(self, queries: np.ndarray, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Best rows of query vectors (Q, V) with a score above 0."""
        return [best(self._scores(query), k, above=0.0) for query in queries]

    def vector(self, row: int) -> np.ndarray:
        """The weights (V,) of the terms of a row."""
        places = np.flatnonzero(np.asarray(self._documents) == row)
        weights = np.zeros(len(self._starts) - 1, np.float32)
        weights[np.searchsorted(self._starts, places, side="right") - 1] = self._weights[places]
        return weights

    def _scores(self, query: np.ndarray) -> np.ndarray:
        scores = np.zeros(self.rows, np.float32)
        for term in np.flatnonzero(query).tolist():
            places = slice(self._starts[term], self._starts[term + 1])
            scores[self._documents[places]] += query[term] * self._weights[places]
        return scores


class MaxSimSearch(RowSearch):
    """The sum, or mean, over the query's tokens of the best inner product with a token of the row.

    Every row has at least one token.
    """

    def __init__(self, folder: Path, mean: bool) -> None:
        self._starts = np.load(folder / TOKEN_STARTS)
        self._tokens = np.load(folder / TOKENS, mmap_mode="r")
        self.rows, self._mean = len(self._starts) - 1, mean

    def top(self, queries: list[np.ndarray], k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Best rows of queries (tokens, D)."""
        return [
            best(self._scores(np.asarray(query, np.float32)), k)
            if len(query)
            else (np.empty(0, np.float32), np.empty(0, np.int64))
            for query in queries
        ]

    def vector(self, row: int) -> np.ndarray:
        """The vectors (tokens, D) of the tokens of a row."""
        return np.asarray(self._tokens[self._starts[row] : self._starts[row + 1]], np.float32)

    def _scores(self, query: np.ndarray) -> np.ndarray:
        scores = np.empty(self.rows, np.float32)
        tokens = max(1, _TOKEN_BYTES // (4 * query.shape[1]))
        first = 0
        while first < self.rows:
            limit = self._starts[first] + tokens
            last = max(first + 1, int(np.searchsorted(self._starts, limit, side="right")) - 1)
            begin, end = int(self._starts[first]), int(self._starts[last])
            products = np.asarray(self._tokens[begin:end]) @ query.T
            maxima = np.maximum.reduceat(products, self._starts[first:last] - begin, axis=0)
            scores[first:last] = maxima.mean(axis=1) if self._mean else maxima.sum(axis=1)
            first = last
        return scores


def best(scores: np.ndarray, k: int, above: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The k highest scores and their rows, best first; ties by row.

    Examples:
        >>> best(np.array([1.0, 3.0, 2.0], np.float32), 2)[1].tolist()
        [1, 2]
    """
    rows = np.arange(len(scores)) if above is None else np.flatnonzero(scores > above)
    values = scores[rows]
    if len(rows) > k:
        kept = np.argpartition(-values, k - 1)[:k]
        rows, values = rows[kept], values[kept]
    order = np.lexsort((rows, -values))
    return values[order], rows[order]
