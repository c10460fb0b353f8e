"""FAISS indexes over a vector store: exact, HNSW, inverted lists, product and scalar codes.

FAISS: Douze et al. 2024, arXiv:2401.08281. HNSW: Malkov and Yashunin 2016, arXiv:1603.09320.
Product quantization: Jégou et al. 2011, doi:10.1109/TPAMI.2010.57.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from irdistill.console.progress_bars import progress, show_activity
from irdistill.errors import InputError, MissingExtraError, OptionError, WrongCollectionError
from irdistill.search.index_file import build_index_file, open_index_file
from irdistill.search.vectors.brute_force import exact_search, sort_by_score_and_row
from irdistill.search.vectors.faiss_gpu import MOST_NEIGHBORS, gpu_copy
from irdistill.search.vectors.vector_store import TokenStore, VectorStore

FORMAT = 2
IndexKind = Literal["flat", "hnsw", "ivfflat", "ivfpq", "sq8"]
Vectors = VectorStore | TokenStore
_INDEX = "index.faiss"
_ADD_ROWS = 65_536


def import_faiss() -> Any:
    """Import faiss after torch; the other order can load a second OpenMP and crash on macOS."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError(
            "faiss-cpu", "cpu", "a FAISS index", alternative=("faiss-gpu", "gpu")
        ) from error
    return faiss


