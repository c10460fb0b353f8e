"""Students: models to be trained, most of them around a sentence-transformers model."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from irdistill.students.student_options import KINDS

__all__ = [
    "KINDS",
    "CrossEncoderStudent",
    "DenseStudent",
    "KernelStudent",
    "LateInteractionStudent",
    "SparseStudent",
    "SplitCrossEncoderStudent",
    "build_student",
    "load_student",
]

_MODULES = {
    "DenseStudent": "dense_student",
    "SparseStudent": "sparse_student",
    "LateInteractionStudent": "late_interaction_student",
    "CrossEncoderStudent": "cross_encoder_student",
    "SplitCrossEncoderStudent": "split_cross_encoder_student",
    "KernelStudent": "kernel_student",
    "build_student": "build",
    "load_student": "build",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"irdistill.students.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'irdistill.students' has no attribute {name!r}")
