"""What a system costs at query time: parameters, bytes, queries a second and latency."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irdistill.collections import Collection, Query
from irdistill.errors import IrdistillError
from irdistill.search import open_engine
from irdistill.search.engines import Index
from irdistill.search.lexical import is_lexical, open_lexical
from irdistill.students import load_student

_ROUNDS = 3
_BATCH = 64


@dataclass(frozen=True)
class Efficiency:
    """Costs of one system.

    Attributes:
        parameters: those that a query goes through, embeddings included; 0 for BM25.
        layers: transformer layers that a query goes through.
        model_bytes: of these parameters in float32.
        index_bytes: what a search reads.
        queries_per_second: encoding and searching in batches of 64 on all cores, the best of three rounds.
        p50_ms, p95_ms, p99_ms: of one query at a time on one thread, warm.
    """

    system: str
    parameters: int
    layers: int
    model_bytes: int
    index_bytes: int
    queries_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class _Searcher:
    search: Callable[[list[Query]], Any]
    parameters: int
    layers: int
    index_bytes: int


def measure_efficiency(collection: Collection, system: str, models: str | Path | Sequence[str | Path], k: int = 100,
                       index: Index = "flat", work: Path | None = None, queries: int = 200, seed: int = 42) -> Efficiency:
    """Time a retriever, or several one after the other, as a fused teacher needs all its parts.

    Args:
        models: ``bm25``, ``lucene``, or dense, sparse or late-interaction models.
        queries: how many of the collection's queries are used.

    Raises:
        IrdistillError: the collection has no queries, or a model cannot be loaded.
    """
    asked = list(collection.queries.values())[:queries]
    if not asked:
        raise IrdistillError(f"{collection.id} has no queries to measure the speed with.")
    names = [models] if isinstance(models, str | Path) else list(models)
    parts = [_searcher(collection, str(name), k, index, work, seed) for name in names]
    batches = [asked[start : start + _BATCH] for start in range(0, len(asked), _BATCH)]

    def once(batch: list[Query]) -> None:
        for part in parts:
            part.search(batch)

    for batch in batches[:2]:
        once(batch)
    best = min(_seconds(once, batches) for _ in range(_ROUNDS))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for query in asked[:10]:
            once([query])
        single = [1000 * _seconds(once, [[query]]) for query in asked]
    finally:
        torch.set_num_threads(threads)
    p50, p95, p99 = (float(value) for value in np.percentile(single, [50, 95, 99]))
    parameters = sum(part.parameters for part in parts)
    return Efficiency(system, parameters, sum(part.layers for part in parts), 4 * parameters,
                      sum(part.index_bytes for part in parts), len(asked) / best, p50, p95, p99)


def _searcher(collection: Collection, model: str, k: int, index: Index, work: Path | None, seed: int) -> _Searcher:
    corpus = collection.corpus
    if is_lexical(model):
        lexical = open_lexical(model, corpus, work=work)
        return _Searcher(lambda batch: list(lexical.search(batch, k)), 0, 0, lexical.bytes)
    student = load_student(model)
    engine = open_engine(corpus, student, index, work, seed=seed)

    def search(batch: list[Query]) -> Any:
        return list(engine.search([engine.encode([query.text for query in batch])], k))

    size = student.size()
    return _Searcher(search, size["query_parameters"], size["query_layers"], engine.nbytes)


def _seconds(search: Callable[[list[Query]], None], batches: list[list[Query]]) -> float:
    began = time.perf_counter()
    for batch in batches:
        search(batch)
    return time.perf_counter() - began
