"""One JSON object, however large: ``{query: {document: score}}``."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.runs.formats.rows import Record, Rows, WriteOptions, gathered, scored
from irdistill.runs.run import Run
from irdistill.runs.score_file import ScoreFile, open_output

LAYOUT = '{"query": {"document": score, …}, …}'
PIECE = 1 << 18
LARGEST = 1 << 26
"""Characters of the largest value, the scores of one query: a million documents have 30 MB."""
_SPACE = " \t\r\n"


class _Stream:
    """A window on the text of a JSON file that moves on value by value."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decode = codecs.getincrementaldecoder("utf-8")()
        # pairs, so that a key which comes twice is seen
        self._json = json.JSONDecoder(object_pairs_hook=list)
        self._text, self._at, self._ended = "", 0, False

    def _more(self, size: int = PIECE) -> bool:
        if self._ended:
            return False
        data = self._stream.read(size)
        self._ended = not data
        self._text = self._text[self._at :] + self._decode.decode(data, self._ended)
        self._at = 0
        return True

    def symbol(self) -> str:
        """The next character that is not white space, and go past it; empty at the end."""
        while True:
            while self._at < len(self._text):
                self._at += 1
                if self._text[self._at - 1] not in _SPACE:
                    return self._text[self._at - 1]
            if not self._more():
                return ""

    def value(self) -> Any:
        """The value that begins at the next character: text or an object; others end where the next
        symbol is, not here.
        """
        symbol = self.symbol()
        if symbol not in ('"', "{"):
            raise ValueError(
                f"{symbol!r} stands where text or an object was expected"
                if symbol
                else "it ends too early"
            )
        self._at -= 1
        size = PIECE
        while True:
            try:
                value, self._at = self._json.raw_decode(self._text, self._at)
                return value
            except json.JSONDecodeError as error:
                # the value is wrong, or it is not all here yet; twice as much each time, so that
                # the work stays linear
                if len(self._text) - self._at > LARGEST:
                    raise ValueError(
                        f"a value has more than {LARGEST >> 20} million characters"
                    ) from error
                if not self._more(size):
                    raise ValueError(
                        f"{error.msg} in the value that begins"
                        f" {self._text[self._at : self._at + 40]!r}"
                    ) from error
                size *= 2


def _records(source: ScoreFile) -> Iterator[Record]:
    source.unit, number = "query", 0
    with source.binary() as raw:
        stream = _Stream(raw)
        try:
            if stream.symbol() != "{":
                raise ValueError("it does not begin with {")
            symbol = ","
            while symbol == ",":
                query = stream.value() if number else _first(stream)
                if query is None:
                    break
                number += 1
                if not isinstance(query, str) or stream.symbol() != ":":
                    raise ValueError("a query's id and a colon were expected")
                pairs = stream.value()
                if not isinstance(pairs, list):
                    raise ValueError(f"query {query!r} has no object of scores")
                yield Record(
                    number, query, [doc for doc, _ in pairs], [score for _, score in pairs]
                )
                symbol = stream.symbol()
            if number and symbol != "}":
                raise ValueError(
                    f"{symbol!r} stands where , or }} was expected"
                    if symbol
                    else "it ends too early"
                )
            if stream.symbol():
                raise ValueError("something comes after the object")
        except (ValueError, RecursionError) as error:
            raise IrdistillError(
                f"{source.path}, query {max(1, number)}: {error}. This was expected: {LAYOUT}. The"
                " file is damaged or of another --format."
            ) from error


def _first(stream: _Stream) -> Any:
    """The first key, or None for an empty object."""
    symbol = stream.symbol()
    if symbol == "}":
        return None
    stream._at -= bool(symbol)
    return stream.value()


def read_object(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """DiSCo (2410.14609): one JSON object ``{query: {document: score}}``, read a query at a
    time.
    """
    return gathered(_records(source), source)


def write_object(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """A query a line, in one object."""
    count = 0
    with open_output(path) as stream:
        stream.write(b"{")
        first = True
        for found in run:
            rows = scored(found)
            if rows:
                text = (
                    f"{json.dumps(found.query_id, ensure_ascii=False)}:"
                    f" {json.dumps(dict(rows), ensure_ascii=False)}"
                )
                stream.write(("\n" if first else ",\n").encode() + text.encode())
                first = False
                count += len(rows)
        stream.write(b"\n}\n")
    return count
