"""A student of any kind by name, as the command line and recipes ask for it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from irdistill.errors import IrdistillError
from irdistill.modeling.model_files import STUDENT_FILE, read_model_json
from irdistill.students.base import Student
from irdistill.students.cross_encoder_student import CrossEncoderStudent
from irdistill.students.dense_student import DenseStudent
from irdistill.students.kernel_student import KernelStudent
from irdistill.students.late_interaction_student import LateInteractionStudent
from irdistill.students.lora import LORA_SETTINGS, add_lora
from irdistill.students.model_kinds import model_kind
from irdistill.students.sparse_student import SparseStudent
from irdistill.students.split_cross_encoder_student import SplitCrossEncoderStudent
from irdistill.students.towers import set_lengths

STUDENTS: dict[str, Any] = {
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

#: Kinds whose `build` makes a head anew, and what sentence-transformers writes into a model of that
#: kind which has one.
_SAVED_AS = {"sparse": "SparseEncoder", "late-interaction": "MultiVectorEncoder"}
#: Kinds of this package alone, which go on as they were saved: stored states are for one
#: architecture and its lengths.
_OWN = (SplitCrossEncoderStudent.kind, KernelStudent.kind)
_LENGTHS = ("max_length", "max_query_length")
_LOADING = ("device", "trust_remote_code")

#: What `train` of a recipe hands to the student; all else are options of the training.
STUDENT_SETTINGS = (
    "layers",
    "query_layers",
    "freeze_documents",
    "max_length",
    "max_query_length",
    "dimension",
    "expand_queries",
    "mask_punctuation",
    "inference_free",
    "query_backbone",
    "token_pooling",
    "split_layer",
    "pooling",
    "similarity",
    "query_prompt",
    "document_prompt",
    "trust_remote_code",
    *LORA_SETTINGS,
)


def build_student(kind: str, backbone: str, **settings: Any) -> Student:
    """``build`` of the student of this kind, with adapters where asked for; settings that are None
    are left out.

    A backbone that is a student of this kind already, as an earlier stage of a recipe leaves it,
    keeps its towers, those of them that are frozen, and its head, unless a setting other than the
    lengths asks for another architecture. A split-cross-encoder or kernel student goes on as it was
    saved, and other settings are refused.

    Raises:
        IrdistillError: the kind is unknown, has no such setting, or cannot be built so.
    """
    check_student_settings(kind, settings)
    lora = {
        name.removeprefix("lora_"): settings.pop(name) for name in LORA_SETTINGS if name in settings
    }
    given = {key: value for key, value in settings.items() if _given(value)}
    built: Student
    if kind in _OWN and _is_student(kind, backbone):
        built = STUDENTS[kind].load(
            backbone,
            **{key: value for key, value in given.items() if key in (*_LOADING, "revision")},
        )
        _check_settings_stay(built, given)
    elif _is_student(kind, backbone) and given.keys() <= {*_LENGTHS, *_LOADING}:
        built = STUDENTS[kind].load(
            backbone, **{key: value for key, value in given.items() if key in _LOADING}
        )
        queries = built._transformers("query")
        if "max_query_length" in given and not queries:
            raise IrdistillError(
                f"{backbone!r} has no model for queries, whose length stays as it is; leave out"
                " max_query_length."
            )
        set_lengths(
            queries, built._transformers("document"), *(given.get(name) for name in _LENGTHS)
        )
    else:
        known = inspect.signature(STUDENTS[kind].build).parameters
        built = STUDENTS[kind].build(
            backbone,
            **{key: value for key, value in settings.items() if value is not None and key in known},
        )
    if _given(lora.get("rank")):
        add_lora(built, **{key: value for key, value in lora.items() if value is not None})
    return built


def _is_student(kind: str, backbone: str) -> bool:
    """Whether a backbone has a head of this kind, which ``build`` would make anew."""
    if kind in _OWN:
        own: dict[str, Any] = read_model_json(backbone, STUDENT_FILE) or {}
        return own.get("kind") == kind
    saved = (
        read_model_json(backbone, "config_sentence_transformers.json")
        if kind in _SAVED_AS
        else None
    )
    return saved is not None and saved.get("model_type") == _SAVED_AS[kind]


def _check_settings_stay(student: Any, given: dict[str, Any]) -> None:
    """Refuse settings that are not those with which a student of this package's own kinds was
    saved.
    """
    saved = student.settings()
    saved["max_length"] = saved["max_document_length"]
    if isinstance(student, SplitCrossEncoderStudent):
        saved["layers"] = int(student.backbone.config.num_hidden_layers)
    for name, value in given.items():
        if name in saved and value != saved[name]:
            raise IrdistillError(
                f"{name}={value!r} was given, and the backbone {student.source!r} is a saved"
                f" {student.kind} student with {name}={saved[name]!r}, which goes on as it is;"
                f" leave {name} out, or start from an encoder."
            )


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
        kind: ``dense``, ``sparse`` or ``late-interaction``; detected from the model's files where
            None.
        dimension: of a dense one, cut its vectors to their first so many numbers.

    Raises:
        IrdistillError: it cannot be loaded, is of another kind, is a cross-encoder, which has no
            vectors, or cannot be cut.
    """
    name = str(model)
    kind = model_kind(name, kind, revision)
    if kind == "cross-encoder":
        raise IrdistillError(
            f"{name} is a cross-encoder, which reads query and document together and cannot search."
            f" Rerank with it: irdistill score COLLECTION --candidates RUN --teacher {name} --out"
            " RERANKED"
        )
    if dimension is not None and kind != "dense":
        raise IrdistillError(
            f"dimension={dimension} was given, and {name} is a {kind} model; only dense vectors can"
            " be cut."
        )
    cut = {"dimension": dimension} if dimension is not None else {}
    found: Student = STUDENTS[kind].load(
        model, revision=revision, trust_remote_code=trust_remote_code, device=device, **cut
    )
    return found


def load_dense(model: str | Path, kind: str | None = None, **settings: Any) -> DenseStudent:
    """Open a model that must be dense; ``settings`` as of ``load_student``.

    Raises:
        IrdistillError: it cannot be loaded, or is of another kind.
    """
    student = load_student(model, kind=kind, **settings)
    if not isinstance(student, DenseStudent):
        raise IrdistillError(f"{model} is a {student.kind} model, and a dense one was expected.")
    return student


def check_student_settings(kind: str, settings: dict[str, Any]) -> None:
    """What can be known before a model is loaded.

    Raises:
        IrdistillError: the kind is unknown, or has no such setting.
    """
    if kind not in STUDENTS:
        raise IrdistillError(f"the student {kind!r} is unknown; give one of {', '.join(STUDENTS)}.")
    known = [*list(inspect.signature(STUDENTS[kind].build).parameters)[1:], *LORA_SETTINGS]
    if not _given(settings.get("lora_rank")) and any(
        settings.get(name) is not None for name in LORA_SETTINGS
    ):
        raise IrdistillError(
            "lora_alpha, lora_targets or lora_merge was given without lora_rank, which asks for"
            " adapters; add it."
        )
    for name, value in settings.items():
        if name not in known and _given(value):
            raise IrdistillError(
                f"a {kind} student takes no {name}={value!r}; it takes {', '.join(known)}."
            )


def _given(value: Any) -> bool:
    return value is not None and value is not False
