"""Parts of ``search.py``: approximate indexes, each with the share of the true best that it finds."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from search_sides import in_memory_corpus, recall, report, sparse_rows, sparse_store, take_turns, token_store, topical_tokens


def engines(settings: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Exact sparse search against a Lucene impact index (its search alone, without true scores) and Seismic, and their recall.

    On fewer documents: an impact index is fed each word as often as its level says, thousands of words a document.
    """
    from irdistill.search.lucene_vectors import LuceneImpact
    from irdistill.search.seismic_index import SeismicIndex
    from irdistill.search.sparse_index import SparseIndex

    documents = sparse_rows(settings.engine_documents, settings.words, 120, 0)
    queries = sparse_rows(settings.queries, settings.words, 25, 1)
    store, corpus = sparse_store(folder / "fewer", documents), in_memory_corpus(settings.engine_documents)
    exact = SparseIndex.build(store, folder / "fewer-inverted")
    asked = [queries[row] for row in range(settings.queries)]
    lucene = LuceneImpact(store, folder / "impact")
    sides: dict[str, Callable[[], list[np.ndarray]]] = {
        "irdistill": lambda: [hits.rows for hits in exact.search(queries, corpus, settings.k)],
        "lucene": lambda: [lucene.candidates(query, settings.k)[0] for query in asked],
    }
    if find_spec("seismic") is not None:
        seismic = SeismicIndex(store, folder / "seismic")
        sides["seismic"] = lambda: [hits.rows for hits in seismic.search(queries, corpus, settings.k)]
    seconds, found = take_turns(sides, settings.runs)
    true = found.pop("irdistill")
    return report("engines", seconds, settings.queries) | {
        f"engines_{name}_recall": recall(rows, true) for name, rows in found.items()}


def plaid(settings: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Candidates by PLAID and by inverted lists over tokens, both scored exactly, against MaxSim with all passages."""
    import torch

    from irdistill.search.engines import MultiVectorEngine
    from irdistill.search.faiss_index import FaissIndex
    from irdistill.search.plaid_index import PlaidIndex

    documents = topical_tokens(settings.topical_passages, 30, 90, 128, 0)
    queries = topical_tokens(settings.token_queries, 32, 32, 128, 1)
    store, corpus = token_store(folder / "topical", documents), in_memory_corpus(len(documents))
    student: Any = SimpleNamespace(similarity="maxsim", device=torch.device("cpu"))
    indexes: dict[str, Callable[[], Any]] = {
        "exact": lambda: FaissIndex.build(store),
        "ivfflat": lambda: FaissIndex.build(store, "ivfflat", folder / "ivfflat"),
        "plaid": lambda: PlaidIndex.build(store, folder / "plaid", device=student.device),
    }
    figures, sides = {"plaid_tokens": float(len(store.matrix))}, {}
    for name, build in indexes.items():
        began = time.perf_counter()
        engine = MultiVectorEngine(corpus, student, "float32", store, build())
        sides[name] = lambda engine=engine: next(iter(engine.search([queries], settings.k)))
        if name != "exact":
            figures |= {f"plaid_{name}_build_seconds": time.perf_counter() - began,
                        f"plaid_{name}_bytes_a_token": engine.index.nbytes / len(store.matrix)}
    seconds, found = take_turns(sides, settings.runs)
    rows = {name: [hits.rows for hits in lists] for name, lists in found.items()}
    figures |= {f"plaid_{name}_recall": recall(rows[name], rows["exact"]) for name in ("ivfflat", "plaid")}
    return figures | report("plaid", seconds, settings.token_queries, ours="plaid")
