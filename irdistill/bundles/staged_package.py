"""A package while it is written: finished files survive a crash, and the rest is resumed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from irdistill.bundles.bundle_manifest import MANIFEST, package_files, write_manifest
from irdistill.errors import DamagedError
from irdistill.storage.checksums import CheckedFile, file_entry
from irdistill.storage.files import (
    atomic_path,
    digest,
    fsync_tree,
    make_folder,
    staging_path,
    temporary_path,
)
from irdistill.storage.locking import LOCK, lock_folder
from irdistill.storage.ownership import move_into_place, refuse_foreign_files

_JOURNAL = "journal.jsonl"


class StagedPackage:
    """The folder beside the final one in which a package is written.

    Each finished file is recorded in a journal with its checksums. A package of the same identity
    that was interrupted continues after the recorded files; of another one it starts again.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.files: dict[str, Any] = {}
        fingerprint = digest(dict(identity))
        lines = self._recorded_lines()
        if lines[:1] == [fingerprint]:
            self.files = {name: entry for name, entry in lines[1:] if self._intact(name, entry)}
        else:
            for path in folder.iterdir():
                if path.name != LOCK:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        with atomic_path(folder / _JOURNAL) as temporary:
            content = [fingerprint, *([name, entry] for name, entry in self.files.items())]
            temporary.write_text("".join(f"{json.dumps(line)}\n" for line in content), "utf-8")

    def _recorded_lines(self) -> list[Any]:
        """The lines of the journal up to the first that a crash cut short."""
        path, lines = self.folder / _JOURNAL, []
        for line in path.read_text("utf-8").split("\n")[:-1] if path.is_file() else []:
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines

    def _intact(self, name: str, entry: Mapping[str, Any]) -> bool:
        try:
            CheckedFile(self.folder / name, entry, cache=False).check_all()
        except DamagedError:
            return False
        return True

    def write_file(self, name: str, write: Callable[[Path], None]) -> None:
        """Write a file with ``write``, which gets a temporary path, unless it is finished."""
        if name in self.files:
            return
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.folder / name) as temporary:
            write(temporary)
        self._record({name: file_entry(self.folder / name)})

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        self.write_file(name, lambda path: _write(path, text))

    def write_folder(self, name: str, write: Callable[[Path], None]) -> None:
        """Fill a folder with ``write``, which gets a temporary one, unless it is finished."""
        done = f"{name}/"
        final = self.folder / name
        if any(file.startswith(done) for file in self.files):
            return
        temporary = temporary_path(final)
        temporary.mkdir()
        write(temporary)
        if not any(temporary.iterdir()):
            temporary.rmdir()
            return
        fsync_tree(temporary)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        paths = sorted(path for path in final.rglob("*") if path.is_file())
        self._record({path.relative_to(self.folder).as_posix(): file_entry(path) for path in paths})

    def _record(self, entries: Mapping[str, Any]) -> None:
        self.files |= entries
        text = "".join(f"{json.dumps([name, entry])}\n" for name, entry in entries.items())
        with open(self.folder / _JOURNAL, "a", encoding="utf-8") as stream:
            stream.write(text)  # one write, so that the files of a folder are recorded together
            stream.flush()
            os.fsync(stream.fileno())


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)


@contextmanager
def stage_package(out: Path, identity: Mapping[str, Any]) -> Iterator[StagedPackage]:
    """Write a package beside its final folder, and move it there when ``finish`` was called.

    Raises:
        OutputExistsError: ``out`` holds files that irdistill did not write.
        LockedError: another process writes this package.
    """
    ours = package_files(out)
    refuse_foreign_files(out, ours, "a package")
    make_folder(out.parent)
    folder = staging_path(out)
    folder.mkdir(exist_ok=True)
    with lock_folder(folder):
        staged = StagedPackage(folder, identity)
        yield staged
    (folder / LOCK).unlink(missing_ok=True)
    move_into_place(folder, out, ours)


def finish(
    staged: StagedPackage,
    contents: Mapping[str, Any],
    identity: Mapping[str, Any],
    made_with: Mapping[str, str],
) -> None:
    """Write the manifest; nothing but what it names stays in the folder."""
    write_manifest(staged.folder, contents, identity, made_with, staged.files)
    (staged.folder / _JOURNAL).unlink()
    known = {*staged.files, MANIFEST, LOCK}
    for path in [path for path in staged.folder.rglob("*") if path.is_file()]:
        if path.relative_to(staged.folder).as_posix() not in known:
            path.unlink()
