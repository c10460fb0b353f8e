"""Students: thin adapters over sentence-transformers models, and two architectures of our own
format.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

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

#: The kinds of students, as ``--student`` and recipes name them.
KINDS = ("dense", "sparse", "late-interaction", "cross-encoder", "split-cross-encoder", "kernel")

_HOMES = {
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
    if name in _HOMES:
        return getattr(import_module(f"irdistill.students.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'irdistill.students' has no attribute {name!r}")
