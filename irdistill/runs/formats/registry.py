"""The formats by name, and which one a file is of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.runs.formats import columns, dicts, jsonl, objects, tables, texts
from irdistill.runs.formats.rows import Rows
from irdistill.runs.formats.source import Source
from irdistill.runs.store import Run

LOOK = 1 << 16


@dataclass(frozen=True)
class Format:
    """A layout of score files.

    Attributes:
        layout: what it looks like.
        read: gives the rows of a file, some thousands at a time.
        write: writes a run, given a collection and a tag; gives how many rows the file expresses.
        needs_collection: writing takes judgments or texts from the collection.
        ranked: rows have ranks, which stand for the order where there is no score.
        beside: the scores lie in a second file.
    """

    name: str
    layout: str
    read: Callable[[Source, Collection], Iterator[Rows]]
    write: Callable[[Run, Path, Collection | None, str], int]
    needs_collection: bool = False
    ranked: bool = False
    beside: bool = False


FORMATS = {
    found.name: found
    for found in (
        Format("trec", columns.TREC, columns.read_trec, columns.write_trec),
        Format("tsv", columns.TABLE, columns.read_table, columns.write_table),
        Format("triples", columns.TRIPLES, columns.read_triples, columns.write_triples, needs_collection=True),
        Format("st-jsonl", jsonl.HARD, jsonl.read_hard, jsonl.write_hard, needs_collection=True, beside=True),
        Format("st-pickle", "pickled {query: {document: score}}", dicts.read_scores, dicts.write_scores),
        Format("colbert", jsonl.NWAY, jsonl.read_nway, jsonl.write_nway),
        Format("rank-distillm", "Parquet: query_id, doc_id, rank, score", tables.read_ranked, tables.write_ranked, ranked=True),
        Format("flagembedding", texts.FLAG, texts.read_flag, texts.write_flag, needs_collection=True),
        Format("tevatron", texts.TEVATRON, texts.read_tevatron, texts.write_tevatron, needs_collection=True),
        Format("disco", objects.LAYOUT, objects.read_object, objects.write_object),
        Format("pylate", "Parquet or " + tables.PYLATE, tables.read_lists, tables.write_lists),
    )
}


def format_of(name: str | None, path: Path, reading: bool) -> Format:
    """The format of a name, or where that is None the one a file is plainly of.

    Args:
        reading: look into the file; else only at its name.

    Raises:
        IrdistillError: there is no such format, or it cannot be told which one it is.
    """
    known = ", ".join(FORMATS)
    if name is not None:
        if name not in FORMATS:
            raise IrdistillError(f"there is no format {name!r}; one of {known} was expected.")
        return FORMATS[name]
    found = _by_content(path) if reading else _by_name(path)
    if found is None:
        raise IrdistillError(f"it cannot be told of which format {path} is; give --format, one of {known}.")
    return FORMATS[found]


def _by_name(path: Path) -> str | None:
    suffix = next((s for s in reversed(path.suffixes) if s not in (".gz", ".zst")), "")
    ambiguous = {".jsonl", ".parquet", ".tsv"}
    return None if suffix in ambiguous else {".pkl": "st-pickle", ".pickle": "st-pickle", ".json": "disco"}.get(suffix, "trec")


def _by_content(path: Path) -> str | None:
    if not path.is_file():
        raise IrdistillError(f"there is no file {path}.")
    if tables.is_parquet(path):
        with Source(path) as source:
            return "pylate" if "document_ids" in tables.names_of(source) else "rank-distillm"
    with Source(path) as source, source.binary() as stream:
        start = stream.read(LOOK)
    if start[:1] == b"\x80" or start[:2] in (b"(d", b"}q", b"}("):
        return "st-pickle"
    line = start.lstrip().split(b"\n")[0]
    if line[:1] in (b"[", b"{"):
        return _by_json(line)
    fields = line.split()
    if len(fields) == 6:
        return "trec"
    if len(fields) == 5 and columns.is_number(fields[0]) and columns.is_number(fields[1]):
        return "triples"
    return "tsv" if len(fields) in (3, 4) else None


def _by_json(line: bytes) -> str | None:
    if line[:1] == b"[":
        return "colbert"
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        # the first line is an object that goes on: one of all queries, or one with texts longer than what was read
        keys = line[:LOOK]
        hints = {b'"positive_passages"': "tevatron", b'"pos"': "flagembedding", b'"document_ids"': "pylate"}
        return next((name for hint, name in hints.items() if hint in keys), "disco")
    for key, name in (("qid", "st-jsonl"), ("positive_passages", "tevatron"), ("positive_document_ids", "tevatron"),
                      ("document_ids", "pylate"), ("pos", "flagembedding")):
        if key in value and not (isinstance(value[key], dict)):
            return name
    return "disco" if all(isinstance(found, dict) for found in value.values()) else None
