"""Text with a row a line: TREC runs, tables of (query, document, score), and triples with the scores of both documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.runs.formats.rows import Rows, parted, relevant
from irdistill.runs.formats.source import Source, writing
from irdistill.runs.lists import RankedList
from irdistill.runs.store import Run

TREC = "query Q0 document rank score tag"
TABLE = "query document score, or query 0 document score"
TRIPLES = "score of the first document, score of the second, query, first document, second document"
HEADERS = {b"score", b"scores", b"rel", b"relevance", b"label", b"grade", b"rating"}
_SPACE = np.zeros(256, bool)
_SPACE[list(b" \t\n\r\x0b\x0c")] = True


class _Block(NamedTuple):
    """Lines split into fields: field j of line i is ``fields[i * width + j]``."""

    fields: list[bytes]
    width: int
    lines: np.ndarray


def read_trec(source: Source, collection: Collection) -> Iterator[Rows]:
    """``query Q0 document rank score tag``; scores decide the order, as in trec_eval, and ranks are not read."""
    for block in _blocks(source, (6,), TREC, tabs=False):
        source.notes["tag"] = _text(source, block.fields[5:6], block.lines)[0]
        yield _rows(source, block, 0, 2, 4)


def read_table(source: Source, collection: Collection) -> Iterator[Rows]:
    """``query document score`` or, as qrels, ``query 0 document score``; a line of column names may stand first."""
    for block in _blocks(source, (3, 4), TABLE, header=True):
        yield _rows(source, block, 0, block.width - 2, block.width - 1)


def read_triples(source: Source, collection: Collection) -> Iterator[Rows]:
    """Hofstätter et al. 2020 (2010.02666): ``pos_score neg_score query positive negative``; both pairs are rows."""
    for block in _blocks(source, (5,), TRIPLES):
        pairs = [_rows(source, block, 2, 3, 0), _rows(source, block, 2, 4, 1)]
        queries = [query for query in pairs[0].queries for _ in pairs]
        docs = [doc for both in zip(pairs[0].docs, pairs[1].docs, strict=True) for doc in both]
        scores = np.stack([pair.scores for pair in pairs], 1).ravel()
        yield Rows(queries, docs, scores, np.repeat(block.lines, 2))


def _blocks(source: Source, widths: tuple[int, ...], layout: str, tabs: bool = True, header: bool = False) -> Iterator[_Block]:
    """Lines of one width; that and whether tabs part the fields is decided by the first line.

    Raises:
        IrdistillError: a line has another number of fields; it is named.
    """
    width, separator, number = 0, None, 1
    for data in source.blocks():
        data = data.replace(b"\r\n", b"\n") if b"\r" in data else data
        count = data.count(b"\n") + (not data.endswith(b"\n"))
        lines = np.arange(number, number + count)
        number += count
        if not width:
            first = next((line for line in data.split(b"\n") if line.strip()), b"")
            separator = b"\t" if tabs and b"\t" in first else None
            width = len(first.split(separator))
            if width not in widths:
                raise _wrong(source, 1, first, separator, layout)
            if header and first.split(separator)[-1].strip().lower() in HEADERS:
                place = data.index(first)
                data = data[:place] + data[place + len(first) :]
        sizes = _fields_per_line(data, separator)
        if not (sizes == width).all():
            data, lines = _without_blank(source, data, lines, width, separator, layout)
            if not len(lines):
                continue
        body = data.removesuffix(b"\n")
        yield _Block(body.replace(b"\n", b"\t").split(b"\t") if separator else body.split(), width, lines)


def _fields_per_line(data: bytes, separator: bytes | None) -> np.ndarray:
    codes = np.frombuffer(data if data.endswith(b"\n") else data + b"\n", np.uint8)
    ends = np.flatnonzero(codes == 10)
    if separator:
        places = np.flatnonzero(codes == separator[0])
        before = np.searchsorted(places, ends)
        return np.diff(before, prepend=0) + 1
    space = _SPACE[codes]
    starts = np.flatnonzero(~space & np.append(True, space[:-1]))
    return np.diff(np.searchsorted(starts, ends), prepend=0)


def _without_blank(source: Source, data: bytes, lines: np.ndarray, width: int, separator: bytes | None,
                   layout: str) -> tuple[bytes, np.ndarray]:
    kept, numbers = [], []
    for number, line in zip(lines.tolist(), data.removesuffix(b"\n").split(b"\n"), strict=True):
        if line.strip():
            if len(line.split(separator)) != width:
                raise _wrong(source, number, line, separator, layout)
            kept.append(line)
            numbers.append(number)
    return b"\n".join(kept), np.array(numbers, np.int64)


def _wrong(source: Source, number: int, line: bytes, separator: bytes | None, layout: str) -> IrdistillError:
    by = "tabs" if separator else "white space"
    return IrdistillError(
        f"{source.path}, line {number}: {len(line.split(separator))} fields between {by}, and this was expected: {layout}. "
        f"The line begins {line[:80].decode('utf-8', 'replace')!r}; the file is damaged or of another --format."
    )


def is_number(field: bytes) -> bool:
    """Whether a field reads as a number."""
    try:
        float(field)
    except ValueError:
        return False
    return True


def _text(source: Source, fields: list[bytes], lines: np.ndarray) -> list[str]:
    try:
        return b"\n".join(fields).decode("utf-8").split("\n")
    except UnicodeDecodeError:
        for field, line in zip(fields, lines.tolist(), strict=False):
            try:
                field.decode("utf-8")
            except UnicodeDecodeError as error:
                raise IrdistillError(f"{source.path}, line {line}: {error}; UTF-8 was expected.") from error
        raise


def _rows(source: Source, block: _Block, query: int, doc: int, score: int) -> Rows:
    fields, width = block.fields, block.width
    texts = fields[score::width]
    try:
        scores = np.array(texts).astype(np.float64)
    except ValueError:
        place = next(i for i, text in enumerate(texts) if not is_number(text))
        raise IrdistillError(
            f"{source.path}, line {block.lines[place]}: the score {texts[place].decode('utf-8', 'replace')!r} is not a number."
        ) from None
    return Rows(
        _text(source, fields[query::width], block.lines), _text(source, fields[doc::width], block.lines), scores, block.lines
    )


def write_trec(run: Run, path: Path, collection: Collection | None, tag: str) -> int:
    """One line a scored document."""
    if len(tag.split()) != 1:
        raise IrdistillError(f"the tag {tag!r} is empty or has white space; give one word.")

    def lines(found: RankedList) -> tuple[list[str], int]:
        rows = [f"{found.query_id} Q0 {doc} {rank} {score} {tag}\n" for rank, (doc, score) in enumerate(_scored(found), 1)]
        return rows, len(rows)

    return _write(run, path, lines, "TREC run files", lambda name: len(name.split()) == 1)


def write_table(run: Run, path: Path, collection: Collection | None, tag: str) -> int:
    """``query document score``, tabs between them, under a line of column names as in BEIR's qrels."""
    def lines(found: RankedList) -> tuple[list[str], int]:
        rows = [f"{found.query_id}\t{doc}\t{score}\n" for doc, score in _scored(found)]
        return rows, len(rows)

    return _write(run, path, lines, "tables of text", _fits_tabs, "query-id\tcorpus-id\tscore\n")


