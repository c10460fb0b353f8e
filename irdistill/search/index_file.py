"""An index that is one file in a folder of its own: made once, and known by what it was made of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from irdistill.errors import DamagedError, IrdistillError
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
_MANIFEST, _BEGUN = "index.json", "begun"


def make_once(
    folder: str | Path,
    name: str,
    identity: Mapping[str, Any],
    write: Callable[[Path], None],
    overwrite: bool = False,
) -> Path:
    """The path of the index, which ``write`` is asked to make where it is not there.

    Raises:
        IrdistillError: the folder holds another index (and ``overwrite`` is not set), it is
            damaged, another process writes there, or the disk is full.
    """
    folder = Path(folder)
    _refuse_others(folder, name)
    make_folder(folder)
    with lock_folder(folder):
        if (
            (folder / _MANIFEST).is_file()
            and not overwrite
            and not is_manifest(folder / _MANIFEST, (_BEGUN,))
        ):
            try:
                stored, path = open_made(folder, name)
            except DamagedError as error:
                logger.warning(
                    "%s The index is built again.", str(error).removesuffix(REBUILT).rstrip()
                )
            else:
                if stored == identity:
                    return path
                if not is_in_cache(folder):
                    raise IrdistillError(
                        f"{folder} holds another index ({stored} there, {dict(identity)} now). "
                        "Choose another folder, or pass --overwrite to replace it."
                    )
                logger.info("the index in %s is over other vectors and is built again", folder)
        write_json(folder / _MANIFEST, {"identity": dict(identity), "name": name, _BEGUN: True})
        with atomic_path(folder / name) as temporary:
            write(temporary)
        write_sealed(folder / _MANIFEST, {"identity": dict(identity), "name": name}, [name])
        clear_damage_mark(folder)
    return folder / name


def _refuse_others(folder: Path, name: str) -> None:
    if is_in_cache(folder):
        return
    if not is_manifest(folder / _MANIFEST, ("identity",)):
        refuse_foreign_files(folder, no_file, "an index")
    elif read_json(folder / _MANIFEST).get("name", name) != name:
        refuse_foreign_files(folder, lambda other: other != name, "an index")


def open_made(folder: str | Path, name: str) -> tuple[dict[str, Any], Path]:
    """What an index was made of, and its path; all of the file is compared with its checksums.

    Raises:
        IrdistillError: there is none, or it is damaged.
    """
    folder = Path(folder)
    if not (folder / _MANIFEST).is_file():
        raise IrdistillError(f"{folder} holds no index; build it first.")
    try:
        manifest = read_sealed(folder / _MANIFEST)
        verify_file(open_files(folder, manifest["files"])[name])
        return manifest["identity"], folder / name
    except (IrdistillError, KeyError, TypeError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(folder, f"holds an index that is damaged ({error})", REBUILT) from error
