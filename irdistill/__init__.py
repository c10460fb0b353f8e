"""irdistill: distil a strong, slow reranker into a small, fast retriever, and prove it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from irdistill.errors import IrdistillError

__version__ = "0.1.0"

_LAZY = {
    "load_collection": "irdistill.collections",
    "open_run": "irdistill.runs",
    "parse_loss": "irdistill.losses",
}
__all__ = ["IrdistillError", "__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'irdistill' has no attribute {name!r}")
