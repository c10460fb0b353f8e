"""Approximate search over sparse vectors with Seismic (Bruch et al. 2024, arXiv:2404.18812).

Seismic keeps clusters of documents for each term, and skips clusters whose summaries have a low
score. The documents are rescored with the stored vectors, so scores are exact. The index is held in
memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from irdistill.collections import Corpus
from irdistill.console.progress_bars import show_activity
from irdistill.errors import MissingExtraError
from irdistill.search.index_file import build_index_file
from irdistill.search.ranking import SearchHits, best_rows
from irdistill.search.vectors.vector_store import SparseStore

FORMAT = 1
_INDEX, _SUFFIX = "index.seismic", ".index.seismic"
_ADD_ROWS = 65_536
SETTINGS: dict[str, Any] = {
    "kind": "seismic",
    "postings": 3500,
    "centroids": 0.1,
    "summary_energy": 0.4,
    "heap_factor": 0.9,
}
"""Most documents per term, clusters per document of a term, share of the weights in the summaries,
and the factor by which a cluster must beat the k-th score."""


class SeismicIndex:
    """A Seismic index over the rows of a sparse store."""

    settings = SETTINGS

    def __init__(self, store: SparseStore, folder: str | Path) -> None:
        """Build the index, or open the one in ``folder``."""
        try:
            import seismic
        except ImportError as error:
            raise MissingExtraError("pyseismic-lsr", "seismic", "a seismic index") from error
        self.store, self._words = store, seismic.get_seismic_string()
        identity = {"format": FORMAT, "vectors": store.fingerprint, "settings": SETTINGS}
        path = build_index_file(
            folder, _INDEX, identity, lambda temporary: _write(seismic, store, temporary)
        )
        self.nbytes = path.stat().st_size
        self._index = seismic.SeismicIndex.load(str(path))

    def search(self, queries: csr_matrix, corpus: Corpus, k: int) -> list[SearchHits]:
        """Approximate top k documents of each query (Q, V)."""
        return [self._search(queries[row], corpus, k) for row in range(queries.shape[0])]

    def _search(self, query: csr_matrix, corpus: Corpus, k: int) -> SearchHits:
        if not query.nnz:
            return best_rows(corpus, np.empty(0, np.float32), k)
        results = self._index.search(
            "q",
            np.array([str(word) for word in query.indices.tolist()], dtype=self._words),
            query.data.astype(np.float32),
            k=min(k, len(self.store)),
            query_cut=query.nnz,
            heap_factor=SETTINGS["heap_factor"],
        )
        rows = np.array(sorted(int(document) for _, _, document in results), dtype=np.int64)
        scores = self.store.rows_of(rows) @ query.toarray()[0].astype(np.float32)
        return best_rows(corpus, scores, k, rows, above=0.0)


def _write(seismic: Any, store: SparseStore, path: Path) -> None:
    dataset = seismic.SeismicDataset(dim=store.dimension)
    for start in range(0, len(store), _ADD_ROWS):
        part = store.part(start, min(start + _ADD_ROWS, len(store)))
        names = [str(row) for row in range(start, start + part.shape[0])]
        dataset.add_documents_by_id(
            names, part.indices.astype(np.int64), part.data, part.indptr.astype(np.int64)
        )
    with show_activity("index seismic"), _no_output():
        index = seismic.SeismicIndex.build_from_dataset(
            dataset,
            n_postings=SETTINGS["postings"],
            centroid_fraction=SETTINGS["centroids"],
            summary_energy=SETTINGS["summary_energy"],
            num_threads=1,
        )
        index.save(str(path))
    os.replace(f"{path}{_SUFFIX}", path)


@contextmanager
def _no_output() -> Iterator[None]:
    """Drop what Seismic prints to standard output, where results go."""
    sys.stdout.flush()
    stdout = os.dup(1)
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
