"""Write files atomically (temporary name, fsync, rename), and read JSON."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from irdistill.errors import InputError, IrdistillError, NotFoundError, OutputExistsError

LARGEST_JSON = 1 << 30
"""Bytes of the largest JSON file that is read; a vocabulary of 30 million words has 600 MB."""

_RESUME = "free some space, and run the same command again to resume"
_CHANGE = "choose another --out, or change the permissions"
_WRITE_ADVICE = {
    errno.ENOSPC: f"the disk is full; {_RESUME}",
    errno.EDQUOT: f"the disk quota is used up; {_RESUME}",
    errno.EACCES: f"there is no permission to write there; {_CHANGE}",
    errno.EPERM: f"there is no permission to write there; {_CHANGE}",
    errno.EROFS: "the file system is read-only; choose another --out",
    errno.ENOTEMPTY: "the folder contains other files; choose another --out, or move them away",
    errno.ENOTDIR: "a part of that path is a file, not a folder; choose another --out",
}
_READ_ADVICE = {
    errno.EACCES: "there is no permission; change the permissions or choose another path",
    errno.EPERM: "there is no permission; change the permissions or choose another path",
    errno.ENOENT: "there is no such file or folder; check the path",
    errno.EISDIR: "it is a folder, and a file was expected",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
    errno.EMFILE: "too many files are open; raise the limit with ulimit -n 4096",
    errno.EIO: "the disk or network has a fault; check it, and run the same command again",
    errno.ESTALE: "the network file system lost this file; mount it and run the command again",
    errno.ELOOP: "symbolic links refer to each other; remove one of them",
    errno.ETXTBSY: "the file is in use by another process",
}


def describe_os_error(error: OSError) -> str:
    """An error of the operating system as sentences, without ``[Errno N]``."""
    what = (error.strerror or str(error)).rstrip(".") or type(error).__name__
    files = " and ".join(
        str(name) for name in (error.filename, error.filename2) if name is not None
    )
    text = f"{files}: {what}" if files else what
    reason = _READ_ADVICE.get(error.errno or 0) or _WRITE_ADVICE.get(error.errno or 0)
    if reason:
        return f"{text}; {reason}."
    return f"{text}." + (" Check that path, and run the same command again." if files else "")


@contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into an error with advice."""
    try:
        yield
    except OSError as error:
        reason = _WRITE_ADVICE.get(error.errno or 0)
        if reason is None:
            raise
        raise IrdistillError(
            f"cannot write {path}: {reason}. Existing files are intact."
        ) from error


def make_folder(path: str | Path) -> Path:
    """Create a folder, and check that it can be written to, before any work is done."""
    folder = Path(path)
    with explain_os_errors(folder):
        if folder.exists() and not folder.is_dir():
            raise OutputExistsError(
                f"cannot write {folder}: it is a file, and a folder was expected. Choose another"
                " name."
            )
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    return folder


def fsync_file(path: str | Path) -> None:
    """Force a file onto the disk."""
    with open(path, "r+b") as stream:  # Windows syncs only files that are open for writing
        os.fsync(stream.fileno())


def fsync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut. Windows cannot sync a folder."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_descriptor(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """Open a file as bytes, on Windows too, and return its descriptor."""
    return os.open(path, flags | getattr(os, "O_BINARY", 0), 0o644)


_seeking = threading.Lock()


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Read up to ``size`` bytes of an open file from ``offset`` on; threads may share the file."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    with _seeking:  # Windows
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


def fsync_tree(folder: Path) -> dict[str, str]:
    """Force every file under a folder onto the disk; return their SHA-256 by relative path."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            fsync_file(path)
            digests[path.relative_to(folder).as_posix()] = file_sha256(path)
    for inner in [*(path for path in folder.rglob("*") if path.is_dir()), folder]:
        fsync_folder(inner)
    return digests


@contextmanager
def atomic_path(path: str | Path, sync_folder: bool = True) -> Iterator[Path]:
    """Write to a temporary file that replaces ``path`` on success.

    On failure the temporary file is removed, and ``path`` is not changed.

    Args:
        sync_folder: also make the new name survive a power cut. If False, a cut in the next seconds
            may bring back the earlier file, complete.

    Examples:
        >>> target = Path(tempfile.mkdtemp()) / "figures.txt"
        >>> with atomic_path(target) as temporary:
        ...     _ = temporary.write_text("0.676")
        >>> target.read_text()
        '0.676'
    """
    path = Path(path)
    temporary = temporary_path(path)
    with explain_os_errors(path):
        try:
            yield temporary
            fsync_file(temporary)
            os.replace(temporary, path)
            if sync_folder:
                fsync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """The name beside ``path`` of a file that this process is writing."""
    return path.with_name(f".{path.name}-irdistill-tmp-{os.getpid()}")


