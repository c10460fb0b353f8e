"""The corpus: documents in a memory-mapped Arrow file, addressed by row number, found by id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import xxhash

from irdistill.collections.byte_strings import ByteStrings, HashIndex
from irdistill.collections.document_table import (
    BATCH_ROWS,
    FEW,
    BatchChecks,
    Document,
    DocumentTable,
    record_batch,
)
from irdistill.errors import IrdistillError
from irdistill.storage.checksums import BLOCK_BYTES, CheckedArray, open_files, read_sealed
from irdistill.storage.files import MappedPages, read_json

FORMAT = 2
"""Raised when the files of a compiled corpus change; older ones are then compiled anew."""
FILES = ("corpus.arrow", "starts.bin", "offsets.bin", "hashes.bin", "rows.bin")
_BLOCK_HASHES = BLOCK_BYTES // 8


class Corpus:
    """N documents. Rows are 0..N-1 in file order. Opens at once whatever its size and costs no
    memory.

    Pickling a compiled corpus writes its folder only, so worker processes share the pages of one
    file.
    """

    def __init__(
        self,
        batches: DocumentTable,
        hashes: np.ndarray | CheckedArray,
        rows: np.ndarray | CheckedArray,
        fingerprint: str,
        folder: Path | None = None,
        findings: dict[str, Any] | None = None,
    ) -> None:
        """Use ``Corpus.open``, ``Corpus.in_memory`` or ``compile_corpus``.

        Args:
            hashes: (N,) uint64, sorted xxh64 of the ids. rows: (N,) int64, the row of each hash.
        """
        self._batches = batches
        self._hashes = hashes
        self._rows = rows
        self.fingerprint = fingerprint
        self.folder = folder
        self.findings: dict[str, Any] = findings or {}
        self._first_hashes = np.empty(0, dtype=np.uint64)

    @classmethod
    def open(cls, folder: str | Path) -> Corpus:
        """Open a compiled corpus.

        Raises:
            IrdistillError: the folder holds none, one of another format, or one that was damaged.
        """
        folder = Path(folder)
        manifest = read_json(folder / "manifest.json")
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise IrdistillError(
                f"{folder} holds no compiled corpus of format {FORMAT}; delete it and load again."
            )
        manifest = read_sealed(folder / "manifest.json")
        files = open_files(folder, manifest["files"])
        documents = int(manifest["documents"])
        hashes = CheckedArray(files["hashes.bin"], "<u8", (documents,))
        rows = CheckedArray(files["rows.bin"], "<i8", (documents,))
        for name in ("starts.bin", "offsets.bin"):
            files[name].check_all()
        text = _bytes_of(folder / "corpus.arrow")
        checks = BatchChecks(
            files["corpus.arrow"],
            text.ctypes.data,
            np.fromfile(folder / "offsets.bin", dtype="<i8"),
        )
        pages = MappedPages(text, hashes.map, rows.map)
        starts = np.fromfile(folder / "starts.bin", dtype="<i8")
        batches = DocumentTable(pa.ipc.open_file(pa.py_buffer(text)), starts, text, pages, checks)
        corpus = cls(batches, hashes, rows, manifest["fingerprint"], folder, manifest["findings"])
        corpus._first_hashes = np.frombuffer(bytes.fromhex(manifest["first_hashes"]), dtype="<u8")
        return corpus

    @classmethod
    def over_files(cls, folder: Path, hashes: np.ndarray, rows: np.ndarray) -> Corpus:
        """The documents in a folder's ``corpus.arrow`` with an index given, unchecked; for
        compiling.
        """
        text = _bytes_of(folder / "corpus.arrow")
        batches = DocumentTable(
            pa.ipc.open_file(pa.py_buffer(text)),
            np.fromfile(folder / "starts.bin", dtype="<i8"),
            text,
            MappedPages(text, hashes, rows),
        )
        return cls(batches, hashes, rows, "", folder)

    @classmethod
    def in_memory(cls, documents: Iterable[Document]) -> Corpus:
        """A small corpus without files; it has the fingerprint the same documents have when
        compiled.

        Raises:
            IrdistillError: two documents have the same id.
        """
        held = [Document(*document) for document in documents]
        seen: set[str] = set()
        for document in held:
            if document.id in seen:
                raise IrdistillError(
                    f"the document id {document.id!r} occurs twice; ids must be unique."
                )
            seen.add(document.id)
        hashes = np.array([id_hash(document.id) for document in held], dtype=np.uint64)
        order = np.argsort(hashes, kind="stable").astype(np.int64)
        batch = record_batch(held)
        fingerprint = Fingerprint()
        for document in held:
            fingerprint.add(document)
        starts = np.array([0, len(held)], dtype=np.int64)
        return cls(DocumentTable([batch], starts), hashes[order], order, fingerprint.value())

    def __reduce__(self) -> tuple[Any, ...]:
        if self.folder is not None:
            return Corpus.open, (self.folder,)
        return Corpus.in_memory, (list(self.documents()),)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Corpus({len(self)} documents, fingerprint {self.fingerprint})"

    @property
    def ids(self) -> Sequence[str]:
        """All document ids in row order, read when asked for."""
        return _Ids(self)

    def id(self, row: int) -> str:
        """The id of a row.

        Raises:
            IndexError: there is no such row.
        """
        return self._batches.value(0, row)

    def ids_at(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The ids of many rows, in the order asked for; a row may occur more than once."""
        return self.id_fields(np.asarray(rows, dtype=np.int64)).texts() if len(rows) else []

    def id_fields(self, rows: np.ndarray) -> ByteStrings:
        """The ids of many rows (n,), without a Python object for each."""
        return self._batches.ids(rows)

    def text(self, row: int) -> str:
        """Title, a space and text; the text alone where there is no title."""
        return joined(self._batches.value(1, row), self._batches.value(2, row))

    def document(self, row: int) -> Document:
        """Id, title and text of a row."""
        doc_id, title, text = (self._batches.value(column, row) for column in range(3))
        return Document(doc_id, title, text)

    def texts(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The texts of many rows, in the order asked for; a row may occur more than once."""
        wanted = np.asarray(rows, dtype=np.int64)
        titles, texts = self._batches.take(1, wanted), self._batches.take(2, wanted)
        return [joined(title, text) for title, text in zip(titles, texts, strict=True)]

    def documents(self) -> Iterator[Document]:
        """All documents in row order, a batch in memory at a time."""
        for batch in self._batches:
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield Document(*values)

    def text_batches(self) -> Iterator[list[str]]:
        """The texts of all documents in row order, some thousand at a time; one such list is in
        memory.
        """
        for batch in self._batches:
            for start in range(0, len(batch), BATCH_ROWS):
                titles, texts = (
                    batch.column(column).slice(start, BATCH_ROWS).to_pylist() for column in (1, 2)
                )
                yield [joined(title, text) for title, text in zip(titles, texts, strict=True)]

    def has(self, doc_id: str) -> bool:
        """Is there a document of this id?"""
        return self._find(doc_id) >= 0

    def row(self, doc_id: str) -> int:
        """The row of an id.

        Raises:
            IrdistillError: there is no such document.
        """
        found = self._find(doc_id)
        if found < 0:
            raise IrdistillError(
                f"there is no document {doc_id!r} in this corpus of {len(self)} documents."
            )
        return found

    def rows(self, doc_ids: Sequence[str]) -> np.ndarray:
        """The rows of many ids, (n,) int64.

        Raises:
            IrdistillError: some are unknown; the message names the first of them.
        """
        found = self.find(doc_ids)
        if (found < 0).any():
            unknown = [doc_ids[place] for place in np.flatnonzero(found < 0).tolist()]
            named = ", ".join(repr(doc_id) for doc_id in unknown[:5])
            raise IrdistillError(
                f"{len(unknown)} of {len(doc_ids)} document ids are not in this corpus of"
                f" {len(self)} documents: {named}{' ...' if len(unknown) > 5 else ''}. Were they"
                " made with another collection?"
            )
        return found

    def find(self, doc_ids: Sequence[str]) -> np.ndarray:
        """The rows of many ids, (n,) int64, -1 where an id is unknown."""
        return self.find_fields(ByteStrings.of(doc_ids))

    def find_fields(self, doc_ids: ByteStrings, hashes: np.ndarray | None = None) -> np.ndarray:
        """The rows of many ids, (n,) int64, -1 where an id is unknown.

        Args:
            hashes: those of the ids, where they are known already.
        """
        rows = np.full(len(doc_ids), -1, dtype=np.int64)
        if not len(doc_ids):
            return rows
        places = self._search(doc_ids.hashes() if hashes is None else hashes)
        hits = np.flatnonzero(places >= 0)
        rows[hits] = self._rows[places[hits]]
        differs = hits[~self.id_fields(rows[hits]).equal(doc_ids.take(hits))]
        for place in differs.tolist():  # another id of the same hash
            rows[place] = self._find(doc_ids.bytes_at(place).decode("utf-8", "surrogatepass"))
        return rows

    def _search(self, hashes: np.ndarray) -> np.ndarray:
        """The first place of each hash among the sorted ones, (n,) int64; -1 where it is not among
        them.

        Of a large file only the blocks that hold the hashes are read, by the first hash of each
        block.
        """
        if not len(self):
            return np.full(len(hashes), -1, dtype=np.int64)
        if isinstance(self._hashes, np.ndarray) or self._hashes.checked or len(hashes) >= FEW:
            return self._hash_index.places(hashes)
        blocks = np.searchsorted(self._first_hashes, hashes) - 1
        places = np.zeros(len(hashes), dtype=np.int64)
        for block in np.unique(blocks[blocks >= 0]).tolist():
            chosen, start = blocks == block, block * _BLOCK_HASHES
            places[chosen] = start + np.searchsorted(
                self._hashes[start : start + _BLOCK_HASHES], hashes[chosen]
            )
        places = np.minimum(places, len(self) - 1)
        return np.where(self._hashes[places] == hashes, places, -1)

    @cached_property
    def _hash_index(self) -> HashIndex:
        if isinstance(self._rows, CheckedArray):
            np.asarray(self._rows)
        return HashIndex(np.asarray(self._hashes))

    def _find(self, doc_id: str) -> int:
        wanted = np.uint64(id_hash(doc_id))
        place = int(self._search(np.array([wanted]))[0])
        while 0 <= place < len(self) and self._hashes[place] == wanted:
            row = int(self._rows[place])
            if self.id(row) == doc_id:
                return row
            place += 1
        return -1


class Fingerprint:
    """SHA-256 over ids, titles and texts, each with its length before it, in row order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, document: Document) -> None:
        """Take in a document."""
        for value in (document.id, document.title, document.text):
            data = value.encode("utf-8")
            self._hash.update(len(data).to_bytes(8, "little") + data)

    def value(self) -> str:
        """16 hexadecimal digits."""
        return self._hash.hexdigest()[:16]


