"""Modules of this package in saved models, whose code is saved with them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from torch import nn

from irdistill.students.pair_similarity import PairSimilarity
from irdistill.students.term_map import TermMap
from irdistill.students.term_vectors import TermVectors
from irdistill.students.word_vectors import WordVectors

#: Modules whose files import nothing of this package. Saved models contain these files, so
#: sentence-transformers opens them with ``trust_remote_code=True`` and without this package.
_CARRIED: tuple[type[nn.Module], ...] = (WordVectors, PairSimilarity, TermMap)


def _name(module: type[nn.Module]) -> str:
    """The name of a class in this package."""
    return f"{module.__module__}.{module.__qualname__}"


def _carried_name(module: type[nn.Module]) -> str:
    """The name of a class in a saved model that contains its file."""
    return f"{module.__module__.rpartition('.')[2]}.{module.__qualname__}"


#: Modules of this package by their names in model folders. They are passed to
#: sentence-transformers, so that they load without ``trust_remote_code``.
PACKAGE_MODULES: dict[str, type[nn.Module]] = {
    _name(module): module for module in (*_CARRIED, TermVectors)
} | {_carried_name(module): module for module in _CARRIED}


def carry_code(folder: Path) -> None:
    """Put the code of this package's modules into the folder of a saved model that has them."""
    for file in (folder / "modules.json", folder / "router_config.json"):
        if not file.is_file():
            continue
        text = file.read_text(encoding="utf-8")
        for module in _CARRIED:
            if f'"{_name(module)}"' not in text:
                continue
            source = Path(str(sys.modules[module.__module__].__file__))
            shutil.copyfile(source, folder / source.name)
            text = text.replace(f'"{_name(module)}"', f'"{_carried_name(module)}"')
        file.write_text(text, encoding="utf-8")
