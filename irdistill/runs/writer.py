"""Writing a run: parts that are either whole or absent, so that a job killed at any moment goes on."""

from __future__ import annotations

import logging
import shutil
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self

from irdistill.errors import IrdistillError
from irdistill.files import differences, digest, exclusive, fsync_folder, make_folder
from irdistill.runs import parquet
from irdistill.runs.lists import RankedList, to_table
from irdistill.runs.manifest import (
    JOURNAL,
    MANIFEST,
    QUERIES,
    Journal,
    Manifest,
    PartEntry,
    RunIdentity,
    part_name,
)
from irdistill.runs.representations import FOLDER as REPRESENTATIONS
from irdistill.runs.store import Run

logger = logging.getLogger(__name__)


class RunWriter:
    """Write a run part by part; a context manager that holds the folder against other processes.

    A folder that holds the same job is continued: ``pending`` gives what is left. ``finish`` writes the final
    manifest, the same bytes as without any interruption.

    Args:
        path: the run's folder.
        identity: what decides the numbers.
        query_ids: all queries of the run in order (of all shards).
        part_queries: queries a part: what a kill can cost at most.
        shard: (i, n): write only every n-th part, from the i-th (from 1).
        overwrite: delete another run that is there. Nothing but a run is ever deleted.
        fingerprints: those of the queries (`Collection.query_fingerprints`), so that the run serves a share of them too.

    Raises:
        IrdistillError: the folder holds another run (the difference is shown) or other files; a query id comes
            twice; another process writes there; there is no permission.
    """

    def __init__(self, path: str | Path, identity: RunIdentity, query_ids: Sequence[str], part_queries: int = 64,
                 shard: tuple[int, int] | None = None, overwrite: bool = False, *,
                 fingerprints: Mapping[str, str] | None = None) -> None:
        self.path = Path(path)
        self.query_ids, self.fingerprints = list(query_ids), dict(fingerprints or {})
        if not self.query_ids or len(set(self.query_ids)) != len(self.query_ids):
            raise IrdistillError(
                f"the run {self.path} was asked for {len(self.query_ids)} queries, {len(set(self.query_ids))} of them "
                "different; at least one was expected, and each once."
            )
        if part_queries < 1 or (shard is not None and not 1 <= shard[0] <= shard[1]):
            raise IrdistillError(f"part_queries={part_queries}, shard={shard}: at least 1, and i/n with 1 <= i <= n.")
        software = {name: version(name) for name in ("irdistill", "pyarrow")}
        self.manifest = Manifest(
            identity, len(self.query_ids), digest(self.query_ids), part_queries, shard, software=software
        )
        self.overwrite = overwrite
        self._stack = ExitStack()
        self._journal = Journal(self.path)
        self._done: dict[int, tuple[PartEntry, dict[str, float]]] = {}
        self._finished = False
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        make_folder(self.path)
        self._stack.enter_context(exclusive(self.path))
        try:
            self._prepare()
        except BaseException:
            self._stack.close()
            raise
        self._begun = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt) and self._done:
            error.add_note(f"{len(self._done)} of {len(self.manifest.own_parts())} parts of {self.path}")
        self._stack.close()

    def _prepare(self) -> None:
        if self.overwrite:
            clear(self.path)
        if not (self.path / MANIFEST).exists():
            strangers = [p.name for p in self.path.iterdir() if not _own(p.name)]
            if strangers:
                raise IrdistillError(
                    f"{self.path} is not empty and not a run (it holds {', '.join(sorted(strangers)[:3])}); give an "
                    "empty or a new folder."
                )
        if (self.path / MANIFEST).exists():
            there = Manifest.read(self.path)
            lines = differences(there.plan(), self.manifest.plan())
            if lines:
                raise IrdistillError(
                    f"{self.path} holds another run. What differs: " + "; ".join(lines)
                    + ". Choose another --out, or give --overwrite to replace it."
                )
            self._finished = there.complete
            if there.complete:
                self.manifest = there
        else:
            parquet.write(self.path / QUERIES, parquet.encode_queries(self.query_ids, self.fingerprints))
            self.manifest.write(self.path)
        if self._finished:
            self._done = {part.number: (part, {}) for part in self.manifest.parts}
        else:
            self._done = self._journal.read()
        own = set(self.manifest.own_parts())
        resumed = not self._finished and bool(self._done)
        for number, (entry, _) in list(self._done.items()):
            path = self.path / entry.name
            if number not in own or not path.is_file() or path.stat().st_size != entry.bytes:
                logger.warning("%s is missing or damaged and is written again", path)
                del self._done[number]
                if self._finished:
                    self._done = {number: found for number, found in self._journal.read().items() if number in self._done}
                    self._finished = False
        if resumed:
            logger.info("%s: resumed after %d of %d parts", self.path, len(self._done), len(own))

    def pending(self) -> list[tuple[int, list[str]]]:
        """The parts that are left: their numbers and query ids."""
        return [(number, self._queries(number)) for number in self.manifest.own_parts() if number not in self._done]

    def _queries(self, number: int) -> list[str]:
        size = self.manifest.part_queries
        return self.query_ids[number * size : (number + 1) * size]

    def write_part(self, number: int, lists: Iterable[RankedList], usage: Mapping[str, float] | None = None) -> None:
        """Write one part: one list for each of its queries, in order.

        Args:
            lists: in any order of documents; they are ranked by score, then document id, both descending.
            usage: what the part took (pairs, tokens, cost): numbers that another run of the job would repeat.

        Raises:
            IrdistillError: a query is missing or strange, a document comes twice, a score is infinite, or the
                disk is full.
        """
        expected = self._queries(number)
        found = list(lists)
        if [row.query_id for row in found] != expected:
            got = [row.query_id for row in found]
            raise IrdistillError(
                f"part {number} of {self.path} was given the queries {got[:3]}… ({len(got)}); "
                f"{expected[:3]}… ({len(expected)}) were expected, in this order."
            )
        table = to_table(found)
        data = parquet.encode(table)
        name = part_name(number)
        # A part whose name a power cut takes back is made again, for its file is looked for; one fsync a part is enough.
        checksum = parquet.write(self.path / name, data, sync_folder=False)
        entry = PartEntry(
            number, name, number * self.manifest.part_queries, len(expected), table.num_rows,
            table.column("score").null_count, data.size, checksum,
        )
        now = time.monotonic()
        self._journal.append(entry, usage or {}, {"seconds": round(now - self._begun, 3), "host": socket.gethostname()})
        self._begun = now
        self._done[number] = (entry, dict(usage or {}))

    def finish(self) -> Run:
        """Write the final manifest.

        Returns:
            The run; of a shard, a Run that cannot be opened again before it is merged.

        Raises:
            IrdistillError: parts are left.
        """
        left = self.pending()
        if left:
            raise IrdistillError(f"{self.path} is not finished: {len(left)} parts are left, from part {left[0][0]}.")
        if not self._finished:
            self.manifest = self.manifest.completed(self._done)
            fsync_folder(self.path)
            self.manifest.write(self.path)
            self._finished = True
        return Run(self.path, self.manifest)