def write_triples(run: Run, path: Path, collection: Collection | None, tag: str) -> int:
    """Each scored document that is judged relevant with each scored one that is not."""
    def lines(found: RankedList) -> tuple[list[str], int]:
        positive, negative = parted(_scored(found), relevant(collection, found.query_id))
        rows = [f"{high}\t{low}\t{found.query_id}\t{doc}\t{other}\n" for doc, high in positive for other, low in negative]
        return rows, len(positive) + len(negative) if rows else 0

    return _write(run, path, lines, "triples", _fits_tabs)


def _fits_tabs(name: str) -> bool:
    return bool(name) and not set("\t\n\r") & set(name)


def _scored(found: RankedList) -> list[tuple[str, str]]:
    """Scores have the fewest digits that give the same float32 back."""
    return [(doc, str(score)) for doc, score in zip(found.doc_ids, found.scores, strict=True) if score == score]


def _write(run: Run, path: Path, lines: Callable[[RankedList], tuple[list[str], int]], kind: str,
           fits: Callable[[str], bool], header: str = "") -> int:
    count = 0
    with writing(path) as stream:
        stream.write(header.encode())
        for found in run:
            for name in (found.query_id, *found.doc_ids):
                if not fits(name):
                    raise IrdistillError(f"the id {name!r} is empty or has white space, which {kind} cannot express.")
            made, rows = lines(found)
            stream.write("".join(made).encode())
            count += rows
    return count
