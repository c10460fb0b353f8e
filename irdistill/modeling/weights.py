"""Checks that the weights in a model's files are exactly those that the network needs."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from irdistill.errors import ModelError
from irdistill.modeling.library_output import quiet_libraries

#: Modules of transformers that report what was loaded, by a function with the name below.
_REPORTS = ("transformers.modeling_utils", "transformers.integrations.peft")
_REPORT = "log_state_dict_report"

#: Classes of transformers whose heads a checkpoint of another class may hold.
_FAMILIES = (
    "MODEL",
    "MODEL_FOR_PRETRAINING",
    "MODEL_FOR_MASKED_LM",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION",
    "MODEL_FOR_CAUSAL_LM",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM",
    "MODEL_FOR_TOKEN_CLASSIFICATION",
    "MODEL_FOR_QUESTION_ANSWERING",
    "MODEL_FOR_MULTIPLE_CHOICE",
    "MODEL_FOR_NEXT_SENTENCE_PREDICTION",
)

_FLOATS = {"F64", "F32", "F16", "BF16"}
_SHOWN = 5


@contextmanager
def complete_weights(model: str, *, new_head: bool = False, seed: int = 0) -> Iterator[None]:
    """Refuse networks loaded in this context whose files lack weights or hold unexpected ones.

    Shapes and types are checked too. Differences that transformers lists as legitimate (tied
    weights, old buffers) pass, as do an unused pooler and heads of the family for other tasks.

    Args:
        model: named in errors.
        new_head: allow a new head if the backbone's architecture lacks one, for a student.
        seed: of such new weights, so that two processes make the same model.

    Raises:
        ModelError: keys are missing, unexpected or do not fit; they are named.
    """
    networks: list[tuple[Any, Any, str, bool]] = []
    modules = [import_module(name) for name in _REPORTS]
    originals = [getattr(module, _REPORT) for module in modules]

    def collect(
        adapter: bool, model: Any, pretrained_model_name_or_path: Any, loading_info: Any
    ) -> None:
        _check_shapes(loading_info, label)
        networks.append((model, loading_info, str(pretrained_model_name_or_path), adapter))

    label = model
    for module, adapter in zip(modules, (False, True), strict=True):
        setattr(module, _REPORT, _reporter(collect, adapter))
    try:
        with quiet_libraries(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        for module, original in zip(modules, originals, strict=True):
            setattr(module, _REPORT, original)
    for network, loading_info, place, adapter in networks:
        _check_network(network, loading_info, place, adapter, model, new_head)


def _reporter(collect: Any, adapter: bool) -> Any:
    """A replacement of the report of transformers that raises the same errors without printing."""

    def report(
        model: Any,
        pretrained_model_name_or_path: Any,
        ignore_mismatched_sizes: Any,
        loading_info: Any,
        logger: Any = None,
    ) -> None:
        if loading_info.error_msgs or loading_info.conversion_errors:
            raise RuntimeError(
                " ".join(
                    [*loading_info.error_msgs, *map(str, loading_info.conversion_errors.values())]
                )
            )
        collect(adapter, model, pretrained_model_name_or_path, loading_info)

    return report


def _check_shapes(info: Any, model: str) -> None:
    wrong = sorted(info.mismatched_keys)
    if wrong:
        raise ModelError(
            f"the model {model!r} has weights of another shape than its config.json describes: "
            + _some(
                [
                    f"{key} {tuple(shape)} instead of {tuple(expected)}"
                    for key, shape, expected in wrong
                ]
            )
            + ". Save weights and config together again."
        )


def _check_network(
    network: Any, info: Any, place: str, adapter: bool, model: str, new_head: bool
) -> None:
    name = type(network).__name__
    what = f"the adapters of {model!r}" if adapter else f"the model {model!r}"
    missing = [
        key for key in info.missing_keys if adapter or not _may_be_new(network, key, new_head)
    ]
    if missing:
        raise ModelError(
            f"{what} lack{'' if adapter else 's'} weights that {name} needs, which would be random:"
            f" {_some(missing)}. "
            + _others(info.unexpected_keys)
            + "Save the model completely again, or give another one."
        )
    unexpected = info.unexpected_keys if adapter else unknown_keys(network, info.unexpected_keys)
    if unexpected:
        raise ModelError(
            f"{what} hold{'' if adapter else 's'} weights that {name} has no place for:"
            f" {_some(unexpected)}. Its config.json describes another network than its weights;"
            " save both together again."
        )
    _check_types(network, Path(place), model)


def _others(keys: Iterable[str]) -> str:
    return f"It holds weights of other names: {_some(keys)}. " if keys else ""


def _some(keys: Iterable[str]) -> str:
    ordered = sorted(keys)
    return ", ".join(ordered[:_SHOWN]) + (
        f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    )


def _may_be_new(network: Any, key: str, new_head: bool) -> bool:
    """Whether a weight may be missing: it is unused, in an adapter, or part of a new head."""
    prefix = network.base_model_prefix
    is_base = not (prefix and hasattr(network, prefix))
    pooler = "pooler" in key.split(".")
    if is_base:
        return pooler
    owner = key
    while "." in owner:  # a whole module that is saved with the adapters
        owner = owner.rpartition(".")[0]
        if hasattr(network.get_submodule(owner), "modules_to_save"):
            return True
    lacks_head = type(network).__name__ not in (network.config.architectures or [])
    return new_head and lacks_head and (pooler or key.partition(".")[0] != prefix)


def unknown_keys(network: Any, unexpected: Iterable[str]) -> set[str]:
    """The keys that belong to no head of the network's family.

    For an architecture that transformers does not know, every head is accepted, and only keys in
    the backbone are unknown.
    """
    # The numbers 0, 1, 2, … of positions, which old files hold and new networks compute.
    rest = {key for key in unexpected if not key.endswith("embeddings.position_ids")}
    prefix = network.base_model_prefix
    base = getattr(network, prefix, network) if prefix else network
    for kind in _relatives(network) if rest else ():
        keys_of_kind = _keys_of(kind, network.config, prefix)
        rest = {key for key in rest if _without(key, prefix) not in keys_of_kind}
        if not rest:
            return rest
    import transformers

    names = network.config.architectures or []
    if not any(hasattr(transformers, name) for name in names):
        inner = {name for name, _ in base.named_children()}
        rest = {
            key for key in rest if key.startswith(f"{prefix}.") or key.partition(".")[0] in inner
        }
    return rest


def _without(key: str, prefix: str) -> str:
    return key.removeprefix(f"{prefix}.") if prefix else key


def _relatives(network: Any) -> list[Any]:
    import transformers
    from transformers.models.auto import modeling_auto

    declared = [getattr(transformers, name, None) for name in network.config.architectures or []]
    known: list[Any] = [kind for kind in declared if kind is not None]
    for family in _FAMILIES:
        kind = getattr(modeling_auto, f"{family}_MAPPING").get(type(network.config), None)
        known += list(kind) if isinstance(kind, tuple) else [kind] if kind is not None else []
    return list(dict.fromkeys(known))


def _keys_of(kind: Any, config: Any, prefix: str) -> set[str]:
    """The keys of a class of networks, in memory and saved, without the backbone's prefix."""
    from transformers.core_model_loading import revert_weight_conversion

    try:
        with torch.device("meta"), quiet_libraries():
            network = kind(config)
            state = network.state_dict()
            return {
                _without(key, prefix)
                for key in (*state, *revert_weight_conversion(network, dict(state)))
            }
    except (ValueError, TypeError, AttributeError, NotImplementedError):
        return set()  # this class does not accept such a config


