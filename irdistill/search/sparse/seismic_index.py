"""Approximate search over sparse vectors with Seismic (Bruch et al. 2024, arXiv:2404.18812).

Seismic keeps clusters of documents under each word and skips those whose summaries promise little.
What it finds is scored again with the stored vectors, so scores are those of exact search. Its
index is held in memory.
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
from irdistill.console.progress import show_activity
from irdistill.errors import MissingExtraError
from irdistill.search.index_file import make_once
from irdistill.search.ranking import SearchHits, best_rows
from irdistill.search.vectors.vector_store import SparseStore

FORMAT = 1
_INDEX, _ENDING = "index.seismic", ".index.seismic"
_ADD_ROWS = 65_536
SETTINGS: dict[str, Any] = {
    "kind": "seismic",
    "postings": 3500,
    "centroids": 0.1,
    "summary_energy": 0.4,
    "heap_factor": 0.9,
}
"""How many documents a word keeps at most and in how many clusters, how much of the clusters'
weights the summaries keep, and by how much a cluster must beat the k-th score.
"""


class SeismicIndex:
    """An index by Seismic over the rows of a sparse store."""

    settings = SETTINGS

    def __init__(self, store: SparseStore, folder: str | Path) -> None:
        """Build the index, or open the one in ``folder``.

        Raises:
            IrdistillError: Seismic is not installed, the folder holds an index over other vectors,
                or it is damaged.
        """
        seismic = _import_seismic()
        self.store, self._words = store, seismic.get_seismic_string()
        identity = {"format": FORMAT, "vectors": store.fingerprint, "settings": SETTINGS}
        path = make_once(
            folder, _INDEX, identity, lambda temporary: _write(seismic, store, temporary)
        )
        self.nbytes = path.stat().st_size
        self._index = seismic.SeismicIndex.load(str(path))

    def search(self, queries: csr_matrix, corpus: Corpus, k: int) -> list[SearchHits]:
        """About the k best documents of each query (Q, V)."""
        return [self._one(queries[row], corpus, k) for row in range(queries.shape[0])]

    def _one(self, query: csr_matrix, corpus: Corpus, k: int) -> SearchHits:
        if not query.nnz:
            return best_rows(corpus, np.empty(0, np.float32), k)
        words = np.array([str(word) for word in query.indices.tolist()], dtype=self._words)
        found = self._index.search(
            "q",
            words,
            query.data.astype(np.float32),
            k=min(k, len(self.store)),
            query_cut=query.nnz,
            heap_factor=SETTINGS["heap_factor"],
        )
        rows = np.array(sorted(int(document) for _, _, document in found), dtype=np.int64)
        scores = self.store.rows_of(rows) @ query.toarray()[0].astype(np.float32)
        return best_rows(corpus, scores, k, rows, above=0.0)


def _import_seismic() -> Any:
    try:
        import seismic
    except ImportError as error:
        raise MissingExtraError(
            "pyseismic-lsr", "seismic", "searching with a seismic index"
        ) from error
    return seismic


def _write(seismic: Any, store: SparseStore, path: Path) -> None:
    dataset = seismic.SeismicDataset(dim=store.dimension)
    for start in range(0, len(store), _ADD_ROWS):
        part = store.part(start, min(start + _ADD_ROWS, len(store)))
        names = [str(row) for row in range(start, start + part.shape[0])]
        dataset.add_documents_by_id(
            names, part.indices.astype(np.int64), part.data, part.indptr.astype(np.int64)
        )
    with show_activity("index seismic"), _silent():
        index = seismic.SeismicIndex.build_from_dataset(
            dataset,
            n_postings=SETTINGS["postings"],
            centroid_fraction=SETTINGS["centroids"],
            summary_energy=SETTINGS["summary_energy"],
            num_threads=1,
        )
        index.save(str(path))
    os.replace(f"{path}{_ENDING}", path)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what Seismic says of its progress out of the standard output, where results go."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
