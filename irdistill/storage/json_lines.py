"""Files of JSON lines that a job appends to, such as ``journal.jsonl``, and readers of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from irdistill.errors import one_line

JOURNAL = "journal.jsonl"
"""The file of a folder that records what differs between two executions of one job."""

_BLOCK = 1 << 16


def write_event(folder: Path, **entry: Any) -> None:
    """Append a line with the time of day to ``journal.jsonl``, which is not part of the result."""
    line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **entry}
    with open(folder / JOURNAL, "ab+") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":  # a kill cut the last line short
                stream.write(b"\n")
        stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


@contextmanager
def note_failure(folder: Path, writes: bool = True) -> Iterator[None]:
    """Record in the journal, if there is one, the error or the interruption that ends this block.

    Args:
        writes: whether this process writes to the folder.
    """
    try:
        yield
    except BaseException as error:
        if writes and (folder / JOURNAL).is_file():
            stopped = not isinstance(error, Exception)
            with suppress(OSError):
                write_event(folder, event="stop", error="" if stopped else one_line(error))
        raise


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file; lines that a crash cut short are left out. Empty without a file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return _objects(text.split("\n"))


def last_json_line(path: Path, containing: str = "") -> dict[str, Any] | None:
    """The last object of a file whose line contains a text, found from the end of the file.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "log.jsonl"
        >>> _ = path.write_text('{"step": 1, "loss": 3}\\n{"step": 2}\\n{"st')
        >>> last_json_line(path), last_json_line(path, '"loss"')
        ({'step': 2}, {'step': 1, 'loss': 3})
    """
    try:
        with open(path, "rb") as stream:
            place, rest = stream.seek(0, os.SEEK_END), b""
            complete = False  # what follows the last line break was cut short
            while place:
                start = max(0, place - _BLOCK)
                stream.seek(start)
                lines = (stream.read(place - start) + rest).split(b"\n")
                rest, place = (lines.pop(0), start) if start else (b"", 0)
                if not complete and lines:
                    lines, complete = lines[:-1], True
                for line in reversed(lines):
                    if containing.encode() in line and (
                        rows := _objects([line.decode("utf-8", "replace")])
                    ):
                        return rows[0]
    except FileNotFoundError:
        pass
    return None


class JsonLinesFollower:
    """Reads a file of JSON lines while it grows.

    Attributes:
        generation: changes when the file was replaced, as by a training that resumes.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "log.jsonl"
        >>> follower = JsonLinesFollower(path)
        >>> _ = path.write_text('{"step": 1}\\n{"step"')
        >>> follower.read()
        [{'step': 1}]
        >>> _ = path.write_text('{"step": 1}\\n{"step": 2}\\n')
        >>> follower.read()
        [{'step': 2}]
    """

    def __init__(self, path: Path) -> None:
        self.path, self.generation = path, 0
        self._offset, self._file = 0, 0

    def read(self) -> list[dict[str, Any]]:
        """The objects of the lines that were completed since the last call.

        If the file was replaced, ``generation`` is higher and all objects are returned.
        """
        try:
            with open(self.path, "rb") as stream:
                status = os.fstat(stream.fileno())
                if status.st_ino != self._file or status.st_size < self._offset:
                    self.generation += self._file != 0
                    self._file, self._offset = status.st_ino, 0
                stream.seek(self._offset)
                data = stream.read()
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        lines = complete.decode("utf-8", errors="replace").split("\n")[:-1]
        try:
            rows = json.loads(f"[{','.join(lines)}]")  # faster than a call for each line
        except (ValueError, RecursionError):
            return _objects(lines)
        return [row for row in rows if isinstance(row, dict)]


def _objects(lines: Iterable[str]) -> list[dict[str, Any]]:
    rows = []
    for line in lines:
        try:
            row = json.loads(line) if line else None
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
