"""The formats by name, and which one a file is of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irdistill.collections import Collection
from irdistill.collections.table_content import TREC, TRIPLES
from irdistill.collections.table_layout import UnknownLayoutError, detect_layout
from irdistill.collections.text_files import decompress, explain_damage, uncompressed_name
from irdistill.errors import IrdistillError
from irdistill.runs.formats import columns, dicts, jsonl, objects, texts
from irdistill.runs.formats import parquet_tables as tables
from irdistill.runs.formats.rows import Rows, WriteOptions
from irdistill.runs.run import Run
from irdistill.runs.score_file import ScoreFile
from irdistill.runs.trec_rows import read_file_sample

LOOK = 1 << 16


@dataclass(frozen=True)
class Format:
    """A layout of score files.

    Attributes:
        layout: what it looks like.
        read: gives the rows of a file, some thousands at a time.
        write: writes a run, given a collection and options; gives how many rows the file expresses.
        needs_collection: writing takes judgments or texts from the collection.
        ranked: rows may have ranks, which stand for the order where there is no score, or where the
            user says so.
        table: the columns can be named by the user.
        beside: the scores lie in a second file.
        two_sided: a query has positives and negatives, and trainers expect both.
    """

    name: str
    layout: str
    read: Callable[[ScoreFile, Collection], Iterator[Rows]]
    write: Callable[[Run, Path, Collection | None, WriteOptions], int]
    needs_collection: bool = False
    ranked: bool = False
    table: bool = False
    beside: bool = False
    two_sided: bool = False


FORMATS = {
    found.name: found
    for found in (
        Format("trec", columns.TREC_LAYOUT, columns.read_trec, columns.write_trec, ranked=True),
        Format(
            "tsv", columns.TABLE, columns.read_table, columns.write_table, ranked=True, table=True
        ),
        Format(
            "triples",
            columns.TRIPLES_LAYOUT,
            columns.read_triples,
            columns.write_triples,
            needs_collection=True,
        ),
        Format(
            "st-jsonl",
            jsonl.HARD,
            jsonl.read_hard,
            jsonl.write_hard,
            needs_collection=True,
            beside=True,
            two_sided=True,
        ),
        Format(
            "st-pickle", "pickled {query: {document: score}}", dicts.read_scores, dicts.write_scores
        ),
        Format("colbert", jsonl.NWAY, jsonl.read_nway, jsonl.write_nway),
        Format(
            "rank-distillm",
            "Parquet: query_id, doc_id, rank, score",
            tables.read_ranked,
            tables.write_ranked,
            ranked=True,
            table=True,
        ),
        Format(
            "flagembedding",
            texts.FLAG,
            texts.read_flag,
            texts.write_flag,
            needs_collection=True,
            two_sided=True,
        ),
        Format(
            "tevatron",
            texts.TEVATRON,
            texts.read_tevatron,
            texts.write_tevatron,
            needs_collection=True,
            two_sided=True,
        ),
        Format("disco", objects.LAYOUT, objects.read_object, objects.write_object),
        Format("pylate", "Parquet, CSV or " + tables.PYLATE, tables.read_lists, tables.write_lists),
    )
}


SUFFIXES = {
    ".parquet": ("rank-distillm", "pylate"),
    ".csv": ("pylate",),
    ".pkl": ("st-pickle",),
    ".pickle": ("st-pickle",),
    ".json": ("disco", "colbert"),
    ".jsonl": ("st-jsonl", "colbert", "flagembedding", "tevatron", "pylate"),
}
"""Endings that say what a file holds, and the formats that write such files."""


def format_of(
    name: str | None, path: Path, reading: bool, columns: str | Sequence[str] | None = None
) -> Format:
    """The format of a name, or where that is None the only one that a file can be of.

    Args:
        reading: look into the file; else only at its name.
        columns: what the user says of the columns of a table.

    Raises:
        IrdistillError: there is no such format, it cannot be decided which one it is, or the name
            of the file to write is that of another format.
    """
    known = ", ".join(FORMATS)
    if name is not None:
        if name not in FORMATS:
            raise IrdistillError(f"there is no format {name!r}; one of {known} was expected.")
        return FORMATS[name] if reading else _named_alike(FORMATS[name], path)
    chosen = _by_content(path, columns) if reading else _by_name(path)
    if chosen is None:
        raise IrdistillError(
            f"it cannot be told of which format {path} is; give --format, one of {known}."
        )
    return FORMATS[chosen] if reading else _named_alike(FORMATS[chosen], path)


def _by_name(path: Path) -> str | None:
    suffix = Path(uncompressed_name(path)).suffix
    ambiguous = {".jsonl", ".parquet", ".tsv", ".csv"}
    return (
        None
        if suffix in ambiguous
        else {".pkl": "st-pickle", ".pickle": "st-pickle", ".json": "disco"}.get(suffix, "trec")
    )


def _named_alike(form: Format, path: Path) -> Format:
    """The format, if a file of this name can be of it.

    Raises:
        IrdistillError: the name is that of another format, or of a compression that is not written.
    """
    name = uncompressed_name(path)
    suffix = Path(name).suffix
    endings = [ending for ending, names in SUFFIXES.items() if form.name in names]
    if form.name not in SUFFIXES.get(suffix, (form.name,)) or (
        form.name == "pylate" and suffix not in SUFFIXES
    ):
        expected = (
            f"a name that ends in {' or '.join(endings)}"
            if endings
            else "another ending, such as .tsv or .txt"
        )
        raise IrdistillError(
            f"{path} has the ending {suffix!r}, which files of the format {form.name} do not have;"
            f" give --out {expected}."
        )
    if suffix == ".parquet" and name != path.name:
        raise IrdistillError(
            f"{path}: Parquet files are compressed inside; give --out a name that ends in .parquet."
        )
    if path.suffix in (".zip", ".lz4", ".7z", ".Z"):
        raise IrdistillError(
            f"{path}: files are compressed as .gz, .zst, .bz2 or .xz; give --out one of these"
            " endings, or none."
        )
    return form


def _by_content(path: Path, columns: str | Sequence[str] | None) -> str | None:
    if not path.is_file():
        raise IrdistillError(f"there is no file {path}.")
    if tables.is_parquet(path):
        with ScoreFile(path) as source:
            return "pylate" if "document_ids" in tables.names_of(source) else "rank-distillm"
    with open(path, "rb") as file, explain_damage(path):
        start = decompress(file, path).read(LOOK)
    if columns is not None:
        return "tsv"
    if start[:1] == b"\x80" or start[:2] in (b"(d", b"}q", b"}("):
        return "st-pickle"
    line = start.lstrip().split(b"\n")[0]
    if line[:1] in (b"[", b"{"):
        return _by_json(line)
    if b"document_ids" in line and b"\t" not in line:
        return "pylate"
    return _by_columns(path)


def _by_columns(path: Path) -> str:
    try:
        layout = detect_layout(read_file_sample(path), "run")
    except UnknownLayoutError as error:
        raise UnknownLayoutError(
            f"{error} For another layout give --format, one of {', '.join(FORMATS)}."
        ) from error
    return {TREC: "trec", TRIPLES: "triples"}.get(layout.roles, "tsv")


def _by_json(line: bytes) -> str | None:
    if line[:1] == b"[":
        return "colbert"
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        # the first line is an object that goes on: one of all queries, or one with texts longer
        # than what was read
        keys = line[:LOOK]
        hints = {
            b'"positive_passages"': "tevatron",
            b'"pos"': "flagembedding",
            b'"document_ids"': "pylate",
        }
        return next((name for hint, name in hints.items() if hint in keys), "disco")
    for key, name in (
        ("qid", "st-jsonl"),
        ("positive_passages", "tevatron"),
        ("positive_document_ids", "tevatron"),
        ("document_ids", "pylate"),
        ("pos", "flagembedding"),
    ):
        if key in value and (not isinstance(value[key], dict) or "docid" in value[key]):
            return name
    return "disco" if all(isinstance(found, dict) for found in value.values()) else None
