"""The response log: each answer of a server is on the disk before it is used, so that no answer is
paid for twice.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from operator import ne
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import xxhash

from irdistill.errors import InputError, LockedError, NotFoundError
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
#: A line ends with a checksum of everything before it.
_CHECK = re.compile(rb', "check": "([0-9a-f]{16})"\}\s*\Z')
#: The longest line in bytes; a response is shorter.
_MAX_LINE = 64 * 2**20
#: Number of damaged lines that are reported one by one.
_MAX_REPORTED = 10


class _DamagedLineError(ValueError):
    """A line is not as it was written."""


def _with_check(data: bytes) -> bytes:
    """A JSON object as a line of the log."""
    return data[:-1] + b', "check": "' + xxhash.xxh3_64_hexdigest(data[:-1]).encode() + b'"}\n'


#: The header says that lines have checksums: a line without one is damaged then.
_HEADER = _with_check(
    json.dumps({"format": FORMAT, "version": VERSION, "checksums": "xxh3-64"}).encode()
)

_open_logs: WeakValueDictionary[Path, ResponseLog] = WeakValueDictionary()
_opening = threading.Lock()


class BatchAnswer(NamedTuple):
    """An answer to a request about several items, such as the documents of a query.

    Attributes:
        answer: to the whole request.
        items: the key of each item, in the order of the request.
    """

    answer: Answer
    items: list[str]


class ResponseLog:
    """A file of JSON lines, one per answer, after a line that names the format.

    A line is appended and fsynced before its answer is returned; threads that append at the same
    time share an fsync. An answer about several items is found by the key of each of them. Memory
    holds the position of each answer in the file, not the answer. A last line that was cut short by
    a kill is dropped with a warning. The checksum of a line is verified when the log is opened and
    again when the line is used. A damaged line is reported with its number and counted, and its
    request will be sent again (in a replay: refused). Lines of older logs without checksums are
    read as they are.

    The file is locked against other processes while it is open. Within a process use `open_log`,
    which returns the same log for the same file.

    Args:
        path: the file; created if it does not exist.
        replay: only read: no lock and no repair, and the file must exist.

    Attributes:
        spent: the sum of what all lines record as spent.
        damaged: number of lines that are ignored.
    """

    def __init__(self, path: str | Path, replay: bool = False) -> None:
        self.path, self.replay = Path(path), replay
        self.spent, self.damaged = Spent(), 0
        self._checked = False
        self._places: dict[str, tuple[int, int]] = {}
        self._item_places: dict[str, tuple[int, int]] = {}
        self._writing, self._syncing = threading.Lock(), threading.Lock()
        self._synced, self._file = 0, -1
        if replay and not self.path.is_file():
            raise NotFoundError(
                f"there is no response log {self.path} to replay. Give the log of an earlier job."
            )
        if not replay:
            make_folder(self.path.parent)
        flags = os.O_RDONLY if replay else os.O_RDWR | os.O_CREAT | os.O_APPEND
        with explain_os_errors(self.path):
            self._file = open_descriptor(self.path, flags)
        try:
            if not replay and not try_lock(self._file):
                raise LockedError(
                    f"the response log {self.path} is in use by another process. Wait for it to"
                    " end, or choose another log with --responses."
                )
            self._synced = self._end = self._read()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Number of answers."""
        return len(self._places)

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file < 0

    def close(self) -> None:
        """Close the file and release the lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()

    def get(self, key: str) -> Answer | None:
        """The answer to a request; None if it is not in the log."""
        place = self._places.get(key)
        batch = None if place is None else self._parse(place, key)
        if place is not None and batch is None:
            del self._places[key]
        return None if batch is None else batch.answer

    def unanswered(self, items: Iterable[str]) -> list[str]:
        """The items that no answer is about, in their order."""
        return [item for item in items if item not in self._item_places]

    def batches(self, items: Iterable[str]) -> list[BatchAnswer]:
        """The answers about some items, each once, in the order of their first items.

        Items whose answer was damaged since the log was opened are left out.
        """
        places = dict.fromkeys(
            place for item in items if (place := self._item_places.get(item)) is not None
        )
        batches = []
        for place in places:
            batch = self._parse(place, f"at byte {place[0]}")
            if batch is not None:
                batches.append(batch)
                continue
            for item in [item for item, other in self._item_places.items() if other == place]:
                del self._item_places[item]
            for key in [key for key, other in self._places.items() if other == place]:
                del self._places[key]
        return batches

    def _parse(self, place: tuple[int, int], name: str) -> BatchAnswer | None:
        """The answer of a line; None if the line was damaged since the log was opened."""
        try:
            line = _parse_line(read_at(self._file, place[1], place[0]), False)
            return BatchAnswer(_parse_answer(line), _parse_items(line))
        except _DamagedLineError:
            self.damaged += 1
            logger.warning(
                "the answer %s in %s was damaged since the log was opened; %s",
                name,
                self.path,
                "a replay has no other" if self.replay else "its request is sent again",
            )
            return None

    def add(
        self, key: str, answer: Answer, spent: Spent, notes: Mapping[str, Any] | None = None
    ) -> None:
        """Append an answer; it is on the disk when this returns.

        Args:
            key: the digest of the request.
            spent: what the budget counts for it.
            notes: more fields of the line, such as the model's full name and the time. ``items``
                are the keys of the items that the answer is about.
        """
        line: dict[str, Any] = {"key": key, "text": answer.text, "error": answer.error}
        if answer.labels is not None:
            labels = answer.labels.tolist()
            line["labels"] = [value if np.isfinite(value) else None for value in labels]
        line |= {
            "input_tokens": answer.input_tokens,
            "output_tokens": answer.output_tokens,
            "cached_tokens": answer.cached_tokens,
            "cost": answer.cost,
            **({"cut": True} if answer.cut else {}),
            **({"thinking_tokens": answer.thinking_tokens} if answer.thinking_tokens else {}),
            "spent": spent._asdict(),
            **(notes or {}),
        }
        self._append(line, spent)

    def add_spent(self, spent: Spent, why: str) -> None:
        """Append what was, or may have been, billed without an answer."""
        self._append({"spent": spent._asdict(), "why": why}, spent)

    def _append(self, line: Mapping[str, Any], spent: Spent) -> None:
        try:
            data = _with_check(json.dumps(line, ensure_ascii=False, allow_nan=False).encode())
        except UnicodeEncodeError:  # a lone surrogate, which only JSON's escapes can express
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
                    synced = self._end
                    os.fsync(self._file)
                    self._synced = synced
        with self._writing:
            self.spent = self.spent.plus(spent)
            if "key" in line:
                self._add_place(line, (place, len(data)))

    def _add_place(self, line: Mapping[str, Any], place: tuple[int, int]) -> None:
        self._places[str(line["key"])] = place
        for item in _parse_items(line):
            self._item_places[item] = place

    def _read(self) -> int:
        """Index the lines; returns the position of the next line."""
        place = number = 0
        complete = True
        with open(self._file, "rb", closefd=False) as stream:
            for number, (raw, size) in enumerate(_lines(stream), 1):
                complete = raw.endswith(b"\n")
                if number == 1:
                    self._check_header(raw)
                if not self._index(raw, place):
                    if not complete:
                        self._drop_tail(place, raw)
                        number, complete = number if place else 0, True
                        break
                    self._report_damaged(number)
                place += size
        if self.damaged > _MAX_REPORTED:
            logger.warning("%d lines of %s are damaged and ignored", self.damaged, self.path)
        if not complete:
            place += self._write(b"\n")
        if number == 0 or not self._checked:  # lines that are added to an older log have checksums
            place += self._write(_HEADER)
        if number == 0 and not self.replay:
            fsync_folder(self.path.parent)
        self._checked = True
        return place

    def _report_damaged(self, number: int) -> None:
        self.damaged += 1
        if self.damaged <= _MAX_REPORTED:
            logger.warning(
                "line %d of %s is damaged and ignored; if it was an answer, %s",
                number,
                self.path,
                "a replay that needs it stops" if self.replay else "its request is sent again",
            )

    def _check_header(self, raw: bytes) -> None:
        if not raw.endswith(b"\n") and _HEADER.startswith(raw):
            return
        try:
            header = _parse_line(raw, False)
        except _DamagedLineError:
            written = _HEADER[:-1]
            if len(raw) >= len(written) and sum(map(ne, raw, written)) <= 2:
                self._checked = True  # our header with a flipped bit
                return
            header = {}
        if header.get("format") != FORMAT:
            raise InputError(
                f"{self.path} is not a response log: its first line does not name the format"
                f" {FORMAT!r}. Give another file."
            )
        if header.get("version") != VERSION:
            raise InputError(
                f"the response log {self.path} has version {header.get('version')}, and this"
                f" irdistill reads version {VERSION}. Upgrade irdistill."
            )

    def _index(self, raw: bytes, place: int) -> bool:
        """Index a line; returns whether it is intact. Headers may follow, if logs were joined."""
        try:
            line = _parse_line(raw, self._checked)
            if "format" in line:
                self._checked = "checksums" in line
                return True
            spent = self.spent.plus(_parse_spent(line["spent"]))
            if "key" in line:
                _parse_answer(line)
                self._add_place(line, (place, len(raw)))
            self.spent = spent
        except (_DamagedLineError, KeyError):
            return False
        return True

    def _drop_tail(self, place: int, raw: bytes) -> None:
        logger.warning(
            "the last line of %s was cut short by a kill and is dropped (%d bytes)",
            self.path,
            len(raw),
        )
        if not self.replay:
            with explain_os_errors(self.path):
                os.ftruncate(self._file, place)

    def _write(self, data: bytes) -> int:
        if self.replay:
            return 0
        with explain_os_errors(self.path):
            os.write(self._file, data)
            os.fsync(self._file)
        return len(data)


def _lines(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Lines and their sizes; only the beginning of an overlong line, which counts as damaged."""
    while raw := stream.readline(_MAX_LINE):
        size, rest = len(raw), raw
        while len(rest) == _MAX_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(_MAX_LINE)
            size += len(rest)
        if size > len(raw):
            raw = raw[:1000] + (b"\n" if rest.endswith(b"\n") else b"")
        yield raw, size


