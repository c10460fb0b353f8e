"""Checkpoints that are whole or are not there."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from irdistill.errors import IrdistillError
from irdistill.storage.files import file_sha256, fsync_tree, read_json, write_json
from irdistill.storage.ownership import FileTest, is_manifest, no_file, remove_owned_files

__all__ = [
    "MARKER",
    "Timer",
    "checkpoint_files",
    "complete",
    "describe_newest",
    "find",
    "is_whole",
    "keep_newest",
    "latest_whole",
    "remove",
    "step_of",
]

logger = logging.getLogger(__name__)
MARKER = "complete.json"
_PREFIX = "checkpoint-"
_SHARE = 20
"""Checkpoints by time take at most about this part of it, one twentieth."""


class Timer:
    """Says when a checkpoint is due by time.

    Args:
        seconds: of training between checkpoints; more where writing one takes long. 0 for none by
            time.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last, self._cost = time.monotonic(), 0.0

    def due(self) -> bool:
        """Whether enough time has passed since the last checkpoint, or since the start."""
        return self.seconds > 0 and time.monotonic() - self._last >= max(
            self.seconds, _SHARE * self._cost
        )

    def wrote(self, seconds: float) -> None:
        """A checkpoint has just been written, and took this long."""
        self._last, self._cost = time.monotonic(), seconds


def complete(checkpoint: Path) -> None:
    """Declare a checkpoint whole, before it gets its name: the marker names every file's digest."""
    write_json(checkpoint / MARKER, {"files": fsync_tree(checkpoint)})


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
    found = [
        path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()
    ]
    return sorted(found, key=step_of)


def latest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that can be trusted; damaged ones are removed."""
    for checkpoint in reversed(find(folder)):
        try:
            if is_whole(checkpoint, read_json(checkpoint / MARKER)["files"]):
                return checkpoint
        except (IrdistillError, KeyError, AttributeError, TypeError):
            pass
        logger.warning("the checkpoint %s is damaged and is removed", checkpoint)
        remove(checkpoint)
    return None


def keep_newest(folder: Path, count: int) -> None:
    """Remove all but the newest checkpoints."""
    for checkpoint in find(folder)[:-count]:
        remove(checkpoint)


def describe_newest(folder: Path, steps: int) -> str:
    """The step of the newest whole checkpoint in words, for a message; empty where there is
    none.
    """
    whole = [checkpoint for checkpoint in find(folder) if (checkpoint / MARKER).is_file()]
    return f"the checkpoint of step {step_of(whole[-1])} of {steps} in {folder}" if whole else ""


def checkpoint_files(checkpoint: Path) -> FileTest:
    """Whether a file of a checkpoint is named by its marker; none is where there is no marker."""
    if not is_manifest(checkpoint / MARKER, ("files",)):
        return no_file
    files = read_json(checkpoint / MARKER)["files"]
    return lambda name: name == MARKER or name in files


def remove(checkpoint: Path) -> None:
    """Delete the files of a checkpoint that its marker names, the marker last."""
    ours = checkpoint_files(checkpoint)
    remove_owned_files(checkpoint, lambda name: name != MARKER and ours(name))
    remove_owned_files(checkpoint, lambda name: name == MARKER and ours(name))
    if checkpoint.is_dir() and not any(checkpoint.iterdir()):
        checkpoint.rmdir()
