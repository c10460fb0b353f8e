"""Parquet: Rank-DistiLLM's ranked rows and PyLate's tables of lists."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from irdistill.collections import Collection
from irdistill.collections.column_names import IGNORED, roles_of_header
from irdistill.collections.table_layout import header_layout
from irdistill.collections.text_files import decompress, explain_damage, uncompressed_name
from irdistill.errors import InputError
from irdistill.runs.formats.columns import read_trec, write_trec
from irdistill.runs.formats.jsonl import records, write_json_lines
from irdistill.runs.formats.rows import (
    CHUNK,
    LAST_RANK,
    Record,
    Rows,
    WriteOptions,
    id_text,
    rows_of_records,
    scored_documents,
    whole_ranks,
)
from irdistill.runs.ranked_lists import RankedList, from_table
from irdistill.runs.run import Run
from irdistill.runs.score_file import ScoreFile, open_output
from irdistill.storage.ownership import replace_safely

RANKED = pa.schema(
    [
        ("query_id", pa.string()),
        ("doc_id", pa.string()),
        ("rank", pa.int64()),
        ("score", pa.float32()),
    ]
)
LISTS = pa.schema(
    [
        ("query_id", pa.string()),
        ("document_ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
    ]
)
LOOK = 1 << 12
WIDEST = 1 << 27
"""Characters of the longest cell of CSV."""
_ITEM = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,'"\[\]]+""", re.DOTALL)
_INTEGER = re.compile(r"[+-]?\d{1,400}", re.ASCII)
_ELLIPSIS = re.compile(r"(?:^|[\s,])\.\.\.(?:[\s,]|$)")
PYLATE_LAYOUT = '{"query_id": id, "document_ids": [id, …], "scores": [number, …]}'


def is_parquet(path: Path) -> bool:
    """Whether the file begins as Parquet does."""
    with open(path, "rb") as stream:
        return stream.read(4) == b"PAR1"


