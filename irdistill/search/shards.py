"""Arrays with a row (or some) for each document, in memory-mapped files written by shards, so that a kill costs one of them."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import starmap
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from irdistill.errors import IrdistillError
from irdistill.files import digest, exclusive, explain_os_errors, fsync_folder, make_folder, read_json, write_json
from irdistill.progress import Relay, progress
from irdistill.truncation import Truncation

TRUNCATION = "truncation"
"""What a maker of arrays may give beside them: the counts of the texts that it tokenized, as `Truncation.to_array` writes them."""
_MANIFEST, _DONE = "manifest.json", "shards.json"
#: Bytes of a memory map that are held at a time while a part of it is copied.
_MAPPED = 16 << 20

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""The arrays of a store: the name of each, its type, and the shape of one of its items."""

Spread = Callable[[Iterable[tuple[int, int]]], Iterator[Mapping[str, np.ndarray]]]
"""Makes the arrays of ranges of documents (from, up to) elsewhere, and gives them in the order asked."""


class Arrays:
    """The finished arrays in a folder.

    Attributes:
        identity: what decides their contents.
        rows: the documents they are of.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open them.

        Raises:
            IrdistillError: there are none, they are unfinished, or damaged.
        """
        self.folder = Path(folder)
        if not (self.folder / _MANIFEST).is_file():
            raise IrdistillError(f"{self.folder} holds no finished vectors; build them first (the same command continues).")
        self.manifest: dict[str, Any] = read_json(self.folder / _MANIFEST)
        self.identity: dict[str, Any] = self.manifest["identity"]
        self.rows = int(self.manifest["rows"])
        for name, about in self.manifest["arrays"].items():
            path = self.folder / f"{name}.bin"
            if not path.is_file() or path.stat().st_size != about["bytes"]:
                raise IrdistillError(
                    f"{path} should have {about['bytes']} bytes and does not; delete {self.folder} and build again."
                )

    def __len__(self) -> int:
        return self.rows

    @property
    def truncation(self) -> Truncation:
        """What the model did not read of the documents; all 0 where this was not counted."""
        return Truncation(*self.manifest.get(TRUNCATION, ()))

    def array(self, name: str) -> np.ndarray:
        """A read-only memory map of an array, in the stored type."""
        about = self.manifest["arrays"][name]
        dtype, inner = np.dtype(about["dtype"]), tuple(about["shape"])
        shape = (about["bytes"] // (dtype.itemsize * int(np.prod(inner))), *inner)
        if not about["bytes"]:
            return np.empty(shape, dtype=dtype)
        return np.memmap(self.folder / f"{name}.bin", dtype=dtype, mode="r", shape=shape)

    @property
    def fingerprint(self) -> str:
        """A digest of the identity and of every shard's bytes."""
        return digest([self.identity, self.manifest["shards"]])

    @property
    def nbytes(self) -> int:
        """The size of the arrays."""
        return sum(int(about["bytes"]) for about in self.manifest["arrays"].values())


def write_arrays(folder: str | Path, identity: Mapping[str, Any], layout: Layout, rows: int, shard_rows: int,
                 make: Callable[[int, int], Mapping[str, np.ndarray]], overwrite: bool = False, what: str = "encode",
                 spread: Spread | None = None, relay: Relay | None = None) -> None:
    """Write the arrays of ``rows`` documents, or go on where an earlier call was stopped.

    A shard is a fixed range of documents, made by itself and appended, so the bytes do not depend on interruptions.

    Args:
        make: the arrays of the documents from one number up to another.
        what: is being done; for the progress bar.
        spread: is asked for all shards that are missing, in place of ``make``.
        relay: is told by ``make`` how many documents of a shard are finished, for the progress bar.

    Raises:
        IrdistillError: the folder holds arrays of something else (and ``overwrite`` is not set), another process writes
            there, or the disk is full.
    """
    folder, identity = make_folder(folder), dict(identity)
    with exclusive(folder):
        done = _done(folder, identity, layout, overwrite)
        if done is None:
            return
        write_json(folder / _DONE, {"identity": identity, "shards": done})
        with explain_os_errors(folder), progress(rows, "documents", what) as bar, ExitStack() as stack:
            files = {name: stack.enter_context(open(folder / f"{name}.bin", "ab")) for name in layout}
            for name, stream in files.items():  # what a killed process wrote of a shard is cut off
                stream.truncate(sum(shard["bytes"][name] for shard in done))
            ranges = [(start, min(start + shard_rows, rows)) for start in range(0, rows, shard_rows)]
            bar.update(sum(end - start for start, end in ranges[: len(done)]))
            missing = ranges[len(done) :]
            if relay is not None:
                relay.to = bar.update
            made = starmap(make, missing) if spread is None or not missing else spread(missing)
            stack.callback(getattr(made, "close", lambda: None))  # of a generator: its workers end with it
            for (_, end), arrays in zip(missing, made, strict=True):
                done.append(_append(files, layout, arrays))
                write_json(folder / _DONE, {"identity": identity, "shards": done})
                bar.update(max(0, end - bar.n))
        written = {name: {"dtype": dtype, "shape": list(inner), "bytes": sum(shard["bytes"][name] for shard in done)}
                   for name, (dtype, inner) in layout.items()}
        shards = [shard["checksum"] for shard in done]
        manifest = {"identity": identity, "rows": rows, "arrays": written, "shards": shards}
        if done and all(TRUNCATION in shard for shard in done):
            manifest[TRUNCATION] = np.sum([shard[TRUNCATION] for shard in done], axis=0).tolist()
        write_json(folder / _MANIFEST, manifest)
        (folder / _DONE).unlink(missing_ok=True)
        fsync_folder(folder)


def _done(folder: Path, identity: dict[str, Any], layout: Layout, overwrite: bool) -> list[dict[str, Any]] | None:
    """The shards that are there, or None when all are; an error for another identity."""
    for name in (_MANIFEST, _DONE):
        if not (folder / name).is_file():
            continue
        found = read_json(folder / name)
        there = found["identity"]
        if there == identity:
            return None if name == _MANIFEST else _whole(folder, layout, found["shards"])
        if overwrite:
            (folder / name).unlink()
            continue
        keys = [key for key in {**there, **identity} if there.get(key) != identity.get(key)]
        difference = "; ".join(f"{key}: {there.get(key)!r} there, {identity.get(key)!r} now" for key in keys)
        raise IrdistillError(
            f"{folder} holds the vectors of something else ({difference}). "
            "Choose another folder, or pass --overwrite to replace them."
        )
    return []


def _whole(folder: Path, layout: Layout, shards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first shards, as many as the files hold bytes of."""
    kept: list[dict[str, Any]] = []
    sizes = {name: path.stat().st_size if (path := folder / f"{name}.bin").is_file() else 0 for name in layout}
    for shard in shards:
        sizes = {name: sizes[name] - shard["bytes"][name] for name in layout}
        if min(sizes.values()) < 0:
            break
        kept.append(shard)
    return kept


def _append(files: Mapping[str, BinaryIO], layout: Layout, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Append one shard to each file and fsync it."""
    sizes, state = {}, xxhash.xxh3_128()
    for name, (dtype, inner) in layout.items():
        values = np.ascontiguousarray(arrays[name], dtype=dtype).reshape(-1, *inner)
        data = values.reshape(-1).view(np.uint8).data
        state.update(data)
        files[name].write(data)
        files[name].flush()
        os.fsync(files[name].fileno())
        sizes[name] = values.nbytes
    counts = {TRUNCATION: arrays[TRUNCATION].tolist()} if TRUNCATION in arrays else {}
    return {"bytes": sizes, "checksum": state.hexdigest(), **counts}


def read_part(array: np.ndarray, start: int, end: int) -> np.ndarray:
    """A copy in float32 of a part of an array.

    Of a memory map the pages read are given back, block by block: reading a file does not fill the process's memory with it.
    """
    part = np.empty((end - start, *array.shape[1:]), dtype=np.float32)
    row = max(1, array.nbytes // max(1, len(array)))
    held = getattr(array, "_mmap", None)
    mapped = held if isinstance(held, mmap.mmap) and getattr(array, "offset", -1) == 0 else None
    block = max(1, _MAPPED // row)
    for first in range(start, end, block):
        last = min(first + block, end)
        part[first - start : last - start] = array[first:last]
        if mapped is not None:
            page = first * row // mmap.PAGESIZE * mmap.PAGESIZE
            mapped.madvise(mmap.MADV_DONTNEED, page, last * row - page)
    return part