def _check_types(network: Any, folder: Path, model: str) -> None:
    """Refuse integers in place of floating-point weights, which transformers rounds silently."""
    if not folder.is_dir() or getattr(network.config, "quantization_config", None) is not None:
        return
    prefix = network.base_model_prefix
    floats = {
        _without(name, prefix)
        for name, value in network.named_parameters()
        if value.is_floating_point()
    }
    wrong = [
        f"{key} ({kind})"
        for path in sorted(folder.glob("*.safetensors"))
        for key, kind in _stored_types(path).items()
        if kind not in _FLOATS and _without(key, prefix) in floats
    ]
    if wrong:
        raise ModelError(
            f"the model {model!r} has weights that are not floating-point numbers: {_some(wrong)}."
            " A quantized model needs its quantization_config; otherwise save it again in float32."
        )


def _stored_types(path: Path) -> dict[str, str]:
    """The type of each tensor in a safetensors file, from its header."""
    with open(path, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return {key: str(entry["dtype"]) for key, entry in header.items() if key != "__metadata__"}


def check_new_modules(
    encoder: Any, modules: Iterable[str], architectures: Iterable[str], model: str
) -> None:
    """Refuse a sentence-transformers model that got a layer of random weights on loading.

    Args:
        modules: the classes of modules in its files.
        architectures: those in its config.json; a Stanford ColBERT has its projection among its
            other weights.

    Raises:
        ModelError: it has such a layer.
    """
    from sentence_transformers.base.modules import Router, Transformer

    known = set(modules) | ({"Dense"} if "HF_ColBERT" in architectures else set())
    new = [
        type(module).__name__
        for module in encoder
        if not isinstance(module, Router | Transformer)
        and type(module).__name__ not in known
        and next(module.parameters(), None) is not None
    ]
    if new:
        raise ModelError(
            f"the model {model!r} was not saved as a {type(encoder).__name__}, and its"
            f" {', '.join(new)} layer would be random. Give a model of that kind, or leave the kind"
            " (type) to be detected; to train one, build a student from it."
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"the weights {path} cannot be read ({error}); the file is missing or damaged. Copy or"
            " save the model again."
        ) from error


def fill(module: nn.Module, weights: dict[str, Tensor], source: str | Path) -> None:
    """Load weights into a module; keys, shapes and types must agree.

    Raises:
        ModelError: they differ; the keys are named.
    """
    expected = module.state_dict()
    missing, unexpected = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    if missing:
        raise ModelError(
            f"the weights {source} lack {_some(missing)}, which would be random."
            f" {_others(unexpected)}Save the model completely again, or give another one."
        )
    if unexpected:
        raise ModelError(
            f"the weights {source} hold {_some(unexpected)}, for which {type(module).__name__} has"
            " no place. Save the model again, weights and settings together."
        )
    wrong = [
        f"{key} {tuple(value.shape)} {value.dtype} instead of {tuple(expected[key].shape)}"
        f" {expected[key].dtype}"
        for key, value in weights.items()
        if value.shape != expected[key].shape
        or value.is_floating_point() != expected[key].is_floating_point()
    ]
    if wrong:
        raise ModelError(
            f"the weights {source} do not fit their settings: {_some(wrong)}. Save the model again."
        )
    module.load_state_dict(weights)
