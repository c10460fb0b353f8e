"""Files of judgments: TREC's qrels, tables as BEIR's, and JSON; in a collection's folder or by
themselves.
"""

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
from irdistill.collections.table_layout import TableLayout, detect_layout, read_sample, wrong_width
from irdistill.collections.text_files import (
    explain_damage,
    open_bytes,
    read_text,
    uncompressed_name,
)
from irdistill.collections.text_lines import json_objects, numbered_lines, read_id
from irdistill.errors import InputError, NotFoundError

ENDINGS = (".tsv", ".jsonl", ".txt", ".csv", ".json", ".qrels", ".qrel", ".trec")
"""Endings of files of judgments in a collection's folder, each of them compressed or not."""


def read_judgments(path: str | Path, columns: str | Sequence[str] | None = None) -> Qrels:
    """Read a file of judgments, compressed or not.

    It holds TREC qrels (``query 0 document grade``), a table of queries, documents and grades, JSON
    lines, or one JSON object query -> document -> grade.

    Args:
        columns: what the columns of a table are: roles in their order (``query,-,document,grade``)
            or names in its header by role (``grade=label``); None where a header says so, or the
            content allows one reading only.

    Raises:
        InputError: a line is no judgment, the columns can be read in several ways, or a
            document is judged twice and differently.
    """
    return Qrels(drop_line_numbers(numbered_judgments(Path(path), LoadReport(), columns)))


def numbered_judgments(
    path: Path, report: LoadReport, columns: str | Sequence[str] | None = None
) -> NumberedJudgments:
    """As `read_judgments`, with the line of each judgment: query -> document -> (grade, line)."""
    if not path.is_file():
        raise NotFoundError(f"there is no file of judgments {path}.")
    with open_bytes(path) as stream, explain_damage(path):
        sample = read_sample(stream, path)
    if not sample.lines:
        return {}
    entries = (
        _of_json(path, sample.lines[0][1]) if sample.lines[0][1].lstrip().startswith("{") else None
    )
    if entries is None:
        layout = detect_layout(sample, "judgments", columns)
        if not layout.header and layout.roles[:3] == ("query", "document", "grade"):
            report.add(
                "qrels without header",
                f"{path.name} line {sample.lines[0][0]} (read as a judgment)",
            )
        entries = _of_table(path, layout)
    elif columns is not None:
        raise InputError(
            f"{path} is JSON, and the names of columns are those of a table; leave --qrels-columns"
            " out."
        )
    judgments: NumberedJudgments = {}
    for number, query_id, doc_id, value in entries:
        grade = parse_grade(
            value,
            (
                f"line {number} of {path}"
                if number
                else f"{path} (query {query_id}, document {doc_id})"
            ),
        )
        documents = judgments.setdefault(query_id, {})
        if not number and doc_id in documents and documents[doc_id][0] == grade:
            report.add("duplicate judgments", f"{path.name} (query {query_id}, document {doc_id})")
        known = documents.setdefault(doc_id, (grade, number))
        if known[0] != grade:
            places = (
                f"{known[0]} in line {known[1]}, {grade} in line {number}"
                if number
                else f"{known[0]} and {grade}"
            )
            raise InputError(
                f"{path} judges document {doc_id!r} for query {query_id!r} twice and differently:"
                f" {places}. Keep one of them."
            )
        if known[1] != number:
            report.add("duplicate judgments", f"{path.name} line {number} (as line {known[1]})")
    return judgments


def _of_table(path: Path, layout: TableLayout) -> Iterator[tuple[int, str, str, str]]:
    """Line, query, document and grade of each row."""
    places = [layout.place(role) for role in ("query", "document", "grade")]
    assert None not in places
    header = layout.header
    for number, line in numbered_lines(path):
        if header:
            header = False
            continue
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


def _of_json(path: Path, first: str) -> Iterator[tuple[int, str, str, Any]]:
    """Line, query, document and grade of JSON lines (``{"query-id": …, "corpus-id": …, "score":
    …}``), or of one object.
    """
    try:
        entry = json.loads(first)
    except ValueError:
        entry = None
    return (
        _of_objects(path)
        if isinstance(entry, dict) and is_header(list(entry))
        else _of_object(path)
    )


def _of_objects(path: Path) -> Iterator[tuple[int, str, str, Any]]:
    for number, entry in json_objects(numbered_lines(path), path):
        names = list(entry)
        roles = roles_of_header(names, "judgments", f"line {number} of {path}")
        query, document, grade = (
            names[roles.index(role)] for role in ("query", "document", "grade")
        )
        yield (
            number,
            read_id(entry, path, number, query),
            read_id(entry, path, number, document),
            entry[grade],
        )


def _of_object(path: Path) -> Iterator[tuple[int, str, str, Any]]:
    """The pairs of ``{query: {document: grade}}``, without lines (0); an empty document id means
    that no document fits.
    """
    try:
        # pairs, so that a document that stands there twice is seen
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
    """Split -> its file in a folder ``qrels``: ``test.tsv``, ``test.jsonl.gz``, ``test.txt`` and
    the like.

    Raises:
        InputError: a split has two files.
    """
    splits: dict[str, Path] = {}
    for path in sorted(folder.glob("*")):
        name = uncompressed_name(path)
        ending = next(
            (ending for ending in ENDINGS if name.endswith(ending) and name != ending), None
        )
        if ending is None or path.name.startswith(".") or not path.is_file():
            continue
        other = splits.setdefault(name.removesuffix(ending), path)
        if other != path:
            raise InputError(
                f"{folder} has {other.name} and {path.name}, and either could be meant; keep one of"
                " them."
            )
    return splits


def other_judgments(folder: Path) -> list[str]:
    """Files in a collection's folder that look like judgments and are not read, by their names."""
    inside = [path for path in folder.glob("*") if "qrel" in path.name.lower() and path.is_file()]
    unread = [
        path
        for path in (folder / "qrels").glob("*")
        if path.is_file()
        and not path.name.startswith(".")
        and path.suffix != ".md"
        and "readme" not in path.name.lower()
    ]
    known = set(judgment_files(folder / "qrels").values())
    return [
        str(path.relative_to(folder))
        for path in sorted([*inside, *(path for path in unread if path not in known)])
    ]
