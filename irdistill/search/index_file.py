"""An index in one file, in a folder with a manifest of what it was built from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from irdistill.errors import DamagedError, IrdistillError, NotFoundError, OutputExistsError
from irdistill.storage.checksums import (
    REBUILT,
    clear_damage_mark,
    open_files,
    read_sealed,
    verify_file,
    write_sealed,
)
from irdistill.storage.files import atomic_path, make_folder, read_json, write_json
from irdistill.storage.locking import lock_folder
from irdistill.storage.ownership import is_in_cache, is_manifest, no_file, refuse_foreign_files

logger = logging.getLogger(__name__)
_MANIFEST, _UNFINISHED = "index.json", "begun"


def build_index_file(
    folder: str | Path,
    name: str,
    identity: Mapping[str, Any],
    write: Callable[[Path], None],
    overwrite: bool = False,
) -> Path:
    """Path of the index with this identity; ``write`` builds it when it does not exist."""
    folder, content = Path(folder), {"identity": dict(identity), "name": name}
    _refuse_foreign(folder, name)
    make_folder(folder)
    with lock_folder(folder, wait=is_in_cache(folder)):
        finished = (folder / _MANIFEST).is_file() and not is_manifest(
            folder / _MANIFEST, (_UNFINISHED,)
        )
        if finished and not overwrite:
            try:
                stored, path = open_index_file(folder, name)
            except DamagedError as error:
                message = str(error).removesuffix(REBUILT).rstrip()
                logger.warning("%s The index is rebuilt.", message)
            else:
                if stored == identity:
                    return path
                if not is_in_cache(folder):
                    raise OutputExistsError(
                        f"{folder} contains another index: built from {stored}, expected"
                        f" {dict(identity)}. Choose another folder, or replace it with --overwrite."
                    )
                logger.info("the index in %s is of other vectors and is rebuilt", folder)
        write_json(folder / _MANIFEST, content | {_UNFINISHED: True})
        with atomic_path(folder / name) as temporary:
            write(temporary)
        write_sealed(folder / _MANIFEST, content, [name])
        clear_damage_mark(folder)
    return folder / name


def _refuse_foreign(folder: Path, name: str) -> None:
    if is_in_cache(folder):
        return
    if not is_manifest(folder / _MANIFEST, ("identity",)):
        refuse_foreign_files(folder, no_file, "an index")
    elif read_json(folder / _MANIFEST).get("name", name) != name:
        refuse_foreign_files(folder, lambda other: other != name, "an index")


def open_index_file(folder: str | Path, name: str) -> tuple[dict[str, Any], Path]:
    """Identity and path of an index, after a check of its whole file."""
    folder = Path(folder)
    if not (folder / _MANIFEST).is_file():
        raise NotFoundError(f"{folder} contains no index; build it first.")
    try:
        manifest = read_sealed(folder / _MANIFEST)
        verify_file(open_files(folder, manifest["files"])[name])
        return manifest["identity"], folder / name
    except DamagedError:
        raise
    except (IrdistillError, KeyError, TypeError) as error:
        raise DamagedError(folder, f"contains a damaged index ({error})", REBUILT) from error
