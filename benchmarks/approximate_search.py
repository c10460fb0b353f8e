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
from search_sides import in_memory_corpus, report, sparse_rows, take_turns, topical_tokens


def engines(settings: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Exact sparse search against a Lucene impact index (its search alone, without true scores) and Seismic, and their recall.

    On fewer documents: an impact index is fed each word as often as its level says, thousands of words a document.
    """
    from irdistill.search.lucene_vectors import LuceneImpact
    from irdistill.search.seismic_index import SeismicIndex
    from irdistill.search.shards import write_arrays
    from irdistill.search.sparse_index import SparseIndex
    from irdistill.search.vectors import SparseStore

    documents = sparse_rows(settings.engine_documents, settings.words, 120, 0)
    queries = sparse_rows(settings.queries, settings.words, 25, 1)
    write_arrays(folder / "fewer", {"kind": "sparse", "dimension": settings.words}, SparseStore.layout(settings.words, "float32"),
                 settings.engine_documents, 8192, lambda start, end: SparseStore.arrays(documents[start:end]), what="write")
    store, corpus = SparseStore(folder / "fewer"), in_memory_corpus(settings.engine_documents)
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
    result = report("engines", seconds, settings.queries)
    for name in found:
        shares = [len(np.intersect1d(ours, theirs)) / max(1, len(ours))
                  for ours, theirs in zip(found["irdistill"], found[name], strict=True)]
        result[f"engines_{name}_recall"] = float(np.mean(shares))
    return result


def plaid(settings: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Candidates by PLAID and by inverted lists over tokens, both scored exactly, against MaxSim with all passages."""
    import torch

    from irdistill.search.engines import MultiVectorEngine
    from irdistill.search.faiss_index import FaissIndex
    from irdistill.search.plaid_index import PlaidIndex
    from irdistill.search.shards import write_arrays
    from irdistill.search.vectors import TokenStore

    documents = topical_tokens(settings.topical_passages, 30, 90, 128, 0)
    queries = topical_tokens(settings.token_queries, 32, 32, 128, 1)
    write_arrays(folder / "topical", {"kind": "late-interaction", "dimension": 128}, TokenStore.layout(128, "float32"),
                 len(documents), 8192, lambda start, end: TokenStore.arrays(documents[start:end]), what="write")
    store, corpus = TokenStore(folder / "topical"), in_memory_corpus(len(documents))
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
    for name in ("ivfflat", "plaid"):
        shares = [len(np.intersect1d(one.rows, true.rows)) / len(true.rows)
                  for one, true in zip(found[name], found["exact"], strict=True)]
        figures[f"plaid_{name}_recall"] = float(np.mean(shares))
    return figures | report("plaid", seconds, settings.token_queries, ours="plaid")
