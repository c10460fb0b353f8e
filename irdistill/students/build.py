"""A student of any kind by name, as the command line and recipes ask for it."""

from __future__ import annotations

import inspect
from typing import Any

from irdistill.errors import IrdistillError
from irdistill.students.base import Student
from irdistill.students.cross_encoder import CrossEncoderStudent
from irdistill.students.dense import DenseStudent
from irdistill.students.late_interaction import LateInteractionStudent
from irdistill.students.lora import LORA_SETTINGS, add_lora
from irdistill.students.sparse import SparseStudent

STUDENTS: dict[str, Any] = {
    kind.kind: kind for kind in (DenseStudent, SparseStudent, LateInteractionStudent, CrossEncoderStudent)
}


#: What `train` of a recipe hands to the student; all else are options of the training.
STUDENT_SETTINGS = ("layers", "query_layers", "freeze_documents", "max_length", "max_query_length", "dimension",
                    "expand_queries", "mask_punctuation", "inference_free", "pooling", "similarity", "query_prompt",
                    "document_prompt", *LORA_SETTINGS)


def build_student(kind: str, backbone: str, **settings: Any) -> Student:
    """``build`` of the student of this kind, with adapters where asked for; settings that are None are left out.

    Raises:
        IrdistillError: the kind is unknown, has no such setting, or cannot be built so.
    """
    check_student_settings(kind, settings)
    lora = {name.removeprefix("lora_"): settings.pop(name) for name in LORA_SETTINGS if name in settings}
    known = inspect.signature(STUDENTS[kind].build).parameters
    built: Student = STUDENTS[kind].build(backbone, **{key: value for key, value in settings.items()
                                                       if value is not None and key in known})
    if _given(lora.get("rank")):
        add_lora(built, **{key: value for key, value in lora.items() if value is not None})
    return built


def check_student_settings(kind: str, settings: dict[str, Any]) -> None:
    """What can be known before a model is loaded.

    Raises:
        IrdistillError: the kind is unknown, or has no such setting.
    """
    if kind not in STUDENTS:
        raise IrdistillError(f"the student {kind!r} is unknown; give one of {', '.join(STUDENTS)}.")
    known = [*list(inspect.signature(STUDENTS[kind].build).parameters)[1:], *LORA_SETTINGS]
    if not _given(settings.get("lora_rank")) and any(settings.get(name) is not None for name in LORA_SETTINGS):
        raise IrdistillError("lora_alpha, lora_targets or lora_merge was given without lora_rank, which asks for adapters; add it.")
    for name, value in settings.items():
        if name not in known and _given(value):
            raise IrdistillError(f"a {kind} student takes no {name}={value!r}; it takes {', '.join(known)}.")


def _given(value: Any) -> bool:
    return value is not None and value is not False
