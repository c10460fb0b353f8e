"""Stream published passages: JSON lines and tables, compressed or not, in one file or a folder."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from irdistill.collections.compiling import open_or_compile
from irdistill.collections.conversations.published_files import matching_paths
from irdistill.collections.corpus import FORMAT, Corpus
from irdistill.collections.document_table import Document
from irdistill.collections.text_files import SUFFIXES, open_bytes, read_text
from irdistill.collections.text_lines import (
    bounded_lines,
    check_encodable,
    decoded_lines,
    json_objects,
    read_id,
    read_text_field,
)
from irdistill.errors import InputError, NotFoundError
from irdistill.storage.files import digest

_KINDS = (".jsonl", ".json", ".tsv")
_PACKED = ("", *SUFFIXES, ".zip")
_WIDEST = 1 << 27
_LONGEST_CELL = 1000
"""Lines of the longest cell in quotes."""
_NAMES = (
    ("id", "pid", "docid", "docno", "passageid", "psgid", "documentid"),
    ("title",),
    ("text", "contents", "content", "passage", "body", "segment"),
)
"""The names of id, title and text in a header."""


def open_passages(
    folder: Path,
    split: str,
    patterns: Sequence[str],
    cache: Path,
    open_corpus: Callable[[str], Corpus],
    name: str,
    home: str,
) -> Corpus:
    """Open the corpus of published questions; it is compiled on first use.

    Args:
        folder: the folder of the questions. Its ``corpus-SPLIT.txt`` or ``corpus.txt`` may name a
            file or folder of passages, or a collection. Otherwise passages are searched by
            ``patterns``, and as ``passages`` or ``passages.*``.
        open_corpus: opens the corpus of a collection by its id.
        home: where they are published.
    """
    pointers = [folder / f"corpus-{split}.txt", folder / "corpus.txt"]
    pointer = next((path for path in pointers if path.is_file()), None)
    if pointer is not None:
        target = read_text(pointer).strip()
        place = folder / Path(target).expanduser()
        if not target:
            raise InputError(
                f"{pointer} is empty; it should hold the path of passages or the id of a"
                " collection."
            )
        if not place.exists():
            return open_corpus(target)
    else:
        places = matching_paths(folder, *patterns, "passages", "passages.*")
        if not places:
            raise NotFoundError(
                f"{folder} has the questions of {name} and no passages: none of"
                f" {', '.join([*patterns, 'passages'])}. They are published at {home}. Put the file"
                " or folder there (a link will do), or write its path, or the id of a collection"
                f" with these documents, into {pointers[-1]}."
            )
        place = places[0]
    files = passage_files(place)
    states = [(str(path.resolve()), path.stat()) for path in files]
    state = [[name, it.st_size, it.st_mtime_ns, it.st_ctime_ns, it.st_ino] for name, it in states]
    return open_or_compile(
        lambda: read_passages(files),
        cache / "corpora" / digest([FORMAT, "passages", state]),
        str(place),
    )


def passage_files(place: Path) -> list[Path]:
    """The files of passages at a path: the file itself, the ``corpus.jsonl`` of a folder in BEIR
    layout, or all files of a folder that can be read.
    """
    if place.is_file():
        files = [place]
    else:
        files = sorted(place.glob("corpus.jsonl*")) or sorted(
            path for path in place.rglob("*") if _is_read(path.name)
        )
    unread = [path for path in files if not _is_read(path.name)]
    if unread or not files:
        raise InputError(
            f"{unread[0] if unread else place} {'is' if unread else 'holds'} no passages in a"
            f" format that is read: {', '.join(_KINDS)}, each plain or compressed as .gz, .zst,"
            " .bz2, .xz or .zip."
        )
    return files


def read_passages(files: Sequence[Path]) -> Iterator[Document]:
    """Documents of files in order; one is in memory at a time.

    A JSON object has an id (``_id`` or ``id``), a text (``text`` or ``contents``) and an optional
    ``title``. A table with a header is read by the names of its columns, with cells perhaps quoted,
    as DPR's (``id``, ``text``, ``title``); a table without a header has an id and a text, as MS
    MARCO's. In titles, `` [SEP] ``, which TopiOCQA writes between a page and its section, becomes a
    space.
    """
    number = 0
    for path in files:
        for document in _of_file(path):
            number += 1
            yield document._replace(line=number)


def _of_file(path: Path) -> Iterator[Document]:
    if path.suffix != ".zip":
        with open_bytes(path) as stream:
            yield from _documents(stream, str(path), _kind(path.name))
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(
                name
                for name in archive.namelist()
                if _kind(name) and not name.startswith("__MACOSX")
            )
            if not members:
                raise InputError(f"{path} holds no file that ends in {', '.join(_KINDS)}.")
            for member in members:
                with archive.open(member) as stream:
                    yield from _documents(stream, f"{path}/{member}", _kind(member))
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is a damaged archive ({error}); get it again.") from error


def _documents(stream: IO[bytes], name: str, kind: str) -> Iterator[Document]:
    return _table(stream, name) if kind == ".tsv" else _objects(stream, name)


def _objects(stream: IO[bytes], name: str) -> Iterator[Document]:
    for number, entry in json_objects(decoded_lines(bounded_lines(stream, name), name), name):
        key = "_id" if "_id" in entry else "id"
        text = "text" if "text" in entry else "contents"
        if text not in entry:
            raise InputError(
                f'line {number} of {name} has no "text" and no "contents"; it has'
                f" {', '.join(map(repr, entry))}."
            )
        yield Document(
            read_id(entry, name, number, key),
            _title(read_text_field(entry, "title", name, number)),
            read_text_field(entry, text, name, number),
        )


def _table(stream: IO[bytes], name: str) -> Iterator[Document]:
    lines = decoded_lines(bounded_lines(stream, name), name, blank=True)
    first = next((pair for pair in lines if pair[1].strip()), None)
    if first is None:
        return
    header = first[1].rstrip("\r\n").split("\t")
    columns = _columns(header)
    if columns is None:
        yield from _pairs(first, lines, name)
        return
    for number, row in _rows(lines, name, header):
        doc_id, title, text = (row[place] if place is not None else "" for place in columns)
        values: dict[str, Any] = {"id": doc_id, "title": title, "text": text}
        yield Document(
            read_id(values, name, number, "id"),
            _title(read_text_field(values, "title", name, number)),
            read_text_field(values, "text", name, number),
        )


def _columns(header: list[str]) -> tuple[int, int | None, int] | None:
    """The columns of id, title and text; None if the line does not name an id and a text."""
    plain = [
        cell.strip().strip('"').lower().replace("-", "").replace("_", "").lstrip("#")
        for cell in header
    ]
    places = [
        next((plain.index(name) for name in names if name in plain), None) for names in _NAMES
    ]
    if places[0] is None or places[2] is None:
        return None
    return places[0], places[1], places[2]


def _pairs(
    first: tuple[int, str], lines: Iterable[tuple[int, str]], name: str
) -> Iterator[Document]:
    """Documents of a table without a header: an id, a tab and a text on each line."""
    for number, line in (pair for part in ([first], lines) for pair in part):
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) > 2:
            raise InputError(
                f"line {number} of {name} is broken: it has {len(fields)} columns, and without a"
                " header an id and a text were expected. Put a line of column names on top (id,"
                f" title, text), or remove the tab: {line.strip()[:80]!r}."
            )
        if len(fields) < 2 or not fields[0]:
            raise InputError(
                f"line {number} of {name} is broken: expected an id, a tab and a text, got"
                f" {line.strip()[:80]!r}."
            )
        yield Document(check_encodable(fields[0], "id", name, number), "", fields[1])


def _rows(
    lines: Iterable[tuple[int, str]], name: str, header: list[str]
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table with a header, each with the number of its first line.

    A cell in quotes may contain tabs, line ends and doubled quotes. A row whose quotes do not
    enclose a cell is read without unquoting.
    """
    csv.field_size_limit(_WIDEST)
    opened: list[tuple[int, str]] = []
    for number, line in lines:
        if not opened and not line.strip():
            continue
        # A line with all of its tabs is a row, not the rest of a quoted cell.
        if opened and line.count("\t") >= len(header) - 1 and _cells(line, len(header)) is not None:
            raise _unclosed(opened[0], name, header)
        opened.append((number, line))
        cells = _cells("".join(part for _, part in opened), len(header))
        if cells is not None:
            yield opened[0][0], cells
            opened = []
        elif (
            line.count("\t") >= len(header)
            or not _is_open(opened[0][1])
            or len(opened) > _LONGEST_CELL
        ):
            raise _unclosed(opened[0], name, header)
    if opened:
        raise _unclosed(opened[0], name, header)


