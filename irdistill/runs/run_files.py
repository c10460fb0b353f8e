"""Which files of a run's folder are the run's: those that its manifests name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

from irdistill.errors import IrdistillError
from irdistill.runs.compiled_run import ARRAYS, COMPILED
from irdistill.runs.manifest import JOURNAL, MANIFEST, QUERIES, Manifest
from irdistill.runs.stored_representations import CLASSIFIER, FORMAT
from irdistill.runs.stored_representations import FOLDER as REPRESENTATIONS
from irdistill.storage.checksums import FILES
from irdistill.storage.files import fsync_folder, read_json
from irdistill.storage.ownership import (
    MARK,
    FileTest,
    is_manifest,
    no_file,
    refuse_foreign_files,
    remove_owned_files,
)

_PART = re.compile(r"part-(\d{5,})\.(parquet|bin)")
_COMPILED = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}-\d+")


def run_files(folder: Path) -> FileTest:
    """Whether a file of a folder is part of the run in it: its own files, arrays compiled from it,
    and representations.

    Raises:
        IrdistillError: the folder has a manifest.json that is damaged, or not of a run.
    """
    if not (folder / MANIFEST).is_file():
        return no_file
    manifest = Manifest.read(folder)
    known = cache(is_manifest)

    def ours(name: str) -> bool:
        place, _, inner = name.partition("/")
        if place == COMPILED:
            return _is_compiled(folder / COMPILED, inner, manifest, known)
        if place == REPRESENTATIONS:
            return _is_representation(folder / REPRESENTATIONS, inner, manifest, known)
        return name in (MANIFEST, JOURNAL, QUERIES) or _is_part(name, "parquet", manifest)

    return ours


def _is_part(name: str, ending: str, manifest: Manifest) -> bool:
    match = _PART.fullmatch(name)
    if match is None or match[2] != ending or name != f"part-{int(match[1]):05d}.{ending}":
        return False
    return int(match[1]) in manifest


def _is_compiled(folder: Path, name: str, manifest: Manifest, known: Callable[..., bool]) -> bool:
    place, _, inner = name.partition("/")
    if not inner:  # the lock of one that was being compiled
        return (
            place.startswith(".")
            and place.endswith(".lock")
            and _COMPILED.fullmatch(place[1:-5]) is not None
        )
    arrays = [f"{array}.npy" for array in ARRAYS]
    if place.startswith(".") and place.endswith(".tmp"):  # one that a kill left unfinished
        return _COMPILED.fullmatch(place[1:-4]) is not None and inner in (MANIFEST, *arrays)
    if _COMPILED.fullmatch(place) is None:
        return False
    if known(folder / place / MANIFEST, ("run", "corpus", "layout", FILES)):
        return inner in (MANIFEST, MARK, *arrays)
    return place.startswith(manifest.fingerprint) and inner in (MANIFEST, MARK, *arrays)


def _is_representation(
    folder: Path, name: str, manifest: Manifest, known: Callable[..., bool]
) -> bool:
    if not known(folder / MANIFEST, ("plan", "parts"), format=FORMAT):
        return False
    if name == CLASSIFIER:
        return bool(read_json(folder / MANIFEST).get("classifier"))
    return name in (MANIFEST, JOURNAL) or _is_part(name, "bin", manifest)


def check_out(path: str | Path, overwrite: bool = False, inputs: Iterable[object] = ()) -> None:
    """Refuse, before any work, a folder that no run can be written to.

    Args:
        inputs: runs that are read meanwhile, as paths or objects with a ``path``.

    Raises:
        IrdistillError: it holds files that are not a run's, or it is one of the inputs.
    """
    folder = Path(path)
    for source in inputs:
        place = source if isinstance(source, str | Path) else getattr(source, "path", None)
        if (
            place is not None
            and folder.exists()
            and Path(place).exists()
            and folder.resolve() == Path(place).resolve()
        ):
            raise IrdistillError(
                f"{folder} is read and would be written at the same time; choose another --out."
            )
    if folder.exists() and not folder.is_dir():
        raise IrdistillError(
            f"cannot write {folder}: it is a file and a folder was expected; choose another name."
        )
    if overwrite or not (folder / MANIFEST).is_file():
        refuse_foreign_files(folder, run_files(folder), "a run")


def clear(folder: Path) -> None:
    """Delete a run, and nothing else; the manifest goes last, so that a kill leaves an unfinished
    run.

    Raises:
        IrdistillError: the folder holds anything that is not part of a run.
    """
    ours = run_files(folder)
    refuse_foreign_files(folder, ours, "a run")
    if not (folder / MANIFEST).is_file():
        return
    replace(Manifest.read(folder), complete=False, parts=(), usage={}).write(folder)
    remove_owned_files(folder, lambda name: name != MANIFEST and ours(name))
    (folder / MANIFEST).unlink()
    fsync_folder(folder)
