"""The passages of a collection on disk: ``passages.parquet`` and ``passages.json``.

The table has for each passage its document id, its number in the document, its first and last
character (exclusive) in the document's text, and the number of characters of the title in front of
it. The manifest says how the documents were split and of which corpus they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from irdistill.collections.compiling import open_or_compile
from irdistill.collections.corpus import FORMAT as CORPUS_FORMAT
from irdistill.collections.corpus import Corpus
from irdistill.collections.document_table import Document
from irdistill.collections.passage_corpus import Passages, passage_id
from irdistill.errors import DamagedError, InputError
from irdistill.storage.checksums import read_sealed
from irdistill.storage.files import cache_folder, digest, file_sha256

PASSAGES, MANIFEST = "passages.parquet", "passages.json"
PASSAGE_FILES = (PASSAGES, MANIFEST)
"""The files of the passages in the folder of a collection."""
SCHEMA = pa.schema(
    [
        ("doc_id", pa.string()),
        ("number", pa.int32()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("title", pa.int32()),
    ]
)
_AGAIN = "Split the documents again: collect with --passage-tokens, or split_into_passages."


def has_passages(folder: Path) -> bool:
    """Whether the documents of a collection's folder are split."""
    return any((folder / name).is_file() for name in PASSAGE_FILES)


def open_passages(folder: Path, corpus: Corpus, cache: Path | None = None) -> Passages:
    """Open the passages in a folder; their texts are compiled on first use.

    Raises:
        InputError: they are not finished, or were made of other documents.
        DamagedError: a file is not what was written.
    """
    path = folder / PASSAGES
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{path} is not finished: {MANIFEST} is missing. {_AGAIN}")
    manifest = read_sealed(folder / MANIFEST, _AGAIN)
    if manifest.get("corpus") != corpus.fingerprint:
        raise InputError(
            f"{path} has the passages of other documents: those of a corpus with the fingerprint"
            f" {manifest.get('corpus')}, and the documents in that folder have"
            f" {corpus.fingerprint}. {_AGAIN}"
        )
    if not path.is_file() or file_sha256(path) != manifest["sha256"]:
        raise DamagedError(path, "is missing or damaged: its SHA-256 differs", _AGAIN)
    starts = _starts(path, len(corpus))
    key = digest([CORPUS_FORMAT, "passages", corpus.fingerprint, manifest["sha256"]])
    compiled = open_or_compile(
        lambda: _read(path, corpus), (cache or cache_folder()) / "corpora" / key, PASSAGES
    )
    return Passages(compiled, starts, manifest["settings"])


def _starts(path: Path, documents: int) -> np.ndarray:
    """(N + 1,) int64: the first passage of each document, and the number of passages."""
    # `read_table` and `to_numpy` load pandas, which takes half a second
    with pq.ParquetFile(path) as table:
        chunks = table.read(["number"]).column("number").chunks
    numbers = np.concatenate([np.empty(0, np.int32), *map(np.from_dlpack, chunks)])
    starts = np.append(np.flatnonzero(numbers == 0), len(numbers)).astype(np.int64)
    if len(starts) != documents + 1:
        raise InputError(
            f"{path} has passages of {len(starts) - 1} documents, and the corpus has {documents}."
            f" {_AGAIN}"
        )
    return starts


def _read(path: Path, corpus: Corpus) -> Iterator[Document]:
    """The passages as documents of their own corpus."""
    documents = corpus.documents()
    document = Document("", "", "")
    line = 0
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=4096):
            columns = (batch.column(name).to_pylist() for name in SCHEMA.names)
            for doc_id, number, start, end, title in zip(*columns, strict=True):
                if number == 0:
                    document = next(documents)
                line += 1
                if doc_id != document.id:
                    raise InputError(
                        f"row {line} of {path} is of document {doc_id!r}, and {document.id!r} was"
                        f" expected. {_AGAIN}"
                    )
                text = document.text[start:end].strip()
                yield Document(passage_id(doc_id, number), document.title[:title], text, line)
