"""Parquet: Rank-DistiLLM's ranked rows, and PyLate's tables of lists."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.ownership import replaceable
from irdistill.runs.formats.columns import read_trec, write_trec
from irdistill.runs.formats.jsonl import records, write_lines
from irdistill.runs.formats.rows import CHUNK, Record, Rows, gathered, name_of, scored
from irdistill.runs.formats.source import Source
from irdistill.runs.lists import RankedList, from_table
from irdistill.runs.store import Run

RANKED = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("rank", pa.int64()), ("score", pa.float32())])
LISTS = pa.schema([
    ("query_id", pa.string()), ("document_ids", pa.list_(pa.string())), ("scores", pa.list_(pa.float32())),
])
NAMES = {"query_id": ("query_id", "qid"), "doc_id": ("doc_id", "docno", "docid", "pid"), "rank": ("rank",), "score": ("score",)}
PYLATE = '{"query_id": id, "document_ids": [id, …], "scores": [number, …]}'


def is_parquet(path: Path) -> bool:
    """Does the file begin as Parquet does?"""
    with open(path, "rb") as stream:
        return stream.read(4) == b"PAR1"


def _batches(source: Source, names: list[str], size: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    source.unit = "row"
    with source.seekable() as path, pq.ParquetFile(path) as file:
        total, done = max(1, file.metadata.num_rows), 0
        for batch in file.iter_batches(size, columns=names):
            yield done, batch
            done += batch.num_rows
            source.progress(done / total)


def names_of(source: Source) -> list[str]:
    """The names of a Parquet file's columns."""
    with source.seekable() as path, pq.ParquetFile(path) as file:
        return file.schema_arrow.names


def _texts(column: pa.Array) -> list[str]:
    return [name_of(value) for value in column.to_pylist()]


def read_ranked(source: Source, collection: Collection) -> Iterator[Rows]:
    """Rank-DistiLLM (2405.07920): Parquet with ``query_id, doc_id, rank, score`` (score may be null or absent), or a TREC run.

    Rows without a score keep the order of their ranks.
    """
    if not is_parquet(source.path):
        yield from read_trec(source, collection)
        return
    there = names_of(source)
    found = {name: next((own for own in owns if own in there), None) for name, owns in NAMES.items()}
    if not found["query_id"] or not found["doc_id"] or not (found["rank"] or found["score"]):
        raise IrdistillError(
            f"{source.path} has the columns {', '.join(there)}; query_id, doc_id and rank or score were expected."
        )
    wanted = {name: own for name, own in found.items() if own}
    for start, batch in _batches(source, list(wanted.values()), CHUNK):
        columns = {name: batch.column(own) for name, own in wanted.items()}
        try:
            queries, docs = _texts(columns["query_id"]), _texts(columns["doc_id"])
            score, rank = columns.get("score"), columns.get("rank")
            scores = np.full(len(docs), np.nan) if score is None else score.cast(pa.float64()).to_numpy(zero_copy_only=False)
            ranks = None if rank is None else rank.cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.int64)
        except (TypeError, ValueError, pa.ArrowInvalid) as error:
            raise IrdistillError(f"{source.path}, rows {start + 1} to {start + batch.num_rows}: {error}.") from error
        unscored = np.ones(len(docs), bool) if score is None else score.is_null().to_numpy(zero_copy_only=False)
        yield Rows(queries, docs, scores, np.arange(start + 1, start + 1 + len(docs)), unscored, ranks)


def write_ranked(run: Run, path: Path, collection: Collection | None, tag: str) -> int:
    """Every row, those without a score too; a TREC run where the name does not end in .parquet."""
    if path.suffix != ".parquet":
        return write_trec(run, path, collection, tag)
    count = 0
    with _parquet(path, RANKED) as writer:
        for table in run.tables():
            rows = table.select(["query_id", "doc_id", "rank", "score"]).cast(RANKED)
            writer.write_table(rows)
            count += rows.num_rows
    return count


@contextmanager
def _parquet(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A Parquet file that takes its place when all is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaceable(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        yield writer


def read_lists(source: Source, collection: Collection) -> Iterator[Rows]:
    """PyLate's knowledge-distillation tables: Parquet or JSON lines of ``query_id, document_ids, scores``."""
    if is_parquet(source.path):
        return gathered(_list_records(source), source)

    def read(number: int, value: Any) -> Record:
        return _record(number, value["query_id"], value["document_ids"], value["scores"])

    return gathered(records(source, PYLATE, read), source)


def _list_records(source: Source) -> Iterator[Record]:
    there = names_of(source)
    if not set(LISTS.names) <= set(there):
        raise IrdistillError(f"{source.path} has the columns {', '.join(there)}; {', '.join(LISTS.names)} were expected.")
    for start, batch in _batches(source, LISTS.names, 4096):
        columns = [batch.column(name).to_pylist() for name in LISTS.names]
        for number, (query, docs, scores) in enumerate(zip(*columns, strict=True), start + 1):
            try:
                yield _record(number, query, docs, scores)
            except (TypeError, ValueError, SyntaxError) as error:
                raise IrdistillError(f"{source.path}, row {number}: {error}.") from error


def _record(number: int, query: Any, docs: Any, scores: Any) -> Record:
    # tables that went through CSV hold the lists as text
    docs, scores = (ast.literal_eval(value) if isinstance(value, str) else value for value in (docs, scores))
    if not isinstance(docs, list) or not isinstance(scores, list):
        raise ValueError(f"query {query!r} has no list of documents or none of scores")
    return Record(number, name_of(query), [name_of(doc) for doc in docs], scores)


def write_lists(run: Run, path: Path, collection: Collection | None, tag: str) -> int:
    """One row a query, best first; JSON lines where the name ends in .jsonl, with .gz or .zst or without."""
    if ".jsonl" in path.suffixes:
        def line(found: RankedList) -> tuple[Any, int]:
            rows = scored(found)
            value = {"query_id": found.query_id, "document_ids": [doc for doc, _ in rows], "scores": [s for _, s in rows]}
            return value, len(rows)

        return write_lines(run, path, line)
    count = 0
    with _parquet(path, LISTS) as writer:
        for ids, table in run.parts():
            lists = [(found.query_id, scored(found)) for found in from_table(table, ids)]
            lists = [(query, rows) for query, rows in lists if rows]
            count += sum(len(rows) for _, rows in lists)
            writer.write_table(pa.Table.from_arrays([
                pa.array([query for query, _ in lists], pa.string()),
                pa.array([[doc for doc, _ in rows] for _, rows in lists], LISTS.field(1).type),
                pa.array([[score for _, score in rows] for _, rows in lists], LISTS.field(2).type),
            ], schema=LISTS))
    return count
