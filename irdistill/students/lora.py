"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685), with peft."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from sentence_transformers.base.modules import Router, Transformer
from torch import nn

from irdistill.errors import MissingExtraError, OptionError
from irdistill.students.student_loading import same_new_weights
from irdistill.students.student_options import StudentOptions


def add_adapters(networks: Iterable[Any], options: StudentOptions, seed: int = 0) -> None:
    """Freeze transformers and put adapters beside their linear layers; new heads are trained whole.

    A layer becomes ``W + alpha / rank * B A``, where B begins at 0.

    Args:
        networks: models of transformers; duplicates are skipped.
        options: the ``lora_`` options.
        seed: of A.

    Raises:
        MissingExtraError: peft is not installed.
        OptionError: no layer has such a name; or the adapters alone would not load, because the
            backbone was shortened.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MissingExtraError("peft", "lora", "LoRA") from error
    distinct = list({id(network): network for network in networks}.values())
    if not options.lora_merge and any(_is_shortened(network) for network in distinct):
        raise OptionError(
            "lora_merge=False saves no backbone, and this one was shortened; leave out layers, or"
            " set lora_merge=True."
        )
    rank, targets = options.lora_rank, options.lora_targets
    assert rank is not None
    with same_new_weights(seed):
        for network in distinct:
            config = LoraConfig(
                r=rank,
                lora_alpha=options.lora_alpha or 2 * rank,
                target_modules=targets if isinstance(targets, str) else list(targets),
                modules_to_save=_head_names(network) or None,
            )
            try:
                network.add_adapter(config)
            except ValueError as error:
                raise OptionError(
                    f"lora_targets={targets!r} does not fit {type(network).__name__}: {error}"
                ) from error


def _is_shortened(network: Any) -> bool:
    """Whether a network has fewer layers than the one it was loaded from."""
    from transformers import AutoConfig

    original = AutoConfig.from_pretrained(network.name_or_path)
    return bool(network.config.num_hidden_layers != original.num_hidden_layers)


def _head_names(network: Any) -> list[str]:
    """The parts of a classifier after its encoder. They may be new, so they are trained whole."""
    if "SequenceClassification" not in type(network).__name__:
        return []
    return [
        name
        for name, part in network.named_children()
        if name != network.base_model_prefix and list(part.parameters())
    ]


def has_adapters(model: Any) -> bool:
    """Whether a sentence-transformers model has adapters beside its weights."""
    return any(getattr(module, "_hf_peft_config_loaded", False) for module in model.modules())


def merge_adapters(model: Any) -> Any:
    """A copy of a sentence-transformers model with its adapters added to the weights."""
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper

    merged = copy.deepcopy(model)
    towers = merged[0].sub_modules.values() if isinstance(merged[0], Router) else [merged]
    for module in (module for tower in towers for module in tower):
        if not isinstance(module, Transformer):
            continue
        network = module.model
        if not getattr(network, "_hf_peft_config_loaded", False):
            continue
        for name, part in list(network.named_modules()):
            if isinstance(part, LoraLayer):
                part.merge()
                _replace(network, name, part.get_base_layer())
            elif isinstance(part, ModulesToSaveWrapper):
                _replace(network, name, part.modules_to_save["default"])
        network._hf_peft_config_loaded = False
        del network.peft_config
    return merged


def _replace(network: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, part)
