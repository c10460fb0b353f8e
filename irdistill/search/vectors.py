"""The vectors of a corpus in one memory-mapped file, written by shards so that a kill costs one of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash

from irdistill.batching import TokenBudget
from irdistill.collections import Corpus
from irdistill.errors import IrdistillError
from irdistill.files import (
    cache_folder,
    digest,
    exclusive,
    explain_os_errors,
    fsync_folder,
    make_folder,
    read_json,
    write_json,
)
from irdistill.hardware import Precision, choose_dtype
from irdistill.progress import progress
from irdistill.students.dense import DenseStudent

logger = logging.getLogger(__name__)

FORMAT = 1
Storage = Literal["float32", "float16"]
_VECTORS, _MANIFEST, _DONE = "vectors.bin", "manifest.json", "shards.json"


class VectorStore:
    """N vectors of dimension D, row for row those of the corpus; unit length where the student says cosine.

    So the inner product is the student's similarity in either case.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a finished store.

        Raises:
            IrdistillError: it does not exist, is unfinished, or is damaged.
        """
        self.folder = Path(folder)
        if not (self.folder / _MANIFEST).is_file():
            raise IrdistillError(
                f"{self.folder} holds no finished vectors; build them first (the same command continues)."
            )
        self.manifest: dict[str, Any] = read_json(self.folder / _MANIFEST)
        self.identity: dict[str, Any] = self.manifest["identity"]
        self.rows, self.dimension = int(self.manifest["rows"]), int(self.manifest["dimension"])
        self.dtype = np.dtype(self.identity["storage"])
        path = self.folder / _VECTORS
        expected = self.rows * self.dimension * self.dtype.itemsize
        if not path.is_file() or path.stat().st_size != expected:
            raise IrdistillError(
                f"{path} should have {expected} bytes and does not; delete {self.folder} and build again."
            )

    def __len__(self) -> int:
        return self.rows

    @property
    def matrix(self) -> np.ndarray:
        """(N, D) read-only memory map in the stored type."""
        shape = (self.rows, self.dimension)
        if not self.rows:
            return np.empty(shape, dtype=self.dtype)
        return np.memmap(self.folder / _VECTORS, dtype=self.dtype, mode="r", shape=shape)

    @property
    def fingerprint(self) -> str:
        """A digest of the identity and of every shard's bytes."""
        return digest([self.identity, self.manifest["shards"]])

    @property
    def nbytes(self) -> int:
        """The size of the vectors."""
        return self.rows * self.dimension * self.dtype.itemsize

    @classmethod
    def build(cls, corpus: Corpus, encoder: DenseStudent, folder: str | Path, *, shard_rows: int = 8192,
              precision: Precision = "auto", storage: Storage = "float32", budget: int | None = None,
              overwrite: bool = False) -> VectorStore:
        """Encode a corpus, or go on where an earlier call was stopped.

        A shard is a fixed range of rows, encoded by itself, so the bytes do not depend on interruptions.

        Raises:
            IrdistillError: the folder holds vectors of something else (and ``overwrite`` is not set), another
                process writes there, or the disk is full.
        """
        folder = make_folder(folder)
        identity = {
            "format": FORMAT, "corpus": corpus.fingerprint, "weights": encoder.weights_digest("document"),
            "prompt": encoder.identity()["prompts"]["document"], "max_length": encoder.max_length("document"),
            "similarity": encoder.similarity, "storage": storage, "shard_rows": shard_rows,
            "precision": str(choose_dtype(precision, encoder.device)).removeprefix("torch."), **_cut(encoder),
        }
        with exclusive(folder):
            done = _continue(folder, identity, overwrite)
            if done is None:
                return cls(folder)
            limit = TokenBudget(budget) if budget is not None else None

            def encode(start: int, end: int) -> np.ndarray:
                texts = corpus.texts(range(start, end))
                return encoder.encode(texts, "document", precision, limit, show_progress=False,
                                      normalize=encoder.similarity == "cosine").astype(storage)

            _write_shards(folder, identity, done, len(corpus), encoder.dimension, encode)
        return cls(folder)


def _cut(encoder: DenseStudent) -> dict[str, int]:
    """Of vectors that are cut, their length."""
    return {} if encoder.model.truncate_dim is None else {"dimension": encoder.dimension}


def _continue(folder: Path, identity: dict[str, Any], overwrite: bool) -> dict[str, str] | None:
    """The checksums of the shards that are there, or None when all are; an error for another identity."""
    for name in (_MANIFEST, _DONE):
        if not (folder / name).is_file():
            continue
        found = read_json(folder / name)
        if found["identity"] == identity:
            return None if name == _MANIFEST else dict(found["shards"])
        if overwrite:
            (folder / name).unlink()
            continue
        keys = [key for key in identity if found["identity"].get(key) != identity[key]]
        there = found["identity"]
        difference = "; ".join(f"{key}: {there.get(key)!r} there, {identity[key]!r} now" for key in keys)
        raise IrdistillError(
            f"{folder} holds the vectors of something else ({difference}). "
            "Choose another folder, or pass --overwrite to replace them."
        )
    (folder / _VECTORS).unlink(missing_ok=True)
    return {}


def _write_shards(folder: Path, identity: dict[str, Any], done: dict[str, str], rows: int, dimension: int,
                  encode: Callable[[int, int], np.ndarray]) -> None:
    """Write every missing shard at its place in the file, fsync it, then note it; at the end the manifest."""
    size, width = identity["shard_rows"], dimension * np.dtype(identity["storage"]).itemsize
    path = folder / _VECTORS
    with explain_os_errors(path), progress(rows, "documents", "encode") as bar:
        write_json(folder / _DONE, {"identity": identity, "shards": done})
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            for number, start in enumerate(range(0, rows, size)):
                end = min(start + size, rows)
                if str(number) not in done:
                    data = np.ascontiguousarray(encode(start, end)).tobytes()
                    view, offset = memoryview(data), start * width
                    while view:
                        written = os.pwrite(descriptor, view, offset)
                        view, offset = view[written:], offset + written
                    os.fsync(descriptor)
                    done[str(number)] = xxhash.xxh3_128_hexdigest(data)
                    write_json(folder / _DONE, {"identity": identity, "shards": done})
                bar.update(end - start)
            os.ftruncate(descriptor, rows * width)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    shards = [done[str(number)] for number in range(len(done))]
    manifest = {"identity": identity, "rows": rows, "dimension": dimension, "shards": shards}
    write_json(folder / _MANIFEST, manifest)
    (folder / _DONE).unlink(missing_ok=True)
    fsync_folder(folder)


def corpus_vectors(corpus: Corpus, encoder: DenseStudent, work: str | Path | None = None, precision: Precision = "auto",
                   storage: Storage = "float32") -> VectorStore:
    """The vectors of a corpus, built on first use, in a folder named by all that decides them.

    Students that share a frozen document tower share it.

    Args:
        work: the folder of such folders; the cache folder where None.
    """
    dtype = str(choose_dtype(precision, encoder.device)).removeprefix("torch.")
    key = digest([corpus.fingerprint, encoder.weights_digest("document"), encoder.identity()["prompts"]["document"],
                  encoder.max_length("document"), encoder.similarity, dtype, storage, *_cut(encoder).values()])
    base = Path(work) if work is not None else cache_folder() / "vectors"
    return VectorStore.build(corpus, encoder, base / key, precision=precision, storage=storage)
