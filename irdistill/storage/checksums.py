"""A checksum for each block of a file, so that damage is noticed when a block is first used.

The manifest of a folder holds the size of each file, a 64-bit xxHash of each block of 256 KiB, and
a checksum of the manifest itself. Folders up to `WHOLE_BYTES` are checked completely when they are
opened. In larger folders each block is checked when it is first read, so opening them reads only
the manifest.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import xxhash

from irdistill.errors import DamagedError, InputError, IrdistillError
from irdistill.storage.files import digest, open_descriptor, read_at, read_json, write_json

BLOCK_BYTES = 1 << 18
WHOLE_BYTES = 64 << 20
"""Folders up to this size are checked completely when they are opened."""
UNCHECKED_BYTES = 16 << 30
"""Files that another library maps into memory are checked up to this size, which takes seconds."""
CHECKSUM, FILES = "checksum", "files"
_MARK = ".damaged"
_MANIFESTS = {"manifest.json", "index.json", "shards.json"}


REBUILT = "Run the same command again: damaged files are rebuilt."
"""The advice about a damaged cache."""


def block_checksums(path: Path, block_bytes: int = BLOCK_BYTES) -> np.ndarray:
    """The xxh3_64 of each block of a file, (blocks,) uint64. The last block may be shorter."""
    sums = []
    with open(path, "rb") as stream:
        while block := stream.read(block_bytes):
            sums.append(xxhash.xxh3_64_intdigest(block))
    return np.array(sums, dtype=np.uint64)


def file_entry(path: Path) -> dict[str, Any]:
    """The entry of a file in a manifest: its size, and the checksums of its blocks."""
    sums = block_checksums(path).astype("<u8").tobytes().hex()
    return {"bytes": path.stat().st_size, "block_bytes": BLOCK_BYTES, "blocks": sums}


def write_sealed(path: Path, value: Mapping[str, Any], names: Iterable[str] = ()) -> None:
    """Write a manifest with its own checksum and those of files in the same folder."""
    entries = {FILES: {name: file_entry(path.parent / name) for name in names}}
    content = {**value, **(entries if entries[FILES] else {})}
    write_json(path, content | {CHECKSUM: digest(content)})


def verify_manifest(path: Path, value: Any, advice: str) -> None:
    """Compare a manifest with its checksum. Manifests of earlier versions have none, and pass.

    Raises:
        DamagedError: the checksum differs.
    """
    if isinstance(value, dict) and CHECKSUM in value:
        content = {key: inner for key, inner in value.items() if key != CHECKSUM}
        if digest(content) != value[CHECKSUM]:
            raise DamagedError(path, "is damaged: its checksum differs", advice)


def read_sealed(path: Path, advice: str = REBUILT) -> dict[str, Any]:
    """Read a manifest that `write_sealed` wrote.

    Raises:
        NotFoundError: it does not exist.
        DamagedError: it is damaged.
        InputError: it has no checksum (an earlier version wrote it).
    """
    value = read_json(path)
    if not isinstance(value, dict) or CHECKSUM not in value:
        raise InputError(f"{path} has no checksum; an earlier version wrote it. {advice}")
    verify_manifest(path, value, advice)
    return value


class CheckedFile:
    """A file whose blocks are compared with their checksums, each once.

    Args:
        entry: the result of `file_entry`.
        advice: what to do about damage, for the message.
        cache: whether the folder is marked as damaged, so that its next use rebuilds it.
    """

    def __init__(
        self, path: Path, entry: Mapping[str, Any], advice: str = REBUILT, cache: bool = True
    ) -> None:
        self.path, self.advice, self._entry, self._cache = path, advice, entry, cache
        self.bytes, self._size = int(entry["bytes"]), int(entry["block_bytes"])
        self._sums = np.frombuffer(bytes.fromhex(entry["blocks"]), dtype="<u8")
        if len(self._sums) != -(-self.bytes // self._size):
            raise DamagedError(path, "has a different number of blocks in its manifest", advice)
        self._checked = np.zeros(len(self._sums), dtype=bool)
        self.whole = not self.bytes
        size = path.stat().st_size if path.is_file() else None
        if size != self.bytes:
            state = "is missing" if size is None else f"has {size} bytes"
            raise DamagedError(path, f"is damaged: it {state}, not {self.bytes} bytes", advice)
        self._file = open_descriptor(path)
        weakref.finalize(self, os.close, self._file)

    def __reduce__(self) -> tuple[Any, ...]:
        return CheckedFile, (self.path, self._entry, self.advice, self._cache)

    def check(self, start: int, stop: int) -> None:
        """Check the blocks with the bytes from ``start`` up to ``stop``.

        Raises:
            DamagedError: a block is damaged.
        """
        if not self.whole and stop > start:
            first, last = start // self._size, (stop - 1) // self._size + 1
            if not self._checked[first:last].all():
                self._compare(np.flatnonzero(~self._checked[first:last]) + first)

    def check_ranges(self, starts: np.ndarray, stops: np.ndarray) -> None:
        """Check the blocks of ranges of bytes, (n,) int64 each; ``stops`` are excluded.

        Raises:
            DamagedError: a block is damaged.
        """
        filled = stops > starts
        if self.whole or not filled.any():
            return
        first, last = starts[filled] // self._size, (stops[filled] - 1) // self._size
        blocks = np.unique(np.concatenate([first, last]))
        if (last - first > 1).any():
            blocks = np.unique(
                np.concatenate(
                    [
                        np.arange(a, b + 1)
                        for a, b in zip(first.tolist(), last.tolist(), strict=True)
                    ]
                )
            )
        blocks = blocks[~self._checked[blocks]]
        if len(blocks):
            self._compare(blocks)

    def check_all(self) -> None:
        """Check every block.

        Raises:
            DamagedError: a block is damaged.
        """
        self.check(0, self.bytes)

    def _compare(self, blocks: np.ndarray) -> None:
        for block in blocks.tolist():
            data = read_at(self._file, self._size, block * self._size)
            if (
                len(data) != min(self._size, self.bytes - block * self._size)
                or xxhash.xxh3_64_intdigest(data) != self._sums[block]
            ):
                if self._cache:
                    mark_damaged(self.path.parent)
                raise DamagedError(
                    self.path,
                    f"is damaged: the {len(data)} bytes from {block * self._size} on have changed",
                    self.advice,
                )
            self._checked[block] = True
        self.whole = bool(self._checked.all())


class CheckedArray:
    """A read-only memory map whose blocks are checked when they are first read.

    It is not a numpy array, so nothing reads it unchecked: indexing returns arrays, and
    ``np.asarray`` checks all blocks.
    """

    def __init__(
        self, file: CheckedFile, dtype: np.dtype[Any] | str, shape: tuple[int, ...], offset: int = 0
    ) -> None:
        self._file, self._offset = file, offset
        self.shape, self.dtype = shape, np.dtype(dtype)
        count = int(np.prod(shape))
        self._width = self.dtype.itemsize * int(np.prod(shape[1:]))
        self.nbytes = self.dtype.itemsize * count
        if offset + self.nbytes > file.bytes:
            raise DamagedError(file.path, f"is too short for {shape} numbers", file.advice)
        self.map: np.ndarray = (
            np.memmap(file.path, self.dtype, "r", offset, shape)
            if count
            else np.empty(shape, self.dtype)
        )

    @property
    def checked(self) -> bool:
        """Whether every block of the file has been checked."""
        return self._file.whole

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        if not self._file.whole:
            self._check(key[0] if isinstance(key, tuple) and key else key)
        return cast(np.ndarray, self.map[key])

    def _check(self, rows: Any) -> None:
        if isinstance(rows, int | np.integer):
            first = int(rows) + (len(self) if rows < 0 else 0)
            rows = slice(first, first + 1)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step > 0:
                begin = self._offset + start * self._width
                self._file.check(begin, self._offset + max(start, stop) * self._width)
                return
        places = np.asarray(rows) if isinstance(rows, np.ndarray | list) else None
        if places is None or places.dtype.kind not in "iu":
            self._file.check_all()
            return
        flat = places.ravel().astype(np.int64)
        flat = np.where(flat < 0, flat + len(self), flat)
        inside = flat[(flat >= 0) & (flat < len(self))]
        begins = self._offset + inside * self._width
        self._file.check_ranges(begins, begins + self._width)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self._file.check_all()
        return np.array(self.map, dtype) if copy else np.asarray(self.map, dtype)

    def __matmul__(self, other: Any) -> np.ndarray:
        return cast(np.ndarray, np.asarray(self) @ other)


def npy_array(file: CheckedFile) -> CheckedArray:
    """The array of a ``.npy`` file.

    Raises:
        DamagedError: the file is damaged.
    """
    with open(file.path, "rb") as stream:
        file.check(0, min(file.bytes, BLOCK_BYTES))
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        return CheckedArray(file, dtype, shape, stream.tell())


def open_files(
    folder: Path, entries: Mapping[str, Any], advice: str = REBUILT
) -> dict[str, CheckedFile]:
    """The files of a folder by name. All are checked if they are small together.

    Args:
        entries: file name -> the result of `file_entry`.

    Raises:
        DamagedError: a file is missing, has another size, is damaged, or was marked as damaged.
    """
    if (folder / _MARK).exists():
        raise DamagedError(folder, "is marked as damaged", advice)
    try:
        files = {name: CheckedFile(folder / name, entry, advice) for name, entry in entries.items()}
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise DamagedError(folder, f"has an unreadable manifest ({error})", advice) from error
    if sum(file.bytes for file in files.values()) <= WHOLE_BYTES:
        for file in files.values():
            file.check_all()
    return files


def verify_file(file: CheckedFile) -> None:
    """Check a file that another library reads, up to `UNCHECKED_BYTES`; of larger files only the
    size is checked.

    Raises:
        DamagedError: a block is damaged.
    """
    if file.bytes <= UNCHECKED_BYTES:
        file.check_all()


def mark_damaged(folder: Path) -> None:
    """Mark a folder as damaged, so that its next use rebuilds it; read-only folders stay as they
    are.
    """
    with suppress(OSError):
        (folder / _MARK).touch()


def clear_damage_mark(folder: Path) -> None:
    """Remove the mark of a folder after it was rebuilt."""
    (folder / _MARK).unlink(missing_ok=True)


class FolderCheck(NamedTuple):
    """The result of `check_folders`.

    Attributes:
        folders: folders that were read completely.
        bytes: size of their files.
        earlier: folders of earlier versions, without checksums.
        damaged: a line for each damaged folder.
    """

    folders: int
    bytes: int
    earlier: int
    damaged: list[str]


def check_folders(root: Path, report: Callable[[Path], None] = lambda folder: None) -> FolderCheck:
    """Read every byte of all folders with checksums under a folder, and mark damaged ones.

    Args:
        report: called with each folder before it is read.
    """
    folders = total = earlier = 0
    damaged: list[str] = []
    for place, _, names in os.walk(root):
        folder = Path(place)
        for name in sorted(_MANIFESTS & set(names)):
            try:
                manifest = read_json(folder / name)
            except IrdistillError as error:
                mark_damaged(folder)
                damaged.append(str(error))
                continue
            if not isinstance(manifest, dict) or CHECKSUM not in manifest:
                earlier += 1
                continue
            report(folder)
            folders += 1
            try:
                files = open_files(folder, read_sealed(folder / name).get(FILES, {}))
                for file in files.values():
                    file.check_all()
                    total += file.bytes
            except IrdistillError as error:
                mark_damaged(folder)
                damaged.append(str(error).removesuffix(REBUILT).rstrip())
    return FolderCheck(folders, total, earlier, damaged)
