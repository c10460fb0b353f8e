"""Opening a run: a folder of parts, or a list of lists in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from irdistill.collections import Collection
from irdistill.collections.collection import collection_mismatch
from irdistill.errors import IrdistillError
from irdistill.runs import parquet
from irdistill.runs.manifest import QUERIES, Manifest, PartEntry, RunIdentity
from irdistill.runs.ranked_lists import RankedList, from_table, ranked, to_table
from irdistill.storage.files import digest, file_sha256


class Run:
    """A finished run in a folder. Opening reads the manifest alone; rows are read part by part.

    Iterating gives every query's RankedList in order; ``run[query_id]`` gives one.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path: Path | None = path
        self.manifest = manifest
        self._held: tuple[int, dict[str, RankedList]] | None = None
        self._checked: set[int] = set()

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open a folder.

        Raises:
            IrdistillError: it is not a run, is not finished, is one shard of several, or a part is
                missing or has another size than the manifest says.
        """
        folder = Path(path)
        manifest = Manifest.read(folder)
        if not manifest.complete:
            raise IrdistillError(
                f"the run {folder} is not finished; start the command that writes it again, it"
                " continues."
            )
        if manifest.shard:
            raise IrdistillError(
                f"{folder} is shard {manifest.shard[0]}/{manifest.shard[1]} of a run; join the"
                " shards first: irdistill runs merge SHARD… --out RUN"
            )
        check_sizes(folder, manifest)
        return cls(folder, manifest)

    @property
    def identity(self) -> RunIdentity:
        """What decides the run's numbers."""
        return self.manifest.identity

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any row or setting."""
        return self.manifest.fingerprint

    @property
    def num_rows(self) -> int:
        """How many (query, document) rows."""
        return self.manifest.rows

    @cached_property
    def query_ids(self) -> list[str]:
        """All queries in order, those with an empty list too."""
        assert self.path is not None
        found = parquet.read_ids(self.path / QUERIES)
        if digest(found) != self.manifest.queries_digest:
            raise IrdistillError(
                f"{self.path / QUERIES} does not hold the queries of the manifest; write the run"
                " again."
            )
        return found

    @cached_property
    def query_fingerprints(self) -> dict[str, str]:
        """Query id -> fingerprint of the query, as `Collection.query_fingerprints`; empty where the
        run does not keep them.
        """
        return parquet.read_query_fingerprints(self.path / QUERIES) if self.path is not None else {}

    @cached_property
    def _places(self) -> dict[str, int]:
        return {query_id: place for place, query_id in enumerate(self.query_ids)}

    def parts(self) -> Iterator[tuple[list[str], pa.Table]]:
        """Each part's query ids and table, in order."""
        assert self.path is not None
        for entry in self.manifest.parts:
            ids = self.query_ids[entry.first : entry.first + entry.queries]
            yield ids, self._table(entry)

    def _table(self, entry: PartEntry) -> pa.Table:
        """The rows of a part, whose bytes are compared with their checksum the first time."""
        assert self.path is not None
        sha256 = None if entry.number in self._checked else entry.sha256
        table = parquet.read(self.path / entry.name, sha256=sha256)
        self._checked.add(entry.number)
        return table

    def tables(self) -> Iterator[pa.Table]:
        """Each part's rows: ``query_id, doc_id, rank, score, flag``."""
        return (table for _, table in self.parts())

    def __iter__(self) -> Iterator[RankedList]:
        for ids, table in self.parts():
            yield from from_table(table, ids)

    def __len__(self) -> int:
        return self.manifest.queries

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._places

    def __getitem__(self, query_id: str) -> RankedList:
        if query_id not in self._places:
            raise KeyError(f"{self} has no query {query_id!r}")
        assert self.path is not None
        number = self._places[query_id] // self.manifest.part_queries
        if self._held is None or self._held[0] != number:
            entry = self.manifest.parts[number]
            ids = self.query_ids[entry.first : entry.first + entry.queries]
            table = self._table(entry)
            self._held = number, {found.query_id: found for found in from_table(table, ids)}
        return self._held[1][query_id]

    def get(self, query_id: str) -> RankedList | None:
        """One query's list, or None where the run has not this query."""
        return self[query_id] if query_id in self else None  # noqa: SIM401

    def to_dict(self) -> dict[str, dict[str, float]]:
        """query id -> document id -> score; what has no score is left out."""
        return {
            found.query_id: {
                doc: score
                for doc, score in zip(found.doc_ids, found.scores.tolist(), strict=True)
                if score == score
            }
            for found in self
        }

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({str(self.path or 'in memory')!r}, {len(self)} queries,"
            f" {self.num_rows} rows)"
        )


