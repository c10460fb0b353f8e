"""The formats by name, and how the format of a file is found."""

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
from irdistill.errors import InputError, NotFoundError, OptionError
from irdistill.runs.formats.columns import (
    TABLE_LAYOUT,
    TREC_LAYOUT,
    TRIPLES_LAYOUT,
    read_table,
    read_trec,
    read_triples,
    write_table,
    write_trec,
    write_triples,
)
from irdistill.runs.formats.dicts import (
    read_scores,
    write_scores,
)
from irdistill.runs.formats.jsonl import (
    HARD_LAYOUT,
    NWAY_LAYOUT,
    read_hard,
    read_nway,
    write_hard,
    write_nway,
)
from irdistill.runs.formats.objects import (
    OBJECT_LAYOUT,
    read_object,
    write_object,
)
from irdistill.runs.formats.parquet_tables import (
    PYLATE_LAYOUT,
    column_names,
    is_parquet,
    read_lists,
    read_ranked,
    write_lists,
    write_ranked,
)
from irdistill.runs.formats.rows import Rows, WriteOptions
from irdistill.runs.formats.texts import (
    FLAG_LAYOUT,
    TEVATRON_LAYOUT,
    read_flag,
    read_tevatron,
    write_flag,
    write_tevatron,
)
from irdistill.runs.run import Run
from irdistill.runs.score_file import ScoreFile
from irdistill.runs.trec_rows import read_file_sample

LOOK = 1 << 16


@dataclass(frozen=True)
class Format:
    """A layout of score files.

    Attributes:
        name: as users write it.
        layout: what it looks like.
        read: yields the rows of a file, several thousand at a time.
        write: writes a run; returns how many rows the file expresses.
        needs_collection: writing needs judgments or texts of the collection.
        ranked: rows may have ranks, which are the order if there is no score or the user says so.
        table: users can name the columns.
        second_file: the scores are in a second file.
        two_sided: a query has positives and negatives, and trainers expect both.
    """

    name: str
    layout: str
    read: Callable[[ScoreFile, Collection], Iterator[Rows]]
    write: Callable[[Run, Path, Collection | None, WriteOptions], int]
    needs_collection: bool = False
    ranked: bool = False
    table: bool = False
    second_file: bool = False
    two_sided: bool = False


_BOTH = {"needs_collection": True, "two_sided": True}
_TABLE = {"ranked": True, "table": True}
_ALL = (
    Format("trec", TREC_LAYOUT, read_trec, write_trec, ranked=True),
    Format("tsv", TABLE_LAYOUT, read_table, write_table, **_TABLE),
    Format(
        "triples",
        TRIPLES_LAYOUT,
        read_triples,
        write_triples,
        needs_collection=True,
    ),
    Format("st-jsonl", HARD_LAYOUT, read_hard, write_hard, second_file=True, **_BOTH),
    Format("st-pickle", "pickled {query: {document: score}}", read_scores, write_scores),
    Format("colbert", NWAY_LAYOUT, read_nway, write_nway),
    Format(
        "rank-distillm",
        "Parquet: query_id, doc_id, rank, score",
        read_ranked,
        write_ranked,
        **_TABLE,
    ),
    Format("flagembedding", FLAG_LAYOUT, read_flag, write_flag, **_BOTH),
    Format("tevatron", TEVATRON_LAYOUT, read_tevatron, write_tevatron, **_BOTH),
    Format("disco", OBJECT_LAYOUT, read_object, write_object),
    Format("pylate", "Parquet, CSV or " + PYLATE_LAYOUT, read_lists, write_lists),
)
FORMATS = {form.name: form for form in _ALL}

SUFFIXES = {
    ".parquet": ("rank-distillm", "pylate"),
    ".csv": ("pylate",),
    ".pkl": ("st-pickle",),
    ".pickle": ("st-pickle",),
    ".json": ("disco", "colbert"),
    ".jsonl": ("st-jsonl", "colbert", "flagembedding", "tevatron", "pylate"),
}
"""Endings of file names, and the formats that write such files."""


