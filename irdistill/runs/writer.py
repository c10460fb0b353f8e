"""Writing a run part by part; a job that was killed at any moment can be resumed."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Self

from irdistill.errors import InputError, IrdistillError, OptionError, SettingsDifferError
from irdistill.runs.journal import Journal
from irdistill.runs.manifest import (
    MANIFEST,
    QUERIES,
    Manifest,
    PartEntry,
    RunIdentity,
    part_name,
)
from irdistill.runs.part_files import encode_queries, encode_table, read_query_ids, write_encoded
from irdistill.runs.ranked_lists import RankedList, to_table
from irdistill.runs.run import Run
from irdistill.runs.run_ownership import check_out, clear
from irdistill.runs.store import StoredRun, is_whole
from irdistill.storage.files import differences, digest, fsync_folder, make_folder
from irdistill.storage.json_lines import note_failure, write_event
from irdistill.storage.locking import lock_folder

logger = logging.getLogger(__name__)


class RunWriter:
    """Writes a run part by part; a context manager that locks the folder.

    A folder that holds the same job is resumed: ``pending`` returns the parts that are left.
    ``finish`` writes the final manifest, the same bytes as without any interruption.

    Args:
        path: the run's folder.
        identity: what decides the numbers.
        query_ids: all queries of the run in order (of all shards).
        part_queries: queries per part (the most work a crash can lose).
        shard: (i, n): write only every n-th part, from the i-th (from 1).
        overwrite: delete another run in the folder. Nothing but a run is ever deleted.
        fingerprints: those of the queries (`Collection.query_fingerprints`); with them the run can
            be opened for a subset of the queries.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from irdistill.runs import RankedList, RunIdentity, RunWriter
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with RunWriter(folder + "/run", RunIdentity("imported", {}, {}), ["q"]) as writer:
        ...         for number, query_ids in writer.pending():
        ...             writer.write_part(number, [RankedList("q", ["a"], np.ones(1, np.float32))])
        ...         run = writer.finish()
        ...     run["q"].doc_ids
        ['a']
    """

    def __init__(
        self,
        path: str | Path,
        identity: RunIdentity,
        query_ids: Sequence[str],
        part_queries: int = 64,
        shard: tuple[int, int] | None = None,
        overwrite: bool = False,
        *,
        fingerprints: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.query_ids, self.fingerprints = list(query_ids), dict(fingerprints or {})
        if not self.query_ids or len(set(self.query_ids)) != len(self.query_ids):
            raise InputError(
                f"the run {self.path} has {len(self.query_ids)} queries,"
                f" {len(set(self.query_ids))} of them different; at least one was expected, and"
                " each once."
            )
        if part_queries < 1 or (shard is not None and not 1 <= shard[0] <= shard[1]):
            raise OptionError(
                f"part_queries={part_queries}, shard={shard}: at least 1, and i/n with 1 <= i <= n."
            )
        software = {name: version(name) for name in ("irdistill", "pyarrow")}
        self.manifest = Manifest(
            identity,
            len(self.query_ids),
            digest(self.query_ids),
            part_queries,
            shard,
            software=software,
        )
        self.overwrite = overwrite
        self._stack = ExitStack()
        self._journal = Journal(self.path)
        self._done: dict[int, tuple[PartEntry, dict[str, float]]] = {}
        self._finished = False
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        check_out(self.path, self.overwrite)
        make_folder(self.path)
        self._stack.enter_context(lock_folder(self.path))
        try:
            self._prepare()
        except BaseException:
            self._stack.close()
            raise
        self._stack.enter_context(note_failure(self.path, not self._finished))
        self._begun = time.monotonic()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, KeyboardInterrupt) and self._done:
            error.add_note(
                f"{len(self._done)} of {len(self.manifest.part_numbers())} parts of {self.path}"
            )
        self._stack.__exit__(kind, error, traceback)  # type: ignore[arg-type]

    def _prepare(self) -> None:
        check_out(self.path, self.overwrite)
        if self.overwrite:
            clear(self.path)
        if (self.path / MANIFEST).exists():
            stored = Manifest.read(self.path)
            lines = differences(stored.plan(), self.manifest.plan())
            if lines:
                raise SettingsDifferError(
                    f"{self.path} holds another run. What differs: "
                    + "; ".join(lines)
                    + ". Choose another --out, or give --overwrite to replace it."
                )
            self._finished = stored.complete
            if stored.complete:
                self.manifest = stored
        else:
            self.manifest.write(self.path)
        self._write_queries()
        recorded = self._journal.read()
        self._done = (
            {part.number: (part, {}) for part in self.manifest.parts}
            if self._finished
            else recorded
        )
        resumed = not self._finished and bool(self._done)
        damaged = [
            number
            for number, (entry, _) in self._done.items()
            if number not in self.manifest or not is_whole(self.path / entry.name, entry)
        ]
        if damaged and self._finished:  # the usage of the parts is in the journal only
            self._done = {
                number: recorded.get(number, entry) for number, entry in self._done.items()
            }
            self._finished = False
            self.manifest = replace(self.manifest, complete=False, parts=(), usage={})
        for number in damaged:
            logger.warning(
                "%s is missing or damaged and is written again",
                self.path / self._done.pop(number)[0].name,
            )
        if resumed:
            logger.info(
                "%s: resumed after %d of %d parts",
                self.path,
                len(self._done),
                len(self.manifest.part_numbers()),
            )
        if not self._finished:
            write_event(self.path, event="start", parts=len(self._done), host=socket.gethostname())

    def _write_queries(self) -> None:
        """Write the query ids, if they are not stored already."""
        try:
            if read_query_ids(self.path / QUERIES) == self.query_ids:
                return
        except IrdistillError:
            pass
        write_encoded(self.path / QUERIES, encode_queries(self.query_ids, self.fingerprints))

    def pending(self) -> list[tuple[int, list[str]]]:
        """The parts that are left: number and query ids of each."""
        return [
            (number, self.queries_of(number))
            for number in self.manifest.part_numbers()
            if number not in self._done
        ]

    def queries_of(self, number: int) -> list[str]:
        """The query ids of a part."""
        size = self.manifest.part_queries
        return self.query_ids[number * size : (number + 1) * size]

    def write_part(
        self, number: int, lists: Iterable[RankedList], usage: Mapping[str, float] | None = None
    ) -> None:
        """Write one part: one list for each of its queries, in order.

        Args:
            number: of the part.
            lists: documents in any order; they are ranked by score, then document id, both
                descending.
            usage: what the part took (pairs, tokens, cost); numbers that are the same if the job
                is executed again.
        """
        expected = self.queries_of(number)
        rows = list(lists)
        query_ids = [row.query_id for row in rows]
        if query_ids != expected:
            raise InputError(
                f"part {number} of {self.path} was given the queries {query_ids[:3]}…"
                f" ({len(query_ids)}); {expected[:3]}… ({len(expected)}) were expected, in this"
                " order."
            )
        table = to_table(rows)
        data = encode_table(table)
        name = part_name(number)
        # One fsync per part is enough: a part whose name is lost in a power cut is written again.
        checksum = write_encoded(self.path / name, data, sync_folder=False)
        entry = PartEntry(
            number,
            name,
            number * self.manifest.part_queries,
            len(expected),
            table.num_rows,
            table.column("score").null_count,
            data.size,
            checksum,
        )
        now = time.monotonic()
        self._journal.append(
            entry,
            usage or {},
            {"seconds": round(now - self._begun, 3), "host": socket.gethostname()},
        )
        self._begun = now
        self._done[number] = (entry, dict(usage or {}))

    def finish(self) -> Run:
        """Write the final manifest.

        Returns:
            The run. A shard cannot be opened again before it is merged.
        """
        left = self.pending()
        if left:
            raise InputError(
                f"{self.path} is not finished: {len(left)} parts are left, from part {left[0][0]}."
            )
        if not self._finished:
            self.manifest = self.manifest.completed(self._done)
            fsync_folder(self.path)
            self.manifest.write(self.path)
            self._finished = True
        return StoredRun(self.path, self.manifest)


def write_run(
    path: str | Path,
    identity: RunIdentity,
    lists: Iterable[RankedList],
    overwrite: bool = False,
    part_queries: int = 64,
    fingerprints: Mapping[str, str] | None = None,
) -> Run:
    """Write lists as a run; a folder that holds the same run is left unchanged."""
    rows = {row.query_id: row for row in lists}
    with RunWriter(
        path, identity, list(rows), part_queries, overwrite=overwrite, fingerprints=fingerprints
    ) as writer:
        for number, ids in writer.pending():
            writer.write_part(number, [rows[query_id] for query_id in ids])
        return writer.finish()
