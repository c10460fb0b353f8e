"""The corpus: documents in a memory-mapped Arrow file, addressed by row number, found by id."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

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
from irdistill.errors import InputError, NotFoundError, WrongCollectionError
from irdistill.storage.checksums import BLOCK_BYTES, CheckedArray, open_files, read_sealed
from irdistill.storage.files import MappedPages, read_json

if TYPE_CHECKING:
    from irdistill.collections.passage_corpus import Passages

FORMAT = 2
"""Increased when the files of a compiled corpus change; older ones are compiled again."""
FILES = ("corpus.arrow", "starts.bin", "offsets.bin", "hashes.bin", "rows.bin")
_BLOCK_HASHES = BLOCK_BYTES // 8


class Corpus:
    """N documents in rows 0 to N-1, in the order of their file.

    A compiled corpus is memory-mapped: it opens at once and needs no memory, whatever its size.
    Pickling it stores only the name of its folder, so worker processes share the pages of one file.

    Attributes:
        passages: what the documents are split into; None if they are read whole.

    Examples:
        >>> corpus = Corpus.in_memory([Document("a", "Cats", "purr"), Document("b", "", "Dogs")])
        >>> corpus.texts([1, 0])
        ['Dogs', 'Cats purr']
        >>> corpus.find(["b", "unknown"])
        array([ 1, -1])
    """

    def __init__(
        self,
        batches: DocumentTable,
        hashes: np.ndarray | CheckedArray,
        rows: np.ndarray | CheckedArray,
        fingerprint: str,
        folder: Path | None = None,
        problems: dict[str, Any] | None = None,
    ) -> None:
        """Use ``Corpus.open``, ``Corpus.in_memory`` or ``compile_corpus``.

        Args:
            hashes: (N,) uint64, the xxh64 of the ids, sorted.
            rows: (N,) int64, the row of each hash.
            problems: those found while compiling, as JSON.
        """
        self._batches = batches
        self._hashes = hashes
        self._rows = rows
        self.fingerprint = fingerprint
        self.folder = folder
        self.problems: dict[str, Any] = problems or {}
        self.passages: Passages | None = None
        self._first_hashes = np.empty(0, dtype=np.uint64)

    @classmethod
    def open(cls, folder: str | Path) -> Corpus:
        """Open a compiled corpus."""
        folder = Path(folder)
        manifest = read_json(folder / "manifest.json")
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise NotFoundError(
                f"{folder} holds no compiled corpus of format {FORMAT}. Delete it and load the"
                " collection again."
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
        """The documents in a folder's ``corpus.arrow`` with an index, not checked; for
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
        """Make a small corpus without files.

        It has the same fingerprint as a compiled corpus with the same documents.
        """
        rows = [Document(*document) for document in documents]
        repeated = [doc_id for doc_id, n in Counter(row.id for row in rows).items() if n > 1]
        if repeated:
            raise InputError(f"the document id {repeated[0]!r} occurs twice; ids must be unique.")
        hashes = np.array([id_hash(document.id) for document in rows], dtype=np.uint64)
        order = np.argsort(hashes, kind="stable").astype(np.int64)
        fingerprint = Fingerprint()
        for document in rows:
            fingerprint.add(document)
        table = DocumentTable([record_batch(rows)], np.array([0, len(rows)], dtype=np.int64))
        return cls(table, hashes[order], order, fingerprint.value())

    def with_passages(self, passages: Passages | None) -> Corpus:
        """The same documents with other passages."""
        corpus = copy(self)
        corpus.passages = passages
        return corpus

    def __copy__(self) -> Corpus:
        corpus = Corpus.__new__(Corpus)
        corpus.__dict__.update(self.__dict__)
        return corpus

    def __reduce__(self) -> tuple[Any, ...]:
        state = {"passages": self.passages} if self.passages is not None else None
        if self.folder is not None:
            return Corpus.open, (self.folder,), state
        return Corpus.in_memory, (list(self.documents()),), state

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Corpus({len(self)} documents, fingerprint {self.fingerprint})"

    @property
    def ids(self) -> Sequence[str]:
        """All document ids in row order, read when they are used."""
        return _CorpusIds(self)

    def id(self, row: int) -> str:
        """The id of a row."""
        return self._batches.value(0, row)

    def ids_at(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The ids of many rows, in this order; rows may be repeated."""
        return self.id_fields(np.asarray(rows, dtype=np.int64)).texts() if len(rows) else []

    def id_fields(self, rows: np.ndarray) -> ByteStrings:
        """The ids of rows (n,) as byte strings, without a Python object for each."""
        return self._batches.ids(rows)

    def text(self, row: int) -> str:
        """Title, a space and text; only the text if there is no title."""
        return joined(self._batches.value(1, row), self._batches.value(2, row))

    def document(self, row: int) -> Document:
        """Id, title and text of a row."""
        doc_id, title, text = (self._batches.value(column, row) for column in range(3))
        return Document(doc_id, title, text)

    def texts(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The texts of many rows, in this order; rows may be repeated."""
        places = np.asarray(rows, dtype=np.int64)
        titles, texts = self._batches.take(1, places), self._batches.take(2, places)
        return [joined(title, text) for title, text in zip(titles, texts, strict=True)]

    def documents(self) -> Iterator[Document]:
        """All documents in row order, a batch in memory at a time."""
        for batch in self._batches:
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield Document(*values)

    def text_batches(self) -> Iterator[list[str]]:
        """The texts of all documents in row order, in lists of at most 4096."""
        for batch in self._batches:
            for start in range(0, len(batch), BATCH_ROWS):
                titles, texts = (
                    batch.column(column).slice(start, BATCH_ROWS).to_pylist() for column in (1, 2)
                )
                yield [joined(title, text) for title, text in zip(titles, texts, strict=True)]

    def has(self, doc_id: str) -> bool:
        """Whether there is a document with this id."""
        return self._find(doc_id) >= 0

    def row(self, doc_id: str) -> int:
        """The row of an id."""
        row = self._find(doc_id)
        if row < 0:
            raise NotFoundError(
                f"there is no document {doc_id!r} in this corpus of {len(self)} documents."
            )
        return row

    def rows(self, doc_ids: Sequence[str]) -> np.ndarray:
        """The rows of many ids, (n,) int64."""
        rows = self.find(doc_ids)
        if (rows < 0).any():
            unknown = [doc_ids[place] for place in np.flatnonzero(rows < 0).tolist()]
            first = ", ".join(repr(doc_id) for doc_id in unknown[:5])
            raise WrongCollectionError(
                f"{len(unknown)} of {len(doc_ids)} document ids are not in this corpus of"
                f" {len(self)} documents: {first}{' ...' if len(unknown) > 5 else ''}. Are they"
                " from another collection?"
            )
        return rows

    def find(self, doc_ids: Sequence[str]) -> np.ndarray:
        """The rows of many ids, (n,) int64, -1 where an id is unknown."""
        return self.find_fields(ByteStrings.of(doc_ids))

    def find_fields(self, doc_ids: ByteStrings, hashes: np.ndarray | None = None) -> np.ndarray:
        """The rows of many ids, (n,) int64, -1 where an id is unknown.

        Args:
            hashes: (n,) the hashes of the ids, if they are known.
        """
        rows = np.full(len(doc_ids), -1, dtype=np.int64)
        if not len(doc_ids):
            return rows
        places = self._search(doc_ids.hashes() if hashes is None else hashes)
        hits = np.flatnonzero(places >= 0)
        rows[hits] = self._rows[places[hits]]
        differs = hits[~self.id_fields(rows[hits]).equal(doc_ids.take(hits))]
        for place in differs.tolist():  # another id with the same hash
            rows[place] = self._find(doc_ids.bytes_at(place).decode("utf-8", "surrogatepass"))
        return rows

    def _search(self, hashes: np.ndarray) -> np.ndarray:
        """The first place of each hash in the sorted hashes, (n,) int64; -1 if it is absent.

        A few hashes read only their blocks of a large file, found by the first hash of each block.
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
        doc_hash = np.uint64(id_hash(doc_id))
        place = int(self._search(np.array([doc_hash]))[0])
        while 0 <= place < len(self) and self._hashes[place] == doc_hash:
            row = int(self._rows[place])
            if self.id(row) == doc_id:
                return row
            place += 1
        return -1


class Fingerprint:
    """SHA-256 of ids, titles and texts in row order, each preceded by its length."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, document: Document) -> None:
        """Add a document."""
        for value in (document.id, document.title, document.text):
            data = value.encode("utf-8")
            self._hash.update(len(data).to_bytes(8, "little") + data)

    def value(self) -> str:
        """16 hexadecimal digits."""
        return self._hash.hexdigest()[:16]


def id_hash(doc_id: str) -> int:
    """The xxh64 of an id. Lone surrogates, which no stored id has, are hashed too."""
    return xxhash.xxh64_intdigest(doc_id.encode("utf-8", "surrogatepass"))


def joined(title: str, text: str) -> str:
    """The text that a model reads: title, a space and text."""
    return f"{title} {text}" if title else text


class _CorpusIds(Sequence[str]):
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
    """The first hash of each block of a file with sorted hashes, as hexadecimal digits."""
    return mapped(path, "<u8", count)[::_BLOCK_HASHES].tobytes().hex()


def _bytes_of(path: Path) -> np.ndarray:
    """The bytes of a file as a read-only memory map."""
    return np.memmap(path, np.uint8, "r")


def mapped(path: Path, dtype: str, count: int) -> np.ndarray:
    """A file of numbers as a read-only memory map (an empty file cannot be mapped)."""
    return (
        np.memmap(path, dtype=dtype, mode="r", shape=(count,))
        if count
        else np.empty(0, dtype=dtype)
    )
