"""Folders of the cache whose files are checked as a whole before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irdistill.storage.checksums import FILES, open_files, read_sealed, verify_file, write_sealed
from irdistill.storage.ownership import list_files

MANIFEST = "manifest.json"


def seal_files(folder: Path, value: Mapping[str, Any] | None = None) -> None:
    """Write a manifest with the checksums of all files below a folder.

    Args:
        value: further entries of the manifest.
    """
    names = [name for name in list_files(folder) if name != MANIFEST]
    write_sealed(folder / MANIFEST, value or {}, names)


def check_sealed_files(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose files are those that were written.

    Raises:
        NotFoundError: there is no manifest.
        InputError: it has no checksum.
        DamagedError: a file or the manifest is damaged.
    """
    manifest = read_sealed(folder / MANIFEST)
    for file in open_files(folder, manifest.get(FILES, {})).values():
        verify_file(file)
    return manifest
