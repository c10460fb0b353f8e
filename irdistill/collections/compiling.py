"""Compile a corpus once, as a stream with bounded memory.

A killed build leaves nothing that is used later.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from irdistill.collections.corpus import (
    FILES,
    FORMAT,
    Corpus,
    Fingerprint,
    first_hashes,
    id_hash,
    mapped,
)
from irdistill.collections.document_table import BATCH_ROWS, SCHEMA, Document, record_batch
from irdistill.collections.load_report import LoadReport, problems_json
from irdistill.console.progress_bars import progress
from irdistill.errors import InputError
from irdistill.storage.build_cache import open_or_build
from irdistill.storage.checksums import write_sealed
from irdistill.storage.files import explain_os_errors, fsync_file

BATCH_CHARACTERS = 4 << 20
_BUCKETS = 16
_PAIR = np.dtype([("hash", "<u8"), ("row", "<i8")])


def compile_corpus(documents: Iterable[Document], folder: Path, source: str) -> Corpus:
    """Write documents as a corpus into an existing, empty folder.

    Memory: at most 4096 documents, and 1/16 of the index (32 bytes per document) while it is
    sorted.

    Args:
        source: what error messages and problems call the origin (``corpus.jsonl.gz``).
    """
    report = LoadReport()
    writer = _Writer(folder)
    with explain_os_errors(folder), progress(None, "documents", f"compiling {source}") as bar:
        for document in documents:
            if not document.text.strip() and not document.title.strip():
                report.add("empty documents", f"{source} line {document.line} ({document.id})")
            writer.add(document)
            bar.update(1)
        writer.close()
        repeated = _repeated_rows(folder, writer, source, report)
        if len(repeated):
            writer = _rewrite_without(folder, repeated)
        (folder / "lines.bin").unlink()
        for name in FILES:
            fsync_file(folder / name)
        write_sealed(
            folder / "manifest.json",
            {
                "format": FORMAT,
                "source": source,
                "documents": writer.count,
                "fingerprint": writer.fingerprint.value(),
                "findings": problems_json(report.problems),
                "first_hashes": first_hashes(folder / "hashes.bin", writer.count),
            },
            FILES,
        )
    return Corpus.open(folder)


def open_or_compile(
    documents: Callable[[], Iterable[Document]], folder: Path, source: str
) -> Corpus:
    """Open the corpus in a folder, or compile it from the documents if it does not exist."""

    def build(aside: Path) -> None:
        compile_corpus(documents(), aside, source)

    return open_or_build(folder, build, Corpus.open)


class _Writer:
    """Writes documents to ``corpus.arrow`` and (hash, row) pairs to buckets, then sorts each
    bucket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fingerprint = Fingerprint()
        self.count = 0
        self._pending: list[Document] = []
        self._characters = 0
        self._starts = [0]
        self._offsets: list[int] = []
        self._sink = pa.OSFile(str(folder / "corpus.arrow"), "wb")
        self._arrow = pa.ipc.new_file(self._sink, SCHEMA)
        self._buckets = [_stream(folder / f"bucket-{number:02d}.bin") for number in range(_BUCKETS)]
        self._lines = _stream(folder / "lines.bin")

    def add(self, document: Document) -> None:
        self.fingerprint.add(document)
        self._pending.append(document)
        self._characters += len(document.text)
        if len(self._pending) >= BATCH_ROWS or self._characters >= BATCH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        self._offsets.append(self._sink.tell())
        self._arrow.write_batch(record_batch(self._pending))
        pairs = np.empty(len(self._pending), dtype=_PAIR)
        pairs["hash"] = [id_hash(document.id) for document in self._pending]
        pairs["row"] = np.arange(self.count, self.count + len(self._pending))
        numbers = pairs["hash"] >> np.uint64(60)
        for number in np.unique(numbers):
            self._buckets[int(number)].write(pairs[numbers == number].tobytes())
        self._lines.write(
            np.array([document.line for document in self._pending], dtype="<i8").tobytes()
        )
        self.count += len(self._pending)
        self._starts.append(self.count)
        self._pending, self._characters = [], 0

    def close(self) -> None:
        self._flush()
        self._offsets.append(self._sink.tell())
        self._arrow.close()
        self._sink.close()
        self._lines.close()
        np.array(self._offsets, dtype="<i8").tofile(self.folder / "offsets.bin")
        np.array(self._starts, dtype="<i8").tofile(self.folder / "starts.bin")
        with (
            open(self.folder / "hashes.bin", "wb") as hashes,
            open(self.folder / "rows.bin", "wb") as rows,
        ):
            for bucket in self._buckets:
                bucket.close()
                pairs = np.fromfile(bucket.name, dtype=_PAIR)
                pairs = pairs[np.argsort(pairs["hash"], kind="stable")]
                hashes.write(pairs["hash"].tobytes())
                rows.write(pairs["row"].tobytes())
                os.unlink(bucket.name)


def _repeated_rows(folder: Path, writer: _Writer, source: str, report: LoadReport) -> np.ndarray:
    """The sorted rows of documents that repeat the id and text of an earlier one."""
    hashes = mapped(folder / "hashes.bin", "<u8", writer.count)
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    if not len(same):
        return np.empty(0, dtype=np.int64)
    rows = mapped(folder / "rows.bin", "<i8", writer.count)
    lines = mapped(folder / "lines.bin", "<i8", writer.count)
    corpus = Corpus.over_files(folder, hashes, rows)
    repeated: list[int] = []
    first_rows: dict[str, int] = {}
    for row in np.unique(np.concatenate([rows[same], rows[same + 1]])).tolist():
        doc_id = corpus.id(row)
        first = first_rows.setdefault(doc_id, row)
        if first == row:
            continue
        if corpus.document(row) != corpus.document(first):
            raise InputError(
                f"{source} has the document id {doc_id!r} twice with different texts, in lines"
                f" {lines[first]} and {lines[row]}. Judgments and scores could mean either; rename"
                " or remove one."
            )
        place = f"{source} line {lines[row]} ({doc_id}, first in line {lines[first]})"
        report.add("duplicate documents", place)
        repeated.append(row)
    return np.array(repeated, dtype=np.int64)


def _rewrite_without(folder: Path, repeated: np.ndarray) -> _Writer:
    """Write the corpus again without the repeated documents."""
    first = folder / "first"
    first.mkdir()
    for name in ("corpus.arrow", "starts.bin"):
        os.replace(folder / name, first / name)
    no_index = np.empty(0, dtype=np.int64)
    writer = _Writer(folder)
    left_out = set(repeated.tolist())
    for row, document in enumerate(Corpus.over_files(first, no_index, no_index).documents()):
        if row not in left_out:
            writer.add(document)
    writer.close()
    shutil.rmtree(first)
    return writer


def _stream(path: Path) -> BinaryIO:
    """A file to write; the caller closes it."""
    return open(path, "wb")
