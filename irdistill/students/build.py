"""A student of any kind by name, as the command line and recipes ask for it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from irdistill.errors import IrdistillError
from irdistill.students.base import Student
from irdistill.students.cross_encoder import CrossEncoderStudent
from irdistill.students.dense import DenseStudent
from irdistill.students.detection import reads_pairs, retriever_type
from irdistill.students.late_interaction import LateInteractionStudent
from irdistill.students.sparse import SparseStudent

STUDENTS: dict[str, Any] = {
    kind.kind: kind for kind in (DenseStudent, SparseStudent, LateInteractionStudent, CrossEncoderStudent)
}


#: What `train` of a recipe hands to the student; all else are options of the training.
STUDENT_SETTINGS = ("layers", "query_layers", "freeze_documents", "max_length", "max_query_length", "dimension",
                    "expand_queries", "mask_punctuation", "inference_free", "query_backbone", "token_pooling")


def build_student(kind: str, backbone: str, **settings: Any) -> Student:
    """``build`` of the student of this kind; settings that are None or False are left out.

    Raises:
        IrdistillError: the kind is unknown, has no such setting, or cannot be built so.
    """
    check_student_settings(kind, settings)
    built: Student = STUDENTS[kind].build(backbone, **{key: value for key, value in settings.items() if _given(value)})
    return built


def load_student(model: str | Path, *, revision: str | None = None, trust_remote_code: bool = False,
                 device: str | None = None) -> Student:
    """Open a saved encoder of any kind, told from its files.

    Raises:
        IrdistillError: it cannot be loaded, or is a cross-encoder, which has no vectors.
    """
    name = str(model)
    if reads_pairs(name, revision):
        raise IrdistillError(
            f"{name} is a cross-encoder, which reads query and document together and cannot search. Rerank with it: "
            f"irdistill score COLLECTION --candidates RUN --teacher {name} --out RERANKED"
        )
    found: Student = STUDENTS[retriever_type(name, revision)].load(
        model, revision=revision, trust_remote_code=trust_remote_code, device=device)
    return found


def check_student_settings(kind: str, settings: dict[str, Any]) -> None:
    """What can be known before a model is loaded.

    Raises:
        IrdistillError: the kind is unknown, or has no such setting.
    """
    if kind not in STUDENTS:
        raise IrdistillError(f"the student {kind!r} is unknown; give one of {', '.join(STUDENTS)}.")
    known = list(inspect.signature(STUDENTS[kind].build).parameters)[1:]
    for name, value in settings.items():
        if name not in known and _given(value):
            raise IrdistillError(f"a {kind} student takes no {name}={value!r}; it takes {', '.join(known)}.")


def _given(value: Any) -> bool:
    return value is not None and value is not False
