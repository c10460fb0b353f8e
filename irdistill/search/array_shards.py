"""Arrays with a row (or some) for each document, in memory-mapped files written by shards, so that
a kill costs one of them.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import starmap
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from irdistill.console.progress import ProgressRelay, describe_kept, note_on_interrupt, progress
from irdistill.errors import IrdistillError
from irdistill.modeling.truncation import Truncation
from irdistill.storage.checksums import (
    CheckedArray,
    clear_damage_mark,
    open_files,
    read_sealed,
    write_sealed,
)
from irdistill.storage.files import (
    differences,
    digest,
    explain_os_errors,
    fsync_folder,
    make_folder,
    read_json,
)
from irdistill.storage.locking import lock_folder
from irdistill.storage.ownership import is_in_cache, is_manifest, no_file, refuse_foreign_files

logger = logging.getLogger(__name__)

TRUNCATION = "truncation"
"""What a maker of arrays may give beside them: the counts of the texts that it tokenized, as
`Truncation.to_array` writes them.
"""
_MANIFEST, _DONE = "manifest.json", "shards.json"
#: Bytes of a memory map that are held at a time while a part of it is copied.
_MAPPED = 16 << 20

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""The arrays of a store: the name of each, its type, and the shape of one of its items."""

Spread = Callable[[Iterable[tuple[int, int]]], Iterator[Mapping[str, np.ndarray]]]
"""Makes the arrays of ranges of documents (from, up to) elsewhere, and gives them in the order
asked.
"""


