"""An index that is one file in a folder of its own: made once, and known by what it was made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from irdistill.errors import IrdistillError
from irdistill.files import atomic_path, exclusive, make_folder, read_json, write_json

_MANIFEST = "index.json"


def make_once(folder: str | Path, name: str, identity: Mapping[str, Any], write: Callable[[Path], None],
              overwrite: bool = False) -> Path:
    """The path of the index, which ``write`` is asked to make where it is not there.

    Raises:
        IrdistillError: the folder holds another index (and ``overwrite`` is not set), it is damaged, another process writes
            there, or the disk is full.
    """
    folder = make_folder(folder)
    with exclusive(folder):
        if (folder / _MANIFEST).is_file() and not overwrite:
            found, path = open_made(folder, name)
            if found != identity:
                raise IrdistillError(
                    f"{folder} holds another index ({found} there, {dict(identity)} now). "
                    "Choose another folder, or pass --overwrite to replace it."
                )
            return path
        (folder / _MANIFEST).unlink(missing_ok=True)
        with atomic_path(folder / name) as temporary:
            write(temporary)
        write_json(folder / _MANIFEST, {"identity": dict(identity), "bytes": (folder / name).stat().st_size})
    return folder / name


def open_made(folder: str | Path, name: str) -> tuple[dict[str, Any], Path]:
    """What an index was made of, and its path.

    Raises:
        IrdistillError: there is none, or it is damaged.
    """
    manifest, path = read_json(Path(folder) / _MANIFEST), Path(folder) / name
    if not path.is_file() or path.stat().st_size != manifest["bytes"]:
        raise IrdistillError(f"the index {path} is damaged; delete {folder} and build it again.")
    return manifest["identity"], path
