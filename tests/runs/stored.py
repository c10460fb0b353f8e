"""A small run to write: ten queries, seven documents each, one of them without a score."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from irdistill.collections import Collection
from irdistill.runs import RankedList, RunIdentity

DOCS = {f"d{i}": f"text {i}" for i in range(50)}
QUERIES = {f"q{i}": f"question {i}" for i in range(10)}


def identity(collection: Collection, name: str = "a") -> RunIdentity:
    return RunIdentity("teacher", {"model": name}, collection.describe(), "cafe", {"depth": 7})


def lists(seed: int = 0) -> dict[str, RankedList]:
    random = np.random.default_rng(seed)
    result = {}
    for query_id in QUERIES:
        docs = [f"d{i}" for i in random.choice(50, 7, replace=False)]
        scores = random.integers(-3, 4, 7).astype(np.float32)
        scores[int(query_id[1:]) % 7] = np.nan
        result[query_id] = RankedList(query_id, docs, scores)
    return result


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.name: p.read_bytes()
        for p in folder.iterdir()
        if p.is_file() and p.name not in ("journal.jsonl", ".lock")
    }
