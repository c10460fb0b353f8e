"""Checkpoints that are whole or are not there."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from irdistill.errors import IrdistillError
from irdistill.files import file_sha256, fsync_tree, move_into_place, read_json, write_json

__all__ = ["MARKER", "complete", "find", "fsync_tree", "is_whole", "keep_newest", "latest_whole", "move_into_place", "step_of"]

logger = logging.getLogger(__name__)
MARKER = "complete.json"
_PREFIX = "checkpoint-"


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