def format_to_read(
    name: str | None, path: Path, columns: str | Sequence[str] | None = None
) -> Format:
    """The format of a name or, if it is None, the one that the content of a file shows.

    Args:
        name: a name of `FORMATS`, or None.
        columns: what the user says about the columns of a table.
    """
    return _named(name) if name is not None else _decided(_by_content(path, columns), path)


def format_to_write(name: str | None, path: Path) -> Format:
    """The format of a name or, if it is None, the one that the name of a file shows."""
    form = _named(name) if name is not None else _decided(_by_name(path), path)
    file_name = uncompressed_name(path)
    suffix = Path(file_name).suffix
    endings = [ending for ending, names in SUFFIXES.items() if form.name in names]
    if form.name not in SUFFIXES.get(suffix, (form.name,)) or (
        form.name == "pylate" and suffix not in SUFFIXES
    ):
        expected = (
            f"a name that ends in {' or '.join(endings)}"
            if endings
            else "another ending, such as .tsv or .txt"
        )
        raise OptionError(
            f"{path} has the ending {suffix!r}, which files of the format {form.name} do not have;"
            f" give --out {expected}."
        )
    if suffix == ".parquet" and file_name != path.name:
        raise OptionError(
            f"{path}: Parquet files are compressed inside; give --out a name that ends in .parquet."
        )
    if path.suffix in (".zip", ".lz4", ".7z", ".Z"):
        raise OptionError(
            f"{path}: files are compressed as .gz, .zst, .bz2 or .xz; give --out one of these"
            " endings, or none."
        )
    return form


def _named(name: str) -> Format:
    if name not in FORMATS:
        raise OptionError(f"there is no format {name!r}; one of {', '.join(FORMATS)} was expected.")
    return FORMATS[name]


def _decided(name: str | None, path: Path) -> Format:
    if name is None:
        raise InputError(
            f"it cannot be told of which format {path} is; give --format, one of"
            f" {', '.join(FORMATS)}."
        )
    return FORMATS[name]


def _by_name(path: Path) -> str | None:
    suffix = Path(uncompressed_name(path)).suffix
    if suffix in (".jsonl", ".parquet", ".tsv", ".csv"):
        return None
    return {".pkl": "st-pickle", ".pickle": "st-pickle", ".json": "disco"}.get(suffix, "trec")


def _by_content(path: Path, columns: str | Sequence[str] | None) -> str | None:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}.")
    if is_parquet(path):
        with ScoreFile(path) as source:
            return "pylate" if "document_ids" in column_names(source) else "rank-distillm"
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
    try:
        layout = detect_layout(read_file_sample(path), "run")
    except UnknownLayoutError as error:
        raise UnknownLayoutError(
            f"{error} For another layout give --format, one of {', '.join(FORMATS)}."
        ) from error
    return {TREC: "trec", TRIPLES: "triples"}.get(layout.roles, "tsv")


_JSON_KEYS = {
    "qid": "st-jsonl",
    "positive_passages": "tevatron",
    "positive_document_ids": "tevatron",
    "document_ids": "pylate",
    "pos": "flagembedding",
}
"""A key of the objects of a JSON lines file, and its format."""


def _by_json(line: bytes) -> str | None:
    if line[:1] == b"[":
        return "colbert"
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        # The object is longer than what was read: one of all queries, or one with long texts.
        cut = {key: name for key, name in _JSON_KEYS.items() if name != "st-jsonl"}
        return next((name for key, name in cut.items() if f'"{key}"'.encode() in line), "disco")
    for key, name in _JSON_KEYS.items():
        if key in value and (not isinstance(value[key], dict) or "docid" in value[key]):
            return name
    return "disco" if all(isinstance(entry, dict) for entry in value.values()) else None
