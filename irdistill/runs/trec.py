"""TREC run files read into memory: ``query Q0 document rank score tag``."""

from __future__ import annotations

import io
import logging
import lzma
import math
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv

from irdistill.collections import Collection
from irdistill.collections.lines import bounded_lines
from irdistill.collections.opening import compression_of, damage_explained, decompressed, is_damage
from irdistill.collections.table_layout import TableSample, check_trec, read_sample, trec_header
from irdistill.errors import IrdistillError
from irdistill.files import file_sha256
from irdistill.runs.lists import SCHEMA, order_ties
from irdistill.runs.manifest import RunIdentity
from irdistill.runs.ranks import RankFaults
from irdistill.runs.store import Run, TableRun

logger = logging.getLogger(__name__)

_NAMES = ["query", "zero", "document", "rank", "score", "tag"]
_CODES = pa.dictionary(pa.int32(), pa.string())
_BLOCK = 1 << 24
_QUERIES = 1024
"""Lists whose documents are held as Python strings at a time."""


class _Columns(NamedTuple):
    """The lines of a file: (n,) place of the query among ``queries``, documents, float64 ranks and scores."""

    queries: list[str]
    places: np.ndarray
    documents: pa.Array
    ranks: np.ndarray
    scores: np.ndarray
    tag: str


def read_trec(path: Path, collection: Collection | None = None) -> TableRun:
    """Read a TREC run into memory. Scores decide the order, as in trec_eval; ranks that contradict them are warned of.

    Compressed files are recognized by their content, and a first line of column names is left out. A well-formed file is read by columns. One that is not is read again line by line, to say what is wrong and where.

    Args:
        collection: if given, queries that it lacks are left out (with a warning), and documents must be its own.

    Raises:
        IrdistillError: a line has not six columns, a score is not a finite number or a rank no whole number, a document comes
            twice for a query, the file is empty, or it does not fit the collection.
    """
    sample = _sample(path)
    header = trec_header(sample)
    if header is None:
        check_trec(sample)
    skip = sample.lines[0][0] if header else 0
    found = _by_columns(path, skip)
    table = None if found is None else _table(found, collection)
    if found is None or table is None:
        found = _by_lines(path, collection, skip)
        table = _table(found, collection)
    if table is None or not table.num_rows:
        reason = f"none of its {len(found.queries)} queries is in {collection.id!r}" if found.queries and collection else \
            "it holds no line"
        raise IrdistillError(f"{path} gives no run: {reason}.")
    if collection is not None and (strange := [query for query in found.queries if query not in collection.queries]):
        logger.warning("%s: %d queries are not in %s and were left out (first: %s)", path, len(strange), collection.id, strange[0])
    for line in _rank_warnings(found):
        logger.warning("%s: %s", path, line)
    identity = RunIdentity(
        "imported", {"format": "trec", "file": path.name, "sha256": file_sha256(path), "tag": found.tag},
        collection.describe() if collection is not None else {},
    )
    return TableRun(identity, table)


def _sample(path: Path) -> TableSample:
    with _open(path) as stream, damage_explained(path):
        return read_sample(stream, path)


def _open(path: Path) -> io.BufferedReader:
    stream = open(path, "rb")
    try:
        with damage_explained(path):
            return decompressed(stream, path)
    except BaseException:
        stream.close()
        raise


def _damaged(path: Path, error: object) -> IrdistillError:
    return IrdistillError(f"{path} cannot be read as text ({error}); it is truncated or damaged.")


def _by_columns(path: Path, skip: int = 0) -> _Columns | None:
    """The lines of a file whose fields have one space or tab between them; None of any other.

    Args:
        skip: lines at the start that are left out.
    """
    kind, sample = compression_of(path), _sample(path)
    stream: Any
    try:
        # Arrow reads a plain file faster than Python does, and knows no xz
        with _open(path) if kind == "xz" else pa.input_stream(str(path), compression=kind) as stream:
            table = arrow_csv.read_csv(
                stream, read_options=arrow_csv.ReadOptions(column_names=_NAMES, block_size=_BLOCK, skip_rows=skip),
                parse_options=arrow_csv.ParseOptions(delimiter="\t" if any("\t" in line for _, line in sample.lines[:100]) else " ",
                                                     quote_char=False, double_quote=False),
                convert_options=arrow_csv.ConvertOptions(
                    column_types={"query": _CODES, "document": pa.string(), "rank": pa.float64(), "score": pa.float64()},
                    include_columns=["query", "document", "rank", "score"], null_values=[],
                ),
            )
    except (pa.ArrowInvalid, OSError, EOFError):
        return None
    first = next((line.split(None, 6) for number, line in sample.lines if number > skip), [])
    if not table.num_rows or len(first) < 6:
        return None
    queries = table.column("query").unify_dictionaries().combine_chunks()
    names, scores = queries.dictionary.to_pylist(), table.column("score").to_numpy()
    documents, ranks = table.column("document").combine_chunks(), table.column("rank").to_numpy()
    # fields that a split at any white space would cut, or would not see
    if not all(len(name.split()) == 1 for name in names) or not np.isfinite(scores).all() \
            or not ((ranks >= 0) & (ranks == np.floor(ranks))).all():
        return None
    return _Columns(names, queries.indices.to_numpy(), documents, ranks, scores, first[5])


