"""What pins a model: a hub commit, or a digest of the files that its loader reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from irdistill.errors import IrdistillError, ModelError, NotFoundError
from irdistill.modeling.model_files import STUDENT_FILE, cached_file_of, local_path, split_gguf
from irdistill.storage.files import digest, file_sha256, read_json

#: Files besides weights that transformers, sentence-transformers, PyLate and irdistill read from
#: the root of a model folder.
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


def model_revision(model: str, revision: str | None = None) -> str:
    """The commit of a hub id, or a digest of the files that the loader reads from a folder.

    It covers the base of adapters and code in other repositories.

    Raises:
        NotFoundError: there is no such model, or the commit of a hub id cannot be found.
    """
    return str(model_identity(model, revision)["revision"])


def model_identity(model: str, revision: str | None = None) -> dict[str, Any]:
    """The identity of a model: name, revision, and for a folder a digest of each file.

    The digests allow a message to name the file that changed.
    """
    files = file_digests(model, revision)
    if files:
        return {"model": model, "revision": digest(sorted(files.items())), "files": files}
    place, gguf = split_gguf(model)
    commit = _commit(place, gguf, revision)
    elsewhere = {} if gguf else _elsewhere(model, revision)
    return {"model": model, "revision": f"{commit}+{digest(elsewhere)}" if elsewhere else commit}


def file_digests(model: str, revision: str | None = None) -> dict[str, str]:
    """The files of a model folder that its loader reads, each with 16 hexadecimal digits.

    They include tokenizer, settings, modules, weights and templates, but not a README, weights of
    other frameworks or training checkpoints. The base of adapters and code of other repositories
    are listed with their revisions. Empty for a hub id, which a commit pins.

    Raises:
        NotFoundError: there is no such model.
        ModelError: its backbone cannot be used.
    """
    place, gguf = split_gguf(local_path(model, revision) or model)
    folder = Path(place)
    if not folder.is_dir():
        return {}
    names = [gguf, *_tokenizer_files(folder)] if gguf else _loaded_files(folder)
    files = {name: file_sha256(folder / name)[:16] for name in sorted(set(names))}
    return files if gguf else files | _elsewhere(model, revision)


def _loaded_files(folder: Path) -> list[str]:
    """Paths of the files that a loader reads, relative to the model folder."""
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
    """The weight files in the root of a model folder; safetensors come before pickles."""
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
    """The folders of sentence-transformers modules, including those inside a router."""
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
    """Whether no loader reads a file: notes, pictures, weights of other frameworks."""
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
    """Whether a model folder brings code, which may read any file."""
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
    """The revisions of the base of adapters and of code in other repositories."""
    places = {}
    adapters = _loaded_json(model, "adapter_config.json", revision)
    base = adapters.get("base_model_name_or_path")
    if (
        base
        and Path(local_path(model, revision) or model).resolve()
        != Path(base).expanduser().resolve()
    ):
        try:
            places[f"base {base}"] = model_revision(str(base))
        except IrdistillError as error:
            raise ModelError(
                f"the model {model!r} holds adapters for {base!r}, which cannot be used: {error}"
            ) from error
    for name in ("config.json", "tokenizer_config.json"):
        codes = _loaded_json(model, name, revision).get("auto_map") or {}
        for reference in codes.values():
            for entry in reference if isinstance(reference, list) else [reference]:
                if isinstance(entry, str) and "--" in entry:
                    repository, _, code = entry.partition("--")
                    file = code.partition(".")[0] + ".py"
                    places[f"code {repository}"] = _commit(repository, file, None)
    return places


def _loaded_json(model: str, name: str, revision: str | None) -> dict[str, Any]:
    """A JSON file of a model from its folder or the hub cache; empty if there is none."""
    place = local_path(model, revision)
    path = Path(place) / name if place else cached_file_of(model, name, revision)
    value = read_json(path) if path is not None and path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _commit(model: str, file: str | None, revision: str | None) -> str:
    """The commit of a hub id, from the cache or from the hub."""
    from huggingface_hub import HfApi

    if revision and _COMMIT.fullmatch(revision):
        return revision
    for name in (
        (file,)
        if file
        else ("config.json", "modules.json", "adapter_config.json", "tokenizer_config.json")
    ):
        cached = cached_file_of(model, name, revision)
        if cached is not None:
            return cached.parts[len(cached.parts) - cached.parts[::-1].index("snapshots")]
    try:
        return str(HfApi().model_info(model, revision=revision, timeout=10).sha)
    except Exception as error:
        if revision:
            return revision
        raise NotFoundError(
            f"the commit of the model {model!r} cannot be found: it is not in the cache, and the"
            f" hub did not answer ({type(error).__name__}). Load it once with network, or give a"
            " full commit as its revision."
        ) from error
