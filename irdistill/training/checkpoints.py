"""Checkpoints that are whole or are not there."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path

from irdistill.errors import IrdistillError
from irdistill.files import file_sha256, fsync_tree, move_into_place, read_json, write_json

__all__ = ["MARKER", "Timer", "complete", "describe_newest", "find", "fsync_tree", "is_whole", "keep_newest", "latest_whole",
           "move_into_place", "step_of"]

logger = logging.getLogger(__name__)
MARKER = "complete.json"
_PREFIX = "checkpoint-"
_SHARE = 20
"""Checkpoints by time take at most about this part of it, one twentieth."""


class Timer:
    """Says when a checkpoint is due by time.

    Args:
        seconds: of training between checkpoints; more where writing one takes long. 0 for none by time.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last, self._cost = time.monotonic(), 0.0

    def due(self) -> bool:
        """Whether enough time has passed since the last checkpoint, or since the start."""
        return self.seconds > 0 and time.monotonic() - self._last >= max(self.seconds, _SHARE * self._cost)

    def wrote(self, seconds: float) -> None:
        """A checkpoint has just been written, and took this long."""
        self._last, self._cost = time.monotonic(), seconds


def complete(checkpoint: Path, digests: dict[str, str]) -> None:
    """Declare a checkpoint whole: the marker is written last and names every file's digest."""
    write_json(checkpoint / MARKER, {"files": digests})


def is_whole(folder: Path, files: dict[str, str]) -> bool:
    """Whether a folder holds exactly these bytes."""
    paths = {folder / name: value for name, value in files.items()}
    return all(path.is_file() and file_sha256(path) == value for path, value in paths.items())


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def find(folder: Path) -> list[Path]:
    """All checkpoint folders, whole or not, oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=step_of)


def latest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that can be trusted; half-written and damaged ones are removed."""
    for checkpoint in reversed(find(folder)):
        try:
            if is_whole(checkpoint, read_json(checkpoint / MARKER)["files"]):
                return checkpoint
        except (IrdistillError, KeyError, AttributeError, TypeError):
            pass
        logger.warning("the checkpoint %s is not whole and is removed", checkpoint)
        shutil.rmtree(checkpoint)
    return None


def keep_newest(folder: Path, count: int) -> None:
    """Remove all but the newest checkpoints; the marker goes first, so none is ever half trusted."""
    for checkpoint in find(folder)[:-count]:
        (checkpoint / MARKER).unlink(missing_ok=True)
        shutil.rmtree(checkpoint, ignore_errors=True)


def describe_newest(folder: Path, steps: int) -> str:
    """The step of the newest whole checkpoint in words, for a message; empty where there is none."""
    whole = [checkpoint for checkpoint in find(folder) if (checkpoint / MARKER).is_file()]
    return f"the checkpoint of step {step_of(whole[-1])} of {steps} in {folder}" if whole else ""
