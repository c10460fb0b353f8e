"""Checkpoints that are complete or absent."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from irdistill.errors import IrdistillError
from irdistill.storage.files import file_sha256, fsync_tree, read_json, staging_path, write_json
from irdistill.storage.ownership import (
    FileTest,
    is_manifest,
    move_into_place,
    no_file,
    remove_owned_files,
)

logger = logging.getLogger(__name__)
MARKER = "complete.json"
_PREFIX = "checkpoint-"
_SHARE = 20
"""Checkpoints by time take at most this fraction of the time, one twentieth."""


class CheckpointTimer:
    """Tells when a checkpoint is due by time.

    Args:
        seconds: between checkpoints; 0 for none by time. It is longer if writing one takes more
            than a twentieth of it.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last, self._cost = time.monotonic(), 0.0

    def due(self) -> bool:
        """Whether enough time has passed since the last checkpoint, or since the start."""
        return self.seconds > 0 and time.monotonic() - self._last >= max(
            self.seconds, _SHARE * self._cost
        )

    def record(self, seconds: float) -> None:
        """Record that a checkpoint has just been written, and how long that took."""
        self._last, self._cost = time.monotonic(), seconds


def write_checkpoint(folder: Path, step: int, write: Callable[[Path], None], keep: int) -> None:
    """Write the checkpoint of a step, and delete all but the newest ``keep``.

    Args:
        write: writes the files to the folder that it is given.
    """
    staged, final = _staged(folder), folder / f"{_PREFIX}{step}"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    write(staged)
    write_marker(staged)
    move_into_place(staged, final, checkpoint_files(final))
    for old in find_checkpoints(folder)[:-keep]:
        remove_checkpoint(old)


def write_marker(checkpoint: Path) -> None:
    """Mark a checkpoint as complete, with the checksum of every file."""
    write_json(checkpoint / MARKER, {"files": fsync_tree(checkpoint)})


def remove_unfinished(folder: Path) -> None:
    """Delete a checkpoint that a killed training was writing."""
    shutil.rmtree(_staged(folder), ignore_errors=True)


def _staged(folder: Path) -> Path:
    return staging_path(folder / "checkpoint")


def has_checksums(folder: Path, files: dict[str, str]) -> bool:
    """Whether a folder has files with these SHA-256 checksums, by name."""
    paths = {folder / name: value for name, value in files.items()}
    return all(path.is_file() and file_sha256(path) == value for path, value in paths.items())


def step_of(checkpoint: Path) -> int:
    """The number of steps done before a checkpoint was written."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def find_checkpoints(folder: Path) -> list[Path]:
    """All checkpoint folders, complete or not, oldest first."""
    if not folder.is_dir():
        return []
    folders = folder.glob(f"{_PREFIX}*")
    return sorted(
        (path for path in folders if path.name.removeprefix(_PREFIX).isdigit()), key=step_of
    )


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; damaged ones are deleted."""
    for checkpoint in reversed(find_checkpoints(folder)):
        try:
            if has_checksums(checkpoint, read_json(checkpoint / MARKER)["files"]):
                return checkpoint
        except (IrdistillError, KeyError, AttributeError, TypeError):
            pass
        logger.warning("the checkpoint %s is damaged and is removed", checkpoint)
        remove_checkpoint(checkpoint)
    return None


def describe_newest(folder: Path, steps: int) -> str:
    """The step of the newest complete checkpoint as a text; empty if there is none."""
    complete = [path for path in find_checkpoints(folder) if (path / MARKER).is_file()]
    if not complete:
        return ""
    return f"the checkpoint of step {step_of(complete[-1])} of {steps} in {folder}"


def checkpoint_files(checkpoint: Path) -> FileTest:
    """Tells whether a file of a checkpoint is named by its marker."""
    if not is_manifest(checkpoint / MARKER, ("files",)):
        return no_file
    files = read_json(checkpoint / MARKER)["files"]
    return lambda name: name == MARKER or name in files


def remove_checkpoint(checkpoint: Path) -> None:
    """Delete the files of a checkpoint that its marker names, the marker last."""
    ours = checkpoint_files(checkpoint)
    remove_owned_files(checkpoint, lambda name: name != MARKER and ours(name))
    remove_owned_files(checkpoint, lambda name: name == MARKER and ours(name))
    if checkpoint.is_dir() and not any(checkpoint.iterdir()):
        checkpoint.rmdir()
