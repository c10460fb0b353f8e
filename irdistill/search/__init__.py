"""Search: build an index, search it, give a run."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from irdistill.search.lexical.bm25 import BM25
from irdistill.search.retrieval import recall, retrieve

__all__ = ["BM25", "FaissIndex", "VectorStore", "open_searcher", "recall", "retrieve"]

_WITH_TORCH = {
    "FaissIndex": "vectors.faiss_index",
    "VectorStore": "vectors.vector_store",
    "open_searcher": "engines",
}


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        return getattr(import_module(f"irdistill.search.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module 'irdistill.search' has no attribute {name!r}")
