"""What decides the scores of a teacher that is named, without loading it."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from irdistill.errors import IrdistillError
from irdistill.modeling.model_files import local_path
from irdistill.modeling.model_revisions import model_revision
from irdistill.storage.files import digest, file_sha256
from irdistill.teachers.function_teacher import is_reference
from irdistill.teachers.teacher_card import TeacherCard, read_card

_DOCUMENTATION = ("name", "description", "license", "source", "published")
_MODEL_CONFIGS = ("config.json", "modules.json", "adapter_config.json")

FileState = tuple[str, int, int, int, int]


def teacher_content(teacher: str) -> str | None:
    """16 hexadecimal digits of the card, the files and the code that a name stands for.

    None if it stands for none of them: a model of a server without a card, or of the hub, whose
    commit is part of the identity of what it makes.

    Args:
        teacher: a card, a model, or a function, as `load_teacher` takes it.

    Examples:
        >>> teacher_content("minilm") == teacher_content("teachers/minilm.yaml") != None
        True
        >>> teacher_content("owner/model")
    """
    card = _card(teacher)
    if card is None:
        return model_content(teacher)
    settings = {key: value for key, value in asdict(card).items() if key not in _DOCUMENTATION}
    return digest([settings, model_content(card.model)])


def model_content(model: str) -> str | None:
    """The revision of a model folder or GGUF file, or a hash of the file of a function.

    None for other names, such as hub ids.
    """
    if is_reference(model):
        code = _code_file(model)
        return None if code is None else file_sha256(code)[:16]
    if not _is_model(model):
        return None
    place = local_path(model) or model
    return _revision(place, _states(Path(place)))


def _card(teacher: str) -> TeacherCard | None:
    try:
        return read_card(teacher)
    except IrdistillError:
        return None


def _code_file(reference: str) -> Path | None:
    """The file of ``FILE.py:name``, or of ``module:name`` in the working directory."""
    place = reference.rpartition(":")[0]
    path = Path(place if place.endswith(".py") else f"{place.replace('.', '/')}.py")
    return path if path.is_file() else None


def _is_model(name: str) -> bool:
    if name.startswith("package:"):
        return True
    folder = Path(name).expanduser()
    # os.path.isfile is False for a name that is too long; Path.is_file raises
    return (name.endswith(".gguf") and os.path.isfile(folder)) or any(
        os.path.isfile(folder / config) for config in _MODEL_CONFIGS
    )


def _states(place: Path) -> tuple[FileState, ...]:
    paths = sorted(place.rglob("*")) if place.is_dir() else [place]
    states = [(str(path), path.stat()) for path in paths if path.is_file()]
    return tuple(
        (name, it.st_size, it.st_mtime_ns, it.st_ctime_ns, it.st_ino) for name, it in states
    )


@lru_cache(maxsize=256)
def _revision(model: str, states: tuple[FileState, ...]) -> str:
    """The revision of a model, computed once while its files do not change."""
    return model_revision(model)
