"""Text on a terminal, and the message for unexpected errors."""

from __future__ import annotations

import errno
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from irdistill.cli import main
from irdistill.console.terminal import PrintableFormatter, echo, printable, printable_json
from irdistill.errors import IrdistillError
from irdistill.storage.files import describe_os_error, json_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07\x1b[31mred", r"\x1b]0;title\x07\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb", r"a\x0db"),
        ("a\x08b", r"a\x08b"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("\u2028x", r"\u2028x"),
        ("half \udcff", r"half \udcff"),
        ("tab\tline\n", "tab\tline\n"),
        ("a\r\nb", "a\nb"),
        ("می\u200cخواهم é 漢 👩\u200d💻", "می\u200cخواهم é 漢 👩\u200d💻"),
    ],
)
def test_control_characters_are_escaped(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printable(text) == shown
    echo(text)
    assert capsys.readouterr().out == shown + "\n"
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s", (text,), None)
    assert PrintableFormatter("%(message)s").format(record) == shown


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (IrdistillError("bad \x1b[31m id"), 1, r"irdistill: bad \x1b[31m id"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "x/y"),
            1,
            "irdistill: x/y: No such file or directory; there is no",
        ),
        (
            MemoryError("Unable to allocate 9 GiB"),
            1,
            "not enough memory (Unable to allocate 9 GiB)",
        ),
        (KeyError("parts"), 70, "internal error: KeyError: 'parts'"),
        (RecursionError("deep"), 70, "--debug"),
        (click.UsageError("no \x1b option"), 1, r"no \x1b option"),
    ],
)
def test_every_error_is_one_paragraph(
    error: Exception,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    command_line: Any = sys.modules[main.__module__]
    monkeypatch.setattr(command_line.cli, "main", fail)
    with pytest.raises(SystemExit) as stop:
        main(["doctor"])
    said = capsys.readouterr().err
    assert stop.value.code == code
    assert words in said and "Traceback" not in said and "Errno" not in said and "\x1b" not in said


@pytest.mark.parametrize(
    "code",
    [
        errno.ENOENT,
        errno.EACCES,
        errno.ENOSPC,
        errno.ENAMETOOLONG,
        errno.EIO,
        errno.EMFILE,
        errno.EINVAL,
    ],
)
def test_errors_of_the_operating_system_are_sentences(code: int) -> None:
    text = describe_os_error(OSError(code, "What the system says", "a/b"))
    assert (
        text.startswith("a/b: What the system says") and text.endswith(".") and "Errno" not in text
    )


def test_json_keeps_its_values() -> None:
    value = {"id": "\x1b[31m\x7f\x9b\u202e\u2028 é"}
    text = printable_json(json_text(value))
    assert json.loads(text) == value
    assert not any(character in text for character in "\x1b\x7f\x9b\u202e\u2028")


def test_command_line_prints_only_with_echo() -> None:
    folder = Path(sys.modules[main.__module__].__file__ or "").parent
    direct = [
        path.name
        for path in folder.glob("*.py")
        if re.search(r"click\.echo\(|click\.secho\(|\bprint\(", path.read_text())
    ]
    # rich prints the doctor's table, which holds no text of users
    assert direct == ["tool_verbs.py"]