def _by_lines(path: Path, collection: Collection | None, skip: int = 0) -> _Columns:
    """The lines of a file, with an error that names the first one that is wrong."""
    places: dict[str, int] = {}
    seen: set[tuple[int, str]] = set()
    own: list[int] = []
    documents: list[str] = []
    ranks: list[float] = []
    scores: list[float] = []
    tag = ""
    for number, line in enumerate(_lines(path), 1):
        fields = line.split()
        if not fields or number <= skip:
            continue
        if len(fields) != 6:
            raise IrdistillError(
                f"{path}, line {number}: {len(fields)} columns, and six were expected "
                f"(query Q0 document rank score tag): {line.strip()[:80]!r}. Other tables and score files are read by irdistill runs "
                "import."
            )
        query_id, _, doc_id, rank_text, text, tag = fields
        rank, score = _number(rank_text), _number(text)
        if not math.isfinite(score):
            raise IrdistillError(f"{path}, line {number}: the score {text!r} is not a finite number that float32 can hold.")
        if not (rank >= 0 and rank == math.floor(rank)):
            raise IrdistillError(
                f"{path}, line {number}: the rank is {rank_text!r}, and a whole number from 0 or 1 was expected. Are rank and score in "
                "each other's places?"
            )
        place = places.setdefault(query_id, len(places))
        if collection is not None and query_id in collection.queries and not collection.corpus.has(doc_id):
            raise IrdistillError(
                f"{path}, line {number}: the document {doc_id!r} is not in the corpus of {collection.id!r}; the run "
                "belongs to another collection."
            )
        if (place, doc_id) in seen:
            raise IrdistillError(f"{path}, line {number}: the document {doc_id!r} comes twice for query {query_id!r}.")
        seen.add((place, doc_id))
        own.append(place)
        documents.append(doc_id)
        ranks.append(rank)
        scores.append(score)
    return _Columns(list(places), np.array(own, np.int32), pa.array(documents, pa.string()), np.array(ranks, np.float64),
                    np.array(scores, np.float64), tag)


def _rank_warnings(columns: _Columns) -> list[str]:
    """What a user should know of ranks that do not fit the scores."""
    places, ranks, scores = columns.places, columns.ranks, columns.scores.astype(np.float32)
    step = np.diff(places)
    if not ((step > 0) | ((step == 0) & (ranks[1:] >= ranks[:-1]))).all():
        order = np.lexsort((ranks, places))
        places, ranks, scores = places[order], ranks[order], scores[order]
    faults = RankFaults().and_of(places, ranks, scores)
    return faults.warnings(len(columns.queries), columns.queries[faults.example])


def _number(text: str) -> float:
    try:
        with np.errstate(over="ignore"):
            return float(np.float32(float(text)))
    except ValueError:
        return math.nan


def _lines(path: Path) -> Iterator[str]:
    try:
        with _open(path) as stream:
            yield from (line.decode("utf-8") for line in bounded_lines(stream, str(path)))
    except (EOFError, OSError, zlib.error, lzma.LZMAError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and not is_damage(error):
            raise
        raise _damaged(path, error) from error


def _table(found: _Columns, collection: Collection | None) -> pa.Table | None:
    """The rows in rank order, those of queries that the collection lacks left out; None where one of them is wrong."""
    places, documents = found.places, found.documents
    with np.errstate(over="ignore"):
        scores = found.scores.astype(np.float32)
    if not np.isfinite(scores).all():
        return None
    if collection is not None:
        known = np.array([query in collection.queries for query in found.queries], bool)
        if not known.all():
            kept = np.flatnonzero(known[places])
            places, scores, documents = places[kept], scores[kept], documents.take(pa.array(kept))
    step = np.diff(places)
    if not ((step > 0) | ((step == 0) & (scores[1:] <= scores[:-1]))).all():
        order = np.lexsort((-scores, places))
        places, scores, documents = places[order], scores[order], documents.take(pa.array(order))
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    order = np.arange(len(places))
    if order_ties(order, scores, starts, lambda rows: documents.take(pa.array(rows)).to_pylist()):
        documents = documents.take(pa.array(order))
    edges = np.append(starts, len(places))
    if not _sound(documents, edges, collection):
        return None
    columns = [
        pa.array(found.queries, pa.string()).take(pa.array(places)), documents,
        pa.array((np.arange(1, len(places) + 1) - np.repeat(starts, np.diff(edges))).astype(np.int32)),
        pa.array(scores), pa.nulls(len(places), pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _sound(documents: pa.Array, edges: np.ndarray, collection: Collection | None) -> bool:
    """Whether no query has a document twice and the corpus has all of them."""
    for first in range(0, len(edges) - 1, _QUERIES):
        own = edges[first : first + _QUERIES + 1]
        names = documents.slice(own[0], own[-1] - own[0]).to_pylist()
        bounds = (own - own[0]).tolist()
        if any(len(set(names[start:end])) != end - start for start, end in pairwise(bounds)):
            return False
        if collection is not None and (collection.corpus.find(names) < 0).any():
            return False
    return True


def import_trec(file: str | Path, collection: Collection, out: str | Path, overwrite: bool = False) -> Run:
    """Bring a TREC run file into the store, as ``import_run`` with the format ``trec``."""
    from irdistill.runs.formats import import_run

    return import_run(file, collection, out, "trec", overwrite=overwrite)


def export_trec(run: str | Path | Run, file: str | Path, tag: str = "irdistill") -> int:
    """Write a run as a TREC run file, as ``export_run`` with the format ``trec``; gives the number of lines."""
    from irdistill.runs.formats import export_run

    return export_run(run, file, "trec", tag=tag).rows
