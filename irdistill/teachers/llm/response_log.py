"""The response log: every answer of a server, on the disk before it is used, so that no answer is
paid twice.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from operator import ne
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakValueDictionary

import numpy as np
import xxhash

from irdistill.errors import IrdistillError, LockedError
from irdistill.storage.files import (
    explain_os_errors,
    fsync_folder,
    make_folder,
    open_descriptor,
    read_at,
)
from irdistill.storage.locking import try_lock
from irdistill.teachers.llm.budget import Spent
from irdistill.teachers.llm.language_model import Answer

logger = logging.getLogger(__name__)

FORMAT, VERSION = "irdistill-responses", 1
#: A line ends with a checksum of all that comes before it.
_CHECK = re.compile(rb', "check": "([0-9a-f]{16})"\}\s*\Z')
#: Bytes of a line at most; a response is smaller.
_LONGEST = 64 * 2**20
#: Damaged lines that are reported one by one.
_SHOWN = 10


class _Damaged(ValueError):
    """A line is not as it was written."""


def _with_check(data: bytes) -> bytes:
    """A JSON object as a line of the log."""
    return data[:-1] + b', "check": "' + xxhash.xxh3_64_hexdigest(data[:-1]).encode() + b'"}\n'


#: Since lines have checksums, the header says so: a line without one is damaged then.
_HEADER = _with_check(
    json.dumps({"format": FORMAT, "version": VERSION, "checksums": "xxh3-64"}).encode()
)

_open: WeakValueDictionary[Path, ResponseLog] = WeakValueDictionary()
_opening = threading.Lock()


class ResponseLog:
    """A file of JSON lines, one an answer; the first line names the format.

    A line is appended and fsynced before its answer is given to anybody; threads that append at the
    same time share an fsync. In memory is where each answer lies in the file, not the answer. A
    last line that a kill cut short is dropped with a warning. Every line has a checksum, which is
    looked at when the log is opened and again when the line is used: a damaged line is reported
    with its number, counted, and its request will be sent again (in a replay: refused). Lines of
    logs that were written before there were checksums have none and are read as they are.

    The file is locked against other processes for as long as it is open. Within a process use
    `open_log`, which gives the same log to all who name the same file.

    Args:
        path: the file; it is made where absent.
        replay: only read: no lock, nothing is mended, and the file must be there.

    Attributes:
        spent: the sum of what all lines say was spent.
        damaged: lines that were left out.

    Raises:
        IrdistillError: the file is no response log or of a later version, another process holds it,
            or it cannot be written.
    """

    def __init__(self, path: str | Path, replay: bool = False) -> None:
        self.path, self.replay = Path(path), replay
        self.spent = Spent()
        self.damaged = 0
        self._checked = False
        self._places: dict[str, tuple[int, int]] = {}
        self._writing, self._syncing = threading.Lock(), threading.Lock()
        self._synced = 0
        if replay:
            if not self.path.is_file():
                raise IrdistillError(
                    f"there is no response log {self.path} to replay; give the log of an earlier"
                    " job."
                )
            self._file = open_descriptor(self.path)
        else:
            make_folder(self.path.parent)
            with explain_os_errors(self.path):
                self._file = open_descriptor(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            if not replay:
                self._lock()
            self._end = self._read()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Answers in the log."""
        return len(self._places)

    def close(self) -> None:
        """Close the file and let go of the lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()

    def get(self, key: str) -> Answer | None:
        """The answer to a request, as it was; None where it is not in the log."""
        place = self._places.get(key)
        if place is None:
            return None
        try:
            return _answer(_fields(read_at(self._file, place[1], place[0]), False))
        except _Damaged:
            self.damaged += 1
            logger.warning(
                "the answer %s in %s was damaged since the log was opened; %s",
                key,
                self.path,
                "a replay has no other" if self.replay else "its request is sent again",
            )
            del self._places[key]
            return None

    def add(
        self, key: str, answer: Answer, spent: Spent, notes: Mapping[str, Any] | None = None
    ) -> None:
        """Append an answer; it is on the disk when this returns.

        Args:
            spent: what the budget counts for it.
            notes: anything worth keeping (the model's full name, the time).

        Raises:
            IrdistillError: the disk is full.
        """
        line: dict[str, Any] = {"key": key, "text": answer.text, "error": answer.error}
        if answer.labels is not None:
            line["labels"] = [float(one) if np.isfinite(one) else None for one in answer.labels]
        line |= {
            "input_tokens": answer.input_tokens,
            "output_tokens": answer.output_tokens,
            "cached_tokens": answer.cached_tokens,
            "cost": answer.cost,
            **({"cut": True} if answer.cut else {}),
            "spent": spent._asdict(),
            **(notes or {}),
        }
        self._append(line, spent)

    def add_spent(self, spent: Spent, why: str) -> None:
        """Append what was, or may have been, billed without giving an answer."""
        self._append({"spent": spent._asdict(), "why": why}, spent)

    def _append(self, line: Mapping[str, Any], spent: Spent) -> None:
        try:
            data = _with_check(json.dumps(line, ensure_ascii=False, allow_nan=False).encode())
        except UnicodeEncodeError:  # half a character, which only the escapes of JSON can hold
            data = _with_check(json.dumps(line, allow_nan=False).encode())
        with explain_os_errors(self.path):
            with self._writing:
                written = 0
                try:
                    while written < len(data):
                        written += os.write(self._file, data[written:])
                except OSError:
                    os.ftruncate(self._file, self._end)
                    raise
                place, self._end = self._end, self._end + len(data)
                end = self._end
            with self._syncing:
                if self._synced < end:
                    upto = self._end
                    os.fsync(self._file)
                    self._synced = upto
        with self._writing:
            self.spent = self.spent.plus(spent)
            if "key" in line:
                self._places[line["key"]] = (place, len(data))

    def _lock(self) -> None:
        if not try_lock(self._file):
            raise LockedError(
                f"the response log {self.path} is in use by another process. Wait for it to end, or"
                " choose another log with --responses."
            )

    def _read(self) -> int:
        """Index the lines.

        Returns:
            Where the next line goes.
        """
        place = number = 0
        ended = True
        with open(self._file, "rb", closefd=False) as stream:
            for number, (raw, size) in enumerate(_lines(stream), 1):
                if number == 1:
                    self._check_header(raw)
                if not self._take(raw, place):
                    if not raw.endswith(b"\n"):
                        return self._drop_tail(place, raw)
                    self.damaged += 1
                    if self.damaged <= _SHOWN:
                        logger.warning(
                            "line %d of %s is damaged and left out; if it was an answer, %s",
                            number,
                            self.path,
                            (
                                "a replay that needs it stops"
                                if self.replay
                                else "its request is sent again"
                            ),
                        )
                place += size
                ended = raw.endswith(b"\n")
        if self.damaged > _SHOWN:
            logger.warning("%d lines of %s are damaged and left out", self.damaged, self.path)
        if not ended:
            place += self._write(b"\n")
        if number == 0:
            place = self._write(_HEADER)
            if not self.replay:
                fsync_folder(self.path.parent)
        elif not self._checked:
            place += self._write(_HEADER)  # what is added to an older log has checksums
        self._checked = True
        self._synced = place
        return place

    def _check_header(self, raw: bytes) -> None:
        whole = raw.endswith(b"\n")
        if not whole and _HEADER.startswith(raw):
            return
        try:
            header = _fields(raw, False)
        except _Damaged:
            written = _HEADER[:-1]
            if (
                len(raw) >= len(written) and sum(map(ne, raw, written)) <= 2
            ):  # a header of ours with a bit that flipped
                self._checked = True
                return
            header = {}
        if header.get("format") != FORMAT:
            raise IrdistillError(
                f"{self.path} is not a response log: its first line does not say {FORMAT!r}. Give"
                " another file."
            )
        if header.get("version") != VERSION:
            raise IrdistillError(
                f"the response log {self.path} has version {header.get('version')}, and this"
                f" irdistill reads version {VERSION}; upgrade irdistill."
            )

    def _take(self, raw: bytes, place: int) -> bool:
        """Enter a line; whether it was in order. A header within the file is: logs may be
        joined.
        """
        try:
            line = _fields(raw, self._checked)
            if "format" in line:
                self._checked = "checksums" in line
                return True
            spent = self.spent.plus(_spent(line["spent"]))
            if "key" in line:
                _answer(line)
                self._places[str(line["key"])] = (place, len(raw))
            self.spent = spent
        except (_Damaged, KeyError):
            return False
        return True

    def _drop_tail(self, place: int, raw: bytes) -> int:
        logger.warning(
            "the last line of %s was cut short by a kill and is dropped (%d bytes)",
            self.path,
            len(raw),
        )
        if not self.replay:
            with explain_os_errors(self.path):
                os.ftruncate(self._file, place)
            if place == 0:
                place = self._write(_HEADER)
            elif not self._checked:
                place += self._write(_HEADER)
        self._checked = True
        self._synced = place
        return place

    def _write(self, data: bytes) -> int:
        if self.replay:
            return 0
        with explain_os_errors(self.path):
            os.write(self._file, data)
            os.fsync(self._file)
        return len(data)


def _lines(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Lines and their sizes; of a line that is too long to be one of ours only its beginning, which
    reads as damaged.
    """
    while raw := stream.readline(_LONGEST):
        size, rest = len(raw), raw
        while len(rest) == _LONGEST and not rest.endswith(b"\n"):
            rest = stream.readline(_LONGEST)
            size += len(rest)
        if size > len(raw):
            raw = raw[:1000] + (b"\n" if rest.endswith(b"\n") else b"")
        yield raw, size


def _fields(raw: bytes, checked: bool) -> dict[str, Any]:
    """What a line holds.

    Args:
        checked: it must have a checksum.

    Raises:
        _Damaged: it is not as it was written, or no object.
    """
    match = _CHECK.search(raw)
    if match is None and checked:
        raise _Damaged
    if match is not None and xxhash.xxh3_64_hexdigest(raw[: match.start()]).encode() != match[1]:
        raise _Damaged
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _Damaged from error
    if not isinstance(line, dict):
        raise _Damaged
    return line


def _answer(line: Mapping[str, Any]) -> Answer:
    """The answer of a line.

    Raises:
        _Damaged: a value is missing or of another kind.
    """
    try:
        labels = line.get("labels")
        counts = [line[name] for name in ("input_tokens", "output_tokens", "cached_tokens")]
        error, cost, cut = line["error"], line["cost"], line.get("cut", False)
        right = (
            isinstance(line["text"], str)
            and (error is None or isinstance(error, str))
            and isinstance(cut, bool)
        )
        if not right or not all(isinstance(one, int) and 0 <= one < 2**53 for one in counts):
            raise _Damaged
        values = (
            None
            if labels is None
            else np.array(
                [np.nan if one is None else float(one) for one in labels], dtype=np.float32
            )
        )
        read, written, cached = counts
        return Answer(line["text"], values, error, read, written, cached, float(cost), cut)
    except (KeyError, TypeError, OverflowError, ValueError) as error:
        raise _Damaged from error


def _spent(value: Any) -> Spent:
    """What a line says was spent.

    Raises:
        _Damaged: these are no such numbers.
    """
    try:
        spent = Spent(**value)
        if not all(isinstance(one, int | float) and 0 <= one < 2**53 for one in spent):
            raise _Damaged
    except TypeError as error:
        raise _Damaged from error
    return spent


def open_log(path: str | Path, replay: bool = False) -> ResponseLog:
    """The log of a file: one for all who ask within this process.

    Raises:
        IrdistillError: as `ResponseLog`.
    """
    if replay:
        return ResponseLog(path, replay=True)
    with _opening:
        resolved = Path(path).resolve()
        found = _open.get(resolved)
        if found is None or found._file < 0:
            found = _open[resolved] = ResponseLog(path)
        return found
