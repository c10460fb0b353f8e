"""Lines of text files, plain or compressed, and the JSON objects in them.

Error messages name the line.
"""

from __future__ import annotations

import json
import lzma
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from irdistill.collections.text_files import is_damage, open_bytes
from irdistill.errors import InputError

LONGEST_LINE = 1 << 26
"""Bytes of the longest line; the longest documents of published collections have about 20 MiB."""
MOST_BLANK = 1 << 20
"""Blank lines in a row: 400 KB of gzip can hold 400 million of them."""


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers from 1; see `decoded_lines`."""
    with open_bytes(path) as stream:
        yield from decoded_lines(bounded_lines(stream, str(path)), str(path))


def bounded_lines(stream: IO[bytes], name: str) -> Iterator[bytes]:
    """The lines of a stream, with their line ends.

    The limits matter for compressed files: 2 MB of gzip can hold a line of 2 GB.
    """
    number = blank = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        blank = 0 if line.strip() else blank + 1
        if blank > MOST_BLANK:
            raise InputError(
                f"{name} has {MOST_BLANK} blank lines before line {number}; one entry per line was"
                " expected."
            )
        if len(line) > LONGEST_LINE:
            raise InputError(
                f"line {number} of {name} has more than {LONGEST_LINE >> 20} MiB; a text file with"
                " one entry per line was expected."
            )
        yield line


def decoded_lines(
    stream: Iterable[bytes], name: str, blank: bool = False
) -> Iterator[tuple[int, str]]:
    """Lines as text, with their numbers from 1.

    Args:
        blank: also yield blank lines.
    """
    number = 0
    try:
        for data in stream:
            number += 1
            text = data.decode("utf-8-sig" if number == 1 else "utf-8")
            if blank or text.strip():
                yield number, text
    except UnicodeDecodeError as error:
        raise InputError(
            f"line {number} of {name} is not UTF-8 ({error.reason}); convert the file."
        ) from error
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if not is_damage(error):
            raise
        raise InputError(
            f"{name} ends or breaks after line {number} ({error}); the archive is damaged. Get it"
            " again."
        ) from error


def json_objects(
    lines: Iterable[tuple[int, str]], name: str | Path
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON object of each line, with the number of the line."""
    for number, line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"line {number} of {name} is broken: {line.strip()[:80]!r} is not JSON ({error}). "
                "Fix or remove it."
            ) from error
        if not isinstance(entry, dict):
            raise InputError(
                f"line {number} of {name} is broken: expected an object in braces, got"
                f" {line.strip()[:80]!r}."
            )
        yield number, entry


def read_id(entry: dict[str, Any], path: str | Path, number: int, name: str = "_id") -> str:
    """The id of an object: a string that is not blank, or a whole number."""
    value = entry.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise InputError(
            f'line {number} of {path} is broken: expected a non-empty "{name}", got {value!r}.'
        )
    return check_encodable(value, name, path, number)


def read_text_field(entry: dict[str, Any], name: str, path: str | Path, number: int) -> str:
    """A string of an object; empty if the object has none."""
    value = entry.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(
            f'line {number} of {path} is broken: "{name}" should be a string, got'
            f" {str(value)[:80]!r}."
        )
    return check_encodable(value, name, path, number)


def check_encodable(value: str, name: str, path: str | Path, number: int) -> str:
    """The string itself, if UTF-8 can encode it."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f'line {number} of {path} is broken: "{name}" holds the lone surrogate'
            f" {error.object[error.start]!r}, which is half a character."
        ) from error
    return value
