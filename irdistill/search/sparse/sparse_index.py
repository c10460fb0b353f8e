"""Exact search over sparse vectors: an inverted index, which reads the words of the query and
nothing else.

The documents are cut into blocks; of each the index holds, word by word, the documents that have it
(compressed sparse columns). Scores are sums of float32 products, block by block, so memory does not
grow with the corpus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix

from irdistill.collections import Corpus
from irdistill.errors import IrdistillError
from irdistill.search.array_shards import Arrays, write_arrays
from irdistill.search.ranking import SearchHits, TopK
from irdistill.search.vectors.vector_store import SparseStore

FORMAT = 1
BLOCK_ROWS = 131_072


class SparseIndex:
    """The columns of a sparse store, in memory-mapped files."""

    settings: Mapping[str, Any] = {"kind": "flat"}

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self.rows = len(arrays)
        self.block_rows, self.dimension = (
            int(arrays.identity["block_rows"]),
            int(arrays.identity["dimension"]),
        )
        self._starts, self._documents, self._weights = map(
            arrays.array, ("starts", "documents", "weights")
        )
        self._ends = np.cumsum(self._starts[:, -1])

    @classmethod
    def build(
        cls, store: SparseStore, folder: str | Path, *, block_rows: int = BLOCK_ROWS
    ) -> SparseIndex:
        """Turn the rows into columns, or go on where an earlier call was stopped.

        Raises:
            IrdistillError: the folder holds an index over other vectors, or the disk is full.
        """
        identity = {
            "format": FORMAT,
            "kind": "inverted",
            "vectors": store.fingerprint,
            "block_rows": block_rows,
            "dimension": store.dimension,
        }

        def turn(start: int, end: int) -> Mapping[str, np.ndarray]:
            columns = store.part(start, end).tocsc()
            return {"starts": columns.indptr, "documents": columns.indices, "weights": columns.data}

        layout = {
            "starts": ("int64", (store.dimension + 1,)),
            "documents": ("int32", ()),
            "weights": ("float32", ()),
        }
        write_arrays(folder, identity, layout, len(store), block_rows, turn, what="index")
        return cls(Arrays(folder))

    @property
    def nbytes(self) -> int:
        """The bytes of the index."""
        return self._arrays.nbytes

    def search(self, queries: csr_matrix, corpus: Corpus, k: int) -> list[SearchHits]:
        """The k best documents of each query (Q, V); those that share no word with it, or score no
        more than 0, are not found.

        Raises:
            IrdistillError: the queries are over another vocabulary.
        """
        if queries.shape[1] != self.dimension:
            raise IrdistillError(
                f"query vectors of shape {queries.shape} were given, not (Q, {self.dimension})."
            )
        asked: Sequence[tuple[np.ndarray, np.ndarray]] = [
            (queries.indices[start:end], queries.data[start:end].astype(np.float32))
            for start, end in zip(queries.indptr[:-1], queries.indptr[1:], strict=True)
        ]
        best = [TopK(corpus, k, above=0.0) for _ in asked]
        for number in range(len(self._ends)):
            block = self._block(number)
            for one, (words, weights) in zip(best, asked, strict=True):
                if len(words):
                    one.add(block[:, words] @ weights, number * self.block_rows)
        return [one.hits for one in best]

    def _block(self, number: int) -> csc_matrix:
        starts, last = self._starts[number], int(self._ends[number])
        places = slice(last - int(starts[-1]), last)
        size = min(self.block_rows, self.rows - number * self.block_rows)
        return csc_matrix(
            (np.asarray(self._weights[places]), np.asarray(self._documents[places]), starts),
            shape=(size, self.dimension),
        )
