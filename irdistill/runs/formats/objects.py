"""One JSON object of any size: ``{query: {document: score}}``."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from irdistill.collections import Collection
from irdistill.errors import InputError
from irdistill.runs.formats.rows import (
    Record,
    Rows,
    WriteOptions,
    rows_of_records,
    scored_documents,
)
from irdistill.runs.run import Run
from irdistill.runs.score_file import ScoreFile, open_output

OBJECT_LAYOUT = '{"query": {"document": score, …}, …}'
PIECE = 1 << 18
LARGEST = 1 << 26
"""Characters of the largest value, the scores of one query: a million documents have 30 MB."""
_SPACE = " \t\r\n"


class _JsonReader:
    """Reads the text of a JSON file value by value."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")()
        # pairs instead of dictionaries, so that a repeated key is noticed
        self._json = json.JSONDecoder(object_pairs_hook=list)
        self._text, self._position, self._ended = "", 0, False

    def _more(self, size: int = PIECE) -> bool:
        if self._ended:
            return False
        data = self._stream.read(size)
        self._ended = not data
        self._text = self._text[self._position :] + self._decode.decode(data, self._ended)
        self._position = 0
        return True

    def symbol(self) -> str:
        """Consume the next character that is not white space; empty at the end."""
        while True:
            while self._position < len(self._text):
                self._position += 1
                if self._text[self._position - 1] not in _SPACE:
                    return self._text[self._position - 1]
            if not self._more():
                return ""

    def value(self, first: str | None = None) -> Any:
        """Consume the next value: text or an object.

        Args:
            first: its first character, if it is consumed already.
        """
        first = self.symbol() if first is None else first
        if first not in ('"', "{"):
            raise ValueError(
                f"{first!r} stands where text or an object was expected"
                if first
                else "it ends too early"
            )
        self._position -= 1
        size = PIECE
        while True:
            try:
                value, self._position = self._json.raw_decode(self._text, self._position)
                return value
            except json.JSONDecodeError as error:
                # the value is wrong or incomplete; the pieces double, so that the work stays linear
                if len(self._text) - self._position > LARGEST:
                    raise ValueError(
                        f"a value has more than {LARGEST >> 20} million characters"
                    ) from error
                if not self._more(size):
                    start = self._text[self._position : self._position + 40]
                    raise ValueError(f"{error.msg} in the value that begins {start!r}") from error
                size *= 2


def read_object(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """DiSCo (2410.14609): one JSON object ``{query: {document: score}}``, read query by query."""
    return rows_of_records(_records(source), source)


def _records(source: ScoreFile) -> Iterator[Record]:
    source.unit, number = "query", 0
    with source.binary() as stream:
        reader = _JsonReader(stream)
        try:
            if reader.symbol() != "{":
                raise ValueError("it does not begin with {")
            symbol = reader.symbol()
            while number or symbol != "}":
                query = reader.value(symbol)
                number += 1
                if not isinstance(query, str) or reader.symbol() != ":":
                    raise ValueError("a query's id and a colon were expected")
                pairs = reader.value()
                if not isinstance(pairs, list):
                    raise ValueError(f"query {query!r} has no object of scores")
                docs = [doc for doc, _ in pairs]
                yield Record(number, query, docs, [score for _, score in pairs])
                symbol = reader.symbol()
                if symbol == "}":
                    break
                if symbol != ",":
                    raise ValueError(
                        f"{symbol!r} stands where , or }} was expected"
                        if symbol
                        else "it ends too early"
                    )
                symbol = reader.symbol()
            if reader.symbol():
                raise ValueError("something comes after the object")
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{source.path}, query {max(1, number)}: {error}. This was expected:"
                f" {OBJECT_LAYOUT}. The file is damaged or of another --format."
            ) from error


def write_object(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """One query per line, in one object."""
    count = 0
    with open_output(path) as stream:
        stream.write(b"{")
        separator = "\n"
        for ranked in run:
            rows = scored_documents(ranked)
            if rows:
                query, scores = (
                    json.dumps(value, ensure_ascii=False) for value in (ranked.query_id, dict(rows))
                )
                stream.write(f"{separator}{query}: {scores}".encode())
                separator = ",\n"
                count += len(rows)
        stream.write(b"\n}\n")
    return count
