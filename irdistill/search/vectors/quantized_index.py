"""Search over short codes of document vectors, a bit or a byte per number, and rescoring.

The codes are FAISS's: a binary index compared by Hamming distance, and a scalar quantizer. Scoring
binary documents with the float query: Yamada et al. 2021, arXiv:2106.00882.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irdistill.console.progress_bars import progress
from irdistill.errors import InputError
from irdistill.search.array_shards import read_part
from irdistill.search.index_file import build_index_file, open_index_file
from irdistill.search.ranking import EXTRA_NEIGHBORS, MAX_EXTRA_ABSENT
from irdistill.search.retrieve_options import CodeOptions
from irdistill.search.vectors.brute_force import sort_by_score_and_row
from irdistill.search.vectors.faiss_index import faiss_threads, import_faiss
from irdistill.search.vectors.vector_store import VectorStore

FORMAT = 1
_INDEX = "codes.faiss"
_ROWS = 65_536


def pack_signs(vectors: np.ndarray) -> np.ndarray:
    """(n, ceil(D / 8)) uint8: a bit per number, 1 where it is positive; zeros at the end.

    Examples:
        >>> pack_signs(np.array([[0.5, -0.5, 0.0, 2.0]])).tolist()
        [[144]]
    """
    return np.packbits(vectors > 0, axis=1)


def unpack_signs(codes: np.ndarray, dimension: int) -> np.ndarray:
    """(n, D) float32 vectors of length 1 with the signs of packed codes.

    Examples:
        >>> unpack_signs(np.array([[144]], dtype=np.uint8), 4).tolist()
        [[0.5, -0.5, -0.5, 0.5]]
    """
    bits = np.unpackbits(codes, axis=1, count=dimension).astype(np.float32)
    return (2 * bits - 1) / np.float32(np.sqrt(dimension))


class QuantizedIndex:
    """Short codes of the vectors of a store, the search over them, and the rescoring of the best.

    - ``binary``: one bit per number. Candidates are the documents with the least Hamming distance
      to the signs of the query; ties are ordered by row. Their score is the inner product of the
      float query and the signs of the document, scaled to length 1.
    - ``int8``: one byte per number, between the least and the largest value of its dimension in
      the corpus. The score is the inner product of the float query and the decoded document.

    With ``rescore_by="float"`` the score is that of the store's vectors.

    Attributes:
        settings: everything that determines the results, apart from the vectors.
        sizes: bytes of ``codes``, ``scales`` (the ranges of int8) and ``rescoring`` (the float
            vectors, if they are used).
    """

    kind = "codes"

    def __init__(self, store: VectorStore, options: CodeOptions, path: Path) -> None:
        faiss = import_faiss()
        self.store, self.options = store, options
        self.settings: dict[str, Any] = {
            "kind": options.vectors,
            "rescore": options.factor,
            "rescore_by": options.rescore_by,
        }
        self._binary = options.vectors == "binary"
        read = faiss.read_index_binary if self._binary else faiss.read_index
        self._index = read(str(path), faiss.IO_FLAG_MMAP_IFC)
        rows, dimension = len(store), store.dimension
        self.sizes: Mapping[str, int] = {
            "codes": rows * (-(-dimension // 8) if self._binary else dimension),
            "scales": 0 if self._binary else 8 * dimension,
            "rescoring": store.nbytes if options.rescore_by == "float" else 0,
        }

    @classmethod
    def build(cls, store: VectorStore, options: CodeOptions, folder: str | Path) -> QuantizedIndex:
        """Quantize the vectors of a store, or open the codes in ``folder``."""
        identity = {"format": FORMAT, "vectors": store.fingerprint, "codes": options.vectors}

        def write(path: Path) -> None:
            if options.vectors == "binary":
                import_faiss().write_index_binary(_binary_index(store), str(path))
            else:
                import_faiss().write_index(_byte_index(store), str(path))

        build_index_file(folder, _INDEX, identity, write)
        return cls(store, options, open_index_file(folder, _INDEX)[1])

    @property
    def nbytes(self) -> int:
        """Bytes that a search reads at most."""
        return sum(self.sizes.values())

    @property
    def codes(self) -> np.ndarray:
        """(N, ceil(D / 8)) or (N, D) uint8, a view of the index."""
        faiss = import_faiss()
        data = self._index.xb if self._binary else self._index.codes
        flat = faiss.rev_swig_ptr(data.data(), self._index.ntotal * self._index.code_size)
        return np.asarray(flat).reshape(self._index.ntotal, self._index.code_size)

    @property
    def ranges(self) -> np.ndarray:
        """(2, D) float32: the least and the largest number of each dimension, of int8 codes."""
        least, width = import_faiss().vector_to_array(self._index.sq.trained).reshape(2, -1)
        return np.stack([least, least + width])

    def search_groups(
        self, groups: Sequence[np.ndarray], k: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Scores (Q, n) float32 and rows (Q, n) int64 of the candidates of queries (Q, D).

        n is k times the factor of the rescoring, or some more than k without one; fewer in a small
        corpus. Best first; a row is -1 and its score -inf where there is no document.
        """
        for group in groups:
            if group.ndim != 2 or group.shape[1] != self.store.dimension:
                raise InputError(
                    f"query vectors have the shape {group.shape}; expected"
                    f" (Q, {self.store.dimension})."
                )
        return [self._search(np.ascontiguousarray(group, dtype=np.float32), k) for group in groups]

    def _search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        count = k * self.options.factor or k + EXTRA_NEIGHBORS
        absent = self.store.absent_rows
        neighbors = min(count + min(len(absent), MAX_EXTRA_ABSENT), len(self.store))
        with faiss_threads(import_faiss(), max(1, torch.get_num_threads())):
            if self._binary:
                distances, rows = self._index.search(pack_signs(queries), neighbors)
                scores = 1 - 2 * distances.astype(np.float32) / self.store.dimension
            else:
                scores, rows = self._index.search(queries, neighbors)
        scores[np.isin(rows, absent) | (rows < 0)] = -np.inf
        scores, rows = sort_by_score_and_row(scores, rows)
        scores, rows = scores[:, :count], rows[:, :count]
        rows[scores == -np.inf] = -1
        if self.options.factor and (self._binary or self.options.rescore_by == "float"):
            for query, line, candidates in zip(queries, scores, rows, strict=True):
                real = candidates >= 0
                line[real] = self._documents(candidates[real]) @ query
            return sort_by_score_and_row(scores, rows)
        return scores, rows

    def _documents(self, rows: np.ndarray) -> np.ndarray:
        """(n, D) float32 vectors of some documents for rescoring."""
        if self.options.rescore_by == "float":
            return self.store.take(rows).values.numpy()
        return unpack_signs(self.codes[rows], self.store.dimension)


def _parts(store: VectorStore, label: str) -> Any:
    """The vectors of a store in float32, some rows at a time."""
    with progress(len(store), "vectors", label) as bar:
        for start in range(0, len(store), _ROWS):
            part = read_part(store.matrix, start, min(start + _ROWS, len(store)))
            yield part
            bar.update(len(part))


def _binary_index(store: VectorStore) -> Any:
    index = import_faiss().IndexBinaryFlat(8 * -(-store.dimension // 8))
    for part in _parts(store, "binary codes"):
        index.add(pack_signs(part))
    return index


def _byte_index(store: VectorStore) -> Any:
    faiss = import_faiss()
    quantizer, product = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexScalarQuantizer(store.dimension, quantizer, product)
    least = np.full(store.dimension, np.inf, np.float32)
    largest = -least
    for part in _parts(store, "ranges of int8 codes"):
        least, largest = np.minimum(least, part.min(axis=0)), np.maximum(largest, part.max(axis=0))
    # FAISS takes the range of each dimension from what it is trained on
    index.train(np.nan_to_num(np.stack([least, largest]), posinf=0, neginf=0))
    for part in _parts(store, "int8 codes"):
        index.add(part)
    return index
