"""The verb *measure*: parameters, bytes, operations, throughput and latency of a system."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from irdistill.collections import Collection, Query
from irdistill.collections.passage_corpus import reading_corpus
from irdistill.errors import InputError
from irdistill.evaluation.costs import Efficiency
from irdistill.evaluation.timed_systems import SystemOptions, TimedSystem, open_system
from irdistill.search.retrieve_options import CodeOptions, Index

_ROUNDS = 3
_BATCH = 64
_PASSAGES = 256
_COUNTED = 20


@dataclass(frozen=True)
class EfficiencyOptions:
    """Options of `measure_efficiency`.

    Attributes:
        k: documents per query that are retrieved or reranked.
        index: index of dense models, or their short codes.
        queries: number of the collection's queries to use.
        seed: random seed of approximate indexes.
        kind: kind of all models, or a mapping of names of models to kinds; detected from their
            files if None.
        trust_remote_code: allow code in the models' folders.
        dimension: truncate the vectors of Matryoshka models to this dimension.
    """

    k: int = 100
    index: Index | CodeOptions = "flat"
    queries: int = 200
    seed: int = 42
    kind: str | Mapping[str, str] | None = None
    trust_remote_code: bool = False
    dimension: int | None = None


def measure_efficiency(
    collection: Collection,
    system: str,
    models: str | Path | Sequence[str | Path],
    options: EfficiencyOptions | None = None,
    work: Path | None = None,
) -> Efficiency:
    """Time a system, or several one after the other, as a fused teacher needs all its parts.

    Args:
        system: name of the system in tables.
        models: ``bm25``, ``lucene``, or models of any kind.
    """
    options = options or EfficiencyOptions()
    timed = list(collection.queries.values())[: options.queries]
    if not timed:
        raise InputError(f"{collection.id} has no queries to measure the speed with.")
    names = [models] if isinstance(models, str | Path) else list(models)
    opening = SystemOptions(
        options.k, options.index, options.seed, options.dimension, options.trust_remote_code
    )
    kinds = options.kind
    parts = [
        open_system(
            collection,
            name,
            opening,
            work,
            kinds.get(name) if isinstance(kinds, Mapping) else kinds,
        )
        for name in map(str, names)
    ]
    batches = [timed[start : start + _BATCH] for start in range(0, len(timed), _BATCH)]

    def once(batch: list[Query]) -> None:
        for part in parts:
            part.answer(batch)

    for batch in batches[:2]:
        once(batch)
    best = min(_seconds(once, batches) for _ in range(_ROUNDS))
    p50, p95, p99 = np.percentile(_latencies(once, timed), [50, 95, 99]).tolist()
    parameters = sum(part.parameters for part in parts)
    return Efficiency(
        system,
        parameters,
        sum(part.layers for part in parts),
        4 * parameters,
        sum(part.index_bytes for part in parts),
        len(timed) / best,
        p50,
        p95,
        p99,
        _encoding(collection, parts),
        _operations(once, timed[:_COUNTED]),
        max(part.reranks for part in parts),
        len(collection.corpus),
        _index_parts(parts) or None,
    )


def _index_parts(parts: Sequence[TimedSystem]) -> dict[str, int]:
    """The bytes of the indexes of all systems by part."""
    total: dict[str, int] = {}
    for part in parts:
        for name, size in part.index_parts.items():
            total[name] = total.get(name, 0) + size
    return total


def _latencies(once: Callable[[list[Query]], None], queries: Sequence[Query]) -> list[float]:
    """Milliseconds of each query, one at a time on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for query in queries[:10]:
            once([query])
        return [1000 * _seconds(once, [[query]]) for query in queries]
    finally:
        torch.set_num_threads(threads)


def _encoding(collection: Collection, parts: Sequence[TimedSystem]) -> float | None:
    """Passages per second; each passage goes through all encoders."""
    encoders = [part.encode for part in parts if part.encode is not None]
    corpus = reading_corpus(collection.corpus)
    rows = np.linspace(0, len(corpus) - 1, min(_PASSAGES, len(corpus))).astype(int).tolist()
    if not encoders or not rows:
        return None
    texts = corpus.texts(rows)
    began = time.perf_counter()
    for encode in encoders:
        encode(texts)
    return len(texts) / (time.perf_counter() - began)


def _attention(
    query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **options: Any
) -> int:
    return int(sdpa_flop_count(query, key, value))


def _operations(once: Callable[[list[Query]], None], queries: Sequence[Query]) -> float:
    # torch counts attention on a GPU, but not the kernel that a CPU uses
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
