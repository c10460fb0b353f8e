"""Splitting lines into fields, and reading fields as numbers, many thousand lines at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from irdistill.collections.byte_strings import ByteStrings, pad_bytes
from irdistill.errors import InputError

_NEWLINE, _SPACE, _TAB = (np.uint8(ord(sign)) for sign in "\n \t")
_WHITE = np.zeros(256, bool)
_WHITE[list(b" \t\n\r\x0b\x0c")] = True


class Lines(NamedTuple):
    """n lines of equally many fields, without blank lines.

    Attributes:
        data: the bytes of the lines, as in `ByteStrings`.
        ends: (n * width,) int64 where fields end.
        starts: (n * width,) int64 where fields begin; None if each begins one byte after the end of
            the field before it.
        width: fields per line.
        numbers: (n,) int64 line numbers in the file.
    """

    data: np.ndarray
    ends: np.ndarray
    starts: np.ndarray | None
    width: int
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def field(self, column: int) -> ByteStrings:
        """One field of each line."""
        ends = self.ends[column :: self.width]
        if self.starts is not None:
            starts = self.starts[column :: self.width].copy()
        elif column:
            starts = self.ends[column - 1 :: self.width] + 1
        else:
            starts = np.zeros(len(ends), np.int64)
            starts[1:] = self.ends[self.width - 1 : -1 : self.width] + 1
        return ByteStrings(self.data, starts, ends - starts)


class WrongWidthError(ValueError):
    """A line has another number of fields.

    Attributes:
        number: the line number.
        fields: how many fields the line has.
        line: the line.
    """

    def __init__(self, number: int, fields: int, line: bytes) -> None:
        super().__init__(f"line {number} has {fields} fields")
        self.number, self.fields, self.line = number, fields, line


def split_lines(
    data: bytes, width: int, first: int = 1, separator: bytes | None = None
) -> tuple[Lines, int]:
    """Split whole lines at ASCII white space, as trec_eval does, or at a separator.

    Args:
        width: fields per line.
        first: the number of the first line.
        separator: one byte; fields may then be empty or contain white space.

    Returns:
        The lines, and the number of the next line.
    """
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if not data.endswith(b"\n"):
        data += b"\n"
    codes = pad_bytes(data)
    text = codes[: len(data)]
    breaks = np.flatnonzero(
        text <= _SPACE if separator is None else (text == separator[0]) | (text == _NEWLINE)
    )
    # The fast path: one break after each field. An empty field between two breaks means that there
    # is more white space between two fields.
    if len(breaks) % width == 0 and (
        separator or (breaks[0] > 0 and (breaks[1:] - breaks[:-1]).min(initial=2) > 1)
    ):
        kinds = text[breaks]
        new = kinds == _NEWLINE
        count = len(breaks) // width
        known = (
            new
            | (kinds == (separator[0] if separator else _SPACE))
            | (kinds == (separator[0] if separator else _TAB))
        )
        if new[width - 1 :: width].all() and known.all() and np.count_nonzero(new) == count:
            return Lines(codes, breaks, None, width, np.arange(first, first + count)), first + count
    if separator:
        return _split_one_by_one(data, width, first, separator)
    white = _WHITE[text]
    edges = np.flatnonzero(np.append(~white[0], white[1:] != white[:-1]))
    field_starts, field_ends = edges[::2], edges[1::2]
    lines = np.flatnonzero(text == _NEWLINE)
    sizes = np.diff(np.searchsorted(field_starts, lines), prepend=0)
    wrong = np.flatnonzero((sizes != width) & (sizes != 0))
    if len(wrong):
        place = int(wrong[0])
        start = int(lines[place - 1]) + 1 if place else 0
        raise WrongWidthError(first + place, int(sizes[place]), data[start : int(lines[place])])
    return Lines(
        codes, field_ends, field_starts, width, first + np.flatnonzero(sizes)
    ), first + len(lines)


def split_blocks(
    blocks: Iterable[bytes], width: int, separator: bytes | None = None, header: bool = False
) -> Iterator[Lines]:
    """Split blocks of whole lines, as `split_lines`; blocks without a row are left out.

    Args:
        blocks: whole lines.
        width: number of fields.
        header: the first line that is not blank is skipped.
    """
    number = 1
    for data in blocks:
        if header and (first := next((line for line in data.split(b"\n") if line.strip()), b"")):
            start, header = data.index(first), False
            data = data[:start] + data[start + len(first) :]
        lines, number = split_lines(data, width, number, separator)
        if len(lines):
            yield lines


def _split_one_by_one(data: bytes, width: int, first: int, separator: bytes) -> tuple[Lines, int]:
    """Split lines of which some are blank."""
    lines = data.removesuffix(b"\n").split(b"\n")
    kept = []
    for number, line in enumerate(lines, first):
        if line.strip():
            if line.count(separator) + 1 != width:
                raise WrongWidthError(number, line.count(separator) + 1, line)
            kept.append(number)
    if not kept:
        empty = np.empty(0, np.int64)
        return Lines(pad_bytes(b""), empty, None, width, empty), first + len(lines)
    whole, _ = split_lines(
        b"\n".join([lines[number - first] for number in kept]), width, 1, separator
    )
    return Lines(whole.data, whole.ends, None, width, np.array(kept, np.int64)), first + len(lines)


def lines_of(fields: Sequence[bytes], width: int, numbers: Sequence[int]) -> Lines:
    """Lines whose fields are already split."""
    strings = ByteStrings.of_bytes(fields)
    ends = strings.starts + strings.lengths
    return Lines(strings.data, ends, strings.starts, width, np.array(numbers, np.int64))


def decimals(fields: ByteStrings) -> tuple[np.ndarray, np.ndarray]:
    """`decimal` of each field: (n,) float64, and the positions of fields that are not numbers."""
    try:
        return pc.cast(fields.to_arrow(), pa.float64()).to_numpy(), np.empty(0, np.int64)
    except pa.ArrowInvalid:  # something that is not a number, or that only `float` reads, as +1
        values = np.full(len(fields), np.nan)
    wrong = []
    for place in range(len(fields)):
        try:
            values[place] = decimal(fields.bytes_at(place))
        except ValueError:
            wrong.append(place)
    return values, np.array(wrong, np.int64)


def decimal(field: bytes) -> float:
    """A number as ``float`` reads it, without underscores: trec_eval reads ``1_000`` as 1."""
    if b"_" in field:
        raise ValueError(f"{field!r} is no number")
    return float(field)


def check_utf8(lines: Lines, path: object) -> None:
    """Check that lines are UTF-8."""
    if lines.data.max(initial=0) < 128:
        return
    data = lines.data.tobytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        row = int(np.searchsorted(lines.ends, error.start, side="right")) // lines.width
        raise InputError(
            f"{path}, line {lines.numbers[row]}: the bytes {data[error.start : error.start + 4]!r}"
            " are not UTF-8; the file is truncated or damaged or in another encoding."
        ) from error
