"""Exact search over sparse vectors with an inverted index.

The documents are split into blocks. Each block stores, term by term, the documents that contain it
(compressed sparse columns). Scores are summed in float32 block by block, so memory does not grow
with the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix

from irdistill.collections import Corpus
from irdistill.errors import InputError
from irdistill.search.array_shards import Arrays, ShardOptions, write_arrays
from irdistill.search.ranking import SearchHits, TopK
from irdistill.search.vectors.vector_store import SparseStore

FORMAT = 1
BLOCK_ROWS = 131_072


class SparseIndex:
    """The columns of a sparse store, in memory-mapped files."""

    settings: Mapping[str, Any] = {"kind": "flat"}

    def __init__(self, arrays: Arrays) -> None:
        self._arrays, self.rows = arrays, len(arrays)
        self.block_rows = int(arrays.identity["block_rows"])
        self.dimension = int(arrays.identity["dimension"])
        self._starts, self._documents, self._weights = map(
            arrays.array, ("starts", "documents", "weights")
        )
        self._ends = np.cumsum(self._starts[:, -1])

    @classmethod
    def build(
        cls, store: SparseStore, folder: str | Path, *, block_rows: int = BLOCK_ROWS
    ) -> SparseIndex:
        """Build the index, resume, or open the existing one."""
        identity = {
            "format": FORMAT,
            "kind": "inverted",
            "vectors": store.fingerprint,
            "block_rows": block_rows,
            "dimension": store.dimension,
        }

        def make(start: int, end: int) -> Mapping[str, np.ndarray]:
            columns = store.part(start, end).tocsc()
            return {"starts": columns.indptr, "documents": columns.indices, "weights": columns.data}

        layout = {
            "starts": ("int64", (store.dimension + 1,)),
            "documents": ("int32", ()),
            "weights": ("float32", ()),
        }
        options = ShardOptions(label="index")
        write_arrays(folder, identity, layout, len(store), block_rows, make, options)
        return cls(Arrays(folder))

    @property
    def nbytes(self) -> int:
        """Bytes of the index."""
        return self._arrays.nbytes

    def search(self, queries: csr_matrix, corpus: Corpus, k: int) -> list[SearchHits]:
        """Top k documents of each query (Q, V), without scores up to 0."""
        if queries.shape[1] != self.dimension:
            raise InputError(
                f"query vectors have the shape {queries.shape}; expected (Q, {self.dimension})."
            )
        terms = _terms(queries)
        tops = [TopK(corpus, k, above=0.0) for _ in terms]
        for number in range(len(self._ends)):
            block = self._block(number)
            for top, (words, weights) in zip(tops, terms, strict=True):
                if len(words):
                    top.add(block[:, words] @ weights, number * self.block_rows)
        return [top.hits for top in tops]

    def score_blocks(self, groups: Sequence[csr_matrix]) -> Iterator[tuple[int, list[np.ndarray]]]:
        """The scores (Q, n) of all documents for each group of queries (Q, V), block by block.

        Yields:
            The first row of a block, and the scores of each group; -inf where no term is common.
        """
        terms = [_terms(queries) for queries in groups]
        for number in range(len(self._ends)):
            block = self._block(number)
            scores = [np.full((len(some), block.shape[0]), -np.inf, np.float32) for some in terms]
            for lines, some in zip(scores, terms, strict=True):
                for line, (words, weights) in zip(lines, some, strict=True):
                    if len(words):
                        values = block[:, words] @ weights
                        line[values > 0] = values[values > 0]
            yield number * self.block_rows, scores

    def _block(self, number: int) -> csc_matrix:
        starts, last = self._starts[number], int(self._ends[number])
        places = slice(last - int(starts[-1]), last)
        rows = min(self.block_rows, self.rows - number * self.block_rows)
        content = (np.asarray(self._weights[places]), np.asarray(self._documents[places]), starts)
        return csc_matrix(content, shape=(rows, self.dimension))


def _terms(queries: csr_matrix) -> list[tuple[np.ndarray, np.ndarray]]:
    """Terms and float32 weights of each query (Q, V)."""
    return [
        (queries.indices[start:end], queries.data[start:end].astype(np.float32))
        for start, end in zip(queries.indptr[:-1], queries.indptr[1:], strict=True)
    ]
