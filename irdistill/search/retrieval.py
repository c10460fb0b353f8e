"""The verb *retrieve*: model x collection -> run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from irdistill.collections import Collection, Query
from irdistill.console.progress import progress
from irdistill.errors import IrdistillError
from irdistill.search.lexical.first_stages import is_lexical, open_lexical

if TYPE_CHECKING:
    from irdistill.distributed.ray_cluster import RayCluster
    from irdistill.modeling.hardware import Precision
    from irdistill.runs import RankedList, Run, RunIdentity
    from irdistill.search.searchers import Index, Searcher
    from irdistill.search.vectors.vector_store import Storage
    from irdistill.students.base import Student

    Found = tuple[list[RankedList], Mapping[str, float]]

logger = logging.getLogger(__name__)
_GROUP = 16
"""Parts searched in one pass over the vectors."""
_CHECKED_PARTS = 2
"""Parts of an approximate run whose queries are searched exactly too."""
_TRUE, _FOUND = "true_best", "true_best_found"


def retrieve(
    collection: Collection,
    model: str | Path | Student,
    out: str | Path,
    k: int = 100,
    index: Index = "flat",
    work: str | Path | None = None,
    precision: Precision = "auto",
    overwrite: bool = False,
    *,
    seed: int = 42,
    k1: float = 0.9,
    b: float = 0.4,
    part_queries: int = 64,
    storage: Storage = "float32",
    kind: str | None = None,
    trust_remote_code: bool = False,
    check_recall: bool = True,
    dimension: int | None = None,
    cluster: RayCluster | None = None,
) -> Run:
    """Search a collection for all its queries; a stopped search goes on where it was.

    Args:
        model: ``bm25``, ``lucene``, ``lucene:INDEX``, or a dense, sparse or late-interaction model
            (folder, ``package:`` path, hub id, or one in memory).
        out: the run's folder.
        k: documents a query.
        index: ``flat`` is exact; others are ``hnsw``, ``ivfflat``, ``ivfpq`` and ``sq8`` for dense
            and late-interaction models, ``plaid`` for late-interaction ones, ``seismic`` for sparse
            ones, ``lucene`` for dense and sparse ones.
        work: where vectors and indexes are kept; the cache folder where None.
        storage: of vectors on disk: ``float32`` or ``float16``; scores are sums in float32 either
            way.
        kind: ``dense``, ``sparse`` or ``late-interaction``, of a model given by its name; detected
            from its files where None.
        check_recall: of an approximate index, search the first two parts exactly too; see
            ``recall``.
        dimension: search with the first so many numbers of each vector of a dense model given by
            its name.
        cluster: encode the corpus there; in this process where None. Its workers load the model, so
            it is given by name.

    Returns:
        A run of kind ``first-stage`` for BM25, ``student`` for a model.

    Raises:
        IrdistillError: k is below 1, the model cannot be loaded, has no such index, or ``out``
            holds another run.
    """
    if k < 1:
        raise IrdistillError(
            f"k={k} was asked for; give the number of documents a query, at least 1."
        )
    from irdistill.runs import check_out

    check_out(out, overwrite)
    if dimension is not None and (is_lexical(model) or not isinstance(model, str | Path)):
        raise IrdistillError(
            f"dimension={dimension} was given, and {model!r} is no name of a dense model."
        )
    if cluster is not None and (is_lexical(model) or not isinstance(model, str | Path)):
        raise IrdistillError(
            f"a cluster was given to encode the corpus, and {model!r} is no name of a model with"
            " vectors. Leave --engine ray out, or give a model by folder, package: path or hub id."
        )
    if kind is not None and (is_lexical(model) or not isinstance(model, str | Path)):
        raise IrdistillError(
            f"kind={kind!r} was given, and {model!r} is no name of a model with vectors; leave it"
            " out."
        )
    if not is_lexical(model):
        from irdistill.search.searchers import open_searcher
        from irdistill.students import load_student
        from irdistill.students.base import Student

        settings = {"kind": kind, "trust_remote_code": trust_remote_code, "dimension": dimension}
        student = model if isinstance(model, Student) else load_student(model, **settings)
        encoding = None
        if cluster is not None:
            from irdistill.search.vectors.ray_encoding import RayEncoding

            encoding = RayEncoding(cluster, collection, str(model), settings)
        engine = open_searcher(
            collection.corpus, student, index, work, precision, storage, seed, encoding
        )
        return _with_engine(
            collection, engine, out, k, storage, overwrite, part_queries, check_recall
        )
    from irdistill.runs import RunIdentity

    lexical = open_lexical(str(model), collection.corpus, k1, b, work)
    identity = RunIdentity("first-stage", lexical.identity(), collection.describe(), None, {"k": k})

    wider = k + _most_excluded(collection)

    def search(parts: list[tuple[int, list[Query]]]) -> Iterable[Found]:
        return ((list(lexical.search(group, wider)), {}) for _, group in parts)

    return _write(collection, out, identity, part_queries, overwrite, search, 1, k)


def recall(run: Run) -> float | None:
    """Of an approximate run, the share of the true k best that its first parts found; None of an
    exact one.
    """
    usage = run.manifest.usage
    return usage[_FOUND] / usage[_TRUE] if usage.get(_TRUE) else None


def _with_engine(
    collection: Collection,
    engine: Searcher,
    out: str | Path,
    k: int,
    storage: str,
    overwrite: bool,
    part_queries: int,
    check_recall: bool,
) -> Run:
    from irdistill.modeling.hardware import choose_dtype
    from irdistill.modeling.truncation import Truncation, changes, snapshot
    from irdistill.runs import RankedList, RunIdentity

    corpus, student = collection.corpus, engine.student
    dtype = str(choose_dtype(engine.precision, student.device)).removeprefix("torch.")
    settings = {"k": k, "index": dict(engine.settings), "precision": dtype, "storage": storage}
    identity = RunIdentity("student", student.identity(), collection.describe(), None, settings)

    wider = k + _most_excluded(collection)

    def search(parts: list[tuple[int, list[Query]]]) -> Iterable[Found]:
        vectors, counts = [], []
        with progress(sum(len(group) for _, group in parts), "queries", "encode queries") as bar:
            for _, group in parts:
                before = snapshot(student)
                vectors.append(engine.encode([query.text for query in group], bar.update))
                counts.append(changes(snapshot(student), before).get("query", Truncation()))
        for place, ((number, group), hits) in enumerate(
            zip(parts, engine.search(vectors, wider), strict=True)
        ):
            usage: dict[str, float] = counts[place].usage("query") if counts[place].cut else {}
            if number == 0 and engine.truncation.cut:
                usage |= engine.truncation.usage("document")
            if check_recall and not engine.exact and number < _CHECKED_PARTS:
                true = next(iter(engine.true_best([vectors[place]], wider)))
                both = sum(
                    len(np.intersect1d(a.rows, b.rows)) for a, b in zip(true, hits, strict=True)
                )
                usage |= {_TRUE: sum(len(one.rows) for one in true), _FOUND: both}
            yield (
                [
                    RankedList(
                        query.id, [corpus.id(int(row)) for row in found.rows], found.scores, None
                    )
                    for query, found in zip(group, hits, strict=True)
                ],
                usage,
            )

    run = _write(collection, out, identity, part_queries, overwrite, search, _GROUP, k)
    Truncation.from_usage(run.manifest.usage, "query").report(
        "query", student.source, logger, student.max_length("query")
    )
    return run


def _most_excluded(collection: Collection) -> int:
    """So many more documents are searched for, and as many of them left out as a query excludes."""
    return max((len(query.excluded) for query in collection.queries.values()), default=0)


def _write(
    collection: Collection,
    out: str | Path,
    identity: RunIdentity,
    part_queries: int,
    overwrite: bool,
    search: Callable[[list[tuple[int, list[Query]]]], Iterable[Found]],
    together: int,
    k: int,
) -> Run:
    """Search the parts that are missing, some of them together, and write each."""
    from irdistill.runs import RunWriter

    queries = collection.queries
    unjudged = collection.report.count("unjudged queries")
    if unjudged:
        logger.info(
            "searching for the %d queries that %s judges; %d others of its file are left out",
            len(queries),
            collection.id,
            unjudged,
        )
    with RunWriter(
        Path(out),
        identity,
        list(queries),
        part_queries,
        overwrite=overwrite,
        fingerprints=collection.query_fingerprints,
    ) as writer:
        pending = list(writer.pending())
        left = sum(len(ids) for _, ids in pending)
        with progress(len(queries), "queries", "search", initial=len(queries) - left) as bar:
            for start in range(0, len(pending), together):
                parts = [
                    (number, [queries[query_id] for query_id in ids])
                    for number, ids in pending[start : start + together]
                ]
                for (number, group), (lists, usage) in zip(parts, search(parts), strict=True):
                    kept = [
                        found.without(query.excluded, k)
                        for found, query in zip(lists, group, strict=True)
                    ]
                    writer.write_part(number, kept, usage)
                    bar.update(len(group))
        return writer.finish()
