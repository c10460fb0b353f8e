"""Weighted averages of models of one architecture (LM-Cocktail, Xiao et al. 2023,
arXiv:2311.13534).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from sentence_transformers.base.modules import Router
from torch import Tensor

from irdistill.errors import ModelError, OptionError
from irdistill.storage.files import differences, digest
from irdistill.students.fingerprints import describe_modules
from irdistill.students.lora import merge_adapters
from irdistill.students.student_base import Student
from irdistill.students.tower_model import TextKind
from irdistill.students.towers import separate_towers

_LENGTHS = ("query_length", "document_length", "max_seq_length", "max_query_length", "max_length")
"""Settings in which merged models may differ."""


def average_students(students: Sequence[Student], weights: Sequence[float]) -> Student:
    """A model whose weights are the weighted average of those of several models.

    Everything but the weights, such as text lengths, comes from the first model that has two
    towers, or from the first if none has. A model with one tower counts as two equal towers, so
    that a student whose query tower was trained can be merged with the model it started from.

    Args:
        students: two or more models of one architecture.
        weights: one for each model, from 0 to 1, with the sum 1.

    Raises:
        OptionError: the weights are not such numbers.
        ModelError: the models differ in more than their weights; the message names the difference.
    """
    check_weights(weights, len(students))
    for other in students[1:]:
        check_mergeable(students[0], other)
    template = next((student for student in students if _has_towers(student)), students[0])
    merged = copy.copy(template)
    merged.model = separate_towers(copy.deepcopy(template.model))
    set_average(merged, students, weights)
    return merged


@torch.no_grad()
def set_average(target: Student, students: Sequence[Student], weights: Sequence[float]) -> None:
    """Set the weights of a model to the weighted average of those of others.

    Sums are computed in float64. A tensor that is the same in all models is copied, and a model
    with the weight 0 is ignored, so that the weights (1, 0) give the bytes of the first model.

    Args:
        target: shares no tensor with ``students``; their architecture.

    Raises:
        ModelError: tensors differ in name, shape or type, or integer tensors differ.
    """
    others = [_tensors(student, student.sides) for student in students]
    for name, value in distinct_tensors(target, target.sides).items():
        parts = [_tensor(tensors, name, value) for tensors in others]
        value.copy_(average_tensors(parts, weights, name))


def average_tensors(parts: Sequence[Tensor], weights: Sequence[float], name: str) -> Tensor:
    """The weighted average of tensors, see `set_average`.

    Raises:
        ModelError: integer tensors differ.

    Examples:
        >>> average_tensors([torch.tensor([1.0]), torch.tensor([3.0])], [0.25, 0.75], "bias")
        tensor([2.5000], dtype=torch.float64)
    """
    shares = [(weight, part) for weight, part in zip(weights, parts, strict=True) if weight]
    first = shares[0][1]
    if all(torch.equal(part, first) for _, part in shares[1:]):
        return first
    if not first.is_floating_point():
        raise ModelError(f"{name} is not the same in all models, and cannot be averaged.")
    return torch.stack([weight * part.to("cpu", torch.float64) for weight, part in shares]).sum(0)


def check_weights(weights: Sequence[float], count: int) -> None:
    """Check the weights of merged models.

    Raises:
        OptionError: their number is not ``count``, one is not in [0, 1], or their sum is not 1.

    Examples:
        >>> check_weights([0.3, 0.7], 2)
    """
    if count < 2:
        raise OptionError(f"{count} model was given; a merge needs two or more.")
    shown = " ".join(f"{weight:g}" for weight in weights)
    if len(weights) != count:
        raise OptionError(
            f"{len(weights)} weights ({shown}) were given for {count} models; give one for each."
        )
    if not all(0 <= weight <= 1 for weight in weights):
        raise OptionError(f"the weights are {shown}; numbers from 0 to 1 were expected.")
    total = math.fsum(weights)
    if abs(total - 1) > 1e-6:
        scaled = " ".join(f"{weight / total:.6g}" for weight in weights) if total else ""
        raise OptionError(
            f"the weights {shown} have the sum {total:g}; expected 1"
            + (f", such as {scaled}." if scaled else ".")
        )


def check_mergeable(first: Student, other: Student) -> None:
    """Check that two models differ in nothing but weights and text lengths.

    Raises:
        ModelError: they do; the message names the differences.
    """
    for facts in (_outline, _details):
        if different := differences(facts(first), facts(other)):
            raise ModelError(
                f"{first.source!r} (there) and {other.source!r} (here) cannot be merged, because"
                f" they differ in more than their weights: {'; '.join(different)}."
            )


def without_adapters(student: Student) -> Student:
    """The student itself, or a copy whose low-rank adapters are added to its weights."""
    if not student.merge_lora:
        return student
    plain = copy.copy(student)
    plain.model, plain.merge_lora = merge_adapters(student.model), False
    return plain


def _has_towers(student: Student) -> bool:
    return isinstance(student.model[0], Router)


def _outline(student: Student) -> dict[str, Any]:
    """The kind of a model and what it is made of."""
    modules = {
        kind: ", ".join(type(module).__name__ for module in student.tower(kind))
        for kind in student.sides
    }
    return {"kind": student.kind, "modules": modules}


def _details(student: Student) -> dict[str, Any]:
    """All that determines the scores of a model besides its weights and text lengths."""
    facts: dict[str, Any] = {
        "similarity": student.similarity,
        "prompts": student.prompts(),
        "tokenizer": student.settings_digests()["tokenizer"],
        "settings": {
            kind: [_settings(module) for module in describe_modules(student.tower(kind))]
            for kind in student.sides
        },
    }
    if "pair" not in student.sides:
        facts["dimension"] = student.dimension
    return facts


def _settings(module: Sequence[Any]) -> dict[str, Any]:
    """The settings of a module without text lengths; its words as a fingerprint."""
    _, config, words = module
    kept = {name: value for name, value in config.items() if name not in _LENGTHS}
    return kept if words is None else kept | {"vocabulary": digest(words)}


def distinct_tensors(student: Student, sides: Iterable[TextKind]) -> dict[str, Tensor]:
    """Weights and buffers of towers; those that towers share are named once."""
    tensors = _tensors(student, sides)
    first_names = {id(value): name for name, value in reversed(tensors.items())}
    return {name: value for name, value in tensors.items() if first_names[id(value)] == name}


def _tensors(student: Student, sides: Iterable[TextKind]) -> dict[str, Tensor]:
    """Weights and buffers by text kind, place of the module and name."""
    return {
        f"{kind}.{place}.{name}": value
        for kind in sides
        for place, module in enumerate(student.tower(kind))
        for name, value in chain(module.named_parameters(), module.named_buffers())
    }


def _tensor(tensors: dict[str, Tensor], name: str, like: Tensor) -> Tensor:
    value = tensors.get(name)
    if value is None or value.shape != like.shape or value.dtype != like.dtype:
        shape = "no such tensor" if value is None else f"{tuple(value.shape)} {value.dtype}"
        raise ModelError(
            f"the models cannot be merged: {name} is {tuple(like.shape)} {like.dtype} in one of"
            f" them, and {shape} in another."
        )
    return value