def staging_path(path: Path) -> Path:
    """The name beside ``path`` of a folder that is being written, the same in each process."""
    return path.with_name(f".{path.name}-irdistill-tmp-0")


def is_temporary(name: str) -> bool:
    """Whether this is the name of a temporary file or folder of irdistill."""
    return re.fullmatch(r"\..+-irdistill-tmp-\d+", name) is not None


def write_text(path: str | Path, text: str) -> None:
    """Write text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(value: Any) -> str:
    """A value as JSON text with a line break at the end, in full precision."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, formatted by `json_text`."""
    write_text(path, json_text(value))


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        NotFoundError: the file does not exist.
        InputError: the file is not JSON, or is too large.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > LARGEST_JSON:
            raise InputError(f"{path} has {size} bytes; at most {LARGEST_JSON} were expected.")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist.") from error
    except InputError:
        raise
    # ValueError: not UTF-8, not JSON, or a number of 5,000 digits
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not readable as JSON ({error}); it is damaged or was not written by"
            " irdistill."
        ) from error


def read_json_object(path: str | Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        NotFoundError: the file does not exist.
        InputError: the file does not contain a JSON object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(
            f"{path} contains no JSON object; it is damaged or was not written by irdistill."
        )
    return value


def file_sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def input_checksums(sources: str | Path | Sequence[str | Path]) -> dict[str, str]:
    """Path -> SHA-256 of files, and of the files directly in folders; hidden ones are left out."""
    several = [sources] if isinstance(sources, str | Path) else sources
    places = [Path(source) for source in several]
    files = [file for place in places for file in (place.iterdir() if place.is_dir() else [place])]
    return {
        str(file): file_sha256(file)
        for file in sorted(files)
        if file.is_file() and not file.name.startswith(".")
    }


def digest(value: Any) -> str:
    """A stable fingerprint, 16 hexadecimal digits, of a value that JSON can hold.

    Examples:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:16]


_FINGERPRINT = re.compile(r"[0-9a-f]{12,64}")
_CONTENTS = {
    "corpus": "other documents",
    "queries": "other queries",
    "qrels": "other judgments",
    "candidates": "other candidates",
    "queries_digest": "other query ids",
    "weights": "other weights",
    "revision": "another revision of the model",
}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line for each value that differs, with its path and both values; fingerprints come last.

    Examples:
        >>> differences({"options": {"seed": 1}}, {"options": {"seed": 2}})
        ['options.seed: 1 there, 2 here']
    """
    return [line for _, line in sorted(_differences(old, new, prefix), key=lambda pair: pair[0])]


def _differences(old: Any, new: Any, path: str) -> Iterator[tuple[bool, str]]:
    """Whether the values are fingerprints, and the line."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}, key=str):
            yield from _differences(
                old.get(key),
                new.get(key),
                f"{path}{'.' if path and not path.endswith('.') else ''}{key}",
            )
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        for place, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, after, f"{path}[{place}]" if len(old) > 1 else path)
    elif old != new:
        if all(isinstance(value, str) and _FINGERPRINT.fullmatch(value) for value in (old, new)):
            contents = _CONTENTS.get(path.rpartition(".")[2], "other contents")
            yield True, f"{path}: {contents} (fingerprint {old} there, {new} here)"
        else:
            yield False, f"{path}: {_shown(old)} there, {_shown(new)} here"


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder.

    The caller must hold the lock of the folder.
    """
    for path in folder.glob(".*-irdistill-tmp-*"):
        if is_temporary(path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif is_temporary(path.name):
            path.unlink(missing_ok=True)


class MappedPages:
    """Returns the pages of memory maps to the system before they count as much memory.

    Pages that are read again come from the file cache of the system. On systems that cannot release
    pages, nothing is done.

    Args:
        maps: read-only ``numpy.memmap`` arrays; other arrays are ignored.
        limit: bytes that may be read before pages are released.
    """

    def __init__(self, *maps: Any, limit: int = 1 << 28) -> None:
        self._maps: list[mmap.mmap] = [
            array._mmap for array in maps if getattr(array, "_mmap", None) is not None
        ]
        self._limit = limit
        self._read = 0

    def read(self, size: int) -> None:
        """Count bytes that were read from the maps; scattered reads count as whole pages."""
        self._read += size
        if self._read >= self._limit:
            self._read = 0
            for mapped in self._maps if hasattr(mmap, "MADV_DONTNEED") else ():
                mapped.madvise(mmap.MADV_DONTNEED)


def cache_folder() -> Path:
    """The cache: $IRDISTILL_CACHE, or irdistill/ in the cache folder of the user."""
    configured = os.environ.get("IRDISTILL_CACHE")
    if configured:
        return make_folder(Path(configured).expanduser())
    base = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    return make_folder((Path(base) / "irdistill").expanduser())
