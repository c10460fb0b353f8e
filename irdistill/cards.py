"""Finding cards (teachers, suites, data, recipes) in a checkout and in an installed wheel alike."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from irdistill.errors import IrdistillError

_PACKAGE = Path(str(files("irdistill")))


def card_folder(kind: str) -> Path:
    """The folder of cards of one kind: ``teachers``, ``eval``, ``data`` or ``recipes``."""
    installed = _PACKAGE / "_cards" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def find_card(kind: str, name: str) -> Path:
    """A card by name (``minilm``), by file name (``minilm.yaml``) or by path.

    Raises:
        IrdistillError: there is none; the message lists those there are.
    """
    for path in (Path(name), card_folder(kind) / name, card_folder(kind) / f"{name}.yaml"):
        if os.path.isfile(path):  # False for a name too long for a file, where Path.is_file raises
            return path
    known = ", ".join(sorted(path.stem for path in card_folder(kind).glob("*.yaml")))
    raise IrdistillError(f"there is no card {name!r} in {kind}/. Known: {known or 'none'}. A path to a YAML file works too.")
