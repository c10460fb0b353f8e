"""Text for a terminal: content of documents, ids or servers cannot move the cursor or hide text."""

from __future__ import annotations

import logging
import re
from typing import IO, Any

import click

#: Control characters (C0 without tab and newline, DEL, and C1, whose U+009B begins an escape
#: sequence), line separators, overrides of the text direction, and lone surrogates, which cannot be
#: encoded. Joiners and direction marks (U+200C to U+200F) are part of ordinary Persian, Hindi and
#: Hebrew text and are not escaped.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with control characters escaped.

    Examples:
        >>> print(printable("red: \x1b[31m"))
        red: \x1b[31m
    """
    return _CONTROL.sub(_escaped, text.replace("\r\n", "\n"))


def printable_json(text: str) -> str:
    r"""JSON text with control characters as JSON escapes; the values do not change.

    Examples:
        >>> print(printable_json('"red: \x9b31m"'))
        "red: \u009b31m"
    """
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def counted(number: int, noun: str) -> str:
    """A number and a noun, which is in the plural unless the number is 1.

    Examples:
        >>> counted(1, "query"), counted(2, "query"), counted(0, "row")
        ('1 query', '2 queries', '0 rows')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def echo(message: object = "", err: bool = False, file: IO[Any] | None = None) -> None:
    """Print a message with control characters escaped. The command line prints only with this."""
    click.echo(printable(str(message)), err=err, file=file)


class PrintableFormatter(logging.Formatter):
    """Formats log records with control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return printable(super().format(record))