def id_hash(doc_id: str) -> int:
    """xxh64 of an id; lone surrogates, which no stored id can hold, hash without failing."""
    return xxhash.xxh64_intdigest(doc_id.encode("utf-8", "surrogatepass"))


def joined(title: str, text: str) -> str:
    """What a model reads of a document."""
    return f"{title} {text}" if title else text


class _Ids(Sequence[str]):
    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def __len__(self) -> int:
        return len(self._corpus)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return self._corpus._batches.take(0, np.arange(len(self))[index])
        return self._corpus.id(index + len(self) if index < 0 else index)

    def __iter__(self) -> Iterator[str]:
        for batch in self._corpus._batches:
            yield from batch.column(0).to_pylist()

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and self._corpus.has(value)


def first_hashes(path: Path, count: int) -> str:
    """The first hash of each block of a file of sorted hashes, as hexadecimal digits."""
    return mapped(path, "<u8", count)[::_BLOCK_HASHES].tobytes().hex()


def _bytes_of(path: Path) -> np.ndarray:
    """All bytes of a file, as a read-only memory map."""
    return np.memmap(path, np.uint8, "r")


def mapped(path: Path, dtype: str, count: int) -> np.ndarray:
    """A read-only view of a file of numbers (an empty file cannot be mapped)."""
    return (
        np.memmap(path, dtype=dtype, mode="r", shape=(count,))
        if count
        else np.empty(0, dtype=dtype)
    )
