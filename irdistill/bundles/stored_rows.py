"""The stored vectors of a corpus as an index or a search engine takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from irdistill.search.vectors.vector_store import SparseStore, Store, TokenStore, VectorStore


def searchable_rows(store: Store) -> np.ndarray:
    """The rows that have a vector, ascending; a text without tokens is never retrieved."""
    if isinstance(store, VectorStore):
        present = np.ones(len(store), dtype=bool)
        present[store.absent_rows] = False
        return np.flatnonzero(present)
    assert isinstance(store, SparseStore | TokenStore)
    return np.flatnonzero(np.diff(store.starts))


def vectors_of(store: Store, rows: np.ndarray) -> Any:
    """Vectors (n, D) float32, sparse rows (n, V), or a list of (tokens, D), of some rows."""
    if isinstance(store, VectorStore):
        return np.ascontiguousarray(store.matrix[rows], dtype=np.float32)
    if isinstance(store, SparseStore):
        return store.rows_of(rows)
    assert isinstance(store, TokenStore)
    places, lengths = store.places(rows)
    values = np.asarray(store.matrix[places], dtype=np.float32)
    return np.split(values, np.cumsum(lengths)[:-1])
