"""Parts of ``search.py``: approximate indexes, with their recall."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from search_sides import (
    in_memory_corpus,
    recall,
    report,
    sparse_rows,
    sparse_store,
    splade_vectors,
    take_turns,
    token_store,
    topical_tokens,
)


def engines(settings: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare exact sparse search with a Lucene impact index (search only, without exact scores)
    and Seismic.

    It uses fewer documents, because an impact index receives each term as often as its level,
    thousands of terms per document.
    """
    documents = sparse_rows(settings.engine_documents, settings.words, 120, 0)
    queries = sparse_rows(settings.queries, settings.words, 25, 1)
    store, corpus = (
        sparse_store(folder / "fewer", documents),
        in_memory_corpus(settings.engine_documents),
    )
    return _sparse_engines("engines", settings, folder / "random", store, queries, corpus)


def splade(settings: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The same, and a product of scipy's matrices, with the vectors of a SPLADE model."""
    if not settings.splade_model:
        return {}
    store, queries, corpus = splade_vectors(
        settings.splade_model, settings.splade_collection, settings.splade_work
    )
    columns = store.part(0, len(store)).T.tocsr()

    def scipy_search() -> list[np.ndarray]:
        scores = (queries @ columns).toarray()
        return list(np.argsort(-scores, axis=1, kind="stable")[:, : settings.k])

    figures = {
        "splade_documents": float(len(store)),
        "splade_queries": float(queries.shape[0]),
        "splade_terms_a_document": len(store.array("words")) / len(store),
        "splade_terms_a_query": queries.nnz / queries.shape[0],
    }
    return figures | _sparse_engines(
        "splade", settings, folder / "splade", store, queries, corpus, {"scipy": scipy_search}
    )


def _sparse_engines(
    what: str,
    settings: argparse.Namespace,
    folder: Path,
    store: Any,
    queries: Any,
    corpus: Any,
    others: dict[str, Callable[[], list[np.ndarray]]] | None = None,
) -> dict[str, Any]:
    from irdistill.search.lucene.lucene_vectors import LuceneImpact
    from irdistill.search.sparse.seismic_index import SeismicIndex
    from irdistill.search.sparse.sparse_index import SparseIndex

    count = queries.shape[0]
    exact = SparseIndex.build(store, folder / "inverted")
    query_rows = [queries[row] for row in range(count)]
    lucene = LuceneImpact(store, folder / "impact")
    sides: dict[str, Callable[[], list[np.ndarray]]] = {
        "irdistill": lambda: [hits.rows for hits in exact.search(queries, corpus, settings.k)],
        "lucene": lambda: [lucene.candidates(query, settings.k)[0] for query in query_rows],
        **(others or {}),
    }
    figures = {
        f"{what}_irdistill_mib": exact.nbytes / 2**20,
        f"{what}_lucene_mib": lucene.nbytes / 2**20,
    }
    if find_spec("seismic") is not None:
        seismic = SeismicIndex(store, folder / "seismic")
        sides["seismic"] = lambda: [
            hits.rows for hits in seismic.search(queries, corpus, settings.k)
        ]
        figures[f"{what}_seismic_mib"] = seismic.nbytes / 2**20
    seconds, results = take_turns(sides, settings.runs)
    exact_rows = results.pop("irdistill")
    return (
        figures
        | report(what, seconds, count)
        | {f"{what}_{name}_recall": recall(rows, exact_rows) for name, rows in results.items()}
    )


def plaid(settings: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare PLAID and inverted lists over tokens, both rescored exactly, with exact MaxSim."""
    import torch

    from irdistill.search.multi_vector.plaid_index import PlaidIndex
    from irdistill.search.searchers import MultiVectorSearcher
    from irdistill.search.vectors.faiss_index import FaissIndex

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
        start_time = time.perf_counter()
        searcher = MultiVectorSearcher(corpus, student, "float32", store, build())
        sides[name] = lambda searcher=searcher: next(iter(searcher.search([queries], settings.k)))
        if name != "exact":
            figures |= {
                f"plaid_{name}_build_seconds": time.perf_counter() - start_time,
                f"plaid_{name}_bytes_a_token": searcher.index.nbytes / len(store.matrix),
            }
    seconds, results = take_turns(sides, settings.runs)
    rows = {name: [hits.rows for hits in lists] for name, lists in results.items()}
    figures |= {
        f"plaid_{name}_recall": recall(rows[name], rows["exact"]) for name in ("ivfflat", "plaid")
    }
    return figures | report("plaid", seconds, settings.token_queries, ours="plaid")
