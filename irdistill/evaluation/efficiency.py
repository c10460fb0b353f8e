"""What a system costs at query time: parameters, bytes, operations, passages and queries a second,
latency.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from irdistill.collections import Collection, Query
from irdistill.errors import IrdistillError
from irdistill.evaluation.systems import System, open_system
from irdistill.search.retrieve_options import Index

_ROUNDS = 3
_BATCH = 64
_PASSAGES = 256
_COUNTED = 20


@dataclass(frozen=True)
class Efficiency:
    """Costs of one system; a fused system's are those of all its parts, one after the other.

    Attributes:
        parameters: those that a query goes through, embeddings included; 0 for BM25.
        layers: transformer layers that a query goes through.
        model_bytes: of these parameters in float32.
        index_bytes: what a search reads.
        queries_per_second: encoding and searching in batches of 64 on all cores, the best of three
            rounds.
        p50_ms, p95_ms, p99_ms: of one query at a time on one thread, warm.
        documents_per_second: passages of the corpus encoded on all cores; None where nothing is
            encoded beforehand.
        flops_per_query: floating-point operations in matrix products (two for a multiplication and
            an addition), mean over some queries; searching a flat index is among them, a graph's or
            BM25's steps are not.
        reranks: documents that are put in order for each query; 0 where the whole corpus is
            searched.
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
    documents_per_second: float | None = None
    flops_per_query: float | None = None
    reranks: int = 0

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def measure_efficiency(
    collection: Collection,
    system: str,
    models: str | Path | Sequence[str | Path],
    k: int = 100,
    index: Index = "flat",
    work: Path | None = None,
    queries: int = 200,
    seed: int = 42,
    kind: str | Mapping[str, str] | None = None,
    trust_remote_code: bool = False,
) -> Efficiency:
    """Time a system, or several one after the other, as a fused teacher needs all its parts.

    Args:
        models: ``bm25``, ``lucene``, or models of any kind that `open_system` takes.
        k: documents a query that are found, or reranked.
        queries: how many of the collection's queries are used.
        kind: how the models are read, one kind for all or a mapping of models' names to kinds;
            detected from their files where None.

    Raises:
        IrdistillError: the collection has no queries, or a model cannot be loaded.
    """
    asked = list(collection.queries.values())[:queries]
    if not asked:
        raise IrdistillError(f"{collection.id} has no queries to measure the speed with.")
    names = [models] if isinstance(models, str | Path) else list(models)
    kinds = {
        str(name): kind.get(str(name)) if isinstance(kind, Mapping) else kind for name in names
    }
    parts = [
        open_system(collection, name, k, index, work, seed, kinds[name], trust_remote_code)
        for name in map(str, names)
    ]
    batches = [asked[start : start + _BATCH] for start in range(0, len(asked), _BATCH)]

    def once(batch: list[Query]) -> None:
        for part in parts:
            part.answer(batch)

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
    return Efficiency(
        system,
        parameters,
        sum(part.layers for part in parts),
        4 * parameters,
        sum(part.index_bytes for part in parts),
        len(asked) / best,
        p50,
        p95,
        p99,
        _encoding(collection, parts),
        _operations(once, asked[:_COUNTED]),
        max(part.reranks for part in parts),
    )


def _encoding(collection: Collection, parts: Sequence[System]) -> float | None:
    """Passages a second; of several encoders each passage goes through all."""
    encoders = [part.encode for part in parts if part.encode is not None]
    rows = (
        np.linspace(0, len(collection.corpus) - 1, min(_PASSAGES, len(collection.corpus)))
        .astype(int)
        .tolist()
    )
    if not encoders or not rows:
        return None
    texts = collection.corpus.texts(rows)
    began = time.perf_counter()
    for encode in encoders:
        encode(texts)
    return len(texts) / (time.perf_counter() - began)


def _attention(
    query: Any, key: Any, value: Any, *given: Any, out_shape: Any = None, **named: Any
) -> int:
    return int(sdpa_flop_count(query, key, value))


def _operations(once: Callable[[list[Query]], None], queries: Sequence[Query]) -> float:
    # torch counts attention on a GPU, and not the kernel that a CPU has for it
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={attention: _attention}) as counter:
        for query in queries:
            once([query])
    return counter.get_total_flops() / len(queries)


def _seconds(search: Callable[[list[Query]], None], batches: list[list[Query]]) -> float:
    began = time.perf_counter()
    for batch in batches:
        search(batch)
    return time.perf_counter() - began