def _own(name: str) -> bool:
    """Whether a file in a run's folder is ours."""
    return (
        name in (MANIFEST, JOURNAL, QUERIES, ".lock", "compiled", REPRESENTATIONS)
        or (name.startswith("part-") and name.endswith(".parquet"))
        or ".tmp-" in name
    )


def clear(folder: Path) -> None:
    """Delete a run, and nothing else: the manifest first, so that a kill leaves nothing that looks whole.

    Raises:
        IrdistillError: the folder holds anything that is not part of a run.
    """
    strangers = sorted(path.name for path in folder.iterdir() if not _own(path.name))
    if strangers:
        raise IrdistillError(
            f"{folder} holds files that are no part of a run ({', '.join(strangers[:3])}); --overwrite deletes runs "
            "only. Choose another --out."
        )
    (folder / MANIFEST).unlink(missing_ok=True)
    fsync_folder(folder)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def write_run(path: str | Path, identity: RunIdentity, lists: Iterable[RankedList], overwrite: bool = False,
              part_queries: int = 64, fingerprints: Mapping[str, str] | None = None) -> Run:
    """Write lists that are at hand as a run; a folder that holds the same run is left as it is.

    Raises:
        IrdistillError: as ``RunWriter``.
    """
    rows = {row.query_id: row for row in lists}
    with RunWriter(path, identity, list(rows), part_queries, overwrite=overwrite, fingerprints=fingerprints) as writer:
        for number, ids in writer.pending():
            writer.write_part(number, [rows[query_id] for query_id in ids])
        return writer.finish()
