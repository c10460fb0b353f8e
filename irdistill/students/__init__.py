"""Students: thin adapters over sentence-transformers models."""

from __future__ import annotations

from typing import Any

__all__ = ["DenseStudent"]


def __getattr__(name: str) -> Any:
    if name == "DenseStudent":
        from irdistill.students.dense import DenseStudent

        return DenseStudent
    raise AttributeError(f"module 'irdistill.students' has no attribute {name!r}")
