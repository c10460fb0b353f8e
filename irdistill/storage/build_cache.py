"""Folders that are built once and opened many times."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from irdistill.errors import DamagedError, IrdistillError
from irdistill.storage.checksums import REBUILT
from irdistill.storage.files import explain_os_errors, fsync_folder, make_folder
from irdistill.storage.locking import wait_for_lock

_log = logging.getLogger(__name__)

Opened = TypeVar("Opened")


def open_or_build(
    folder: Path, build: Callable[[Path], None], open_folder: Callable[[Path], Opened]
) -> Opened:
    """Open a folder that was built earlier, or build it.

    It is built under another name and renamed when it is complete. A second process that needs the
    same folder waits for the first. The next call removes what a killed build left.

    Args:
        folder: the final name.
        build: fills the empty folder that it is called with.
        open_folder: opens such a folder, and raises an IrdistillError if it is damaged; it is then
            built again.
    """
    if folder.is_dir():
        try:
            return open_folder(folder)
        except DamagedError as error:
            _log.warning("%s The cache is rebuilt.", str(error).removesuffix(REBUILT).rstrip())
        except IrdistillError as error:
            _log.info("building %s again: %s", folder, error)
    make_folder(folder.parent)
    with wait_for_lock(folder.parent / f".{folder.name}.lock"), explain_os_errors(folder):
        try:
            return open_folder(folder)
        except (IrdistillError, OSError):
            pass
        temporary = folder.parent / f".{folder.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            build(temporary)
            fsync_folder(temporary)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
            fsync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return open_folder(folder)
