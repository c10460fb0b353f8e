"""Vectors that a teacher computed for pairs, queries and documents, stored beside a run.

``RUN/representations/`` holds ``manifest.json``, one part for each part of the run, and for
cross-encoders ``classifier.npy``. A part is whole or absent, as in the run. Its file is arrays
in numpy's format, one after the other::

    owners   (n,) int32    number of the item's query in the run; -1 for a document alone
    rows     (n,) int32    the document's row in the corpus; -1 for a query alone
    ends     (n,) int64    where the item's vectors end
    vectors  (v, D)        float16 or float32
    offsets  (v, 2) int32  of token vectors: start and end of the token in the text, in characters

Items are ordered by owner, then row.
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
from irdistill.errors import (
    DamagedError,
    InputError,
    IrdistillError,
    NotFoundError,
    SettingsDifferError,
    WrongCollectionError,
)
from irdistill.runs.journal import Journal, check_part
from irdistill.runs.manifest import MANIFEST, QUERIES, PartEntry, part_name
from irdistill.runs.part_files import read_query_fingerprints, read_query_ids
from irdistill.runs.store import is_whole
from irdistill.storage.checksums import (
    FILES,
    CheckedArray,
    CheckedFile,
    verify_manifest,
    write_sealed,
)
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
KINDS = ("pairs", "vectors", "tokens")
"""A vector per pair; per query and document; or per token of queries and documents."""
Storage = Literal["float16", "float32"]
_HEADER_BYTES = 4096
_ADVICE = "Run the command that wrote it again: it writes what is damaged again."
_NO_VECTORS = np.empty((0, 0), np.float32)


class Item(NamedTuple):
    """The vectors (v, D) of one pair, of a query (row -1) or of a document (owner -1).

    Token vectors may have the start and end (v, 2) of their tokens in the text.
    """

    owner: int
    row: int
    vectors: np.ndarray
    offsets: np.ndarray | None = None


@dataclass(frozen=True)
class RepresentationPlan:
    """What decides the vectors.

    Attributes:
        kind: one of `KINDS`.
        storage: ``float16`` or ``float32``.
        producer, collection, candidates, settings, queries_digest, part_queries: as in the run.
    """

    kind: str
    storage: str
    producer: Mapping[str, Any]
    collection: Mapping[str, Any]
    candidates: str | None
    settings: Mapping[str, Any]
    queries_digest: str
    part_queries: int


def _read_manifest(folder: Path) -> tuple[dict[str, Any], RepresentationPlan, list[PartEntry]]:
    """The manifest of representations as JSON, its plan, and its parts."""
    path = folder / MANIFEST
    data = read_json_object(path)
    if data.get("format") != FORMAT or data.get("version") != VERSION:
        raise InputError(f"{path} has another format than {FORMAT} {VERSION}; upgrade irdistill.")
    try:
        plan = RepresentationPlan(**data["plan"])
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
        raise DamagedError(
            path, f"is damaged ({error!r})", f"Delete {folder} and run the command again."
        ) from error


class RepresentationWriter:
    """Writes the parts; the caller must hold the lock of the run's folder.

    A folder of the same plan is resumed.

    Args:
        run: the run's folder.
        plan: what decides the vectors.
        classifier: (C, D) weight of a cross-encoder's last layer.
    """

    def __init__(
        self, run: Path, plan: RepresentationPlan, classifier: np.ndarray | None = None
    ) -> None:
        self.folder = run / FOLDER
        if not is_manifest(self.folder / MANIFEST, ("plan", "parts"), format=FORMAT):
            refuse_foreign_files(self.folder, no_file, "representations")
        make_folder(self.folder)
        self.plan, self.classifier = plan, classifier
        self._journal = Journal(self.folder, ".bin")
        remove_temporary_files(self.folder)
        done: list[PartEntry] = []
        if (self.folder / MANIFEST).exists():
            _, stored, done = _read_manifest(self.folder)
            lines = differences(asdict(stored), asdict(plan))
            if lines:
                raise SettingsDifferError(
                    f"{self.folder} holds other representations. What differs: {'; '.join(lines)}."
                    " Choose another --out, or remove this folder; the run's scores stay."
                )
        else:
            self._write_manifest([], False)
        done += [entry for entry, _ in self._journal.read().values()]
        self._done = {
            entry.number: entry for entry in done if is_whole(self.folder / entry.name, entry)
        }

    def __contains__(self, number: int) -> bool:
        return number in self._done

    def write(self, number: int, queries: int, items: Sequence[Item]) -> None:
        """Write one part; its items may have any order."""
        ordered = sorted(items, key=lambda item: item[:2])
        joined = np.concatenate([item.vectors for item in ordered]) if ordered else _NO_VECTORS
        with np.errstate(over="ignore"):
            vectors = joined.astype(self.plan.storage)
        if not np.isfinite(vectors).all():
            raise InputError(
                f"part {number} of {self.folder} has numbers that are not finite in"
                f" {self.plan.storage}; give --representations float32, or score with --precision"
                " float32."
            )
        lengths = np.array([len(item.vectors) for item in ordered], np.int64)
        known = [item.offsets for item in ordered if item.offsets is not None]
        offsets = np.concatenate(known, dtype=np.int32) if len(known) == len(ordered) > 0 else None
        stream = io.BytesIO()
        for array in (
            np.array([item.owner for item in ordered], np.int32),
            np.array([item.row for item in ordered], np.int32),
            np.cumsum(lengths, dtype=np.int64),
            vectors,
            *([] if offsets is None else [offsets]),
        ):
            np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
        data = stream.getbuffer()
        name = part_name(number, ".bin")
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
        checksum = file_sha256(self.folder / CLASSIFIER) if self.classifier is not None else None
        write_sealed(
            self.folder / MANIFEST,
            {
                "format": FORMAT,
                "version": VERSION,
                "complete": complete,
                "plan": asdict(self.plan),
                "classifier": checksum,
                "parts": [asdict(part) for part in parts],
            },
            [part.name for part in parts],
        )


class Representations:
    """The vectors beside a run; they are read by row.

    Opening reads the manifest and, for retrievers, which documents have vectors.

    Args:
        run: the run's folder.

    Attributes:
        plan: what decides the vectors.
        classifier: (C, D) float32 weight of a cross-encoder's last layer, with which its scores
            were computed; else None.
    """

    def __init__(self, run: str | Path) -> None:
        self.run = Path(run)
        self.folder = self.run / FOLDER
        if not (self.folder / MANIFEST).is_file():
            raise NotFoundError(f"the run {self.run} has no representations.")
        data, self.plan, self.parts = _read_manifest(self.folder)
        if not data["complete"]:
            raise InputError(
                f"the representations in {self.folder} are not finished; run the command again to"
                " resume."
            )
        for part in self.parts:
            path = self.folder / part.name
            if not path.is_file() or path.stat().st_size != part.bytes:
                damage = f"is missing or damaged; the manifest says {part.bytes} bytes"
                raise DamagedError(path, damage, _ADVICE)
        verify_manifest(self.folder / MANIFEST, data, _ADVICE)
        entries = data.get(FILES, {})
        self._checks = {
            name: CheckedFile(self.folder / name, entry, _ADVICE, cache=False)
            for name, entry in entries.items()
        }
        path, checksum = self.folder / CLASSIFIER, data.get("classifier")
        if checksum and not (path.is_file() and file_sha256(path) == checksum):
            raise DamagedError(path, "is missing or damaged", _ADVICE)
        self.classifier = np.load(path) if checksum else None
        ids = read_query_ids(self.run / QUERIES)
        if digest(ids) != self.plan.queries_digest:
            raise WrongCollectionError(
                f"{self.run / QUERIES} does not hold the queries of the representations."
            )
        self._positions = {query_id: number for number, query_id in enumerate(ids)}
        self._part = lru_cache(maxsize=64)(self._read)
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
        """The length of a vector; 0 if there is none."""
        return max(
            (self._part(number).shape[1] for number in range(min(8, len(self.parts)))), default=0
        )

    def check_collection(self, collection: Collection) -> None:
        """Check that corpus and queries are those of a collection; there may be more queries."""
        ours, known = collection.describe(), read_query_fingerprints(self.run / QUERIES)
        wider = all(
            known.get(query_id) == value
            for query_id, value in collection.query_fingerprints.items()
        )
        for part in ("corpus", "queries"):
            if self.plan.collection.get(part) != ours[part] and not (part == "queries" and wider):
                raise WrongCollectionError(
                    f"{self.folder} was made for the collection {self.plan.collection.get('id')!r}"
                    f" and is used with {collection.id!r}: the fingerprints of the {part} differ"
                    f" ({self.plan.collection.get(part)} there, {ours[part]} here)."
                )

    def pairs(self, query_id: str, rows: np.ndarray) -> list[np.ndarray]:
        """The vectors (v, D) of a query with each of these documents; v = 0 if there is none."""
        return self._of_query(query_id, rows)

    def query(self, query_id: str) -> np.ndarray:
        """The vectors (v, D) of a query; v = 0 if there is none."""
        return self._of_query(query_id, np.array([-1]))[0]

    def query_offsets(self, query_id: str) -> np.ndarray:
        """Start and end (v, 2) of the tokens of a query's vectors; all 0 if they are not stored."""
        return self._of_query(query_id, np.array([-1]), "offsets")[0]

    def document_offsets(self, rows: np.ndarray) -> list[np.ndarray]:
        """As `query_offsets`, for documents."""
        return self._of_documents(rows, "offsets")

    def documents(self, rows: np.ndarray) -> list[np.ndarray]:
        """The vectors (v, D) of documents; v = 0 if there is none."""
        return self._of_documents(rows, "vectors")

    def _of_documents(self, rows: np.ndarray, array: str) -> list[np.ndarray]:
        if self._documents is None:
            return [_NO_VECTORS for _ in rows]
        known, parts, items = self._documents
        vectors = [_NO_VECTORS] * len(rows)
        places = [
            (at, place) for place, at in enumerate(_find_sorted(known, rows)) if at is not None
        ]
        # part by part, so that each is opened at most once
        for at, place in sorted(places, key=lambda pair: int(parts[pair[0]])):
            vectors[place] = self._part(int(parts[at])).read(array, int(items[at]))
        return vectors

    def _of_query(
        self, query_id: str, rows: np.ndarray, array: str = "vectors"
    ) -> list[np.ndarray]:
        position = self._positions.get(query_id)
        if position is None or position // self.plan.part_queries >= len(self.parts):
            return [_NO_VECTORS for _ in rows]
        part = self._part(position // self.plan.part_queries)
        start, end = np.searchsorted(part.owners, [position, position + 1]).tolist()
        return [
            _NO_VECTORS if at is None else part.read(array, start + at)
            for at in _find_sorted(part.rows[start:end], rows)
        ]

    def _read(self, number: int) -> _VectorFile:
        name = self.parts[number].name
        return _VectorFile(self.folder / name, self._checks.get(name))

    def _find_documents(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of all documents, ascending; the part of each, and its number there."""
        rows = [
            part.rows[: np.searchsorted(part.owners, 0)]
            for part in map(self._read, range(len(self.parts)))
        ]
        counts = [len(some) for some in rows]
        joined = np.concatenate([np.empty(0, np.int32), *rows])
        order = np.argsort(joined, kind="stable")
        parts = np.repeat(np.arange(len(rows), dtype=np.int32), counts)
        items = np.arange(len(joined)) - np.repeat(np.cumsum(counts) - counts, counts)
        return joined[order], parts[order], items[order]


def _find_sorted(known: np.ndarray, rows: np.ndarray) -> list[int | None]:
    """Where each of some rows is in ascending ones; None for a row that is not there."""
    positions = np.searchsorted(known, rows).tolist()
    return [
        at if at < len(known) and known[at] == row else None
        for at, row in zip(positions, rows.tolist(), strict=True)
    ]


class _VectorFile:
    """One part: its index is in memory, its vectors are memory-mapped."""

    def __init__(self, path: Path, checks: CheckedFile | None) -> None:
        self._checks = checks
        with open(path, "rb") as stream:
            self.owners, self.rows, self.ends = (self._array(stream) for _ in range(3))
            self.shape, dtype = self._header(stream)
            self._arrays = {"vectors": self._map(path, dtype, self.shape, stream.tell())}
            end = stream.tell() + int(np.prod(self.shape)) * dtype.itemsize
            if end < path.stat().st_size:
                stream.seek(end)
                shape, dtype = self._header(stream)
                self._arrays["offsets"] = self._map(path, dtype, shape, stream.tell())

    def _map(
        self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], start: int
    ) -> CheckedArray | np.ndarray:
        if self._checks is not None:
            return CheckedArray(self._checks, dtype, shape, start)
        if all(shape):
            return np.memmap(path, dtype, "r", start, shape)
        return np.empty(shape, dtype)

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

    def read(self, array: str, item: int) -> np.ndarray:
        """The ``vectors`` (v, D) or ``offsets`` (v, 2) of an item, read only."""
        begin, end = int(self.ends[item - 1]) if item else 0, int(self.ends[item])
        if array not in self._arrays:
            return np.zeros((end - begin, 2), np.int32)
        return self._arrays[array][begin:end]


def verify_representations(run: Path) -> list[str]:
    """Check every byte of a run's representations; one line per problem."""
    if not (run / FOLDER / MANIFEST).is_file():
        return []
    try:
        stored = Representations(run)
    except IrdistillError as error:
        return [str(error)]
    return [
        f"{stored.folder / part.name}: is damaged: its SHA-256 is not the manifest's"
        for part in stored.parts
        if file_sha256(stored.folder / part.name) != part.sha256
    ]
