"""What is built once and opened many times: in a folder aside that gets its name when it is
whole.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from irdistill.errors import DamagedError, IrdistillError
from irdistill.storage.checksums import REBUILT
from irdistill.storage.files import explain_os_errors, fsync_folder, make_folder
from irdistill.storage.locking import wait_for_lock

_log = logging.getLogger(__name__)


def open_or_build(folder: Path, build: Callable[[Path], None], opens: Callable[[Path], Any]) -> Any:
    """Open what was built earlier, or build it: in a folder aside that is renamed when it is whole.

    A second process that wants the same waits for the first. What a killed build left is removed by
    the next.

    Args:
        folder: where it belongs. build: fills the empty folder it is given. opens: opens such a
            folder, and raises IrdistillError where it is damaged (it is then built again).
    """
    if folder.is_dir():
        try:
            return opens(folder)
        except IrdistillError as error:
            if isinstance(error, DamagedError):
                _log.warning("%s The cache is rebuilt.", str(error).removesuffix(REBUILT).rstrip())
            else:
                _log.info("building %s again: %s", folder, error)
    make_folder(folder.parent)
    with wait_for_lock(folder.parent / f".{folder.name}.lock"), explain_os_errors(folder):
        try:
            return opens(folder)
        except (IrdistillError, OSError):
            pass
        aside = folder.parent / f".{folder.name}.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        try:
            build(aside)
            fsync_folder(aside)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(aside, folder)
            fsync_folder(folder.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return opens(folder)