def _batches(
    source: ScoreFile, names: list[str], size: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    source.unit = "row"
    with source.seekable() as path, pq.ParquetFile(path) as file:
        total, done = max(1, file.metadata.num_rows), 0
        for batch in file.iter_batches(size, columns=names):
            yield done, batch
            done += batch.num_rows
            source.progress(done / total)


def column_names(source: ScoreFile) -> list[str]:
    """The names of a Parquet file's columns."""
    with source.seekable() as path, pq.ParquetFile(path) as file:
        return file.schema_arrow.names


def _texts(column: pa.Array) -> list[str]:
    return [id_text(value) for value in column.to_pylist()]


def read_ranked(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """Rank-DistiLLM (2405.07920): Parquet with ``query_id, doc_id, rank, score``, or a TREC run.

    The score may be null or absent. Rows without a score keep the order of their ranks.
    """
    if not is_parquet(source.path):
        yield from read_trec(source, collection)
        return
    names = column_names(source)
    columns = _columns_of(source, names)
    for start, batch in _batches(source, [names[place] for place in columns.values()], CHUNK):
        lines = np.arange(start + 1, start + 1 + batch.num_rows)
        values = {role: batch.column(names[place]) for role, place in columns.items()}
        try:
            queries, docs = _texts(values["query"]), _texts(values["document"])
            score, rank = (_float64(values.get(role)) for role in ("score", "rank"))
        except (TypeError, ValueError, pa.ArrowException) as error:
            raise InputError(
                f"{source.path}, rows {start + 1} to {start + batch.num_rows}:"
                f" {str(error).splitlines()[0]}."
            ) from error
        unscored = (
            np.ones(len(docs), bool)
            if score is None
            else values["score"].is_null().to_numpy(zero_copy_only=False)
        )
        ranks = None if rank is None else _ranks(source, rank, unscored, lines)
        yield Rows(
            queries,
            docs,
            np.full(len(docs), np.nan) if score is None else score,
            lines,
            unscored,
            ranks,
        )


def _columns_of(source: ScoreFile, names: list[str]) -> dict[str, int]:
    """Role -> number of the column."""
    if source.columns is None:
        roles = roles_of_header(names, "run", str(source.path))
    else:
        roles = header_layout(names, source.columns, "run", str(source.path))
        source.notes["columns"] = ",".join(roles)
    return {role: place for place, role in enumerate(roles) if role != IGNORED}


def _float64(column: pa.Array | None) -> np.ndarray | None:
    """(n,) numbers, NaN for null."""
    if column is None:
        return None
    if pa.types.is_boolean(column.type):
        raise TypeError("a score or rank is true or false, and a number was expected")
    values: np.ndarray = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values


def _ranks(
    source: ScoreFile, ranks: np.ndarray, unscored: np.ndarray, lines: np.ndarray
) -> np.ndarray:
    """Ranks; a row with a score may lack one, since the score decides."""
    needless = np.isnan(ranks) & ~unscored
    if needless.any():
        source.notes["rows without rank"] = source.notes.get("rows without rank", 0) + int(
            needless.sum()
        )
    return whole_ranks(source, np.where(needless, LAST_RANK, ranks), lines)


def write_ranked(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """Every row, scored or not; a TREC run if the name does not end in .parquet."""
    if path.suffix != ".parquet":
        return write_trec(run, path, collection, options)
    count = 0
    with _parquet(path, RANKED) as writer:
        for table in run.tables():
            rows = table.select(["query_id", "doc_id", "rank", "score"]).cast(RANKED)
            writer.write_table(rows)
            count += rows.num_rows
    return count


@contextmanager
def _parquet(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A Parquet file that gets its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        replace_safely(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        yield writer


def read_lists(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """PyLate's tables ``query_id, document_ids, scores``: Parquet, CSV or JSON lines."""
    if is_parquet(source.path):
        return rows_of_records(_list_records(source), source)
    with open(source.path, "rb") as file, explain_damage(source.path):
        start = decompress(file, source.path).read(LOOK).lstrip()
    if start[:1] != b"{":
        return rows_of_records(_csv_records(source), source)

    def read(number: int, value: Any) -> Record:
        return _record(number, value["query_id"], value["document_ids"], value["scores"])

    return rows_of_records(records(source, PYLATE_LAYOUT, read), source)


def _list_records(source: ScoreFile) -> Iterator[Record]:
    names = column_names(source)
    if not set(LISTS.names) <= set(names):
        raise InputError(
            f"{source.path} has the columns {', '.join(names)}; {', '.join(LISTS.names)} were"
            " expected."
        )
    for start, batch in _batches(source, LISTS.names, 4096):
        columns = [batch.column(name).to_pylist() for name in LISTS.names]
        for number, (query, docs, scores) in enumerate(zip(*columns, strict=True), start + 1):
            try:
                yield _record(number, query, docs, scores)
            except (TypeError, ValueError) as error:
                raise InputError(f"{source.path}, row {number}: {error}.") from error


def _csv_records(source: ScoreFile) -> Iterator[Record]:
    csv.field_size_limit(WIDEST)
    number = 0

    def lines() -> Iterator[str]:
        nonlocal number
        for place, line in source.lines():
            number = place
            yield line.decode("utf-8") + "\n"

    rows = csv.reader(lines(), strict=True)
    try:
        names = next(rows, [])
        if not set(LISTS.names) <= set(names):
            raise ValueError(
                f"the columns {', '.join(LISTS.names)} were expected, with commas between them"
            )
        for row in rows:
            if len(row) != len(names):
                raise ValueError(f"{len(row)} columns, and {len(names)} were expected")
            entry = dict(zip(names, row, strict=True))
            yield _record(number, *(entry[name] for name in LISTS.names))
    except (csv.Error, TypeError, ValueError) as error:
        raise InputError(
            f"{source.path}, line {number}: {error}. This was expected: CSV of"
            f" {', '.join(LISTS.names)}."
        ) from error


def _record(number: int, query: Any, docs: Any, scores: Any) -> Record:
    # tables that went through CSV hold the lists as text
    docs, scores = (
        _list_of_text(value) if isinstance(value, str) else value for value in (docs, scores)
    )
    if not isinstance(docs, list) or not isinstance(scores, list):
        raise ValueError(f"query {query!r} has no list of documents or none of scores")
    return Record(number, id_text(query), [id_text(doc) for doc in docs], scores)


def _list_of_text(text: str) -> list[Any]:
    """A list that was written as text by JSON, Python or NumPy (which leaves out the commas)."""
    inner = text.strip()
    if inner.startswith("array(") and inner.endswith(")"):
        inner = inner[6:-1].partition(", dtype=")[0]
    if not (inner.startswith("[") and inner.endswith("]")):
        raise ValueError(f"{text[:60]!r} is no list")
    if _ELLIPSIS.search(inner):
        raise ValueError(
            f"the list {text[:60]!r} was cut by NumPy when it was printed (...); write it as JSON"
        )
    items = _ITEM.findall(inner)
    rest = _ITEM.sub("", inner[1:-1])
    if rest.strip(", \t\r\n") or rest.count(",") not in (0, len(items) - 1, len(items)):
        raise ValueError(
            f"the list {text[:60]!r} cannot be read; texts in quotes or numbers were expected"
        )
    return [_item(item) for item in items]


def _item(text: str) -> Any:
    if text[0] in "'\"":
        return ast.literal_eval(text)
    if text in ("None", "null"):
        return None
    return int(text) if _INTEGER.fullmatch(text) else float(text)


def write_lists(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """One row per query, best first: Parquet, CSV or JSON lines, by the ending of the name."""
    suffix = Path(uncompressed_name(path)).suffix
    if suffix == ".jsonl":

        def line(ranked: RankedList) -> tuple[Any, int]:
            rows = scored_documents(ranked)
            value = {
                "query_id": ranked.query_id,
                "document_ids": [doc for doc, _ in rows],
                "scores": [s for _, s in rows],
            }
            return value, len(rows)

        return write_json_lines(run, path, line)
    if suffix == ".csv":
        return _write_csv(run, path)
    count = 0
    with _parquet(path, LISTS) as writer:
        for ids, table in run.parts():
            lists = [(row.query_id, scored_documents(row)) for row in from_table(table, ids)]
            lists = [(query, rows) for query, rows in lists if rows]
            count += sum(len(rows) for _, rows in lists)
            columns = (
                [query for query, _ in lists],
                [[doc for doc, _ in rows] for _, rows in lists],
                [[score for _, score in rows] for _, rows in lists],
            )
            writer.write_table(pa.table(dict(zip(LISTS.names, columns, strict=True)), LISTS))
    return count


def _write_csv(run: Run, path: Path) -> int:
    """The lists as JSON in the cells, which PyLate reads like lists of Python."""
    count = 0
    with open_output(path) as stream:
        stream.write((",".join(LISTS.names) + "\n").encode())
        for ranked in run:
            rows = scored_documents(ranked)
            if rows:
                line = io.StringIO()
                docs = json.dumps([doc for doc, _ in rows], ensure_ascii=False)
                csv.writer(line, lineterminator="\n").writerow(
                    [ranked.query_id, docs, json.dumps([score for _, score in rows])]
                )
                stream.write(line.getvalue().encode())
                count += len(rows)
    return count
