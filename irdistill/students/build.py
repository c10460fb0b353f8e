"""Students by the name of their kind, as the command line and recipes ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from irdistill.errors import ModelError, OptionError
from irdistill.students.cross_encoder_student import CrossEncoderStudent
from irdistill.students.dense_student import DenseStudent
from irdistill.students.kernel_student import KernelStudent
from irdistill.students.late_interaction_student import LateInteractionStudent
from irdistill.students.model_kinds import model_kind
from irdistill.students.sparse_student import SparseStudent
from irdistill.students.split_cross_encoder_student import SplitCrossEncoderStudent
from irdistill.students.student_base import Student
from irdistill.students.student_options import options_of

#: The class of each kind of student.
STUDENTS: dict[str, type[Student]] = {
    kind.kind: kind
    for kind in (
        DenseStudent,
        SparseStudent,
        LateInteractionStudent,
        CrossEncoderStudent,
        SplitCrossEncoderStudent,
        KernelStudent,
    )
}


def build_student(kind: str, backbone: str, **options: Any) -> Student:
    """The student of a kind, from a backbone; as calling its class.

    Args:
        options: fields of `StudentOptions`, ``device`` and ``seed``.

    Raises:
        OptionError: the kind or an option is unknown or does not fit.
        ModelError: the backbone cannot be loaded.
    """
    options_of(kind)
    return STUDENTS[kind](backbone, **options)


def load_student(
    model: str | Path,
    *,
    kind: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    device: str | None = None,
    dimension: int | None = None,
) -> Student:
    """Open a saved encoder of any kind.

    Args:
        kind: ``dense``, ``sparse`` or ``late-interaction`` (default: detected from the files).
        dimension: truncate dense vectors to their first numbers.

    Raises:
        ModelError: it cannot be loaded, is of another kind, or is a cross-encoder, which has no
            vectors.
        OptionError: its vectors cannot be truncated.
    """
    name = str(model)
    kind = model_kind(name, kind, revision)
    if kind == "cross-encoder":
        raise ModelError(
            f"{name} is a cross-encoder, which reads query and document together and cannot search."
            f" Rerank with it: irdistill score COLLECTION --candidates RUN --teacher {name} --out"
            " RERANKED"
        )
    shared: dict[str, Any] = {
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "device": device,
    }
    if kind == "dense":
        return DenseStudent.load(model, dimension=dimension, **shared)
    if dimension is not None:
        raise OptionError(
            f"dimension={dimension} was given, but {name} is a {kind} model; only dense vectors can"
            " be truncated."
        )
    return STUDENTS[kind].load(model, **shared)


def load_dense(model: str | Path, kind: str | None = None, **options: Any) -> DenseStudent:
    """Open a model that must be dense; options as of `load_student`.

    Raises:
        ModelError: it cannot be loaded, or is of another kind.
    """
    student = load_student(model, kind=kind, **options)
    if not isinstance(student, DenseStudent):
        raise ModelError(f"{model} is a {student.kind} model, but a dense model was expected.")
    return student
