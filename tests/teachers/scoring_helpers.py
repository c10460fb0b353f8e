"""A small collection, its candidates, and a teacher that counts, for tests of scoring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections import Collection
from irdistill.runs import MemoryRun, RankedList, RunIdentity
from irdistill.teachers import TeacherScores, TextPair

WORDS = ["cat", "dog", "sat", "mat", "bird", "fish", "heart", "lung", "cell", "wing", "air", "flow"]
DOCS = {f"d{n:02}": " ".join(WORDS[: n % 12 + 1]) for n in range(30)}
QUERIES = {f"q{n:02}": f"what is {WORDS[n % 12]} {n}" for n in range(20)}


def make_collection() -> Collection:
    return Collection.from_dicts("small", DOCS, QUERIES, {query: {"d00": 1} for query in QUERIES})


def make_candidates(data: Collection, k: int = 8) -> MemoryRun:
    names = list(DOCS)
    lists = [
        RankedList(
            query,
            [names[(place * 3 + n) % 30] for n in range(k)],
            np.arange(k, 0, -1, dtype=np.float32),
        )
        for place, query in enumerate(QUERIES)
    ]
    return MemoryRun(RunIdentity("first-stage", {"model": "made up"}, data.describe()), lists)


class Counting:
    """Scores by length; can fail, or return a set number, at the n-th pair."""

    token_budget = 64

    def __init__(self, fail_at: int | None = None, value: float = 0.0) -> None:
        self.pair_count, self.fail_at, self.value = 0, fail_at, value

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "counting"}

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        values = np.array(
            [len(pair.text) + 0.01 * len(pair.query.text) + 0.001 * pair.row for pair in pairs],
            np.float32,
        )
        self.pair_count += len(pairs)
        if self.fail_at is not None and self.pair_count > self.fail_at:
            if self.value == 0.0:
                raise KeyboardInterrupt
            values[-1] = self.value
        return TeacherScores(values)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.suffix in (".json", ".parquet")
    }
