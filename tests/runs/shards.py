"""Small runs and shards on disk, for tests of merging and overwriting."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from irdistill.collections import Collection
from irdistill.runs import RankedList, Run, RunIdentity, RunWriter, write_run

QUERIES = [f"q{number}" for number in range(10)]
DOCUMENTS = [f"d{number}" for number in range(6)]
COLLECTION = Collection.from_dicts(
    "small", dict.fromkeys(DOCUMENTS, "text"), dict.fromkeys(QUERIES, "question"), {"q0": {"d0": 1}}
)


def identity(model: str = "a") -> RunIdentity:
    return RunIdentity("teacher", {"model": model}, COLLECTION.describe())


def lists(shift: float = 0.0) -> list[RankedList]:
    return [
        RankedList(query, DOCUMENTS, np.arange(6, dtype=np.float32) + number + shift)
        for number, query in enumerate(QUERIES)
    ]


def write(folder: Path, model: str = "a", shift: float = 0.0, overwrite: bool = False) -> Run:
    return write_run(folder, identity(model), lists(shift), overwrite, part_queries=3)


def write_shard(folder: Path, number: int, model: str = "a", shift: float = 0.0) -> Path:
    rows = {one.query_id: one for one in lists(shift)}
    with RunWriter(folder, identity(model), QUERIES, 3, (number, 2)) as writer:
        for part, ids in writer.pending():
            writer.write_part(part, [rows[query] for query in ids], {"pairs": len(ids)})
        writer.finish()
    return folder
