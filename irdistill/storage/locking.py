"""Locks on files and folders. The system releases a lock when its process ends, also when the
process is killed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from irdistill.errors import LockedError
from irdistill.storage.files import explain_os_errors, remove_temporary_files

LOCK = ".lock"
"""Name of the lock file of a folder."""

_PAUSE = 0.05
"""Seconds between two tries to lock; `is_locked` has the lock for much less."""

_looking = Lock()


def try_lock(descriptor: int) -> bool:
    """Lock an open file against other processes.

    Args:
        descriptor: of a file that is open for writing; closing it releases the lock.

    Returns:
        Whether the lock was free.
    """
    from filelock import lock_descriptor

    return lock_descriptor(descriptor, blocking=False)


@contextmanager
def lock_folder(folder: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a folder for one writing process, and remove what a killed process left half written.

    Args:
        folder: an existing folder.
        wait: wait for another process that writes to the folder instead of failing. For folders in
            the cache, where the other process builds what this one needs.

    Raises:
        LockedError: another process writes to the folder, and ``wait`` is not set.
    """
    folder = Path(folder)
    # The mode is "a" because "w" would empty a file of that name.
    with explain_os_errors(folder), open(folder / LOCK, "a") as stream:
        if wait:
            _wait(stream.fileno())
        elif not _try_twice(stream.fileno()):
            raise LockedError(
                f"{folder} is being written by another process. Wait for it to end, or choose"
                " another --out."
            )
        remove_temporary_files(folder)
        yield


def is_locked(folder: str | Path) -> bool:
    """Whether a process writes to a folder.

    The lock is tried, and released at once; a process that locks the folder in this instant tries
    again. Nothing is written.
    """
    try:
        descriptor = _open_lock(Path(folder) / LOCK)
    except OSError:
        return False
    try:
        with _looking:
            return not _try_twice(descriptor, _PAUSE / 10)
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR)  # network file systems lock only files open for writing
    except PermissionError:
        return os.open(path, os.O_RDONLY)


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Hold a lock file; wait while another process holds it."""
    with explain_os_errors(path), open(path, "a") as stream:
        _wait(stream.fileno())
        yield


def _try_twice(descriptor: int, pause: float = _PAUSE) -> bool:
    """Lock an open file; the second try is for when `is_locked` looked at it during the first."""
    if try_lock(descriptor):
        return True
    time.sleep(pause)
    return try_lock(descriptor)


def _wait(descriptor: int) -> None:
    from filelock import lock_descriptor

    lock_descriptor(descriptor)