class Arrays:
    """The finished arrays in a folder.

    Attributes:
        identity: what decides their contents.
        rows: the documents they are of.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open them.

        Small ones are checked completely; of large ones each block is checked when it is first
        read.

        Raises:
            IrdistillError: there are none, they are unfinished, or damaged.
        """
        self.folder = Path(folder)
        if not (self.folder / _MANIFEST).is_file():
            raise IrdistillError(
                f"{self.folder} holds no finished vectors; build them first (the same command"
                " continues)."
            )
        self.manifest: dict[str, Any] = read_sealed(self.folder / _MANIFEST)
        self.identity: dict[str, Any] = self.manifest["identity"]
        self.rows = int(self.manifest["rows"])
        self._arrays: dict[str, CheckedArray] = {}
        files = open_files(self.folder, self.manifest["files"])
        for name, about in self.manifest["arrays"].items():
            dtype, inner = np.dtype(about["dtype"]), tuple(about["shape"])
            shape = (about["bytes"] // (dtype.itemsize * int(np.prod(inner))), *inner)
            self._arrays[name] = CheckedArray(files[f"{name}.bin"], dtype, shape)

    def __len__(self) -> int:
        return self.rows

    @property
    def truncation(self) -> Truncation:
        """What the model did not read of the documents; all 0 where this was not counted."""
        return Truncation(*self.manifest.get(TRUNCATION, ()))

    def array(self, name: str) -> CheckedArray:
        """A read-only memory map of an array, in the stored type."""
        return self._arrays[name]

    @property
    def fingerprint(self) -> str:
        """A digest of the identity and of every shard's bytes."""
        return digest([self.identity, self.manifest["shards"]])

    @property
    def nbytes(self) -> int:
        """The size of the arrays."""
        return sum(int(about["bytes"]) for about in self.manifest["arrays"].values())


def write_arrays(
    folder: str | Path,
    identity: Mapping[str, Any],
    layout: Layout,
    rows: int,
    shard_rows: int,
    make: Callable[[int, int], Mapping[str, np.ndarray]],
    overwrite: bool = False,
    what: str = "encode",
    spread: Spread | None = None,
    relay: ProgressRelay | None = None,
) -> None:
    """Write the arrays of ``rows`` documents, or go on where an earlier call was stopped.

    A shard is a fixed range of documents, made by itself and appended, so the bytes do not depend
    on interruptions. Shards that were damaged since they were written are made again.

    Args:
        make: the arrays of the documents from one number up to another.
        what: is being done; for the progress bar.
        spread: is asked for all shards that are missing, in place of ``make``.
        relay: is told by ``make`` how many documents of a shard are finished, for the progress bar.

    Raises:
        IrdistillError: the folder holds arrays of something else (and ``overwrite`` is not set) or
            files of others, another process writes there, or the disk is full.
    """
    folder, identity = Path(folder), dict(identity)
    _refuse_others(folder, layout)
    make_folder(folder)
    with lock_folder(folder):
        done = _done(folder, identity, layout, overwrite)
        if done is None:
            return
        ranges = [(start, min(start + shard_rows, rows)) for start in range(0, rows, shard_rows)]
        kept = _whole(folder, layout, done)
        with (
            explain_os_errors(folder),
            progress(rows, "documents", what) as bar,
            note_on_interrupt(lambda: describe_kept(len(kept), len(ranges), f"shards of {folder}")),
        ):

            def reached(end: int) -> None:
                bar.update(max(0, end - bar.n))

            reached(ranges[len(kept) - 1][1] if kept else 0)
            if relay is not None:
                relay.target = bar.update
            if len(kept) < len(done):
                kept += _repaired(folder, layout, done, len(kept), ranges, make, reached)
            _append_shards(folder, identity, layout, kept, ranges, make, spread, reached)
        written = {
            name: {
                "dtype": dtype,
                "shape": list(inner),
                "bytes": sum(shard["bytes"][name] for shard in kept),
            }
            for name, (dtype, inner) in layout.items()
        }
        shards, sizes = [shard["checksum"] for shard in kept], [shard["bytes"] for shard in kept]
        content = {
            "identity": identity,
            "rows": rows,
            "arrays": written,
            "shards": shards,
            "shard_bytes": sizes,
        }
        if kept and all(TRUNCATION in shard for shard in kept):
            content[TRUNCATION] = np.sum([shard[TRUNCATION] for shard in kept], axis=0).tolist()
        write_sealed(folder / _MANIFEST, content, [f"{name}.bin" for name in layout])
        clear_damage_mark(folder)
        (folder / _DONE).unlink(missing_ok=True)
        fsync_folder(folder)


def _append_shards(
    folder: Path,
    identity: dict[str, Any],
    layout: Layout,
    done: list[dict[str, Any]],
    ranges: list[tuple[int, int]],
    make: Callable[[int, int], Mapping[str, np.ndarray]],
    spread: Spread | None,
    reached: Callable[[int], Any],
) -> None:
    """Make the shards that are missing, and add them to ``done``."""
    state = {"identity": identity, "arrays": list(layout)}
    write_sealed(folder / _DONE, state | {"shards": done})
    (folder / _MANIFEST).unlink(missing_ok=True)
    with ExitStack() as stack:
        files = {name: stack.enter_context(open(folder / f"{name}.bin", "ab")) for name in layout}
        for name, stream in files.items():  # what a killed process wrote of a shard is cut off
            stream.truncate(sum(shard["bytes"][name] for shard in done))
        missing = ranges[len(done) :]
        made = starmap(make, missing) if spread is None or not missing else spread(missing)
        stack.callback(
            getattr(made, "close", lambda: None)
        )  # of a generator: its workers end with it
        for (_, end), arrays in zip(missing, made, strict=True):
            done.append(_append(files, layout, arrays))
            write_sealed(folder / _DONE, state | {"shards": done})
            reached(end)


def _done(
    folder: Path, identity: dict[str, Any], layout: Layout, overwrite: bool
) -> list[dict[str, Any]] | None:
    """The shards that are written, or None when all are and they can be opened; an error for
    another identity.
    """
    for name in (_MANIFEST, _DONE):
        if not (folder / name).is_file():
            continue
        try:
            stored = read_sealed(folder / name)
            there = stored["identity"]
        except (IrdistillError, KeyError, TypeError):
            logger.warning(
                "%s is damaged or of an earlier version; the vectors in %s are built again",
                name,
                folder,
            )
            _forget(folder, layout)
            return []
        if there == identity:
            if name == _MANIFEST:
                try:
                    Arrays(folder)
                    return None
                except IrdistillError as error:
                    logger.warning("%s", error)
            return _recorded(stored, layout)
        if overwrite:
            _forget(folder, layout)
            continue
        raise IrdistillError(
            f"{folder} holds the vectors of something else"
            f" ({'; '.join(differences(there, identity))}). Choose another folder, or pass"
            " --overwrite to replace them."
        )
    _forget(folder, layout)
    return []


def _refuse_others(folder: Path, layout: Layout) -> None:
    """Refuse a folder that holds files of others under names that would be written."""
    manifest = next(
        (name for name in (_MANIFEST, _DONE) if is_manifest(folder / name, ("identity", "shards"))),
        None,
    )
    if manifest is not None:
        arrays = read_json(folder / manifest).get("arrays") or ()
        others = {f"{name}.bin" for name in layout if name not in arrays}
        refuse_foreign_files(folder, lambda name: name not in others, "the vectors of a corpus")
    elif not is_in_cache(folder):
        refuse_foreign_files(folder, no_file, "the vectors of a corpus")


def _recorded(stored: Mapping[str, Any], layout: Layout) -> list[dict[str, Any]]:
    """The shards that a manifest or the list of written shards names; none where it cannot be
    read.
    """
    try:
        shards = stored["shards"]
        if "shard_bytes" in stored:
            shards = [
                {"checksum": one, "bytes": sizes}
                for one, sizes in zip(shards, stored["shard_bytes"], strict=True)
            ]
        valid = all(
            isinstance(shard["checksum"], str) and min(shard["bytes"][name] for name in layout) >= 0
            for shard in shards
        )
        return list(shards) if valid else []
    except (KeyError, TypeError, ValueError):
        return []


def _forget(folder: Path, layout: Layout) -> None:
    """Remove what is replaced; other processes keep what they have open."""
    for name in (_MANIFEST, _DONE, *(f"{name}.bin" for name in layout)):
        (folder / name).unlink(missing_ok=True)


def _whole(folder: Path, layout: Layout, shards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first shards, as many as the files hold with the checksums that were written."""
    kept: list[dict[str, Any]] = []
    with ExitStack() as stack:
        try:
            files = {
                name: stack.enter_context(open(folder / f"{name}.bin", "rb")) for name in layout
            }
        except FileNotFoundError:
            return []
        for shard in shards:
            state = xxhash.xxh3_128()
            for name, stream in files.items():
                state.update(stream.read(shard["bytes"][name]))
            if state.hexdigest() != shard["checksum"]:
                break
            kept.append(shard)
    return kept


def _repaired(
    folder: Path,
    layout: Layout,
    shards: list[dict[str, Any]],
    first: int,
    ranges: list[tuple[int, int]],
    make: Callable[[int, int], Mapping[str, np.ndarray]],
    reached: Callable[[int], Any],
) -> list[dict[str, Any]]:
    """The shards from ``first`` on, with each damaged one written again in its place; up to one
    that has another size now.
    """
    kept: list[dict[str, Any]] = []
    starts = {name: sum(shard["bytes"][name] for shard in shards[:first]) for name in layout}
    with ExitStack() as stack:
        files = {}
        for name in layout:
            (folder / f"{name}.bin").touch()
            files[name] = stack.enter_context(open(folder / f"{name}.bin", "r+b"))
        for shard, (start, end) in zip(shards[first:], ranges[first:], strict=False):
            state = xxhash.xxh3_128()
            for name, stream in files.items():
                stream.seek(starts[name])
                state.update(stream.read(shard["bytes"][name]))
                stream.seek(starts[name])
            if state.hexdigest() != shard["checksum"]:
                logger.warning(
                    "documents %d to %d of %s are damaged and are made again",
                    start,
                    end - 1,
                    folder,
                )
                again = make(start, end)
                if any(
                    _flat(layout, name, again).nbytes != shard["bytes"][name] for name in layout
                ):
                    return kept
                shard = _append(files, layout, again)
            kept.append(shard)
            starts = {name: starts[name] + shard["bytes"][name] for name in layout}
            reached(end)
    return kept


def _flat(layout: Layout, name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    dtype, inner = layout[name]
    return np.ascontiguousarray(arrays[name], dtype=dtype).reshape(-1, *inner)


def _append(
    files: Mapping[str, BinaryIO], layout: Layout, arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Write one shard to each file, where it is, and fsync it."""
    sizes, state = {}, xxhash.xxh3_128()
    for name in layout:
        values = _flat(layout, name, arrays)
        data = values.reshape(-1).view(np.uint8).data
        state.update(data)
        files[name].write(data)
        files[name].flush()
        os.fsync(files[name].fileno())
        sizes[name] = values.nbytes
    counts = {TRUNCATION: arrays[TRUNCATION].tolist()} if TRUNCATION in arrays else {}
    return {"bytes": sizes, "checksum": state.hexdigest(), **counts}


def read_part(array: np.ndarray | CheckedArray, start: int, end: int) -> np.ndarray:
    """A copy in float32 of a part of an array.

    Of a memory map the pages read are given back, block by block: reading a file does not fill the
    process's memory with it.
    """
    part = np.empty((end - start, *array.shape[1:]), dtype=np.float32)
    row = max(1, array.nbytes // max(1, len(array)))
    plain = array.map if isinstance(array, CheckedArray) else array
    held = getattr(plain, "_mmap", None)
    mapped = held if isinstance(held, mmap.mmap) and getattr(plain, "offset", -1) == 0 else None
    block = max(1, _MAPPED // row)
    for first in range(start, end, block):
        last = min(first + block, end)
        part[first - start : last - start] = array[first:last]
        if mapped is not None:
            page = first * row // mmap.PAGESIZE * mmap.PAGESIZE
            mapped.madvise(mmap.MADV_DONTNEED, page, last * row - page)
    return part
