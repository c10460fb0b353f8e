"""Arrays with one or more rows per document, in memory-mapped files that are written in shards.

A shard is the unit of work: an interrupted job loses one shard at most.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from irdistill.console.progress_bars import (
    ProgressRelay,
    describe_kept,
    note_on_interrupt,
    progress,
)
from irdistill.errors import IrdistillError, NotFoundError, OutputExistsError
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
"""Key under which `ArrayMaker` may return the counts of `Truncation.to_array`."""
_MANIFEST, _SHARDS = "manifest.json", "shards.json"
_READ_BYTES = 16 << 20
"""Bytes of a memory map that stay in memory while a part of it is copied."""

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name of each array -> its type and the shape of one item."""
ArrayMaker = Callable[[int, int], Mapping[str, np.ndarray]]
"""Returns the arrays of the documents from a start up to an end."""
RangesMaker = Callable[[Iterable[tuple[int, int]]], Iterator[Mapping[str, np.ndarray]]]
"""Yields the arrays of ranges of documents in order, made elsewhere."""
Shard = dict[str, Any]
"""The checksum of a shard, its bytes in each array, and perhaps truncation counts."""


class Arrays:
    """Finished arrays in a folder.

    Attributes:
        identity: everything that determines the contents.
        rows: number of documents.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open arrays.

        Small files are checked now; large files are checked block by block when they are read.
        """
        self.folder = Path(folder)
        if not (self.folder / _MANIFEST).is_file():
            raise NotFoundError(
                f"{self.folder} contains no finished vectors; run the same command again to"
                " build them."
            )
        self.manifest: dict[str, Any] = read_sealed(self.folder / _MANIFEST)
        self.identity: dict[str, Any] = self.manifest["identity"]
        self.rows = int(self.manifest["rows"])
        self._arrays: dict[str, CheckedArray] = {}
        files = open_files(self.folder, self.manifest["files"])
        for name, entry in self.manifest["arrays"].items():
            dtype, item = np.dtype(entry["dtype"]), tuple(entry["shape"])
            shape = (entry["bytes"] // (dtype.itemsize * int(np.prod(item))), *item)
            self._arrays[name] = CheckedArray(files[f"{name}.bin"], dtype, shape)

    def __len__(self) -> int:
        return self.rows

    @property
    def truncation(self) -> Truncation:
        """How much of the documents the model did not read; zeros when it was not counted."""
        return Truncation(*self.manifest.get(TRUNCATION, ()))

    def array(self, name: str) -> CheckedArray:
        """A read-only memory map of an array in its stored type."""
        return self._arrays[name]

    @property
    def fingerprint(self) -> str:
        """Hash of the identity and of the bytes of all shards."""
        return digest([self.identity, self.manifest["shards"]])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(int(entry["bytes"]) for entry in self.manifest["arrays"].values())


@dataclass(frozen=True)
class ShardOptions:
    """Options of `write_arrays`.

    Attributes:
        label: label of the progress bar.
        make_ranges: makes missing shards elsewhere (default: in this process).
        relay: receives the number of finished documents within a shard, for the progress bar.
    """

    label: str = "encode"
    make_ranges: RangesMaker | None = None
    relay: ProgressRelay | None = None


def write_arrays(
    folder: str | Path,
    identity: Mapping[str, Any],
    layout: Layout,
    rows: int,
    shard_rows: int,
    make: ArrayMaker,
    options: ShardOptions | None = None,
) -> None:
    """Write the arrays of ``rows`` documents. An interrupted job resumes.

    A shard is a fixed range of documents and made independently, so the bytes do not depend on
    interruptions. Damaged shards are made again.
    """
    options, folder = options or ShardOptions(), Path(folder)
    _refuse_foreign(folder, layout)
    make_folder(folder)
    with lock_folder(folder, wait=is_in_cache(folder)):
        writer = _ShardWriter(folder, dict(identity), layout, make)
        recorded = writer.recorded_shards()
        if recorded is None:
            return
        ranges = [(start, min(start + shard_rows, rows)) for start in range(0, rows, shard_rows)]
        shards = writer.intact_shards(recorded)
        with (
            explain_os_errors(folder),
            progress(rows, "documents", options.label) as bar,
            note_on_interrupt(
                lambda: describe_kept(len(shards), len(ranges), f"shards of {folder}")
            ),
        ):

            def reached(end: int) -> None:
                bar.update(max(0, end - bar.n))

            reached(ranges[len(shards) - 1][1] if shards else 0)
            if options.relay is not None:
                options.relay.target = bar.update
            if len(shards) < len(recorded):
                shards += writer.repair(recorded, len(shards), ranges, reached)
            writer.append_missing(shards, ranges, options.make_ranges, reached)
        writer.finish(rows, shards)


@dataclass
class _ShardWriter:
    """Writes the shards of one folder."""

    folder: Path
    identity: dict[str, Any]
    layout: Layout
    make: ArrayMaker

    def recorded_shards(self) -> list[Shard] | None:
        """Shards that a manifest lists; None when the arrays are finished and can be opened."""
        for name in (_MANIFEST, _SHARDS):
            if not (self.folder / name).is_file():
                continue
            try:
                stored = read_sealed(self.folder / name)
                stored_identity = stored["identity"]
            except (IrdistillError, KeyError, TypeError):
                logger.warning(
                    "%s is damaged or from an earlier version; the vectors in %s are rebuilt",
                    name,
                    self.folder,
                )
                break
            if stored_identity == self.identity:
                if name == _MANIFEST:
                    try:
                        Arrays(self.folder)
                        return None
                    except IrdistillError as error:
                        logger.warning("%s", error)
                return _shards_in(stored, self.layout)
            changes = "; ".join(differences(stored_identity, self.identity))
            raise OutputExistsError(
                f"{self.folder} contains other vectors ({changes}). Choose another folder."
            )
        for name in (_MANIFEST, _SHARDS, *(f"{name}.bin" for name in self.layout)):
            (self.folder / name).unlink(missing_ok=True)  # open files of other processes stay valid
        return []

    def intact_shards(self, recorded: list[Shard]) -> list[Shard]:
        """The leading shards whose bytes have the recorded checksums."""
        intact: list[Shard] = []
        with ExitStack() as stack:
            try:
                files = self._open(stack, "rb")
            except FileNotFoundError:
                return []
            for shard in recorded:
                if _read_checksum(files, shard) != shard["checksum"]:
                    break
                intact.append(shard)
        return intact

    def repair(
        self,
        recorded: list[Shard],
        first: int,
        ranges: list[tuple[int, int]],
        reached: Callable[[int], None],
    ) -> list[Shard]:
        """The shards from ``first`` on, damaged ones made again in place.

        It stops at a shard that has another size now.
        """
        shards: list[Shard] = []
        starts = {
            name: sum(shard["bytes"][name] for shard in recorded[:first]) for name in self.layout
        }
        with ExitStack() as stack:
            for name in self.layout:
                (self.folder / f"{name}.bin").touch()
            files = self._open(stack, "r+b")
            for shard, (start, end) in zip(recorded[first:], ranges[first:], strict=False):
                _seek(files, starts)
                if _read_checksum(files, shard) != shard["checksum"]:
                    logger.warning(
                        "documents %d to %d of %s are damaged and are made again",
                        start,
                        end - 1,
                        self.folder,
                    )
                    arrays = self.make(start, end)
                    sizes = {name: self._stored(name, arrays).nbytes for name in self.layout}
                    if sizes != shard["bytes"]:
                        break
                    _seek(files, starts)
                    shard = self._append(files, arrays)
                shards.append(shard)
                starts = {name: starts[name] + shard["bytes"][name] for name in self.layout}
                reached(end)
        return shards

    def append_missing(
        self,
        shards: list[Shard],
        ranges: list[tuple[int, int]],
        make_ranges: RangesMaker | None,
        reached: Callable[[int], None],
    ) -> None:
        """Make the missing shards, and append them to ``shards``."""
        state = {"identity": self.identity, "arrays": list(self.layout)}
        write_sealed(self.folder / _SHARDS, state | {"shards": shards})
        (self.folder / _MANIFEST).unlink(missing_ok=True)
        with ExitStack() as stack:
            files = self._open(stack, "ab")
            for name, stream in files.items():  # drop the unfinished shard of a killed process
                stream.truncate(sum(shard["bytes"][name] for shard in shards))
            missing = ranges[len(shards) :]
            results = (
                starmap(self.make, missing)
                if make_ranges is None or not missing
                else make_ranges(missing)
            )
            stack.callback(getattr(results, "close", lambda: None))  # ends a generator's workers
            for (_, end), arrays in zip(missing, results, strict=True):
                shards.append(self._append(files, arrays))
                write_sealed(self.folder / _SHARDS, state | {"shards": shards})
                reached(end)

    def finish(self, rows: int, shards: list[Shard]) -> None:
        """Write the manifest of the finished arrays."""
        content: dict[str, Any] = {
            "identity": self.identity,
            "rows": rows,
            "arrays": {
                name: {
                    "dtype": dtype,
                    "shape": list(item),
                    "bytes": sum(shard["bytes"][name] for shard in shards),
                }
                for name, (dtype, item) in self.layout.items()
            },
            "shards": [shard["checksum"] for shard in shards],
            "shard_bytes": [shard["bytes"] for shard in shards],
        }
        if shards and all(TRUNCATION in shard for shard in shards):
            content[TRUNCATION] = np.sum([shard[TRUNCATION] for shard in shards], axis=0).tolist()
        write_sealed(self.folder / _MANIFEST, content, [f"{name}.bin" for name in self.layout])
        clear_damage_mark(self.folder)
        (self.folder / _SHARDS).unlink(missing_ok=True)
        fsync_folder(self.folder)

    def _open(self, stack: ExitStack, mode: str) -> dict[str, BinaryIO]:
        return {
            name: stack.enter_context(open(self.folder / f"{name}.bin", mode))  # type: ignore[misc]
            for name in self.layout
        }

    def _stored(self, name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """An array in its stored type and shape."""
        dtype, item = self.layout[name]
        return np.ascontiguousarray(arrays[name], dtype=dtype).reshape(-1, *item)

    def _append(self, files: Mapping[str, BinaryIO], arrays: Mapping[str, np.ndarray]) -> Shard:
        """Write a shard at the position of each file, with fsync."""
        sizes, state = {}, xxhash.xxh3_128()
        for name, stream in files.items():
            values = self._stored(name, arrays)
            data = values.reshape(-1).view(np.uint8).data
            state.update(data)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
            sizes[name] = values.nbytes
        counts = {TRUNCATION: arrays[TRUNCATION].tolist()} if TRUNCATION in arrays else {}
        return {"bytes": sizes, "checksum": state.hexdigest(), **counts}


def _refuse_foreign(folder: Path, layout: Layout) -> None:
    """Refuse a folder with foreign files under the names of the arrays."""
    manifest = next(
        (
            name
            for name in (_MANIFEST, _SHARDS)
            if is_manifest(folder / name, ("identity", "shards"))
        ),
        None,
    )
    if manifest is not None:
        arrays = read_json(folder / manifest).get("arrays") or ()
        others = {f"{name}.bin" for name in layout if name not in arrays}
        refuse_foreign_files(folder, lambda name: name not in others, "the vectors of a corpus")
    elif not is_in_cache(folder):
        refuse_foreign_files(folder, no_file, "the vectors of a corpus")


def _shards_in(stored: Mapping[str, Any], layout: Layout) -> list[Shard]:
    """Shards of a manifest or of the list of written shards; none when they are invalid."""
    try:
        shards = stored["shards"]
        if "shard_bytes" in stored:
            sizes = zip(shards, stored["shard_bytes"], strict=True)
            shards = [{"checksum": checksum, "bytes": entry} for checksum, entry in sizes]
        valid = all(
            isinstance(shard["checksum"], str) and min(shard["bytes"][name] for name in layout) >= 0
            for shard in shards
        )
        return list(shards) if valid else []
    except (KeyError, TypeError, ValueError):
        return []


def _seek(files: Mapping[str, BinaryIO], starts: Mapping[str, int]) -> None:
    for name, stream in files.items():
        stream.seek(starts[name])


def _read_checksum(files: Mapping[str, BinaryIO], shard: Shard) -> str:
    """Checksum of the next bytes of each file, as many as a shard has."""
    state = xxhash.xxh3_128()
    for name, stream in files.items():
        state.update(stream.read(shard["bytes"][name]))
    return state.hexdigest()


def read_part(array: np.ndarray | CheckedArray, start: int, end: int) -> np.ndarray:
    """A float32 copy of the rows from ``start`` up to ``end``.

    Pages of a memory map are released block by block, so that reading a file does not fill the
    memory of the process with it.
    """
    part = np.empty((end - start, *array.shape[1:]), dtype=np.float32)
    row_bytes = max(1, array.nbytes // max(1, len(array)))
    plain = array.map if isinstance(array, CheckedArray) else array
    mapped = getattr(plain, "_mmap", None)
    if not hasattr(mapped, "madvise") or getattr(plain, "offset", -1) != 0:
        mapped = None
    rows = max(1, _READ_BYTES // row_bytes)
    for first in range(start, end, rows):
        last = min(first + rows, end)
        part[first - start : last - start] = array[first:last]
        if mapped is not None:
            page = first * row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
            mapped.madvise(mmap.MADV_DONTNEED, page, last * row_bytes - page)
    return part
