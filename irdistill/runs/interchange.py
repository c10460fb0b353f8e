"""Runs from what other libraries hold: dictionaries, data frames, datasets, tuples, files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from irdistill.collections import Collection
from irdistill.collections.foreign_tables import id_string, table_columns
from irdistill.console.terminal import counted
from irdistill.errors import InputError, WrongCollectionError
from irdistill.runs.manifest import RunIdentity
from irdistill.runs.memory_run import MemoryRun
from irdistill.runs.opening import open_run
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run

logger = logging.getLogger(__name__)

_COLUMNS: dict[str, tuple[str, ...]] = {
    "query": ("qid", "query_id", "query-id", "q_id", "topic_id", "topic"),
    "document": (
        "docno",
        "doc_id",
        "doc-id",
        "corpus-id",
        "corpus_id",
        "document_id",
        "docid",
        "pid",
    ),
    "score": ("score", "scores", "similarity"),
    "rank": ("rank",),
    "flag": ("flag",),
    "passage": ("passage",),
}
"""Column names by role; the first name that a table has is used."""


def as_run(source: Any, collection: Collection | None = None) -> Run:
    """Make a run of anything that holds ranked lists.

    Ids become strings. A missing score (None, null, NaN, or no column of scores) means *not
    scored*. Documents are ranked by score, then document id, both descending, as in trec_eval.

    Args:
        source: a `Run`; the path of a run folder or a TREC run file; ``{query: {document:
            score}}``; a data frame (pandas or polars), Arrow table or Hugging Face dataset with
            columns such as PyTerrier's ``qid, docno, score`` or ``query_id, doc_id, score``; a
            `ranx.Run`; or an iterable of ir_measures' ``ScoredDoc``, of tuples (query id, document
            id, score), or of `RankedList`.
        collection: if given, the run must belong to this collection. Queries of other sources than
            runs and run folders that are not in the collection are left out with a warning.

    Raises:
        InputError: the source is none of these, has a score that is infinite or not a number, or
            names a document twice for one query.
        WrongCollectionError: the collection does not have a document, or has none of the queries.

    Examples:
        >>> from irdistill.runs import as_run
        >>> run = as_run({"q1": {"d1": 0.5, "d2": 0.9, "d3": None}})
        >>> run["q1"].doc_ids, run.num_unscored
        (['d2', 'd1', 'd3'], 1)
    """
    if isinstance(source, str | Path):
        return open_run(source, collection)
    if isinstance(source, Run):
        if collection is None or source.identity.collection:
            return open_run(source, collection)
        producer: Mapping[str, Any] = source.identity.producer
        lists: Iterable[RankedList] = source
    else:
        producer, lists = _lists(source)
    if collection is None:
        return MemoryRun(RunIdentity("imported", dict(producer), {}), lists)
    identity = RunIdentity("imported", dict(producer), collection.describe())
    return MemoryRun(identity, _fitted(list(lists), collection))


def _lists(source: Any) -> tuple[dict[str, Any], list[RankedList]]:
    """What a source is, and its lists."""
    library = type(source).__module__.partition(".")[0]
    name = f"{library}.{type(source).__name__}"
    if library == "ranx":
        source = source.to_dict()
    table = _table(source)
    if table is not None:
        return {"format": name}, _from_columns(table)
    if isinstance(source, Mapping):
        return {"format": "dict" if library != "ranx" else name}, _from_dict(source)
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        rows = list(source)
        if all(isinstance(row, RankedList) for row in rows):
            return {"format": "lists"}, rows
        return {"format": "tuples"}, _from_tuples(rows)
    raise InputError(
        f"a {name} is not a run. Give a run, a path, {{query: {{document: score}}}}, a data frame"
        " or dataset with the columns qid, docno, score, a ranx.Run, or (query, document, score)"
        " tuples."
    )


class _Columns(NamedTuple):
    """Rows as columns of one length; None for a column that the source does not have."""

    query: Sequence[Any]
    document: Sequence[Any]
    score: Sequence[Any] | None = None
    rank: Sequence[Any] | None = None
    flag: Sequence[Any] | None = None
    passage: Sequence[Any] | None = None


def _table(source: Any) -> _Columns | None:
    """The columns of a data frame, a dataset or an Arrow table; None for anything else."""
    table = table_columns(source)
    if table is None:
        return None
    names, values = table
    first = {
        role: next((name for name in known if name in names), None)
        for role, known in _COLUMNS.items()
    }
    if first["query"] is None or first["document"] is None:
        raise InputError(
            f"a table of a run has the columns {', '.join(names)}; a column of query ids"
            f" ({' or '.join(_COLUMNS['query'][:2])}) and one of document ids"
            f" ({' or '.join(_COLUMNS['document'][:2])}) were expected. Rename the columns."
        )
    return _Columns(
        **{role: values[names.index(name)] for role, name in first.items() if name is not None}
    )


def _from_dict(source: Mapping[Any, Any]) -> list[RankedList]:
    lists = []
    for query, documents in source.items():
        if not isinstance(documents, Mapping):
            raise InputError(
                f"query {query!r} has a {type(documents).__name__};"
                " {query: {document: score}} was expected."
            )
        doc_ids = [id_string(doc, "document") for doc in documents]
        lists.append(
            RankedList(id_string(query, "query"), doc_ids, _scores(list(documents.values())))
        )
    return _checked(lists)


def _from_tuples(rows: Sequence[Any]) -> list[RankedList]:
    try:
        if rows and hasattr(rows[0], "query_id"):
            triples = [(row.query_id, row.doc_id, row.score) for row in rows]
        else:
            triples = [(query, document, score) for query, document, score in rows]
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"a run was given as rows such as {rows[0]!r:.80}; (query id, document id, score) was"
            f" expected ({error})."
        ) from error
    queries, documents, scores = zip(*triples, strict=True) if triples else ((), (), ())
    return _from_columns(_Columns(queries, documents, scores))


def _from_columns(columns: _Columns) -> list[RankedList]:
    """The lists of rows in any order; queries in the order of their first rows."""
    scores = (
        np.full(len(columns.query), np.nan, np.float32)
        if columns.score is None
        else _scores(columns.score)
    )
    rows_of: dict[str, list[int]] = {}
    for row, query in enumerate(columns.query):
        rows_of.setdefault(id_string(query, "query"), []).append(row)
    lists = []
    for query, rows in rows_of.items():
        if columns.rank is not None:  # the order of documents without a score
            ranks = columns.rank
            rows = sorted(rows, key=lambda row: _rank(ranks[row]))
        flags = None
        if columns.flag is not None:
            flags = [flag if isinstance(flag := columns.flag[row], str) else None for row in rows]
        documents = [id_string(columns.document[row], "document") for row in rows]
        passages = None if columns.passage is None else _passages(columns.passage, rows)
        lists.append(RankedList(query, documents, scores[rows], flags, passages))
    return lists


def _checked(lists: list[RankedList]) -> list[RankedList]:
    """Refuse ids that are the same once they are strings."""
    if len({ranked.query_id for ranked in lists}) != len(lists):
        raise InputError("two query ids are the same as strings, such as 1 and '1'; use one type.")
    return lists


def _scores(values: Sequence[Any]) -> np.ndarray:
    """(n,) float32, NaN for None."""
    try:
        with np.errstate(over="ignore"):
            return np.array([np.nan if value is None else value for value in values], np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"a score is not a number: {error}.") from error


def _passages(values: Sequence[Any], rows: Sequence[int]) -> np.ndarray:
    """(n,) int32, -1 for None or NaN."""
    return np.array(
        [-1 if (value := values[row]) is None or value != value else int(value) for row in rows],
        np.int32,
    )


def _rank(value: Any) -> float:
    return float("inf") if value is None or value != value else float(value)


def _fitted(lists: list[RankedList], collection: Collection) -> list[RankedList]:
    """The lists of the collection's queries; every document must be in its corpus."""
    known = [ranked for ranked in lists if ranked.query_id in collection.queries]
    if not known:
        raise WrongCollectionError(
            f"none of the run's {counted(len(lists), 'query')} is in {collection.id!r}; give"
            " the collection that the run was made for."
        )
    if len(known) < len(lists):
        first = next(row.query_id for row in lists if row.query_id not in collection.queries)
        logger.warning(
            "left out %s that %s does not have (first: %s)",
            counted(len(lists) - len(known), "query"),
            collection.id,
            first,
        )
    for ranked in known:
        unknown = np.flatnonzero(collection.corpus.find(ranked.doc_ids) < 0)
        if len(unknown):
            raise WrongCollectionError(
                f"the document {ranked.doc_ids[unknown[0]]!r} of query {ranked.query_id!r} is not"
                f" in the corpus of {collection.id!r}; the run belongs to another collection."
            )
    return known
