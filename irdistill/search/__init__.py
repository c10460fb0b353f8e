"""Search: index a corpus and retrieve with BM25, Lucene or a model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irdistill.search.lexical.bm25 import BM25
    from irdistill.search.retrieval import recall, retrieve
    from irdistill.search.retrieve_options import RetrieveOptions

__all__ = [
    "BM25",
    "FaissIndex",
    "RetrieveOptions",
    "VectorStore",
    "open_searcher",
    "recall",
    "retrieve",
]

_MODULES = {
    "BM25": "lexical.bm25",
    "FaissIndex": "vectors.faiss_index",
    "RetrieveOptions": "retrieve_options",
    "VectorStore": "vectors.vector_store",
    "open_searcher": "searchers",
    "recall": "retrieval",
    "retrieve": "retrieval",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"irdistill.search.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'irdistill.search' has no attribute {name!r}")
