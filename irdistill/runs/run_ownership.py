"""Which files of a run's folder belong to the run: those that its manifests name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

from irdistill.errors import InputError, OptionError
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
_COMPILED_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}-\d+")
_COMPILED_FILES = (MANIFEST, *(f"{name}.npy" for name in ("offsets", "rows", "scores", "codes")))


def run_files(folder: Path) -> FileTest:
    """A test of whether a file of a folder belongs to the run in it.

    Representations belong to it, and the folder ``compiled/`` that earlier versions wrote.
    """
    if not (folder / MANIFEST).is_file():
        return no_file
    manifest = Manifest.read(folder)
    known = cache(is_manifest)

    def ours(name: str) -> bool:
        first, _, inner = name.partition("/")
        if first == "compiled":
            return _is_compiled(folder / first, inner, manifest, known)
        if first == REPRESENTATIONS:
            return _is_representation(folder / REPRESENTATIONS, inner, manifest, known)
        return name in (MANIFEST, JOURNAL, QUERIES) or _is_part(name, "parquet", manifest)

    return ours


def _is_part(name: str, ending: str, manifest: Manifest) -> bool:
    match = _PART.fullmatch(name)
    if match is None or match[2] != ending or name != f"part-{int(match[1]):05d}.{ending}":
        return False
    return int(match[1]) in manifest


def _is_compiled(folder: Path, name: str, manifest: Manifest, known: Callable[..., bool]) -> bool:
    first, _, inner = name.partition("/")
    if first.startswith("."):  # a lock, or a build that was killed
        is_lock = not inner and first.endswith(".lock")
        is_build = inner in _COMPILED_FILES and first.endswith(".tmp")
        name = first.removeprefix(".").removesuffix(".lock" if is_lock else ".tmp")
        return (is_lock or is_build) and _COMPILED_NAME.fullmatch(name) is not None
    if _COMPILED_NAME.fullmatch(first) is None or inner not in (MARK, *_COMPILED_FILES):
        return False
    sealed = known(folder / first / MANIFEST, ("run", "corpus", "layout", FILES))
    return sealed or first.startswith(manifest.fingerprint)


def _is_representation(
    folder: Path, name: str, manifest: Manifest, known: Callable[..., bool]
) -> bool:
    if not known(folder / MANIFEST, ("plan", "parts"), format=FORMAT):
        return False
    if name == CLASSIFIER:
        return bool(read_json(folder / MANIFEST).get("classifier"))
    return name in (MANIFEST, JOURNAL) or _is_part(name, "bin", manifest)


def check_out(path: str | Path, overwrite: bool = False, inputs: Iterable[object] = ()) -> None:
    """Check, before any work, that a run can be written to a folder.

    Args:
        overwrite: a run in the folder will be replaced.
        inputs: runs that are read meanwhile, as paths or objects with a ``path``.
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
            raise OptionError(
                f"{folder} is an input and cannot be the output too; choose another --out."
            )
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"cannot write {folder}: it is a file and a folder was expected; choose another name."
        )
    if overwrite or not (folder / MANIFEST).is_file():
        refuse_foreign_files(folder, run_files(folder), "a run")


def clear(folder: Path) -> None:
    """Delete a run and nothing else. The manifest goes last: a kill leaves an unfinished run."""
    ours = run_files(folder)
    refuse_foreign_files(folder, ours, "a run")
    if not (folder / MANIFEST).is_file():
        return
    replace(Manifest.read(folder), complete=False, parts=(), usage={}).write(folder)
    remove_owned_files(folder, lambda name: name != MANIFEST and ours(name))
    (folder / MANIFEST).unlink()
    fsync_folder(folder)
