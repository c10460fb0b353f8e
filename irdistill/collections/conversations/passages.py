"""Passages as they are published: JSON lines and tables, packed or not, one file or a folder of them, streamed."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from irdistill.collections.batches import Document
from irdistill.collections.compiling import cached_corpus
from irdistill.collections.conversations.published import found
from irdistill.collections.corpus import FORMAT, Corpus
from irdistill.collections.lines import bounded_lines, decoded_lines, id_of, json_objects, storable, text_of
from irdistill.collections.opening import open_bytes
from irdistill.errors import IrdistillError
from irdistill.files import digest

_KINDS = (".jsonl", ".json", ".tsv")
_PACKED = ("", ".gz", ".bz2", ".zip")
_WIDEST = 1 << 27


def open_passages(folder: Path, split: str, patterns: Sequence[str], cache: Path, open_corpus: Callable[[str], Corpus],
                  name: str, home: str) -> Corpus:
    """The corpus beside published questions, compiled on first use.

    Args:
        folder: ``corpus-SPLIT.txt`` or ``corpus.txt`` in it, where there is one, names a file or folder of passages or a
            collection; else they are looked for under ``patterns``, and as ``passages`` or ``passages.*``.
        open_corpus: opens the corpus of a collection by its id.
        name, home: what is missing, for the message, and where it is published.

    Raises:
        IrdistillError: there are none, or as for `read_passages`.
    """
    pointers = [folder / f"corpus-{split}.txt", folder / "corpus.txt"]
    pointer = next((path for path in pointers if path.is_file()), None)
    if pointer is not None:
        named = pointer.read_text(encoding="utf-8").strip()
        place = folder / Path(named).expanduser()
        if not named:
            raise IrdistillError(f"{pointer} is empty; it should hold the path of passages or the id of a collection.")
        if not place.exists():
            return open_corpus(named)
    else:
        places = found(folder, *patterns, "passages", "passages.*")
        if not places:
            raise IrdistillError(
                f"{folder} has the questions of {name} and no passages: none of {', '.join([*patterns, 'passages'])}. They are "
                f"published at {home}. Put the file or folder there (a link will do), or write its path, or the id of a "
                f"collection with these documents, into {pointers[-1]}."
            )
        place = places[0]
    files = passage_files(place)
    state = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino] for path in files]
    return cached_corpus(lambda: read_passages(files), cache / "corpora" / digest([FORMAT, "passages", state]), str(place))


def passage_files(place: Path) -> list[Path]:
    """The files of passages that a path stands for: itself, the ``corpus.jsonl`` of a folder in BEIR layout, or all in a folder.

    Raises:
        IrdistillError: there is none, or its format is not read.
    """
    if place.is_file():
        files = [place]
    else:
        files = sorted(place.glob("corpus.jsonl*")) or sorted(path for path in place.rglob("*") if _is_read(path.name))
    unread = [path for path in files if not _is_read(path.name)]
    if unread or not files:
        raise IrdistillError(
            f"{unread[0] if unread else place} {'is' if unread else 'holds'} no passages in a format that is read: "
            f"{', '.join(_KINDS)}, each of them alone or packed as .gz, .bz2 or .zip."
        )
    return files


def read_passages(files: Sequence[Path]) -> Iterator[Document]:
    """Documents of files in their order; one is in memory at a time.

    An object has its id as ``_id`` or ``id``, its text as ``text`` or ``contents``, and perhaps a ``title``. A table with a
    header is read as one of DPR: quoted, with the columns ``id``, ``text`` and ``title``; one without as MS MARCO's: an id and a
    text. In titles `` [SEP] ``, which TopiOCQA writes between a page and its section, becomes a space.

    Raises:
        IrdistillError: a line is broken; the message names file and line.
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
            members = sorted(name for name in archive.namelist() if _kind(name) and not name.startswith("__MACOSX"))
            if not members:
                raise IrdistillError(f"{path} holds no file that ends in {', '.join(_KINDS)}.")
            for member in members:
                with archive.open(member) as stream:
                    yield from _documents(stream, f"{path}/{member}", _kind(member))
    except zipfile.BadZipFile as error:
        raise IrdistillError(f"{path} is a damaged archive ({error}); get it again.") from error


def _documents(stream: IO[bytes], name: str, kind: str) -> Iterator[Document]:
    return _table(stream, name) if kind == ".tsv" else _objects(stream, name)


def _objects(stream: IO[bytes], name: str) -> Iterator[Document]:
    for number, entry in json_objects(decoded_lines(bounded_lines(stream, name), name), name):
        key = "_id" if "_id" in entry else "id"
        text = "text" if "text" in entry else "contents"
        if text not in entry:
            raise IrdistillError(f'line {number} of {name} has no "text" and no "contents"; it has {", ".join(map(repr, entry))}.')
        yield Document(id_of(entry, name, number, key), _title(text_of(entry, "title", name, number)),
                       text_of(entry, text, name, number))


def _table(stream: IO[bytes], name: str) -> Iterator[Document]:
    lines = decoded_lines(bounded_lines(stream, name), name, blank=True)
    first = next(lines, None)
    if first is None:
        return
    header = first[1].rstrip("\r\n").split("\t")
    if header[0] == "id":
        csv.field_size_limit(_WIDEST)
        reader = csv.reader((line for _, line in lines), delimiter="\t")
        for row in reader:
            values: dict[str, Any] = dict(zip(header, row, strict=False))
            number = reader.line_num + 1
            if "text" not in values:
                raise IrdistillError(f"line {number} of {name} has {len(row)} columns; expected were {', '.join(header)}.")
            yield Document(id_of(values, name, number, "id"), _title(text_of(values, "title", name, number)),
                           text_of(values, "text", name, number))
        return
    for number, line in (pair for part in ([first], lines) for pair in part):
        doc_id, tab, text = line.rstrip("\r\n").partition("\t")
        if not tab or not doc_id:
            raise IrdistillError(f"line {number} of {name} is broken: expected an id, a tab and a text, got {line.strip()[:80]!r}.")
        yield Document(storable(doc_id, "id", name, number), "", text)


def _title(title: str) -> str:
    return title.replace(" [SEP] ", " ")


def _is_read(name: str) -> bool:
    return bool(_kind(name)) or name.endswith(".zip")


def _kind(name: str) -> str:
    """``.jsonl``, ``.json`` or ``.tsv``, packed or not; empty for any other file."""
    return next((kind for kind in _KINDS for packed in _PACKED if name.endswith(kind + packed)), "")
