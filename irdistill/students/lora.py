"""Training a student by low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685), with peft."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from sentence_transformers.base.modules import Router, Transformer
from torch import nn

from irdistill.errors import IrdistillError, MissingExtraError
from irdistill.students.base import Student
from irdistill.students.student_loading import same_new_weights

#: What `build_student` takes for a student of any kind. Kinds of students whose networks are
#: transformers as their library makes them, which adapters can be put into.
PLAIN = ("dense", "sparse", "late-interaction", "cross-encoder")
LORA_SETTINGS = ("lora_rank", "lora_alpha", "lora_targets", "lora_merge")


def add_lora(
    student: Student,
    rank: int,
    alpha: float | None = None,
    targets: str | Sequence[str] = "all-linear",
    merge: bool = True,
    seed: int = 0,
) -> None:
    """Freeze the transformers that learn, and put adapters beside their linear layers; new heads
    and projections learn whole.

    Args:
        rank: of the matrices A and B; a layer becomes ``W + alpha / rank * B A``, and B begins at
            0.
        alpha: twice the rank where None.
        targets: ``all-linear``, or the ends of the names of layers, as ``query``, ``value``.
        merge: save a plain model in which ``W`` holds the sum. Otherwise adapters alone are saved,
            and who loads the model needs peft, and the backbone in the same place.
        seed: of A.

    Raises:
        IrdistillError: peft is not installed, a number is out of its range, no layer has such a
            name, or adapters alone would not load, as the backbone was shortened.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MissingExtraError("peft", "lora", "LoRA") from error
    if not isinstance(rank, int) or rank < 1 or (alpha is not None and not alpha > 0):
        raise IrdistillError(
            f"lora_rank={rank!r} and lora_alpha={alpha!r} were given; 8 and 16 would do."
        )
    if student.kind not in PLAIN:
        raise IrdistillError(
            f"lora_rank was given for a {student.kind} student; adapters are for {', '.join(PLAIN)}"
            " ones."
        )
    inner = _transformers(student)
    if not merge and any(_shortened(module) for module in inner):
        raise IrdistillError(
            "lora_merge=False saves no backbone, and this one was shortened; leave out layers=, or"
            " merge."
        )
    with same_new_weights(seed):
        for module in inner:
            config = LoraConfig(
                r=rank,
                lora_alpha=alpha or 2 * rank,
                target_modules=targets if isinstance(targets, str) else list(targets),
                modules_to_save=_head(module) or None,
            )
            try:
                module.add_adapter(config)
            except ValueError as error:
                raise IrdistillError(
                    f"lora_targets={targets!r} does not fit {type(module).__name__}: {error}"
                ) from error
    student.merge_lora = merge


def _transformers(student: Student) -> list[Any]:
    """The models, each once, of the towers that learn."""
    found = [
        module.model
        for kind in student.sides
        if student.learns(kind)
        for module in student._transformers(kind)
    ]
    return list({id(module): module for module in found}.values())


def _shortened(module: Any) -> bool:
    """Whether it has fewer layers than where it was loaded from."""
    from transformers import AutoConfig

    return bool(
        module.config.num_hidden_layers
        != AutoConfig.from_pretrained(module.name_or_path).num_hidden_layers
    )


def _head(module: Any) -> list[str]:
    """The parts of a classifier that stand behind its encoder; they may be new, and learn whole."""
    if "SequenceClassification" not in type(module).__name__:
        return []
    return [
        name
        for name, part in module.named_children()
        if name != module.base_model_prefix and list(part.parameters())
    ]


def merged(model: Any) -> Any:
    """A copy of a sentence-transformers model with its adapters added to the weights."""
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper

    copied = copy.deepcopy(model)
    towers = copied[0].sub_modules.values() if isinstance(copied[0], Router) else [copied]
    for module in (
        module for tower in towers for module in tower if isinstance(module, Transformer)
    ):
        inner = module.model
        if not getattr(inner, "_hf_peft_config_loaded", False):
            continue
        for name, part in list(inner.named_modules()):
            if isinstance(part, LoraLayer):
                part.merge()
                _replace(inner, name, part.get_base_layer())
            elif isinstance(part, ModulesToSaveWrapper):
                _replace(inner, name, part.modules_to_save["default"])
        inner._hf_peft_config_loaded = False
        del inner.peft_config
    return copied


def _replace(model: nn.Module, name: str, part: nn.Module) -> None:
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, part)
