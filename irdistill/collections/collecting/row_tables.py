"""Tables with a document in each row: CSV, TSV, JSONL and Parquet."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from irdistill.collections.collecting.collect_options import CollectOptions
from irdistill.collections.collecting.collect_report import CollectReport
from irdistill.collections.collecting.decoding import UTF8, detected_encoding
from irdistill.collections.collecting.document_columns import DocumentColumns, text_columns
from irdistill.collections.collecting.file_kinds import suffix_of
from irdistill.collections.column_names import plain_name
from irdistill.collections.document_table import Document
from irdistill.collections.foreign_tables import id_string
from irdistill.collections.text_files import explain_damage, open_bytes
from irdistill.collections.text_lines import (
    LONGEST_LINE,
    check_encodable,
    json_objects,
    numbered_lines,
)
from irdistill.errors import InputError, one_line

_SEPARATORS = (",", ";", "\t", "|")
_BLOCK = 1 << 20
_DETECTION_BYTES = 1 << 18
_SAMPLE_OBJECTS = 100
"""JSON objects whose keys are the columns."""
_BATCH_ROWS = 1024

Row = Mapping[str, Any]


class RowTable(Protocol):
    """A table that is read row by row.

    Attributes:
        names: names of the columns.
        encoding: of its characters; empty if the format defines it.
    """

    names: list[str]
    encoding: str

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """The rows with their numbers from 1, with at least these columns."""
        ...


def open_table(path: Path, options: CollectOptions) -> RowTable:
    """Open a table by the ending of its name.

    Raises:
        InputError: the table is empty or damaged, or its separator cannot be decided.
    """
    suffix = suffix_of(path.name)
    if suffix == ".parquet":
        return _ParquetTable(path)
    if suffix in (".jsonl", ".ndjson"):
        return _JsonTable(path)
    return _DelimitedTable(path, options, _SEPARATORS if suffix == ".csv" else ("\t",))


def table_documents(
    table: RowTable, columns: DocumentColumns, name: str, report: CollectReport
) -> Iterator[Document]:
    """The documents of a table. Rows without title and text are counted and left out.

    Args:
        name: what ids without a column begin with, and what messages call the table.

    Raises:
        InputError: a row cannot be read, or an id or a text is of the wrong type.
    """
    for number, row in table.rows(columns.all):
        place = f"row {number} of {name}"
        texts = [_text(row, column, place) for column in columns.text]
        text = "\n\n".join(text for text in texts if text.strip())
        title = " ".join(_text(row, columns.title, place).split()) if columns.title else ""
        if not text and not title:
            report.skip(f"{name}:{number}", "empty row")
            continue
        yield Document(_id(row, columns.id, name, number), title, text, number)


def _id(row: Row, column: str | None, name: str, number: int) -> str:
    if column is None:
        return f"{name}:{number}"
    value = row.get(column)
    try:
        doc_id = id_string(value, "document").strip()
        return id_string(check_encodable(doc_id, column, name, number), "document")
    except InputError as error:
        raise InputError(
            f"row {number} of {name}: {error} The ids are in the column {column!r}; --id - uses"
            " the file name and the row number."
        ) from error


def _text(row: Row, column: str, place: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(
            f"{place} has {type(value).__name__} in the column {column!r}: {value!r:.60}. Text was"
            " expected; name another column with --title or --text."
        )
    return value.encode("utf-8", "replace").decode("utf-8").strip()


class _DelimitedTable:
    """CSV and TSV. The header decides which character separates the cells."""

    def __init__(self, path: Path, options: CollectOptions, separators: Sequence[str]) -> None:
        self._path, self._header = path, options.header
        is_csv = len(separators) > 1
        self._quotes = options.quotes if options.quotes is not None else is_csv
        self.encoding = options.encoding or _encoding(path)
        self._separator, self.names = self._layout(options, separators)

    def _layout(self, options: CollectOptions, separators: Sequence[str]) -> tuple[str, list[str]]:
        """The separator, and the names of the columns."""
        first = {mark: self._first(mark) for mark in separators}
        if not any(first.values()):
            raise InputError(
                f"{self._path} is empty, or its first row is no row of a table; a table with a"
                " document in each row was expected."
            )
        if not options.header:
            cells = first[separators[0]]
            return separators[0], [str(number) for number in range(1, len(cells) + 1)]
        chosen = set(map(plain_name, options.text))
        fitting = {
            mark: names
            for mark, names in first.items()
            if (chosen <= set(map(plain_name, names)) if chosen else text_columns(names))
        }
        if len({tuple(names) for names in fitting.values()}) > 1:
            shown = " or ".join(repr(mark) for mark in fitting)
            raise InputError(
                f"the header of {self._path} can be separated by {shown}, and each names a text."
                " Rename the columns."
            )
        separator = next(iter(fitting), separators[0])
        names = first[separator]
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise InputError(
                f"the header of {self._path} has the column {repeated[0]!r} twice; rename one."
            )
        return separator, names

    def _first(self, separator: str) -> list[str]:
        """The cells of the first row; none if it cannot be separated in this way."""
        with self._explained(lambda: 0), self._records(separator) as records:
            try:
                return [cell.strip() for cell in next(records, [])]
            except csv.Error:
                return []

    @contextmanager
    def _records(self, separator: str) -> Iterator[Iterator[list[str]]]:
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if self._quotes else csv.QUOTE_NONE
        csv.field_size_limit(LONGEST_LINE)
        with open_bytes(self._path) as data:
            text = io.TextIOWrapper(data, self.encoding, newline="")
            records = csv.reader(text, delimiter=separator, quoting=quoting, strict=True)
            yield (record for record in records if record)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """The rows with their numbers from 1."""
        number = 0
        with self._explained(lambda: number), self._records(self._separator) as records:
            for record in islice(records, int(self._header), None):
                number += 1
                if len(record) != len(self.names):
                    raise self._wrong_width(number, record)
                yield number, dict(zip(self.names, record, strict=True))

    def _wrong_width(self, number: int, record: list[str]) -> InputError:
        hint = (
            ""
            if self._quotes
            else " If cells are in quotation marks and hold tabs or line breaks, add --quotes."
        )
        return InputError(
            f"row {number} of {self._path} has {len(record)} cells, and {len(self.names)} were"
            f" expected, separated by {self._separator!r}: {' '.join(record)[:80]!r}. Fix the"
            f" row.{hint}"
        )

    @contextmanager
    def _explained(self, row: Callable[[], int]) -> Iterator[None]:
        try:
            with explain_damage(self._path):
                yield
        except (csv.Error, UnicodeDecodeError, LookupError) as error:
            raise InputError(
                f"{self._path} cannot be read after row {row()} ({one_line(error)}). Fix that row,"
                " or name the encoding with --encoding."
            ) from error


def _encoding(path: Path) -> str:
    """The encoding of a text file: UTF-8, or what its first characters look like."""
    decoder = codecs.getincrementaldecoder(UTF8)()
    with open_bytes(path) as stream, explain_damage(path):
        start = b""
        try:
            while block := stream.read(_BLOCK):
                start = start or block[:_DETECTION_BYTES]
                decoder.decode(block)
            decoder.decode(b"", True)
            return UTF8
        except UnicodeDecodeError:
            pass
    detected = detected_encoding(start)
    if detected is None or detected == UTF8:
        raise InputError(f"the encoding of {path} is not known; name it with --encoding.")
    return detected


class _JsonTable:
    """One JSON object per line."""

    encoding = UTF8

    def __init__(self, path: Path) -> None:
        self._path = path
        names: dict[str, None] = {}
        for _, entry in islice(self._objects(), _SAMPLE_OBJECTS):
            names |= dict.fromkeys(entry)
        if not names:
            raise InputError(f"{path} is empty; one JSON object per line was expected.")
        self.names = list(names)

    def _objects(self) -> Iterable[tuple[int, dict[str, Any]]]:
        return json_objects(numbered_lines(self._path), self._path)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """The objects with their numbers from 1."""
        for number, (_, entry) in enumerate(self._objects(), 1):
            yield number, entry


class _ParquetTable:
    """A Parquet file, read in batches of rows."""

    encoding = ""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as file:
            self.names = list(file.schema_arrow.names)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self._path) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InputError(
                f"{self._path} cannot be read as Parquet ({one_line(error)}); it is damaged. Get it"
                " again."
            ) from error

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
        """The rows with their numbers from 1."""
        number = 0
        with self._open() as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