@contextmanager
def faiss_threads(faiss: Any, count: int) -> Iterator[None]:
    """Let FAISS use this many threads, and then as many as before."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class FaissIndex:
    """Search by inner product over the vectors of a store, or over its tokens.

    Stores of cosine models hold unit vectors. Indexes are memory-mapped. With faiss-gpu and a GPU,
    inverted lists are searched on the GPUs, each with a copy of the index.

    Attributes:
        kind: ``flat`` is exact and needs no files; ``hnsw`` is a graph over all vectors;
            ``ivfflat`` searches some of many clusters; ``ivfpq`` does so with a short code per
            vector; ``sq8`` searches all vectors, with a byte per number.
        settings: everything that determines the index, and ``on: gpu`` when it is searched there
            (last digits differ).
    """

    def __init__(
        self,
        store: Vectors,
        kind: IndexKind,
        settings: dict[str, Any],
        index: Any = None,
        path: Path | None = None,
        on_gpus: Any = None,
    ) -> None:
        self.store, self.kind = store, kind
        self.settings = settings if on_gpus is None else settings | {"on": "gpu"}
        self._index, self._path, self._on_gpus = index, path, on_gpus

    @classmethod
    def build(
        cls,
        store: Vectors,
        kind: IndexKind = "flat",
        folder: str | Path | None = None,
        *,
        seed: int = 42,
        threads: int = 1,
        overwrite: bool = False,
    ) -> FaissIndex:
        """Build an index, or open the one in ``folder`` with the same vectors and settings.

        Args:
            folder: folder of the index; ``flat`` needs none.
            threads: more than one builds HNSW faster, but its graph differs each time.
        """
        if kind not in get_args(IndexKind):
            known = ", ".join(get_args(IndexKind))
            raise OptionError(f"the index {kind!r} is unknown; choose one of {known}.")
        settings = {"kind": kind, **_settings(store, kind, seed)}
        if kind == "flat":
            return cls(store, kind, settings)
        if folder is None:
            raise OptionError(f"an index of kind {kind!r} needs a folder; give one.")

        def write(path: Path) -> None:
            faiss = import_faiss()
            with faiss_threads(faiss, threads):
                index = _train_and_add(faiss, store, kind, settings)
            faiss.write_index(index, str(path))

        identity = {"format": FORMAT, "vectors": store.fingerprint, "settings": settings}
        build_index_file(folder, _INDEX, identity, write, overwrite)
        return cls.load(store, folder)

    @classmethod
    def load(cls, store: Vectors, folder: str | Path) -> FaissIndex:
        """Open an index."""
        identity, path = open_index_file(folder, _INDEX)
        if identity["vectors"] != store.fingerprint:
            raise WrongCollectionError(
                f"the index in {folder} is of the vectors {identity['vectors']}, but {store.folder}"
                f" contains {store.fingerprint}. Rebuild the index with --overwrite."
            )
        faiss, settings = import_faiss(), identity["settings"]
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        return cls(store, settings["kind"], settings, index, path, gpu_copy(faiss, path, settings))

    @property
    def nbytes(self) -> int:
        """Bytes that a search reads: the vectors for ``flat``, else the index."""
        return self.store.nbytes if self._path is None else self._path.stat().st_size

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores (Q, k') float32 and rows (Q, k') int64 of queries (Q, D), best first.

        k' = min(k, N). Where an approximate index finds fewer, the row is -1 and the score -inf.
        """
        return self.search_groups([vectors], k)[0]

    def search_groups(
        self, groups: Sequence[np.ndarray], k: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """`search` of several groups of queries in one pass.

        The result of a group depends on that group alone.
        """
        for group in groups:
            if group.ndim != 2 or group.shape[1] != self.store.dimension:
                raise InputError(
                    f"query vectors have the shape {group.shape}; expected"
                    f" (Q, {self.store.dimension})."
                )
        if self._index is None:
            return exact_search(self.store.matrix, groups, k)
        faiss = import_faiss()
        k = min(k, len(self.store.matrix))
        if self.kind == "hnsw":
            self._index.hnsw.efSearch = max(int(self.settings["ef_search"]), 2 * k)
        index = self._index if self._on_gpus is None or k > MOST_NEIGHBORS else self._on_gpus
        results = []
        with faiss_threads(faiss, max(1, torch.get_num_threads())):
            for group in groups:
                scores, rows = index.search(np.ascontiguousarray(group, dtype=np.float32), k)
                scores[rows < 0] = -np.inf
                results.append(sort_by_score_and_row(scores, rows))
        return results


def new_index(vectors: Any, kind: IndexKind, seed: int = 42) -> tuple[Any, dict[str, Any]]:
    """An index of faiss over vectors, in memory, and its settings.

    Args:
        vectors: has ``dimension`` D, and ``matrix`` (N, D), which is read in slices.
        kind: ``flat`` holds the vectors themselves.
    """
    faiss, settings = import_faiss(), {"kind": kind, **_settings(vectors, kind, seed)}
    with faiss_threads(faiss, 1):
        return _train_and_add(faiss, vectors, kind, settings), settings


def _settings(store: Vectors, kind: IndexKind, seed: int) -> dict[str, Any]:
    """Settings for the number of vectors in a store."""
    if kind == "flat":
        return {}
    if kind == "hnsw":
        return {"neighbours": 32, "ef_construction": 200, "ef_search": 128}
    rows, dimension = len(store.matrix), store.dimension
    if kind == "sq8":
        return {"train_rows": min(rows, 262_144), "seed": seed}
    lists = max(1, min(int(4 * rows**0.5), rows // 39))
    settings = {
        "lists": lists,
        "probes": min(lists, 8 + lists // 16),
        "train_rows": min(rows, max(64 * lists, 65_536)),
        "seed": seed,
    }
    if kind == "ivfpq":
        if rows < 64:
            raise InputError(f"ivfpq needs at least 64 vectors, got {rows}; use the flat index.")
        settings["codes"] = next(
            count for count in range(max(1, dimension // 4), 0, -1) if dimension % count == 0
        )
        settings["bits"] = 8 if rows >= 256 else 4
    return settings


def _train_and_add(faiss: Any, store: Vectors, kind: IndexKind, settings: dict[str, Any]) -> Any:
    matrix = store.matrix
    index = _empty_index(faiss, store.dimension, kind, settings)
    if "train_rows" in settings:
        rng = np.random.default_rng(settings["seed"])
        chosen = np.sort(rng.choice(len(matrix), settings["train_rows"], replace=False))
        with show_activity(f"train the index {kind}"):
            index.train(np.ascontiguousarray(matrix[chosen], dtype=np.float32))
    with progress(len(matrix), "vectors", f"index {kind}") as bar:
        for start in range(0, len(matrix), _ADD_ROWS):
            part = np.ascontiguousarray(matrix[start : start + _ADD_ROWS], dtype=np.float32)
            with show_activity(f"index {kind}: add {len(part)} vectors"):
                index.add(part)
            bar.update(len(part))
    return index


def _empty_index(faiss: Any, dimension: int, kind: IndexKind, settings: dict[str, Any]) -> Any:
    product = faiss.METRIC_INNER_PRODUCT
    if kind == "flat":
        return faiss.IndexFlatIP(dimension)
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dimension, settings["neighbours"], product)
        index.hnsw.efConstruction = settings["ef_construction"]
        return index
    if kind == "sq8":
        return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_8bit, product)
    quantizer, lists = faiss.IndexFlatIP(dimension), settings["lists"]
    if kind == "ivfflat":
        index = faiss.IndexIVFFlat(quantizer, dimension, lists, product)
    else:
        codes, bits = settings["codes"], settings["bits"]
        index = faiss.IndexIVFPQ(quantizer, dimension, lists, codes, bits, product)
        index.pq.cp.seed = settings["seed"]
    index.own_fields = True
    quantizer.this.disown()
    index.cp.seed = settings["seed"]
    index.nprobe = settings["probes"]
    return index
