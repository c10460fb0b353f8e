"""A collection of 30 queries in a folder, with the runs of three systems."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from irdistill.collections import Collection, load_collection
from irdistill.runs import RankedList, RunIdentity, write_run

TOPICS = ("sleeping cats", "swimming dogs", "talking parrots")
RANKS = {
    # rank of the relevant document: for every query, by its number
    "first": lambda number: 1 + number % 4,
    "student": lambda number: 1 + number % 2,
    "other": lambda number: 1 + number % 4,
}
KINDS = {"first": "first-stage", "student": "student", "other": "student"}


def write_compared_runs(folder: Path, queries: int = 30) -> Collection:
    """Writes ``set`` and ``out/first``, ``out/student`` and ``out/other``.

    The document ``d7`` is relevant to the query ``q7``; it stands at a rank that the system decides.
    """
    place = folder / "set"
    (place / "qrels").mkdir(parents=True)
    topics = {f"q{number}": TOPICS[number % len(TOPICS)] for number in range(queries)}
    documents = [
        {"_id": f"d{number}", "title": "", "text": f"All about {topic}: <b>part</b> {number}."}
        for number, topic in enumerate(topics.values())
    ]
    questions = [
        {"_id": query_id, "text": f"Tell of {topic}"} for query_id, topic in topics.items()
    ]
    for name, lines in (("corpus", documents), ("queries", questions)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (place / f"{name}.jsonl").write_text(text)
    judgments = "".join(f"q{number}\td{number}\t1\n" for number in range(queries))
    (place / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judgments}")
    collection = load_collection(str(place))
    for system, rank in RANKS.items():
        lists = []
        for number in range(queries):
            others = [f"d{(number + step) % queries}" for step in range(1, 8)]
            others.insert(rank(number) - 1, f"d{number}")
            lists.append(RankedList(f"q{number}", others, np.arange(8, 0, -1, dtype=np.float32)))
        identity = RunIdentity(KINDS[system], {"model": system}, collection.describe())
        write_run(folder / "out" / system, identity, lists)
    return collection
