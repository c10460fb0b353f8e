"""Read files of judgments: TREC qrels, tables as in BEIR, and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from irdistill.collections.column_names import is_header, roles_of_header
from irdistill.collections.grades import parse_grade
from irdistill.collections.judgment_checks import NumberedJudgments, drop_line_numbers
from irdistill.collections.load_report import LoadReport
from irdistill.collections.qrels import Qrels
from irdistill.collections.table_layout import (
    TableLayout,
    detect_layout,
    read_sample,
    wrong_width,
)
from irdistill.collections.text_files import (
    explain_damage,
    open_bytes,
    read_text,
    uncompressed_name,
)
from irdistill.collections.text_lines import json_objects, numbered_lines, read_id
from irdistill.errors import InputError, NotFoundError

ENDINGS = (".tsv", ".jsonl", ".txt", ".csv", ".json", ".qrels", ".qrel", ".trec")
"""Endings of judgment files in a collection folder; each may be compressed."""

_Judgment = tuple[int, str, str, Any]
"""Line number (0 if unknown), query id, document id and grade."""


def read_judgments(path: str | Path, columns: str | Sequence[str] | None = None) -> Qrels:
    """Read a file of judgments, compressed or not.

    The file holds TREC qrels (``query 0 document grade``), a table with queries, documents and
    grades, JSON lines, or one JSON object query -> document -> grade.

    Args:
        columns: the columns of a table, if neither a header nor the content shows them: roles in
            order (``query,-,document,grade``) or names by role (``grade=label``).
    """
    return Qrels(drop_line_numbers(numbered_judgments(Path(path), LoadReport(), columns)))


def numbered_judgments(
    path: Path, report: LoadReport, columns: str | Sequence[str] | None = None
) -> NumberedJudgments:
    """As `read_judgments`, with the line of each judgment: query -> document -> (grade, line)."""
    if not path.is_file():
        raise NotFoundError(f"there is no file of judgments {path}.")
    judgments: NumberedJudgments = {}
    for line, query_id, doc_id, value in _entries(path, report, columns):
        pair = f"query {query_id}, document {doc_id}"
        grade = parse_grade(value, f"line {line} of {path}" if line else f"{path} ({pair})")
        documents = judgments.setdefault(query_id, {})
        if doc_id not in documents:
            documents[doc_id] = (grade, line)
            continue
        first_grade, first_line = documents[doc_id]
        if first_grade != grade:
            grades = (
                f"{first_grade} in line {first_line}, {grade} in line {line}"
                if line
                else f"{first_grade} and {grade}"
            )
            raise InputError(
                f"{path} judges document {doc_id!r} for query {query_id!r} twice and differently:"
                f" {grades}. Keep one of them."
            )
        place = f"line {line} (as line {first_line})" if line else f"({pair})"
        report.add("duplicate judgments", f"{path.name} {place}")
    return judgments


def _entries(
    path: Path, report: LoadReport, columns: str | Sequence[str] | None
) -> Iterator[_Judgment]:
    with open_bytes(path) as stream, explain_damage(path):
        sample = read_sample(stream, path)
    if not sample.lines:
        return iter(())
    first_number, first_line = sample.lines[0]
    if first_line.lstrip().startswith("{"):
        if columns is not None:
            raise InputError(
                f"{path} is JSON, and only tables have columns to name; omit --qrels-columns."
            )
        return _json_entries(path, first_line)
    layout = detect_layout(sample, "judgments", columns)
    if not layout.header and layout.roles[:3] == ("query", "document", "grade"):
        place = f"{path.name} line {first_number} (read as a judgment)"
        report.add("qrels without header", place)
    return _table_entries(path, layout)


def _table_entries(path: Path, layout: TableLayout) -> Iterator[_Judgment]:
    places = [layout.place(role) for role in ("query", "document", "grade")]
    assert None not in places
    lines = numbered_lines(path)
    if layout.header:
        next(lines)
    for number, line in lines:
        cells = [cell.strip() for cell in layout.split(line)]
        if len(cells) != len(layout.roles):
            raise wrong_width(
                path, number, line, layout, len(cells), len(layout.roles), "judgments"
            )
        query_id, doc_id, value = (cells[place] for place in places if place is not None)
        if not query_id or not doc_id:
            raise InputError(
                f"line {number} of {path} is not a judgment: {line.strip()[:80]!r} has an empty id."
            )
        yield number, query_id, doc_id, value


def _json_entries(path: Path, first_line: str) -> Iterator[_Judgment]:
    """JSON lines (``{"query-id": …, "corpus-id": …, "score": …}``), or one JSON object."""
    try:
        entry = json.loads(first_line)
    except ValueError:
        entry = None
    if isinstance(entry, dict) and is_header(list(entry)):
        return _json_line_entries(path)
    return _json_object_entries(path)


def _json_line_entries(path: Path) -> Iterator[_Judgment]:
    for number, entry in json_objects(numbered_lines(path), path):
        names = list(entry)
        roles = roles_of_header(names, "judgments", f"line {number} of {path}")
        query, document, grade = (
            names[roles.index(role)] for role in ("query", "document", "grade")
        )
        query_id = read_id(entry, path, number, query)
        yield number, query_id, read_id(entry, path, number, document), entry[grade]


def _json_object_entries(path: Path) -> Iterator[_Judgment]:
    """``{query: {document: grade}}``; an empty document id means that no document is relevant."""
    try:
        # Pairs instead of dicts show duplicate keys.
        queries = json.loads(read_text(path), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a JSON object of queries with documents and grades ({error})."
        ) from error
    for query_id, documents in queries if isinstance(queries, _Pairs) else ():
        if not isinstance(documents, _Pairs):
            raise InputError(
                f"{path} has {str(documents)[:60]!r} under the query {query_id!r}; document ids"
                " with grades were expected."
            )
        for doc_id, value in documents:
            if doc_id:
                yield 0, query_id, doc_id, value


class _Pairs(list[tuple[str, Any]]):
    """The items of a JSON object."""


def judgment_files(folder: Path) -> dict[str, Path]:
    """The files of a folder ``qrels`` by split: ``test.tsv``, ``test.jsonl.gz``, ``test.txt``."""
    splits: dict[str, Path] = {}
    for path in sorted(folder.glob("*")):
        name = uncompressed_name(path)
        ending = next((end for end in ENDINGS if name.endswith(end) and name != end), None)
        if ending is None or path.name.startswith(".") or not path.is_file():
            continue
        other = splits.setdefault(name.removesuffix(ending), path)
        if other != path:
            raise InputError(
                f"{folder} has {other.name} and {path.name}, and either could be meant; keep one of"
                " them."
            )
    return splits


def unread_judgment_files(folder: Path) -> list[str]:
    """Names of files in a collection folder that look like judgments but are not read."""
    known = set(judgment_files(folder / "qrels").values())
    suspects = [path for path in folder.glob("*") if "qrel" in path.name.lower()] + [
        path
        for path in (folder / "qrels").glob("*")
        if not path.name.startswith(".")
        and path.suffix != ".md"
        and "readme" not in path.name.lower()
        and path not in known
    ]
    return [str(path.relative_to(folder)) for path in sorted(suspects) if path.is_file()]
