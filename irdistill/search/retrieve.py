"""The verb *retrieve*: model x collection -> run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irdistill.collections import Collection, Query
from irdistill.errors import IrdistillError
from irdistill.progress import progress
from irdistill.search.bm25 import BM25
from irdistill.search.ranking import best_rows

if TYPE_CHECKING:
    from irdistill.hardware import Precision
    from irdistill.runs import RankedList, Run, RunIdentity
    from irdistill.search.faiss_index import IndexKind
    from irdistill.students.dense import DenseStudent

logger = logging.getLogger(__name__)

_GROUP = 16
"""Parts searched in one pass over the vectors."""
_SPARE = 32
"""Neighbours asked for beyond k, so that documents with equal scores at the cut-off are ordered by id."""


def retrieve(collection: Collection, model: str | Path | DenseStudent, out: str | Path, k: int = 100,
             index: IndexKind = "flat", work: str | Path | None = None, precision: Precision = "auto",
             overwrite: bool = False, *, seed: int = 42, k1: float = 0.9, b: float = 0.4,
             part_queries: int = 64, storage: str = "float32", trust_remote_code: bool = False,
             dimension: int | None = None) -> Run:
    """Search a collection for all its queries; a stopped search goes on where it was.

    Args:
        model: ``bm25``, or a dense model (folder, ``package:`` path, hub id, or one in memory).
        out: the run's folder.
        k: documents a query.
        index: ``flat`` (exact), ``hnsw`` or ``ivfpq``; for dense models.
        dimension: search with the first so many numbers of each vector of a model given by its name.
        work: where BM25 indexes, vectors and FAISS indexes are kept; the cache folder where None.

    Returns:
        A run of kind ``first-stage`` for BM25, ``student`` for a dense model.

    Raises:
        IrdistillError: k is below 1, the model cannot be loaded, or ``out`` holds another run.
    """
    if k < 1:
        raise IrdistillError(f"k={k} was asked for; give the number of documents a query, at least 1.")
    if dimension is not None and (model == "bm25" or not isinstance(model, str | Path)):
        raise IrdistillError(f"dimension={dimension} was given, and {model!r} is no name of a dense model.")
    if model != "bm25":
        from irdistill.students.dense import DenseStudent

        student = model if isinstance(model, DenseStudent) else DenseStudent.load(
            model, trust_remote_code=trust_remote_code, dimension=dimension)
        return _dense(collection, student, Path(out), k, index, work, precision, overwrite, seed,
                      part_queries, storage)
    from irdistill.runs import RunIdentity

    bm25 = BM25(collection.corpus, k1, b, Path(work) if work is not None else None)
    identity = RunIdentity("first-stage", bm25.identity(), collection.describe(), None, {"k": k})

    def search(groups: list[list[Query]]) -> Iterable[list[RankedList]]:
        return (list(bm25.search(group, k)) for group in groups)

    return _write(collection, out, identity, part_queries, overwrite, search, 1)


def _dense(collection: Collection, student: DenseStudent, out: Path, k: int, kind: IndexKind, work: str | Path | None,
           precision: Precision, overwrite: bool, seed: int, part_queries: int, storage: Any) -> Run:
    from irdistill.hardware import choose_dtype
    from irdistill.runs import RankedList, RunIdentity
    from irdistill.search.faiss_index import FaissIndex
    from irdistill.search.vectors import corpus_vectors

    corpus = collection.corpus
    dtype = str(choose_dtype(precision, student.device)).removeprefix("torch.")
    producer = student.identity()
    store = corpus_vectors(corpus, student, work, precision, storage)
    built = FaissIndex.build(store, kind, store.folder / f"{kind}-{seed}", seed=seed)
    settings = {"k": k, "index": built.settings, "precision": dtype, "storage": storage}
    identity = RunIdentity("student", producer, collection.describe(), None, settings)

    def ranked(query: Query, scores: np.ndarray, rows: np.ndarray) -> RankedList:
        rows, scores = best_rows(corpus, scores[rows >= 0], k, rows[rows >= 0])
        return RankedList(query.id, [corpus.id(int(row)) for row in rows], scores, None)

    def search(groups: list[list[Query]]) -> Iterable[list[RankedList]]:
        vectors = [student.encode([query.text for query in group], "query", precision, show_progress=False,
                                  normalize=student.similarity == "cosine") for group in groups]
        for group, (scores, rows) in zip(groups, built.search_groups(vectors, k + _SPARE), strict=True):
            yield [ranked(*found) for found in zip(group, scores, rows, strict=True)]

    if kind != "flat":
        sample = student.encode([query.text for query in list(collection.queries.values())[:100]], "query",
                                precision, show_progress=False, normalize=student.similarity == "cosine")
        logger.info("%s index: %d bytes, recall@%d against exact search %.4f over %d queries", kind,
                    built.nbytes, k, built.recall(sample, k), len(sample))
    return _write(collection, out, identity, part_queries, overwrite, search, _GROUP)


def _write(collection: Collection, out: str | Path, identity: RunIdentity, part_queries: int, overwrite: bool,
           search: Callable[[list[list[Query]]], Iterable[list[RankedList]]], together: int) -> Run:
    """Search the parts that are missing, some of them together, and write each."""
    from irdistill.runs import RunWriter

    queries = collection.queries
    with RunWriter(Path(out), identity, list(queries), part_queries, overwrite=overwrite) as writer:
        pending = list(writer.pending())
        left = sum(len(ids) for _, ids in pending)
        with progress(len(queries), "queries", "search", initial=len(queries) - left) as bar:
            for start in range(0, len(pending), together):
                parts = pending[start : start + together]
                groups = [[queries[query_id] for query_id in ids] for _, ids in parts]
                for (number, ids), lists in zip(parts, search(groups), strict=True):
                    writer.write_part(number, lists)
                    bar.update(len(ids))
        return writer.finish()
