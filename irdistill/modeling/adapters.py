"""Adapters of peft without their backbone, which are merged into it once for all loaders."""

from __future__ import annotations

import logging
import re
import shutil
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from irdistill.errors import MissingExtraError, ModelError, one_line
from irdistill.modeling.library_output import quiet_libraries
from irdistill.storage.files import cache_folder, digest, file_sha256, read_json

logger = logging.getLogger(__name__)

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_MANIFEST = "manifest.json"
_FORMAT = 1
_TASKS = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "FEATURE_EXTRACTION": "AutoModel",
    "sequence-classification": "AutoModelForSequenceClassification",
    "text-generation": "AutoModelForCausalLM",
    "fill-mask": "AutoModelForMaskedLM",
    "feature-extraction": "AutoModel",
}
_HEADS = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
    "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
    "ForMaskedLM": "AutoModelForMaskedLM",
}
_CLASSIFIER = re.compile(
    r"(?:^|\.)(?:score|classifier|classifier\.out_proj|out_proj)(?:\.modules_to_save)?\.weight$"
)
_EMBEDDINGS = re.compile(
    r"(?:embed_tokens|word_embeddings|wte|shared)(?:\.modules_to_save)?\.weight$"
)
#: Weights that peft saves with an adapter if tokens were added.
_TOKENS = re.compile(
    r"(?:^|\.)(?:embed_tokens|word_embeddings|wte|shared|embed_in|lm_head|embed_out|predictions\.decoder)"
    r"(?:\.modules_to_save|\.base_layer|\.original_module)?\.(?:weight|bias)$"
)
#: Files of a backbone that are not its weights.
_SMALL = ("*.json", "*.txt", "*.model", "*.jinja")
_FILES = (*_SMALL, "*.safetensors")
_LARGE = 4 << 30


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter of peft without a network."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> str:
    """The backbone that an adapter names: a folder, a ``package:`` path or a hub id.

    Raises:
        ModelError: it names no backbone, or its weights are not in a safetensors file.
    """
    config = read_json(folder / CONFIG)
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not name:
        raise ModelError(
            f"the adapter {folder} names no backbone; write base_model_name_or_path into its"
            f" {CONFIG}."
        )
    if not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"the adapter {folder} has no {WEIGHTS}; save it again with save_pretrained(folder)."
        )
    inside = folder / str(name)
    return str(inside) if not Path(str(name)).exists() and inside.is_dir() else str(name)


def merged_folder(folder: Path, base: Path | str) -> Path:
    """The folder of the merged model in the cache, made on first use.

    Its key is a digest of adapter and backbone. A damaged copy is rebuilt.

    Args:
        base: the backbone's folder, or its hub id.

    Raises:
        MissingExtraError: peft is not installed.
        ModelError: the backbone cannot be loaded, or the adapter belongs to another one.
    """
    from irdistill.storage.build_cache import (
        open_or_build,
    )  # which imports numpy, and the help of the command line needs none
    from irdistill.storage.checksums import write_sealed

    backbone = base if isinstance(base, Path) else _snapshot(folder, base)
    files = [
        path
        for place in (folder, backbone)
        for path in sorted(place.rglob("*"))
        if path.is_file()
        and path.suffix in (".json", ".txt", ".model", ".jinja", ".safetensors", ".bin")
    ]
    key = _key(tuple((path, _state(path)) for path in files))

    def build(out: Path) -> None:
        logger.info("merging the adapter %s into its backbone %s", folder, backbone)
        _write(folder, backbone, out)
        names = [
            path.relative_to(out).as_posix() for path in sorted(out.rglob("*")) if path.is_file()
        ]
        write_sealed(out / _MANIFEST, {"format": _FORMAT}, names)

    def opens(out: Path) -> Path:
        return _checked(
            out, tuple((path, _state(path)) for path in sorted(out.rglob("*")) if path.is_file())
        )

    whole: Path = open_or_build(cache_folder() / "merged" / key, build, opens)
    return whole


@lru_cache(maxsize=64)
def _key(files: tuple[tuple[Path, tuple[int, ...]], ...]) -> str:
    """A digest of files' contents, computed once while their states do not change."""
    return digest([_FORMAT, [(path.name, file_sha256(path)) for path, _ in files]])