def _parse_line(raw: bytes, checked: bool) -> dict[str, Any]:
    """The object of a line; ``checked`` if it must have a checksum."""
    match = _CHECK.search(raw)
    if match is None and checked:
        raise _DamagedLineError
    if match is not None and xxhash.xxh3_64_hexdigest(raw[: match.start()]).encode() != match[1]:
        raise _DamagedLineError
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _DamagedLineError from error
    if not isinstance(line, dict):
        raise _DamagedLineError
    return line


def _parse_answer(line: Mapping[str, Any]) -> Answer:
    try:
        labels, cut = line.get("labels"), line.get("cut", False)
        counts = [line[name] for name in ("input_tokens", "output_tokens", "cached_tokens")]
        counts.append(line.get("thinking_tokens", 0))
        text, error, cost = line["text"], line["error"], float(line["cost"])
        valid = isinstance(text, str) and isinstance(error, str | None) and isinstance(cut, bool)
        if not valid or not all(isinstance(count, int) and 0 <= count < 2**53 for count in counts):
            raise _DamagedLineError
        values = None
        if labels is not None:
            numbers = [np.nan if value is None else float(value) for value in labels]
            values = np.array(numbers, dtype=np.float32)
        read, written, cached, thinking = counts
        return Answer(text, values, error, read, written, cached, cost, cut, thinking)
    except (KeyError, TypeError, OverflowError, ValueError) as error:
        raise _DamagedLineError from error


def _parse_items(line: Mapping[str, Any]) -> list[str]:
    items = line.get("items", [])
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise _DamagedLineError
    return items


def _parse_spent(value: Any) -> Spent:
    try:
        spent = Spent(**value)
    except TypeError as error:
        raise _DamagedLineError from error
    if not all(isinstance(number, int | float) and 0 <= number < 2**53 for number in spent):
        raise _DamagedLineError
    return spent


def open_log(path: str | Path, replay: bool = False) -> ResponseLog:
    """The log of a file, shared within this process."""
    if replay:
        return ResponseLog(path, replay=True)
    with _opening:
        resolved = Path(path).resolve()
        log = _open_logs.get(resolved)
        if log is None or log.closed:
            log = _open_logs[resolved] = ResponseLog(path)
        return log
