"""A small collection with a teacher's run and a second one, for the pages Judge and Score files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from irdistill.collections import Collection, load_collection
from irdistill.runs import RankedList, RunIdentity, write_run

QUERIES = 6
DOCS = 12


def write_judged_folder(folder: Path) -> Path:
    """``out/teacher`` and ``out/second``: for query i, document 11 is judged relevant and d0 is the
    teacher's first, i + 1 above the second.
    """
    collection = write_pets(folder / "pets")
    identity = RunIdentity("teacher", {"model": "m"}, collection.describe())
    teacher, second = [], []
    for number, query in enumerate(collection.queries):
        scores = np.arange(DOCS, 0, -1, dtype=np.float32) - 3.5
        scores[0] += number
        scores[5] = scores[4]
        scores[10] = np.nan
        flags = [None] * 10 + ["refused", None]
        docs = [f"d{place}" for place in range(DOCS)]
        teacher.append(RankedList(query, docs, scores, flags))
        second.append(RankedList(query, docs[::-1], np.arange(DOCS, 0, -1, dtype=np.float32)))
    write_run(folder / "out" / "teacher", identity, teacher, part_queries=2)
    other = RunIdentity("student", {"model": "s"}, collection.describe())
    write_run(folder / "out" / "second", other, second, part_queries=2)
    return folder / "out"


def write_pets(folder: Path) -> Collection:
    """Queries ``q0 …`` on pets; texts with markup, which pages must show as text."""
    (folder / "qrels").mkdir(parents=True)
    docs = [
        {"_id": f"d{n}", "title": f"Pet {n}", "text": f"The {n}th pet <b>sleeps</b> & eats fish."}
        for n in range(DOCS)
    ]
    queries = [{"_id": f"q{n}", "text": f"Which pets sleep {n} hours?"} for n in range(QUERIES)]
    for name, rows in (("corpus", docs), ("queries", queries)):
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    judged = "".join(f"q{n}\td11\t1\n" for n in range(QUERIES))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return load_collection(str(folder))