@lru_cache(maxsize=64)
def _checked(folder: Path, files: tuple[tuple[Path, tuple[int, ...]], ...]) -> Path:
    """The folder of a merged model, checked once while its files do not change.

    Raises:
        DamagedError: a file was changed.
    """
    from irdistill.storage.checksums import open_files, read_sealed

    for file in open_files(folder, read_sealed(folder / _MANIFEST)["files"]).values():
        file.check_all()
    return folder


def _state(path: Path) -> tuple[int, ...]:
    """Size, times and inode of a file; the change time cannot be set back."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _snapshot(folder: Path, base: str) -> Path:
    """The files of a backbone on the hub, in the cache of the hub."""
    from huggingface_hub import snapshot_download

    try:
        revision = read_json(folder / CONFIG).get("revision") or None
        return Path(snapshot_download(base, revision=revision, allow_patterns=list(_FILES)))
    except Exception as error:
        raise ModelError(
            f"the adapter {folder} is for the backbone {base!r}, which is neither a folder here nor"
            f" a hub id that can be reached ({type(error).__name__}:"
            f" {one_line(error, 200)}). Correct base_model_name_or_path in its"
            f" {CONFIG}."
        ) from error


def _write(folder: Path, base: Path, out: Path) -> None:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtraError("peft", "lora", f"the adapter {folder}") from error
    shapes = _shapes(folder / WEIGHTS)
    auto = _auto_class(folder, base, shapes)
    try:
        with quiet_libraries():
            network = _backbone(folder, base, auto, shapes)
            with warnings.catch_warnings(record=True) as notes:
                warnings.simplefilter("always")
                adapted = PeftModel.from_pretrained(network, str(folder))
            missing = [
                str(note.message) for note in notes if "missing adapter keys" in str(note.message)
            ]
            if missing:
                raise ModelError(f"the adapter {folder} lacks weights: {missing[0][:300]}.")
            _check_places(folder, adapted)
            whole = adapted.merge_and_unload()
            if hasattr(whole, "peft_config"):
                del whole.peft_config
            whole._hf_peft_config_loaded = False
            whole.save_pretrained(out)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"the adapter {folder} cannot be merged into its backbone {base}: {one_line(error)}."
        ) from error
    _copy_files(folder, base, out, auto)


def _check_places(folder: Path, adapted: Any) -> None:
    """Refuse an adapter with weights that the network lacks; peft would ignore them silently."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, "numpy") as weights:
        unknown = {key for key in weights.keys() if not _TOKENS.search(key)}  # noqa: SIM118
    unknown -= set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if unknown:
        raise ModelError(
            f"the adapter {folder} holds weights that its backbone has no place for:"
            f" {', '.join(sorted(unknown)[:3])}. Was it trained on another one, or by another"
            " version of peft?"
        )


def _shapes(path: Path) -> dict[str, list[int]]:
    from safetensors import safe_open

    try:
        with safe_open(path, "numpy") as weights:
            names = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    except Exception as error:
        raise ModelError(
            f"the adapter weights {path} cannot be read: {error}. Were they saved completely?"
        ) from error
    return {name.removeprefix("base_model.model."): shape for name, shape in names.items()}