def _cells(text: str, width: int) -> list[str] | None:
    """The cells of a row, unquoted if possible; None if their number is wrong."""
    row = text.rstrip("\r\n")
    if '"' in row:
        try:
            quoted = list(csv.reader(io.StringIO(row, newline=""), delimiter="\t", strict=True))
        except csv.Error:
            quoted = []
        if len(quoted) == 1 and len(quoted[0]) == width:
            return quoted[0]
    plain = row.split("\t")
    return plain if len(plain) == width and "\n" not in row else None


def _is_open(line: str) -> bool:
    """Whether a cell of a line begins with a quote."""
    return line.startswith('"') or '\t"' in line


def _unclosed(opened: tuple[int, str], name: str, header: list[str]) -> InputError:
    number, line = opened
    count = len(line.rstrip("\r\n").split("\t"))
    why = (
        "a quote is opened and not closed"
        if _is_open(line) and count < len(header)
        else "a tab is missing or too many"
    )
    return InputError(
        f"line {number} of {name} has {count} columns; expected were {', '.join(header)}. Perhaps"
        f" {why}: {line.strip()[:80]!r}."
    )


def _title(title: str) -> str:
    return title.replace(" [SEP] ", " ")


def _is_read(name: str) -> bool:
    return bool(_kind(name)) or name.endswith(".zip")


def _kind(name: str) -> str:
    """``.jsonl``, ``.json`` or ``.tsv``, compressed or not; empty for any other file."""
    return next((kind for kind in _KINDS for packed in _PACKED if name.endswith(kind + packed)), "")
