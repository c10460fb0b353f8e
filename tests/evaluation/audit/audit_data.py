"""Collections and runs in memory with known properties."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irdistill.collections import Collection
from irdistill.evaluation.auditing.query_sample import ScoredList, scored
from irdistill.runs import MemoryRun, RankedList, RunIdentity
from irdistill.runs.ranked_lists import ranked


def small_collection(
    queries: int = 60, depth: int = 20, relevant: int = 2, judged: bool = True
) -> Collection:
    """A collection in which each query has ``depth`` documents, of 5 to 40 words; the first ``relevant`` are
    relevant, all are judged.
    """
    random = np.random.default_rng(1)
    docs = {
        f"q{q}-d{d}": " ".join(["word"] * int(random.integers(5, 41)))
        for q in range(queries)
        for d in range(depth)
    }
    texts = {f"q{q}": f"question number {q}" for q in range(queries)}
    qrels = {query: {f"{query}-d{d}": int(d < relevant) for d in range(depth)} for query in texts}
    return Collection.from_dicts("made", docs, texts, qrels if judged else {})


def run_of(
    collection: Collection,
    scores: Mapping[str, np.ndarray],
    producer: dict[str, object] | None = None,
    flags: Mapping[str, list[str | None]] | None = None,
) -> MemoryRun:
    """A run that gives document ``d`` of each query the ``d``-th score."""
    lists = [
        RankedList(
            query,
            [f"{query}-d{d}" for d in range(len(values))],
            np.asarray(values, np.float32),
            (flags or {}).get(query),
        )
        for query, values in scores.items()
    ]
    return MemoryRun(RunIdentity("teacher", producer or {}, collection.describe()), lists)


def noisy(
    collection: Collection, gap: float, seed: int, depth: int = 20, relevant: int = 2
) -> dict[str, np.ndarray]:
    """Normal noise; relevant documents are ``gap`` higher. Without a gap this is a random
    teacher.
    """
    random = np.random.default_rng(seed)
    return {
        query: random.normal(0, 1, depth) + gap * (np.arange(depth) < relevant)
        for query in collection.queries
    }


def listed(tables: np.ndarray) -> list[ScoredList]:
    """Lists of a (lists, documents) table of scores, in float32 as a run keeps them."""
    return [
        scored(
            ranked(
                RankedList(
                    f"q{number}",
                    [f"d{place:03d}" for place in range(len(row))],
                    row.astype(np.float32),
                )
            )
        )
        for number, row in enumerate(np.asarray(tables))
    ]
