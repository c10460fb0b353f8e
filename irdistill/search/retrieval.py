"""The verb *retrieve*: search a collection for all its queries with BM25 or a model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irdistill.collections import Collection, Query
from irdistill.collections.passage_corpus import reading_corpus
from irdistill.collections.split_collections import passage_view, without_passages
from irdistill.console.progress_bars import progress
from irdistill.console.terminal import counted
from irdistill.errors import OptionError
from irdistill.search.feedback import Feedback, FeedbackOptions
from irdistill.search.lexical.first_stages import is_lexical, open_lexical
from irdistill.search.lexical.passage_bm25 import PassageBM25
from irdistill.search.passage_ranking import DENSE_TAU, Aggregation, check_exact
from irdistill.search.retrieve_options import RetrieveOptions

if TYPE_CHECKING:
    from irdistill.distributed.ray_cluster import RayCluster
    from irdistill.runs import RankedList, Run, RunIdentity
    from irdistill.search.searchers import CorpusSearcher
    from irdistill.search.vectors.text_encoder import TextEncoder

    Part = tuple[int, list[Query]]
    """The number of a part, and its queries."""
    PartResult = tuple[list[RankedList], Mapping[str, float]]
    """The ranked lists of a part, and its usage counts."""

logger = logging.getLogger(__name__)
_PARTS_PER_PASS = 16
"""Parts searched in one pass over the vectors."""
_CHECKED_PARTS = 2
"""Parts of an approximate run that are searched exactly too."""
_TRUE, _FOUND = "true_best", "true_best_found"


def retrieve(
    collection: Collection,
    model: str | Path | TextEncoder,
    out: str | Path,
    k: int = 100,
    options: RetrieveOptions | None = None,
    *,
    overwrite: bool = False,
    work: str | Path | None = None,
    cluster: RayCluster | None = None,
    feedback: Run | None = None,
    feedback_options: FeedbackOptions | None = None,
) -> Run:
    """Search a collection for all its queries. An interrupted search resumes.

    Args:
        model: ``bm25``, ``lucene``, ``lucene:INDEX``, or a dense, sparse or late-interaction model
            (folder, ``package:`` path, hub id, or a loaded student or encoder).
        options: index, precision and more, see `RetrieveOptions`.
        work: folder of vectors and indexes (default: the cache folder).
        cluster: Ray cluster that encodes the corpus (default: this process). Its workers load the
            model by name.
        feedback: an earlier run of these queries, toward whose first documents the queries of a
            dense model are moved.

    Returns:
        A run of kind ``first-stage`` for BM25, ``student`` for a model.
    """
    from irdistill.runs import RunIdentity, check_out
    from irdistill.runs.label_injection import label_settings

    options = options or RetrieveOptions()
    if k < 1:
        raise OptionError(f"k is {k}; expected at least 1 document per query.")
    check_out(out, overwrite)
    _check_model_options(model, options, cluster)
    if feedback is not None:
        _check_feedback(collection, model, options)
    collection = searched_collection(collection, model, options)
    extra = max((len(query.excluded) for query in collection.queries.values()), default=0)
    if not is_lexical(model):
        searcher, settings = open_model(collection, model, options, work, cluster)
        student, moving = searcher.student, None
        if feedback is not None:
            moving = Feedback(feedback, searcher, feedback_options or FeedbackOptions())
            settings = settings | {"feedback": moving.settings()} | label_settings([feedback])
        identity = RunIdentity(
            "student", student.identity(), collection.describe(), None, {"k": k, **settings}
        )
        search = _ModelSearch(collection, searcher, k + extra, options.check_recall, moving)
        run = _write_run(collection, out, identity, options, overwrite, search, _PARTS_PER_PASS, k)
        search.report_truncation(run)
        return run
    search_queries, producer, settings = open_first_stage(collection, str(model), options, work)
    kept = {"k": k, **settings}
    identity = RunIdentity("first-stage", producer, collection.describe(), None, kept)

    def search_parts(parts: Sequence[Part]) -> Iterable[PartResult]:
        return ((list(search_queries(queries, k + extra)), {}) for _, queries in parts)

    return _write_run(collection, out, identity, options, overwrite, search_parts, 1, k)


def recall(run: Run) -> float | None:
    """Share of the exact top k that an approximate index found; None for an exact run.

    It is measured on the first two parts of the run.
    """
    usage = run.manifest.usage
    return usage[_FOUND] / usage[_TRUE] if usage.get(_TRUE) else None


def _check_model_options(
    model: str | Path | TextEncoder, options: RetrieveOptions, cluster: RayCluster | None
) -> None:
    """Refuse options that only a model given by name, or a dense one, can have."""
    if is_lexical(model) and options.vectors != "float":
        raise OptionError(
            f"vectors={options.vectors} was given for {model}, which has no vectors; leave it out."
        )
    if not is_lexical(model) and isinstance(model, str | Path):
        return
    for name, value in (
        ("dimension", options.dimension),
        ("kind", options.kind),
        ("a Ray cluster", cluster),
    ):
        if value is not None:
            raise OptionError(
                f"{name} needs a model given by folder, package: path or hub id, but the model is"
                f" {model!r}. Remove that option, or name such a model."
            )


def _check_feedback(
    collection: Collection, model: str | Path | TextEncoder, options: RetrieveOptions
) -> None:
    """Refuse what has no float vectors of whole documents, before the corpus is encoded."""
    split = collection.corpus.passages is not None and options.aggregate != "whole"
    if is_lexical(model) or options.vectors != "float" or split:
        raise OptionError(
            "feedback moves query vectors toward document vectors, so it needs a dense model with"
            " float vectors of whole documents; leave it out."
        )


def open_first_stage(
    collection: Collection, model: str, options: RetrieveOptions, work: str | Path | None = None
) -> tuple[Callable[[Sequence[Query], int], Iterable[RankedList]], dict[str, Any], dict[str, Any]]:
    """What searches a corpus with BM25, its identity, and how passages are aggregated."""
    read = reading_corpus(collection.corpus)
    lexical = open_lexical(model, read, options.k1, options.b, work)
    if collection.corpus.passages is None:
        return lexical.search, lexical.identity(), {}
    aggregation = _aggregation(options, 1.0)
    search = PassageBM25(collection.corpus, lexical, aggregation).search
    return search, lexical.identity(), {"aggregate": aggregation.settings()}


def searched_collection(
    collection: Collection, model: str | Path | TextEncoder, options: RetrieveOptions
) -> Collection:
    """The collection without its passages if documents are searched whole.

    Raises:
        OptionError: the options of passages do not fit the model or the collection.
    """
    _check_aggregate(collection, model, options)
    if options.aggregate == "whole":
        return without_passages(collection)
    return collection


def _check_aggregate(
    collection: Collection, model: str | Path | TextEncoder, options: RetrieveOptions
) -> None:
    """Check the options of passages before the corpus is encoded."""
    method = options.aggregate
    if collection.corpus.passages is None:
        if method not in ("maxp", "whole"):
            raise OptionError(
                f"aggregate is {method}, and the documents of {collection.id!r} are not split into"
                " passages. Split them (collect with --passage-tokens), or leave it out."
            )
    elif method in ("firstp", "logsumexp"):
        if is_lexical(model) and model != "bm25":
            check_exact(_aggregation(options, 1.0), str(model))
        if not is_lexical(model) and (options.index != "flat" or options.vectors != "float"):
            index = options.index if options.vectors == "float" else options.vectors
            check_exact(_aggregation(options, 1.0), f"the index {index}")
    if method == "vector" and is_lexical(model):
        raise OptionError(
            f"aggregate is vector, and {model} has no vectors; choose maxp, or a dense model."
        )
    if options.aggregate_tau is not None and method not in ("logsumexp", "vector"):
        raise OptionError(
            f"aggregate_tau is the temperature of logsumexp and vector, and aggregate is {method};"
            " leave it out."
        )


def _aggregation(options: RetrieveOptions, tau: float) -> Aggregation:
    """How passages are aggregated.

    Args:
        tau: the temperature if none is given.
    """
    method = options.aggregate
    assert method != "whole" and method != "vector"  # these search documents
    return Aggregation(method, options.aggregate_tau or tau)


def open_model(
    collection: Collection,
    model: str | Path | TextEncoder,
    options: RetrieveOptions,
    work: str | Path | None = None,
    cluster: RayCluster | None = None,
) -> tuple[CorpusSearcher, dict[str, Any]]:
    """The searcher of a model, and what determines its results."""
    from irdistill.modeling.hardware import choose_dtype
    from irdistill.search.searchers import PassageSearcher, open_searcher, open_vector_searcher
    from irdistill.students import load_student

    loading = {
        "kind": options.kind,
        "trust_remote_code": options.trust_remote_code,
        "dimension": options.dimension,
    }
    student = load_student(model, **loading) if isinstance(model, str | Path) else model
    encode_shards, passages = None, collection.corpus.passages
    if cluster is not None:
        from irdistill.search.vectors.ray_encoding import RayEncoding

        source = collection if passages is None else passage_view(collection)
        encode_shards = RayEncoding(cluster, source, str(model), loading).shards
    if passages is not None and options.aggregate == "vector":
        searcher = open_vector_searcher(collection.corpus, student, options, work, encode_shards)
    else:
        searcher = open_searcher(
            reading_corpus(collection.corpus),
            student,
            options.searched,
            work,
            options.precision,
            options.storage,
            options.seed,
            encode_shards,
        )
        if passages is not None:
            tau = DENSE_TAU if student.kind == "dense" else 1.0
            searcher = PassageSearcher(collection.corpus, searcher, _aggregation(options, tau))
    dtype = str(choose_dtype(options.precision, student.device)).removeprefix("torch.")
    index = dict(searcher.settings)
    return searcher, {"index": index, "precision": dtype, "storage": options.storage}


@dataclass
class _ModelSearch:
    """Searches parts of queries with a model, and counts truncation and recall."""

    collection: Collection
    searcher: CorpusSearcher
    k: int
    check_recall: bool
    feedback: Feedback | None = None

    def __call__(self, parts: Sequence[Part]) -> Iterable[PartResult]:
        from irdistill.modeling.truncation import Truncation, changes, snapshot
        from irdistill.runs import RankedList

        searcher, corpus = self.searcher, self.collection.corpus
        vectors, truncations = [], []
        with progress(sum(len(part) for _, part in parts), "queries", "encode queries") as bar:
            for _, queries in parts:
                before = snapshot(searcher.student)
                encoded = searcher.encode([query.text for query in queries], bar.update)
                vectors.append(self.feedback(queries, encoded) if self.feedback else encoded)
                after = changes(snapshot(searcher.student), before)
                truncations.append(after.get("query", Truncation()))
        results = searcher.search(vectors, self.k)
        for place, ((number, queries), hits) in enumerate(zip(parts, results, strict=True)):
            usage: dict[str, float] = {}
            if truncations[place].cut:
                usage |= truncations[place].usage("query")
            if number == 0 and searcher.truncation.cut:
                usage |= searcher.truncation.usage("document")
            if self.check_recall and not searcher.exact and number < _CHECKED_PARTS:
                exact = next(iter(searcher.search_exact([vectors[place]], self.k)))
                common = [
                    len(np.intersect1d(a.rows, b.rows)) for a, b in zip(exact, hits, strict=True)
                ]
                usage |= {_TRUE: sum(len(true.rows) for true in exact), _FOUND: sum(common)}
            ranked = [
                RankedList(
                    query.id,
                    [corpus.id(row) for row in top.rows.tolist()],
                    top.scores,
                    None,
                    top.passages,
                )
                for query, top in zip(queries, hits, strict=True)
            ]
            yield ranked, usage

    def report_truncation(self, run: Run) -> None:
        """Log how much of the queries the model did not read."""
        from irdistill.modeling.truncation import Truncation

        student = self.searcher.student
        Truncation.from_usage(run.manifest.usage, "query").report(
            "query", student.source, logger, student.max_length("query")
        )


def _write_run(
    collection: Collection,
    out: str | Path,
    identity: RunIdentity,
    options: RetrieveOptions,
    overwrite: bool,
    search: Callable[[Sequence[Part]], Iterable[PartResult]],
    parts_per_pass: int,
    k: int,
) -> Run:
    """Search the missing parts, ``parts_per_pass`` at a time, and write each."""
    from irdistill.runs import RunWriter

    queries = collection.queries
    if unjudged := collection.report.count("unjudged queries"):
        logger.info(
            "searching for the %d judged queries of %s; leaving out %s without judgments",
            len(queries),
            collection.id,
            counted(unjudged, "query"),
        )
    with RunWriter(
        Path(out),
        identity,
        list(queries),
        options.part_queries,
        overwrite=overwrite,
        fingerprints=collection.query_fingerprints,
    ) as writer:
        pending = list(writer.pending())
        remaining = sum(len(ids) for _, ids in pending)
        with progress(len(queries), "queries", "search", initial=len(queries) - remaining) as bar:
            for start in range(0, len(pending), parts_per_pass):
                parts = [
                    (number, [queries[query_id] for query_id in ids])
                    for number, ids in pending[start : start + parts_per_pass]
                ]
                for (number, group), (lists, usage) in zip(parts, search(parts), strict=True):
                    kept = [
                        ranked.without(query.excluded, k)
                        for ranked, query in zip(lists, group, strict=True)
                    ]
                    writer.write_part(number, kept, usage)
                    bar.update(len(group))
        return writer.finish()
