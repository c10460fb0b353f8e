"""A run stored in a folder of parts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from irdistill.errors import DamagedError, InputError
from irdistill.runs.manifest import QUERIES, Manifest, PartEntry
from irdistill.runs.part_files import (
    PART_ADVICE,
    read_part,
    read_query_fingerprints,
    read_query_ids,
)
from irdistill.runs.ranked_lists import RankedList, from_table
from irdistill.runs.run import Run
from irdistill.storage.files import digest, file_sha256


class StoredRun(Run):
    """A finished run in a folder.

    Opening reads the manifest only; rows are read part by part, and each part is compared with its
    checksum when it is first read.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        super().__init__(manifest, path)
        self._folder = path
        self._last_part: tuple[int, dict[str, RankedList]] | None = None
        self._checked: set[int] = set()

    @classmethod
    def open(cls, path: str | Path) -> StoredRun:
        """Open a folder."""
        folder = Path(path)
        manifest = Manifest.read(folder)
        if not manifest.complete:
            raise InputError(
                f"the run {folder} is not finished; run the command that writes it again to resume."
            )
        if manifest.shard:
            raise InputError(
                f"{folder} is shard {manifest.shard[0]}/{manifest.shard[1]} of a run; join the"
                " shards first: irdistill runs merge SHARD… --out RUN"
            )
        check_sizes(folder, manifest)
        return cls(folder, manifest)

    @property
    def num_rows(self) -> int:
        """Number of (query, document) rows."""
        return self.manifest.rows

    @property
    def num_unscored(self) -> int:
        """Number of rows without a score."""
        return self.manifest.nulls

    @cached_property
    def query_ids(self) -> list[str]:
        """All queries in order, including those with an empty list."""
        query_ids = read_query_ids(self._folder / QUERIES)
        if digest(query_ids) != self.manifest.queries_digest:
            raise DamagedError(
                self._folder / QUERIES,
                "does not hold the queries of the manifest",
                "Write the run again.",
            )
        return query_ids

    @cached_property
    def query_fingerprints(self) -> dict[str, str]:
        """Query id -> fingerprint of the query, as in `Collection.query_fingerprints`.

        Empty for a run that does not store them.
        """
        return read_query_fingerprints(self._folder / QUERIES)

    def parts(self) -> Iterator[tuple[list[str], pa.Table]]:
        """Each part's query ids and table, in order."""
        return (self._part(entry) for entry in self.manifest.parts)

    def _part(self, entry: PartEntry) -> tuple[list[str], pa.Table]:
        """The query ids and rows of a part; its checksum is compared the first time."""
        sha256 = None if entry.number in self._checked else entry.sha256
        table = read_part(self._folder / entry.name, sha256=sha256)
        self._checked.add(entry.number)
        return self.query_ids[entry.first : entry.first + entry.queries], table

    def __getitem__(self, query_id: str) -> RankedList:
        if query_id not in self._positions:
            raise KeyError(f"{self} has no query {query_id!r}")
        number = self._positions[query_id] // self.manifest.part_queries
        if self._last_part is None or self._last_part[0] != number:
            query_ids, table = self._part(self.manifest.parts[number])
            self._last_part = number, {row.query_id: row for row in from_table(table, query_ids)}
        return self._last_part[1][query_id]


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Check that each part is present and has the size that the manifest says."""
    for entry in manifest.parts:
        path = folder / entry.name
        size = path.stat().st_size if path.is_file() else None
        if size != entry.bytes:
            state = (
                "is missing" if size is None else f"is truncated or damaged: it has {size} bytes"
            )
            damage = f"{state}, and the manifest says {entry.bytes}"
            raise DamagedError(path, damage, PART_ADVICE)


def is_whole(path: Path, entry: PartEntry) -> bool:
    """Whether a part's file has the recorded size and checksum."""
    return (
        path.is_file() and path.stat().st_size == entry.bytes and file_sha256(path) == entry.sha256
    )
