"""What lies below the folders that are viewed: runs, trainings, recipes, bundles and models."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from irdistill.bundles.bundle_manifest import is_bundle
from irdistill.errors import NotFoundError
from irdistill.runs.manifest import FORMAT as RUN_FORMAT
from irdistill.runs.manifest import JOURNAL, MANIFEST
from irdistill.storage.locking import is_locked

RUN, TRAINING, RECIPE, BUNDLE, MODEL = "run", "training", "recipe", "bundle", "model"
STARTING = "starting"
"""A folder that a job has locked and not yet written to."""
STAGES = "stages"
"""The folder of a recipe that records its stages."""
_FRESH = 2.0
"""Seconds until a listing is made again; at least twenty times what it took."""
_DEPTH = 6
"""Levels of folders below a root."""
_ENTRIES = 20_000
"""Folders that are looked at, so that a viewed home folder ends."""


@dataclass(frozen=True)
class Artifact:
    """A folder that irdistill wrote.

    Attributes:
        kind: ``run``, ``training``, ``recipe``, ``bundle``, ``model`` or ``starting``.
        key: its name on the pages, and in their addresses: the path below the viewed folder.
    """

    kind: str
    key: str
    path: Path

    @property
    def modified(self) -> float:
        """Time of the last change in the folder, in seconds since 1970."""
        try:
            return max(entry.stat().st_mtime for entry in os.scandir(self.path))
        except (OSError, ValueError):
            return 0.0


class Workspace:
    """The viewed folders. Pages reach nothing outside of them.

    Args:
        folders: each is looked through; a folder that is an artifact itself is one.
        wait: folders may be created later.

    Raises:
        NotFoundError: a folder does not exist.

    Examples:
        >>> import tempfile
        >>> Workspace([Path(tempfile.mkdtemp())]).artifacts()
        []
    """

    def __init__(self, folders: Sequence[Path], wait: bool = False) -> None:
        self.folders = tuple(Path(folder) for folder in folders)
        for folder in self.folders:
            if not wait and not folder.is_dir():
                raise NotFoundError(
                    f"there is no folder {folder}; give the folder of your results."
                )
        self._lock = Lock()
        self._listing: list[Artifact] = []
        self._stale = 0.0

    def artifacts(self, kind: str | None = None) -> list[Artifact]:
        """All artifacts, by key, or those of one kind."""
        with self._lock:
            began = time.monotonic()
            if began >= self._stale:
                self._listing = sorted(self._scan(), key=lambda artifact: artifact.key)
                took = time.monotonic() - began
                self._stale = began + max(_FRESH, 20 * took)
            return [entry for entry in self._listing if kind in (None, entry.kind)]

    def artifact(self, key: str, kind: str | None = None) -> Artifact:
        """The artifact with a key.

        Raises:
            NotFoundError: there is none with this key, and this kind.
        """
        for entry in self.artifacts(kind):
            if entry.key == key:
                return entry
        raise NotFoundError(f"there is no {kind or 'artifact'} {key!r} below the viewed folders.")

    def _scan(self) -> Iterator[Artifact]:
        prefixed = len(self.folders) > 1
        names: set[str] = set()
        for number, folder in enumerate(self.folders):
            name = folder.resolve().name or "root"
            prefix = name if name not in names else f"{name}-{number + 1}"
            names.add(prefix)
            for kind, path in _artifacts_below(folder):
                inside = path.relative_to(folder).as_posix()
                if inside == ".":
                    key = prefix
                else:
                    key = f"{prefix}/{inside}" if prefixed else inside
                yield Artifact(kind, key, path)


def _artifacts_below(root: Path) -> Iterator[tuple[str, Path]]:
    """The kinds and folders of artifacts; links to folders are not followed."""
    waiting, looked = [(root, 0)], 0
    while waiting and looked < _ENTRIES:
        folder, depth = waiting.pop()
        looked += 1
        kind = artifact_kind(folder) or (STARTING if _is_starting(folder) else None)
        if kind is not None:
            yield kind, folder
        if kind in (RUN, BUNDLE, MODEL) or depth == _DEPTH:
            continue
        try:
            inside = [
                Path(entry.path)
                for entry in os.scandir(folder)
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
                if entry.name != STAGES
            ]
        except OSError:
            continue
        waiting += [(path, depth + 1) for path in inside]


def artifact_kind(folder: Path) -> str | None:
    """The kind of artifact in a folder; None if it is none."""
    if is_bundle(folder):
        return BUNDLE
    if (folder / MANIFEST).is_file():
        return RUN if _is_run(folder / MANIFEST) else None
    if (folder / "training.json").is_file():
        return TRAINING
    if (folder / STAGES).is_dir() and (folder / JOURNAL).is_file():
        return RECIPE
    if (folder / "modules.json").is_file() or (folder / "irdistill_student.json").is_file():
        return MODEL
    return None


def _is_starting(folder: Path) -> bool:
    """Whether a job has locked a folder; a specialisation locks the folder of its stages."""
    return is_locked(folder) or is_locked(folder / STAGES)


def _is_run(manifest: Path) -> bool:
    """Whether a manifest is a run's, from its first line: that of a large run has megabytes."""
    try:
        with open(manifest, encoding="utf-8") as stream:
            return RUN_FORMAT in stream.read(80)
    except (OSError, ValueError):
        return False