class MemoryRun(Run):
    """A run that lies in memory."""

    def __init__(self, identity: RunIdentity, lists: Iterable[RankedList]) -> None:
        self.path = None
        self._lists = {found.query_id: found for found in map(ranked, lists)}
        ids = list(self._lists)
        self.manifest = replace(
            Manifest(identity, len(ids), digest(ids), max(1, len(ids)), complete=True),
            usage={},
            software={},
        )

    @property
    def num_rows(self) -> int:
        """How many (query, document) rows."""
        return sum(len(found.doc_ids) for found in self._lists.values())

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over all rows."""
        return digest(
            [
                [q, found.doc_ids, [s if s == s else None for s in found.scores.tolist()]]
                for q, found in self._lists.items()
            ]
        )

    @cached_property
    def query_ids(self) -> list[str]:
        """All queries in order."""
        return list(self._lists)

    def parts(self) -> Iterator[tuple[list[str], pa.Table]]:
        """All in one."""
        yield self.query_ids, to_table(self._lists.values())

    def __iter__(self) -> Iterator[RankedList]:
        return iter(self._lists.values())

    def __getitem__(self, query_id: str) -> RankedList:
        return self._lists[query_id]


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Refuse a run with a part that is missing or of another size than the manifest says."""
    for entry in manifest.parts:
        path = folder / entry.name
        size = path.stat().st_size if path.is_file() else None
        if size != entry.bytes:
            found = (
                "is missing" if size is None else f"is truncated or damaged: it has {size} bytes"
            )
            raise IrdistillError(
                f"{path} {found}, and the manifest says {entry.bytes}. Run the command that wrote"
                " the run again: it writes this part alone."
            )


def is_whole(path: Path, entry: PartEntry) -> bool:
    """Whether a part's file has the size and the checksum that were recorded."""
    return (
        path.is_file() and path.stat().st_size == entry.bytes and file_sha256(path) == entry.sha256
    )


def open_run(path: str | Path | Run, collection: Collection | None = None) -> Run:
    """Open a run folder, or a TREC run file (``.gz`` too).

    Args:
        collection: if given, the run must be of this collection: same corpus, same queries. A run
            of more queries that holds all of the collection's, with the same texts, serves too; the
            others are left out.

    Raises:
        IrdistillError: as ``Run.open``; or the run belongs to another collection (both fingerprints
            are shown); or a TREC file names documents that the collection lacks, or none of its
            queries.
    """
    if isinstance(path, Run):
        run = path
    elif Path(path).is_file():
        from irdistill.runs.trec import read_trec

        return read_trec(Path(path), collection)
    elif Path(path).is_dir():
        run = Run.open(path)
    else:
        raise IrdistillError(
            f"there is no run {str(path)!r}; give a run's folder or a TREC run file."
        )
    if collection is not None:
        from irdistill.runs.shares import share_of_run

        check_collection(run, collection)
        if collection_mismatch(run.identity.collection, collection.describe()) is not None:
            return share_of_run(run, collection)
    return run


def check_collection(run: Run, collection: Collection) -> None:
    """Refuse a run whose corpus or queries are not those of the collection; it may have further
    queries.
    """
    theirs, ours = run.identity.collection, collection.describe()
    part = collection_mismatch(theirs, ours)
    if part == "queries":
        from irdistill.runs.shares import holds_queries

        if holds_queries(run, collection.query_fingerprints):
            return
    if part is not None:
        raise IrdistillError(
            f"{run} was made for the collection {theirs.get('id')!r} and is used with"
            f" {collection.id!r}: the fingerprints of the {part} differ ({theirs.get(part)} there,"
            f" {ours[part]} here){_other_queries(run, collection) if part == 'queries' else ''}."
            " Use the collection the run was made for, or make the run again."
        )


def _other_queries(run: Run, collection: Collection) -> str:
    """How many queries of a collection a run does not have, or has with another text, where it
    keeps their fingerprints.
    """
    known = run.query_fingerprints
    missing = [query_id for query_id in collection.queries if query_id not in known]
    changed = [
        query_id
        for query_id, value in collection.query_fingerprints.items()
        if known.get(query_id, value) != value
    ]
    parts = [
        f"{len(ids)} of {len(collection.queries)} queries {verb}, {ids[0]!r} first"
        for ids, verb in ((missing, "are not in the run"), (changed, "have another text there"))
        if ids and known
    ]
    return f": {'; '.join(parts)}" if parts else ""