def _auto_class(folder: Path, base: Path, shapes: dict[str, list[int]]) -> str:
    """The class of transformers that has every layer that the adapter changes.

    Raises:
        ModelError: there is no such class.
    """
    import torch
    import transformers

    config, base_config = read_json(folder / CONFIG), read_json(base / "config.json")
    inner = _json(folder / "sentence_bert_config.json").get("transformer_task")
    saved = _json(folder / "config_sentence_transformers.json").get("model_type")
    names = [
        *(base_config.get("architectures") or []),
        str((config.get("auto_mapping") or {}).get("base_model_class", "")),
    ]
    candidates = ["AutoModelForSequenceClassification"] if saved == "CrossEncoder" else []
    candidates += [_TASKS[key] for key in (inner, config.get("task_type")) if key in _TASKS]
    candidates += [
        auto for ending, auto in _HEADS.items() if any(name.endswith(ending) for name in names)
    ]
    layers = {
        re.sub(r"\.(?:lora_|ia3_|hada_|lokr_|oft_|vera_)\w*.*$", "", name)
        for name in shapes
        if re.search(r"\.(?:lora_|ia3_|hada_|lokr_|oft_|vera_)", name)
    }
    settings = transformers.AutoConfig.from_pretrained(base)
    for auto in dict.fromkeys([*candidates, "AutoModel"]):
        try:
            with torch.device("meta"):
                network = getattr(transformers, auto).from_config(settings)
        except ValueError:  # there is no such class for this family
            continue
        if layers <= {name for name, _ in network.named_modules()}:
            return auto
    raise ModelError(
        f"the adapter {folder} changes layers that its backbone {base} does not have"
        f" ({min(layers, default='none')!r} first); it was trained on another backbone. Correct"
        f" base_model_name_or_path in its {CONFIG}."
    )


def _backbone(folder: Path, base: Path, auto: str, shapes: dict[str, list[int]]) -> Any:
    """The backbone, with a head and embeddings of the sizes that the adapter needs.

    Raises:
        ModelError: weights are in neither adapter nor backbone, so they would be random.
    """
    import torch
    import transformers

    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    settings: dict[str, Any] = {"dtype": torch.float32 if size < _LARGE else "auto"}
    heads = [shape[0] for name, shape in shapes.items() if _CLASSIFIER.search(name)]
    if auto.endswith("ForSequenceClassification") and heads:
        settings |= {"num_labels": heads[-1], "ignore_mismatched_sizes": True}
    # a missing pooler is unused, but must not differ between caches
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, report = getattr(transformers, auto).from_pretrained(
            base, output_loading_info=True, **settings
        )
    brought = {name.replace(".modules_to_save", "") for name in shapes}
    absent = {
        *(report.get("missing_keys") or ()),
        *(entry[0] for entry in report.get("mismatched_keys") or ()),
    }
    random = sorted(
        name
        for name in absent - brought
        if not name.startswith("pooler.") and ".pooler." not in name
    )
    if random:
        raise ModelError(
            f"neither the adapter {folder} nor its backbone {base} has the weights"
            f" {', '.join(random[:3])}, which would be random."
        )
    from irdistill.modeling.weights import unknown_keys

    extra = unknown_keys(network, report.get("unexpected_keys") or ())
    if extra:
        raise ModelError(
            f"the backbone {base} of the adapter {folder} holds weights that"
            f" {type(network).__name__} has no place for: {', '.join(sorted(extra)[:3])}. Save its"
            " weights and its config.json together again."
        )
    tokens = [shape[0] for name, shape in shapes.items() if _EMBEDDINGS.search(name)]
    if tokens and tokens[0] != network.get_input_embeddings().num_embeddings:
        network.resize_token_embeddings(tokens[0])
    return network.eval()


def _copy_files(folder: Path, base: Path, out: Path, auto: str) -> None:
    """Copy tokenizer and sentence-transformers modules, the adapter's before the backbone's."""
    kept = {path.name for path in out.iterdir()}
    modules = (folder / "modules.json").is_file()
    encoder = auto in ("AutoModel", "AutoModelForMaskedLM") and not modules
    for place, subfolders in ((base, encoder), (folder, True)):
        for path in sorted(place.iterdir()):
            if path.is_dir() and subfolders and (path / "config.json").is_file():
                shutil.copytree(path, out / path.name, dirs_exist_ok=True)
            sentence = path.name in (
                "modules.json",
                "sentence_bert_config.json",
                "config_sentence_transformers.json",
            )
            if (
                path.is_file()
                and any(path.match(pattern) for pattern in _SMALL)
                and path.name not in kept
                and path.name != CONFIG
                and not path.name.endswith(".index.json")
                and (subfolders or not sentence)
            ):
                shutil.copyfile(path, out / path.name)


def _json(path: Path) -> dict[str, Any]:
    value = read_json(path) if path.is_file() else {}
    return value if isinstance(value, dict) else {}
