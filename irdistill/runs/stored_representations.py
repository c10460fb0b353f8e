"""What a teacher made of pairs, queries and documents besides scores: vectors beside a run, read by
row.

``RUN/representations/`` holds ``manifest.json``, a part for each part of the run, and of
cross-encoders ``classifier.npy``. A part is whole or absent, as those of the run are. Its file is
four arrays in numpy's format, one behind the other::

    owners   (n,) int32    the place of the item's query in the run; -1 for a document by itself
    rows     (n,) int32    the document's row in the corpus; -1 for a query by itself
    ends     (n,) int64    where the item's vectors end
    vectors  (v, D)        float16 or float32

Items are in the order of owner, then row.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.runs import parquet
from irdistill.runs.journal import Journal, check_part
from irdistill.runs.manifest import MANIFEST, QUERIES, PartEntry
from irdistill.storage.checksums import FILES, CheckedFile, verify_manifest, write_sealed
from irdistill.storage.files import (
    atomic_path,
    differences,
    digest,
    file_sha256,
    make_folder,
    read_json_object,
    remove_temporary_files,
)
from irdistill.storage.ownership import is_manifest, no_file, refuse_foreign_files

FOLDER = "representations"
FORMAT, VERSION = "irdistill-representations", 1
CLASSIFIER = "classifier.npy"
#: ``pairs``: a vector for each pair; ``vectors``: one for each query and document; ``tokens``: one
#: for each of their tokens.
KINDS = ("pairs", "vectors", "tokens")
Storage = Literal["float16", "float32"]
_HEADER_BYTES = 4096
_ADVICE = "Run the command that wrote it again: it writes what is damaged again."


class Item(NamedTuple):
    """What a model made of one pair (query and row), query (row -1) or document (query -1): (v,
    D).
    """

    owner: int
    row: int
    vectors: np.ndarray


@dataclass(frozen=True)
class Plan:
    """What decides the vectors.

    Attributes:
        kind: one of `KINDS`.
        storage: the type of the numbers.
        producer, collection, candidates, settings, queries_digest, part_queries: as of the run.
    """

    kind: str
    storage: str
    producer: Mapping[str, Any]
    collection: Mapping[str, Any]
    candidates: str | None
    settings: Mapping[str, Any]
    queries_digest: str
    part_queries: int


def _read_manifest(folder: Path) -> tuple[dict[str, Any], Plan, list[PartEntry]]:
    """The manifest of representations as JSON, its plan, and its parts.

    Raises:
        IrdistillError: it is damaged or of another format.
    """
    path = folder / MANIFEST
    data = read_json_object(path)
    if data.get("format") != FORMAT or data.get("version") != VERSION:
        raise IrdistillError(
            f"{path} has another format than {FORMAT} {VERSION}; upgrade irdistill."
        )
    try:
        plan = Plan(**data["plan"])
        if plan.kind not in KINDS or type(plan.part_queries) is not int or plan.part_queries < 1:
            raise ValueError(
                f"its plan has kind {plan.kind!r} and part_queries {plan.part_queries!r}"
            )
        parts = [PartEntry.read(part) for part in data["parts"]]
        for part in parts:
            check_part(part, ".bin")
        if type(data["complete"]) is not bool:
            raise ValueError(f"complete is {data['complete']!r}")
        return data, plan, parts
    except (KeyError, TypeError, ValueError, IrdistillError) as error:
        raise IrdistillError(
            f"{path} is damaged ({error!r}); delete {folder} and run the command that wrote it"
            " again."
        ) from error


class RepresentationWriter:
    """Write the parts; for who holds the run's folder. A folder of the same plan is continued.

    Args:
        run: the run's folder.

    Raises:
        IrdistillError: the run has representations of another plan (the difference is shown).
    """

    def __init__(self, run: Path, plan: Plan, classifier: np.ndarray | None = None) -> None:
        self.folder = run / FOLDER
        if not is_manifest(self.folder / MANIFEST, ("plan", "parts"), format=FORMAT):
            refuse_foreign_files(self.folder, no_file, "representations")
        make_folder(self.folder)
        self.plan, self.classifier = plan, classifier
        self._journal = Journal(self.folder, ".bin")
        remove_temporary_files(self.folder)
        done: list[PartEntry] = []
        if (self.folder / MANIFEST).exists():
            _, there, done = _read_manifest(self.folder)
            lines = differences(asdict(there), asdict(plan))
            if lines:
                raise IrdistillError(
                    f"{self.folder} holds other representations. What differs: {'; '.join(lines)}."
                    " Choose another --out, or remove this folder; the run's scores stay."
                )
        else:
            self._write_manifest([], False)
        done += [entry for entry, _ in self._journal.read().values()]
        self._done = {entry.number: entry for entry in done if self._whole(entry)}

    def _whole(self, entry: PartEntry) -> bool:
        path = self.folder / entry.name
        return (
            path.is_file()
            and path.stat().st_size == entry.bytes
            and file_sha256(path) == entry.sha256
        )

    def __contains__(self, number: int) -> bool:
        return number in self._done

    def write(self, number: int, queries: int, items: Sequence[Item]) -> None:
        """Write one part, whatever the order of its items.

        Raises:
            IrdistillError: a number does not fit the storage, or the disk is full.
        """
        ordered = sorted(items, key=lambda item: item[:2])
        empty = np.empty((0, 0), np.float32)
        joined = np.concatenate([item.vectors for item in ordered]) if ordered else empty
        with np.errstate(over="ignore"):
            vectors = joined.astype(self.plan.storage)
        if not np.isfinite(vectors).all():
            raise IrdistillError(
                f"part {number} of {self.folder} has numbers that are not finite in"
                f" {self.plan.storage}; give --representations float32, or score with --precision"
                " float32."
            )
        lengths = np.array([len(item.vectors) for item in ordered], np.int64)
        stream = io.BytesIO()
        for array in (
            np.array([item.owner for item in ordered], np.int32),
            np.array([item.row for item in ordered], np.int32),
            np.cumsum(lengths, dtype=np.int64),
            vectors,
        ):
            np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
        data = stream.getbuffer()
        name = f"part-{number:05d}.bin"
        with (
            atomic_path(self.folder / name, sync_folder=False) as temporary,
            open(temporary, "wb") as out,
        ):
            out.write(data)
        entry = PartEntry(
            number,
            name,
            number * self.plan.part_queries,
            queries,
            len(ordered),
            int((lengths == 0).sum()),
            len(data),
            hashlib.sha256(data).hexdigest(),
        )
        self._journal.append(entry, {}, {})
        self._done[number] = entry

    def finish(self) -> None:
        """Write the final manifest; the same bytes as without any interruption."""
        self._write_manifest([self._done[number] for number in sorted(self._done)], True)
        self._journal.path.unlink(missing_ok=True)

    def _write_manifest(self, parts: Sequence[PartEntry], complete: bool) -> None:
        if self.classifier is not None:
            with atomic_path(self.folder / CLASSIFIER) as temporary, open(temporary, "wb") as out:
                np.save(out, self.classifier.astype(np.float32))
        own = file_sha256(self.folder / CLASSIFIER) if self.classifier is not None else None
        write_sealed(
            self.folder / MANIFEST,
            {
                "format": FORMAT,
                "version": VERSION,
                "complete": complete,
                "plan": asdict(self.plan),
                "classifier": own,
                "parts": [asdict(part) for part in parts],
            },
            [part.name for part in parts],
        )


class Representations:
    """The vectors beside a run. Opening reads the manifest and, of retrievers, which documents
    there are; vectors are read by row.

    Attributes:
        plan: what decided them.
        classifier: (C, D) float32 weight of a cross-encoder's last layer, which its scores were
            made with; else None.
    """

    def __init__(self, run: str | Path) -> None:
        """Open the finished representations of a run's folder.

        Raises:
            IrdistillError: there are none, they are not finished, damaged, or of a later version.
        """
        self.run = Path(run)
        self.folder = self.run / FOLDER
        if not (self.folder / MANIFEST).is_file():
            raise IrdistillError(f"the run {self.run} has no representations.")
        data, self.plan, self.parts = _read_manifest(self.folder)
        if not data["complete"]:
            raise IrdistillError(
                f"the representations in {self.folder} are not finished; start the command again,"
                " it continues."
            )
        for part in self.parts:
            path = self.folder / part.name
            if not path.is_file() or path.stat().st_size != part.bytes:
                raise IrdistillError(
                    f"{path} is missing or damaged; the manifest says {part.bytes} bytes. {_ADVICE}"
                )
        verify_manifest(self.folder / MANIFEST, data, _ADVICE)
        entries = data.get(FILES, {})
        self._checks = {
            name: CheckedFile(self.folder / name, entry, _ADVICE, cache=False)
            for name, entry in entries.items()
        }
        if data.get("classifier") and file_sha256(self.folder / CLASSIFIER) != data["classifier"]:
            raise IrdistillError(f"{self.folder / CLASSIFIER} is damaged. {_ADVICE}")
        self.classifier = np.load(self.folder / CLASSIFIER) if data.get("classifier") else None
        ids = parquet.read_ids(self.run / QUERIES)
        if digest(ids) != self.plan.queries_digest:
            raise IrdistillError(
                f"{self.run / QUERIES} does not hold the queries that the representations were made"
                " for."
            )
        self._places = {query_id: place for place, query_id in enumerate(ids)}
        self._held = lru_cache(maxsize=64)(self._read)
        self._documents = self._find_documents() if self.kind != "pairs" else None

    @property
    def kind(self) -> str:
        """``pairs``, ``vectors`` or ``tokens``."""
        return self.plan.kind

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any vector."""
        return digest([asdict(self.plan), [part.sha256 for part in self.parts]])

    @property
    def dimension(self) -> int:
        """The length of a vector; 0 where there is none."""
        return max(
            (self._held(number).shape[1] for number in range(min(8, len(self.parts)))), default=0
        )

    def check_collection(self, collection: Collection) -> None:
        """Refuse those of another corpus or other queries; there may be more queries, as of a run.

        Raises:
            IrdistillError: they are.
        """
        ours, known = collection.describe(), parquet.read_query_fingerprints(self.run / QUERIES)
        wider = all(
            known.get(query_id) == value
            for query_id, value in collection.query_fingerprints.items()
        )
        for part in ("corpus", "queries"):
            if self.plan.collection.get(part) != ours[part] and not (part == "queries" and wider):
                raise IrdistillError(
                    f"{self.folder} was made for the collection {self.plan.collection.get('id')!r}"
                    f" and is used with {collection.id!r}: the fingerprints of the {part} differ"
                    f" ({self.plan.collection.get(part)} there, {ours[part]} here)."
                )

    def pairs(self, query_id: str, rows: np.ndarray) -> list[np.ndarray]:
        """The vectors (v, D) of a query with each of these documents; v = 0 where there is none."""
        return self._of_query(query_id, rows)

    def query(self, query_id: str) -> np.ndarray:
        """The vectors (v, D) of a query; v = 0 where there is none."""
        return self._of_query(query_id, np.array([-1]))[0]

    def documents(self, rows: np.ndarray) -> list[np.ndarray]:
        """The vectors (v, D) of documents; v = 0 where there is none."""
        if self._documents is None:
            return [np.empty((0, 0), np.float32) for _ in rows]
        known, parts, places = self._documents
        found = np.searchsorted(known, rows)
        there = [
            at < len(known) and known[at] == row
            for at, row in zip(found.tolist(), rows.tolist(), strict=True)
        ]
        return [
            (
                self._held(int(parts[at])).vectors(int(places[at]))
                if own
                else np.empty((0, 0), np.float32)
            )
            for at, own in zip(found.tolist(), there, strict=True)
        ]

    def _of_query(self, query_id: str, rows: np.ndarray) -> list[np.ndarray]:
        place = self._places.get(query_id)
        if place is None or place // self.plan.part_queries >= len(self.parts):
            return [np.empty((0, 0), np.float32) for _ in rows]
        part = self._held(place // self.plan.part_queries)
        start, end = np.searchsorted(part.owners, [place, place + 1])
        own = part.rows[start:end]
        found = np.searchsorted(own, rows)
        return [
            (
                part.vectors(int(start + at))
                if at < len(own) and own[at] == row
                else np.empty((0, 0), np.float32)
            )
            for at, row in zip(found.tolist(), rows.tolist(), strict=True)
        ]

    def _read(self, number: int) -> _Part:
        name = self.parts[number].name
        return _Part(self.folder / name, self._checks.get(name))

    def _find_documents(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of all documents, ascending, the part of each and its place there."""
        own = [
            part.rows[: np.searchsorted(part.owners, 0)]
            for part in map(self._read, range(len(self.parts)))
        ]
        counts = [len(rows) for rows in own]
        rows = np.concatenate([np.empty(0, np.int32), *own])
        order = np.argsort(rows, kind="stable")
        parts = np.repeat(np.arange(len(own), dtype=np.int32), counts)
        places = np.concatenate(
            [np.empty(0, np.int32), *(np.arange(count, dtype=np.int32) for count in counts)]
        )
        return rows[order], parts[order], places[order]


class _Part:
    """One file: its index in memory, its vectors read by item."""

    def __init__(self, path: Path, checks: CheckedFile | None) -> None:
        self.path, self._checks = path, checks
        with open(path, "rb") as stream:
            self.owners, self.rows, self.ends = (self._array(stream) for _ in range(3))
            self.shape, self.dtype = self._header(stream)
            self._start = stream.tell()

    def _header(self, stream: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
        if self._checks is not None:
            self._checks.check(
                stream.tell(), min(self._checks.bytes, stream.tell() + _HEADER_BYTES)
            )
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        return shape, dtype

    def _array(self, stream: BinaryIO) -> np.ndarray:
        shape, dtype = self._header(stream)
        begin, size = stream.tell(), int(np.prod(shape)) * dtype.itemsize
        if self._checks is not None:
            self._checks.check(begin, begin + size)
        return np.frombuffer(stream.read(size), dtype)

    def vectors(self, place: int) -> np.ndarray:
        """(v, D) of the item at this place, read only."""
        begin, end = int(self.ends[place - 1]) if place else 0, int(self.ends[place])
        width = self.shape[1]
        if self._checks is not None:
            first = self._start + begin * width * self.dtype.itemsize
            self._checks.check(first, first + (end - begin) * width * self.dtype.itemsize)
        found = np.fromfile(
            self.path,
            self.dtype,
            (end - begin) * width,
            offset=self._start + begin * width * self.dtype.itemsize,
        )
        return found.reshape(end - begin, width)


def verify_representations(run: Path) -> list[str]:
    """Check every byte of what lies beside a run; one line a problem, none where there are no
    representations.
    """
    if not (run / FOLDER / MANIFEST).is_file():
        return []
    try:
        held = Representations(run)
    except IrdistillError as error:
        return [str(error)]
    damaged = [part for part in held.parts if file_sha256(held.folder / part.name) != part.sha256]
    return [
        f"{held.folder / part.name}: is damaged: its SHA-256 is not the manifest's"
        for part in damaged
    ]
