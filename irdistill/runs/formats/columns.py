"""Text with one row per line: TREC runs, tables of (query, document, score), and triples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from irdistill.collections import Collection
from irdistill.collections.byte_strings import ByteStrings
from irdistill.collections.table_content import READINGS, TRIPLES
from irdistill.collections.table_layout import TableLayout, detect_layout
from irdistill.errors import InputError
from irdistill.runs.formats.rows import (
    CHUNK,
    Rows,
    WriteOptions,
    relevant_documents,
    split_rows,
    whole_ranks,
)
from irdistill.runs.line_fields import Lines, WrongWidthError, decimals, lines_of, split_blocks
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run
from irdistill.runs.score_file import ScoreFile
from irdistill.runs.trec_rows import read_file_sample, read_trec_rows
from irdistill.runs.trec_writing import score_texts, write_text_lines, write_trec_lines

TREC_LAYOUT = "query Q0 document rank score tag"
TABLE_LAYOUT = (
    "query document score, query 0 document score, or as a header or --columns names them"
)
TRIPLES_LAYOUT = (
    "score of the first document, score of the second, query, first document, second document"
)
READINGS_OF_TSV = (READINGS["run"][3][0], READINGS["run"][4][0])


def read_trec(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """``query Q0 document rank score tag``; scores decide the order, as in trec_eval."""
    for rows in read_trec_rows(source, read_file_sample(source.path)):
        yield Rows(rows.queries, rows.docs, rows.scores, rows.lines, None, rows.ranks)


def read_table(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """A table of queries, documents and scores or ranks; `detect_layout` finds the columns."""
    layout = detect_layout(
        read_file_sample(source.path), "run", source.columns, prefer=READINGS_OF_TSV
    )
    if layout.roles == TRIPLES:
        raise InputError(
            f"{source.path} holds triples with two scores in each line; give --format triples."
        )
    if (
        not {"empty", "iteration"} >= set(layout.roles) - {"query", "document", "score"}
        or source.columns is not None
    ):
        source.notes["columns"] = layout.describe()
    for block in _blocks(source, layout, layout.describe().replace(",", ", ")):
        yield _rows(source, block, layout)


def read_triples(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """Hofstätter et al. 2020 (2010.02666): ``pos_score neg_score query positive negative``."""
    first = next(iter(read_file_sample(source.path).lines), (1, ""))[1]
    layout = TableLayout(
        ("-", "-", "query", "document", "document"), "\t" if "\t" in first else None
    )
    for block in _blocks(source, layout, TRIPLES_LAYOUT):
        twice = np.repeat(np.arange(len(block)), 2)
        docs = [_ids(source, block, place) for place in (3, 4)]
        both = ByteStrings(
            block.data,
            *(
                np.stack(values, 1).ravel()
                for values in zip(*(ids[1:] for ids in docs), strict=True)
            ),
        )
        scores = np.stack([_numbers(source, block, place, "score") for place in (0, 1)], 1).ravel()
        yield Rows(_ids(source, block, 2).take(twice), both, scores, block.numbers[twice])


def _blocks(source: ScoreFile, layout: TableLayout, described: str) -> Iterator[Lines]:
    """Lines, split as the layout says, without the header."""
    if layout.quoted:
        yield from _quoted_blocks(source, layout, described)
        return
    separator = layout.separator.encode() if layout.separator else None
    try:
        yield from split_blocks(source.blocks(), len(layout.roles), separator, layout.header)
    except WrongWidthError as error:
        between = "tabs" if separator == b"\t" else "white space"
        raise _wrong(source, error.number, error.line, error.fields, between, described) from None


def _quoted_blocks(source: ScoreFile, layout: TableLayout, described: str) -> Iterator[Lines]:
    """As `_blocks`, for cells that may be quoted; a row is one line."""
    width, header = len(layout.roles), layout.header
    fields: list[bytes] = []
    lines: list[int] = []
    for number, line in source.lines():
        if header:
            header = False
            continue
        cells = layout.split(line.decode("utf-8", "surrogateescape"))
        if len(cells) != width:
            between = "commas" if layout.separator == "," else "tabs"
            raise _wrong(source, number, line, len(cells), between, described)
        fields += [cell.encode("utf-8", "surrogateescape") for cell in cells]
        lines.append(number)
        if len(lines) >= CHUNK:
            yield lines_of(fields, width, lines)
            fields, lines = [], []
    if lines:
        yield lines_of(fields, width, lines)


def _wrong(
    source: ScoreFile, number: int, line: bytes, count: int, by: str, described: str
) -> InputError:
    return InputError(
        f"{source.path}, line {number}: {count} fields between {by}, and this was expected:"
        f" {described}. The line begins {line[:80].decode('utf-8', 'replace')!r}; the file is"
        " damaged or of another --format."
    )


def _ids(source: ScoreFile, block: Lines, place: int) -> ByteStrings:
    """A column of ids, which must be UTF-8."""
    fields = block.field(place)
    wrong = fields.not_utf8()
    if wrong is not None:
        try:
            fields.bytes_at(wrong).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{source.path}, line {block.numbers[wrong]}: {error}; UTF-8 was expected."
            ) from error
    return fields


def _rows(source: ScoreFile, block: Lines, layout: TableLayout) -> Rows:
    """The rows of a block."""
    query, doc, rank, score = (
        layout.place(role) for role in ("query", "document", "rank", "score")
    )
    assert query is not None and doc is not None
    for place, role in enumerate(layout.roles):
        if role == "empty" or (role == "iteration" and len(layout.roles) != 6):
            _check_constant(source, block, place, role)
    ranks = (
        None
        if rank is None
        else whole_ranks(source, _numbers(source, block, rank, "rank"), block.numbers)
    )
    ids = _ids(source, block, query), _ids(source, block, doc)
    if score is None:
        count = len(block)
        return Rows(*ids, np.full(count, np.nan), block.numbers, np.ones(count, bool), ranks)
    scores = _numbers(source, block, score, "score")
    return Rows(*ids, scores, block.numbers, None, ranks)


def _check_constant(source: ScoreFile, block: Lines, place: int, role: str) -> None:
    expected = {b""} if role == "empty" else {b"0", b"Q0", b"q0"}
    fields = block.field(place)
    other = np.flatnonzero(
        ~fields.equal(
            ByteStrings.of_bytes([fields.bytes_at(0)]).take(np.zeros(len(fields), np.int64))
        )
    )
    for at in (0, *other.tolist()):
        if (value := fields.bytes_at(at).strip()) not in expected:
            raise InputError(
                f"{source.path}, line {block.numbers[at]}: column {place + 1} is"
                f" {value.decode('utf-8', 'replace')!r}, and it was"
                f" {'empty' if role == 'empty' else '0'} in the lines before. Name the columns with"
                " --columns (- is one to leave out)."
            )


def _numbers(source: ScoreFile, block: Lines, place: int, name: str) -> np.ndarray:
    fields = block.field(place)
    values, wrong = decimals(fields)
    if len(wrong):
        raise InputError(
            f"{source.path}, line {block.numbers[wrong[0]]}: the {name}"
            f" {fields.text(int(wrong[0]))!r} is not a number."
        )
    return values


def write_trec(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """Write one line per scored document."""
    return write_trec_lines(run, path, options.tag)


def write_table(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """Write ``query document score`` with tabs, under a header as in BEIR's qrels."""

    def lines(ranked: RankedList) -> tuple[list[str], int]:
        rows = [f"{ranked.query_id}\t{doc}\t{score}\n" for doc, score in score_texts(ranked)]
        return rows, len(rows)

    header = "query-id\tcorpus-id\tscore\n"
    return write_text_lines(run, path, lines, "tables of text", _fits_tabs, header)


def write_triples(
    run: Run, path: Path, collection: Collection | None, options: WriteOptions
) -> int:
    """Write each scored relevant document with each scored document that is not relevant."""

    def lines(ranked: RankedList) -> tuple[list[str], int]:
        positive, negative = split_rows(
            score_texts(ranked), relevant_documents(collection, ranked.query_id)
        )
        if not (positive and negative):
            options.one_sided += bool(positive or negative)
        rows = [
            f"{high}\t{low}\t{ranked.query_id}\t{doc}\t{other}\n"
            for doc, high in positive
            for other, low in negative
        ]
        return rows, len(positive) + len(negative) if rows else 0

    return write_text_lines(run, path, lines, "triples", _fits_tabs)


def _fits_tabs(name: str) -> bool:
    return bool(name) and not set("\t\n\r") & set(name)
