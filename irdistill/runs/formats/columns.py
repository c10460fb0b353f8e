"""Text with a row a line: TREC runs, tables of (query, document, score), and triples with the scores of both documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from irdistill.collections import Collection
from irdistill.collections.opening import damage_explained, decompressed
from irdistill.collections.table_layout import READINGS, TREC, TRIPLES, TableLayout, TableSample, decide, read_sample, trec_header
from irdistill.errors import IrdistillError
from irdistill.runs.formats.rows import CHUNK, Rows, WriteOptions, parted, relevant, whole_ranks
from irdistill.runs.formats.source import Source, writing
from irdistill.runs.lists import RankedList
from irdistill.runs.store import Run

TREC_LAYOUT = "query Q0 document rank score tag"
TABLE = "query document score, query 0 document score, or as a header or --columns names them"
TRIPLES_LAYOUT = "score of the first document, score of the second, query, first document, second document"
READINGS_OF_TSV = (READINGS["run"][3][0], READINGS["run"][4][0])
_SPACE = np.zeros(256, bool)
_SPACE[list(b" \t\n\r\x0b\x0c")] = True


class _Block(NamedTuple):
    """Lines split into fields: field j of line i is ``fields[i * width + j]``."""

    fields: list[bytes]
    width: int
    lines: np.ndarray

    def column(self, place: int) -> list[bytes]:
        """The fields of a column."""
        return self.fields[place :: self.width]


def sampled(path: Path) -> TableSample:
    """The start of a file, which decides what its columns are."""
    with open(path, "rb") as stream, damage_explained(path):
        return read_sample(decompressed(stream, path), path)


def read_trec(source: Source, collection: Collection) -> Iterator[Rows]:
    """``query Q0 document rank score tag``; a line of column names may stand first. Scores decide the order, as in trec_eval."""
    header = trec_header(sampled(source.path))
    roles = header.roles if header else TREC
    layout = TableLayout(roles, None, header=header is not None)
    for block in _blocks(source, layout, TREC_LAYOUT):
        if "tag" not in source.notes:
            source.notes["tag"] = _text(source, block.column(5)[:1], block.lines)[0]
        yield _rows(source, block, layout)


def read_table(source: Source, collection: Collection) -> Iterator[Rows]:
    """A table of queries, documents and scores or ranks, as `irdistill.collections.table_layout.decide` reads it."""
    layout = decide(sampled(source.path), "run", source.columns, prefer=READINGS_OF_TSV)
    if layout.roles == TRIPLES:
        raise IrdistillError(f"{source.path} holds triples with two scores in each line; give --format triples.")
    if not {"empty", "iteration"} >= set(layout.roles) - {"query", "document", "score"} or source.columns is not None:
        source.notes["columns"] = layout.describe()
    for block in _blocks(source, layout, layout.describe().replace(",", ", ")):
        yield _rows(source, block, layout)


def read_triples(source: Source, collection: Collection) -> Iterator[Rows]:
    """Hofstätter et al. 2020 (2010.02666): ``pos_score neg_score query positive negative``; both pairs are rows."""
    first = next(iter(sampled(source.path).lines), (1, ""))[1]
    layout = TableLayout(("-", "-", "query", "document", "document"), "\t" if "\t" in first else None)
    for block in _blocks(source, layout, TRIPLES_LAYOUT):
        pairs = [_scored_rows(source, block, 2, 3, 0), _scored_rows(source, block, 2, 4, 1)]
        queries = [query for query in pairs[0].queries for _ in pairs]
        docs = [doc for both in zip(pairs[0].docs, pairs[1].docs, strict=True) for doc in both]
        scores = np.stack([pair.scores for pair in pairs], 1).ravel()
        yield Rows(queries, docs, scores, np.repeat(block.lines, 2))


def _blocks(source: Source, layout: TableLayout, described: str) -> Iterator[_Block]:
    """Lines as the layout splits them, the header left out.

    Raises:
        IrdistillError: a line has another number of fields; it is named.
    """
    if layout.quoted:
        yield from _quoted_blocks(source, layout, described)
        return
    width, number, header = len(layout.roles), 1, layout.header
    separator = layout.separator.encode() if layout.separator else None
    for data in source.blocks():
        data = data.replace(b"\r\n", b"\n") if b"\r" in data else data
        count = data.count(b"\n") + (not data.endswith(b"\n"))
        lines = np.arange(number, number + count)
        number += count
        if header and (first := next((line for line in data.split(b"\n") if line.strip()), b"")):
            place, header = data.index(first), False
            data = data[:place] + data[place + len(first) :]
        sizes = _fields_per_line(data, separator)
        if not (sizes == width).all():
            data, lines = _without_blank(source, data, lines, width, separator, described)
            if not len(lines):
                continue
        body = data.removesuffix(b"\n")
        yield _Block(body.replace(b"\n", separator).split(separator) if separator else body.split(), width, lines)


def _quoted_blocks(source: Source, layout: TableLayout, described: str) -> Iterator[_Block]:
    """As `_blocks`, for cells that may stand in quotes; a row is one line."""
    width, header = len(layout.roles), layout.header
    fields: list[bytes] = []
    lines: list[int] = []
    for number, line in source.lines():
        if header:
            header = False
            continue
        cells = layout.split(line.decode("utf-8", "surrogateescape"))
        if len(cells) != width:
            raise _wrong(source, number, line, len(cells), "commas" if layout.separator == "," else "tabs", described)
        fields += [cell.encode("utf-8", "surrogateescape") for cell in cells]
        lines.append(number)
        if len(lines) >= CHUNK:
            yield _Block(fields, width, np.array(lines, np.int64))
            fields, lines = [], []
    if lines:
        yield _Block(fields, width, np.array(lines, np.int64))


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
                   described: str) -> tuple[bytes, np.ndarray]:
    kept, numbers = [], []
    for number, line in zip(lines.tolist(), data.removesuffix(b"\n").split(b"\n"), strict=True):
        if line.strip():
            if (count := len(line.split(separator))) != width:
                raise _wrong(source, number, line, count, "tabs" if separator == b"\t" else "white space", described)
            kept.append(line)
            numbers.append(number)
    return b"\n".join(kept), np.array(numbers, np.int64)


def _wrong(source: Source, number: int, line: bytes, count: int, by: str, described: str) -> IrdistillError:
    return IrdistillError(
        f"{source.path}, line {number}: {count} fields between {by}, and this was expected: {described}. "
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


def _scored_rows(source: Source, block: _Block, query: int, doc: int, score: int) -> Rows:
    return Rows(
        _text(source, block.column(query), block.lines), _text(source, block.column(doc), block.lines),
        _numbers(source, block, score, "score"), block.lines,
    )


def _rows(source: Source, block: _Block, layout: TableLayout) -> Rows:
    """The rows of a block.

    Raises:
        IrdistillError: a score is not a number, a rank is not a whole number from 0, a column that was empty or 0 in the first
            lines is not so any more; the line is named.
    """
    query, doc, rank, score = (layout.place(role) for role in ("query", "document", "rank", "score"))
    assert query is not None and doc is not None
    for place, role in enumerate(layout.roles):
        if role == "empty" or (role == "iteration" and len(layout.roles) != 6):
            _check_constant(source, block, place, role)
    ranks = None if rank is None else whole_ranks(source, _numbers(source, block, rank, "rank"), block.lines)
    if score is None:
        texts = _text(source, block.column(query), block.lines), _text(source, block.column(doc), block.lines)
        return Rows(*texts, np.full(len(block.lines), np.nan), block.lines, np.ones(len(block.lines), bool), ranks)
    return _scored_rows(source, block, query, doc, score)._replace(ranks=ranks)


def _check_constant(source: Source, block: _Block, place: int, role: str) -> None:
    expected = {b""} if role == "empty" else {b"0", b"Q0", b"q0"}
    if strange := {field.strip() for field in set(block.column(place))} - expected:
        line = next(line for field, line in zip(block.column(place), block.lines, strict=True) if field.strip() in strange)
        raise IrdistillError(
            f"{source.path}, line {line}: column {place + 1} is {min(strange).decode('utf-8', 'replace')!r}, and it was "
            f"{'empty' if role == 'empty' else '0'} in the lines before. Name the columns with --columns (- is one to leave out)."
        )


def _numbers(source: Source, block: _Block, place: int, name: str) -> np.ndarray:
    texts = block.column(place)
    try:
        return np.array(texts).astype(np.float64)
    except ValueError:
        wrong = next(i for i, text in enumerate(texts) if not is_number(text))
        raise IrdistillError(
            f"{source.path}, line {block.lines[wrong]}: the {name} {texts[wrong].decode('utf-8', 'replace')!r} is not a number."
        ) from None


def write_trec(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """One line a scored document."""
    tag = options.tag
    if len(tag.split()) != 1:
        raise IrdistillError(f"the tag {tag!r} is empty or has white space; give one word.")

    def lines(found: RankedList) -> tuple[list[str], int]:
        rows = [f"{found.query_id} Q0 {doc} {rank} {score} {tag}\n" for rank, (doc, score) in enumerate(_scored(found), 1)]
        return rows, len(rows)

    return _write(run, path, lines, "TREC run files", lambda name: len(name.split()) == 1)


def write_table(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """``query document score``, tabs between them, under a line of column names as in BEIR's qrels."""
    def lines(found: RankedList) -> tuple[list[str], int]:
        rows = [f"{found.query_id}\t{doc}\t{score}\n" for doc, score in _scored(found)]
        return rows, len(rows)

    return _write(run, path, lines, "tables of text", _fits_tabs, "query-id\tcorpus-id\tscore\n")


def write_triples(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """Each scored document that is judged relevant with each scored one that is not."""
    def lines(found: RankedList) -> tuple[list[str], int]:
        positive, negative = parted(_scored(found), relevant(collection, found.query_id))
        if not (positive and negative):
            options.one_sided += bool(positive or negative)
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
