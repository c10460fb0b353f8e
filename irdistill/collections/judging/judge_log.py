"""The judgments of one person: a file to which lines are appended, and in which none is changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Container, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self

from irdistill.collections.collection import collection_mismatch
from irdistill.collections.grades import GREATEST
from irdistill.errors import (
    DamagedError,
    InputError,
    LockedError,
    OptionError,
    WrongCollectionError,
)
from irdistill.storage.files import explain_os_errors, fsync_folder, make_folder, open_descriptor
from irdistill.storage.locking import try_lock

ENDING = ".jsonl"
Action = Literal["judged", "skipped", "withdrawn"]
Pair = tuple[str, str]
"""Query id and document id."""

_NAME = re.compile(r"\w[\w.@+-]{0,63}")
_RESERVED = ("any", "all", "majority")


@dataclass(frozen=True)
class Judgment:
    """One line of a file of judgments.

    Attributes:
        action: ``judged``; ``skipped``; or ``withdrawn``, which takes back the line before it of
            the same pair.
        grade: 0 is not relevant, 1 or more is relevant; None unless the pair is judged.
        time: in UTC, as 2026-01-31T12:00:00.000Z.
        run: fingerprint of the run that the pair was taken from.
        passage: number of the passage that was shown, from 0; None if the document was whole.
        collection: id and fingerprints of the collection, as `Collection.describe` returns them.
    """

    query_id: str
    doc_id: str
    action: Action
    grade: int | None
    judge: str
    time: str
    run: str | None = None
    passage: int | None = None
    collection: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pair(self) -> Pair:
        """Query id and document id."""
        return self.query_id, self.doc_id

    def to_line(self) -> str:
        """The line with its line break; ``passage`` is left out for a whole document."""
        values = {
            key: value
            for key, value in asdict(self).items()
            if key != "passage" or value is not None
        }
        return json.dumps(values, ensure_ascii=False) + "\n"

    @classmethod
    def parse(cls, line: str) -> Judgment:
        """Read a line.

        Raises:
            ValueError: it is not a judgment.
        """
        try:
            judgment = cls(**json.loads(line))
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from error
        grade, judged = judgment.grade, judgment.action == "judged"
        texts = (judgment.query_id, judgment.doc_id, judgment.judge, judgment.time)
        if (
            not all(isinstance(text, str) and text for text in texts)
            or judgment.action not in ("judged", "skipped", "withdrawn")
            or judged != (type(grade) is int and abs(grade) <= GREATEST)
            or (not judged and grade is not None)
            or not isinstance(judgment.collection, dict)
        ):
            raise ValueError("a field has a type or value that judgments do not have")
        return judgment


class JudgmentLog:
    """Appends the judgments of one judge to ``FOLDER/JUDGE.jsonl``; a context manager.

    Each judgment is on the disk when `add` returns. A line that a kill cut short is dropped when
    the file is opened again. The newest judgment of a pair counts; earlier lines stay.

    Args:
        folder: made if it does not exist; not inside the folder of a run.
        judge: name of the person, and of the file.
        collection: what `Collection.describe` returns.

    Attributes:
        newest: the newest judgment of each pair, without those that were withdrawn.

    Raises:
        LockedError: another process writes to the file.
        WrongCollectionError: the folder holds judgments of another collection.
        DamagedError: a line is not a judgment, and is not the last one.

    Examples:
        >>> import tempfile
        >>> with JudgmentLog(tempfile.mkdtemp(), "anna", {"id": "demo"}) as log:
        ...     _ = log.add("q1", "d1", 1)
        ...     _ = log.add("q1", "d2", None)
        ...     [(key, judgment.grade) for key, judgment in log.newest.items()]
        [(('q1', 'd1'), 1), (('q1', 'd2'), None)]
    """

    def __init__(self, folder: str | Path, judge: str, collection: Mapping[str, Any]) -> None:
        self.path = Path(folder) / f"{check_judge(judge)}{ENDING}"
        self.judge, self.collection = judge, dict(collection)
        self.newest: dict[Pair, Judgment] = {}
        self._order: list[Pair] = []
        self._stack = ExitStack()
        self._descriptor: int | None = None
        self._size = 0
        self._adding = Lock()

    def __enter__(self) -> Self:
        folder = self.path.parent
        refuse_result_folder(folder)
        make_folder(folder)
        try:
            self._open(folder)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._descriptor = None
        self._stack.close()

    def _open(self, folder: Path) -> None:
        with explain_os_errors(self.path):
            # Windows keeps others from reading a locked file, so the lock has its own
            lock = open_descriptor(folder / f".{self.judge}.lock", os.O_WRONLY | os.O_CREAT)
            self._stack.callback(os.close, lock)
            if not try_lock(lock):
                raise LockedError(
                    f"{self.path} is being written by another process. Close the other page, or"
                    " choose another name with --judge."
                )
            check_same_collection(folder, self.collection)
            created = not self.path.exists()
            descriptor = open_descriptor(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            self._stack.callback(os.close, descriptor)
            if created:
                fsync_folder(folder)
            judgments, self._size = read_judge_file(self.path)
            os.ftruncate(descriptor, self._size)
        for judgment in judgments:
            if judgment.judge != self.judge:
                raise InputError(
                    f"{self.path} holds judgments of {judgment.judge!r}, and {self.judge!r} was"
                    " expected; restore the name of the file, or choose another --judge."
                )
            self._note(judgment)
        self._descriptor = descriptor

    def add(
        self,
        query_id: str,
        doc_id: str,
        grade: int | None,
        run: str | None = None,
        passage: int | None = None,
    ) -> Judgment:
        """Append a judgment; grade None skips the pair."""
        action: Action = "judged" if grade is not None else "skipped"
        return self._append(query_id, doc_id, action, grade, run, passage)

    def undo(self, among: Container[Pair] | None = None) -> Judgment | None:
        """Withdraw the last judgment by a newer line.

        Args:
            among: the pairs that may be withdrawn (default: all).

        Returns:
            The judgment that was withdrawn; None if there is none.
        """
        pair = next((key for key in reversed(self._order) if among is None or key in among), None)
        if pair is None:
            return None
        last = self.newest[pair]
        self._append(last.query_id, last.doc_id, "withdrawn", None, last.run, last.passage)
        return last

    def _append(
        self,
        query_id: str,
        doc_id: str,
        action: Action,
        grade: int | None,
        run: str | None,
        passage: int | None,
    ) -> Judgment:
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        judgment = Judgment(
            query_id, doc_id, action, grade, self.judge, time, run, passage, self.collection
        )
        data = judgment.to_line().encode("utf-8")
        with self._adding:
            if self._descriptor is None:
                raise OptionError("the file of judgments is closed; open it with a with-statement.")
            try:
                with explain_os_errors(self.path):
                    if os.write(self._descriptor, data) != len(data):
                        raise OSError(f"{self.path}: the line was not written whole")
                    os.fsync(self._descriptor)
            except BaseException:
                os.ftruncate(self._descriptor, self._size)
                raise
            self._size += len(data)
            self._note(judgment)
        return judgment

    def _note(self, judgment: Judgment) -> None:
        pair = judgment.pair
        if pair in self.newest:
            self._order.remove(pair)
            del self.newest[pair]
        if judgment.action != "withdrawn":
            self.newest[pair] = judgment
            self._order.append(pair)


def check_judge(name: str) -> str:
    """The name of a judge, if it can be the name of a file and is no policy."""
    if not _NAME.fullmatch(name) or name.lower() in _RESERVED:
        raise OptionError(
            f"the judge {name!r:.80} cannot be used: at most 64 letters, digits and . _ @ + - were"
            f" expected, and none of {', '.join(_RESERVED)}. Choose a name with --judge."
        )
    return name


def refuse_result_folder(folder: Path) -> None:
    """Refuse a folder inside a run, a bundle or another result, where nothing else is written."""
    for place in (folder.absolute(), *folder.absolute().parents):
        try:
            with open(place / "manifest.json", encoding="utf-8") as stream:
                inside = "irdistill-" in stream.read(80)
        except (OSError, ValueError):
            continue
        if inside:
            raise OptionError(
                f"{folder} is inside of {place}, which is a result of irdistill; choose another"
                " folder with --judgments."
            )


def read_judge_file(path: Path) -> tuple[list[Judgment], int]:
    """The judgments of a file in order, and the bytes that they take.

    A last line without a line break is left out: the process that wrote it was killed.
    """
    data = path.read_bytes()
    size = data.rfind(b"\n") + 1
    judgments = []
    for number, line in enumerate(data[:size].split(b"\n")[:-1], 1):
        try:
            judgments.append(Judgment.parse(line.decode("utf-8")))
        except ValueError as error:
            raise DamagedError(
                path,
                f"is damaged: line {number} is not a judgment ({error})",
                "Restore the file, or move it away.",
            ) from error
    return judgments, size


def check_same_collection(folder: Path, collection: Mapping[str, Any]) -> None:
    """Refuse a folder with judgments of another collection."""
    for path in sorted(folder.glob(f"*{ENDING}")):
        for judgment in read_judge_file(path)[0]:
            part = collection_mismatch(judgment.collection, collection)
            if part is not None:
                raise WrongCollectionError(
                    f"{path} holds judgments for {judgment.collection.get('id')!r}, whose {part}"
                    f" are not those of {collection.get('id')!r}. Choose another folder with"
                    " --judgments."
                )
