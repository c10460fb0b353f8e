"""Write the index of a bundle: a FAISS file, an inverted index, or the vectors of all tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from irdistill.bundles.bundle_manifest import INDEX
from irdistill.bundles.bundle_search import (
    FAISS_FILE,
    POSTINGS,
    TERM_STARTS,
    TOKEN_STARTS,
    TOKENS,
    WEIGHTS,
)
from irdistill.bundles.package_options import BundleIndex
from irdistill.bundles.staged_package import StagedPackage
from irdistill.bundles.stored_rows import vectors_of
from irdistill.console.progress_bars import progress
from irdistill.search.vectors.faiss_index import import_faiss, new_index
from irdistill.search.vectors.vector_store import SparseStore, Store, TokenStore, VectorStore
from irdistill.storage.files import MappedPages

_BLOCK = 65_536


def write_index(
    staged: StagedPackage, store: Store, rows: np.ndarray, index: BundleIndex, seed: int
) -> None:
    """Write the index over some rows of a store.

    Args:
        index: of a dense store; the others have an exact index.
    """
    if isinstance(store, SparseStore):
        _write_inverted(staged, store, rows)
    elif isinstance(store, TokenStore):
        _write_tokens(staged, store, rows)
    else:
        assert isinstance(store, VectorStore)
        _write_faiss(staged, store, rows, index, seed)


class _ChosenRows:
    """Some rows of a store, as `new_index` reads vectors."""

    def __init__(self, store: VectorStore, rows: np.ndarray) -> None:
        self._store, self._rows, self.dimension = store, rows, store.dimension
        self.matrix = self

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.asarray(self._store.matrix[self._rows[key]])


def _write_faiss(
    staged: StagedPackage, store: VectorStore, rows: np.ndarray, index: BundleIndex, seed: int
) -> None:
    def write(path: Path) -> None:
        built, _ = new_index(_ChosenRows(store, rows), index, seed)
        import_faiss().write_index(built, str(path))

    staged.write_file(f"{INDEX}/{FAISS_FILE}", write)


def _write_inverted(staged: StagedPackage, store: SparseStore, rows: np.ndarray) -> None:
    """The documents of each term, and their weights, in two passes over the vectors."""
    counts = np.zeros(store.dimension + 1, np.int64)
    for start in range(0, len(rows), _BLOCK):
        part = store.rows_of(rows[start : start + _BLOCK])
        counts[1:] += np.bincount(part.indices, minlength=store.dimension)
    starts = np.cumsum(counts)
    staged.write_file(f"{INDEX}/{TERM_STARTS}", lambda path: _save(path, starts))

    def fill(path: Path, dtype: str, documents: bool) -> None:
        array = np.lib.format.open_memmap(path, "w+", dtype, (int(starts[-1]),))
        pages, ends = MappedPages(array), starts[:-1].copy()
        with progress(len(rows), "documents", "index") as bar:
            for first in range(0, len(rows), _BLOCK):
                columns = store.rows_of(rows[first : first + _BLOCK]).tocsc()
                columns.sort_indices()
                lengths = np.diff(columns.indptr)
                places = np.repeat(ends - columns.indptr[:-1], lengths) + np.arange(columns.nnz)
                array[places] = columns.indices + first if documents else columns.data
                ends += lengths
                pages.read(columns.nnz * 8)
                bar.update(columns.shape[0])
        array.flush()

    staged.write_file(f"{INDEX}/{POSTINGS}", lambda path: fill(path, "int32", True))
    staged.write_file(f"{INDEX}/{WEIGHTS}", lambda path: fill(path, "float32", False))


def _write_tokens(staged: StagedPackage, store: TokenStore, rows: np.ndarray) -> None:
    """The vectors of the tokens of all documents, and where each document starts."""
    lengths = np.diff(store.starts)[rows]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    staged.write_file(f"{INDEX}/{TOKEN_STARTS}", lambda path: _save(path, starts))

    def fill(path: Path) -> None:
        array = np.lib.format.open_memmap(path, "w+", "float32", (int(starts[-1]), store.dimension))
        block = 1024
        with progress(len(rows), "documents", "index") as bar:
            for first in range(0, len(rows), block):
                parts = vectors_of(store, rows[first : first + block])
                array[starts[first] : starts[first + len(parts)]] = np.concatenate(parts)
                bar.update(len(parts))
        array.flush()

    staged.write_file(f"{INDEX}/{TOKENS}", fill)


def _save(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as stream:  # np.save would add .npy to a temporary name
        np.save(stream, array)
