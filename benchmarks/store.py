"""The run store on many synthetic scores: rows written a second, bytes a row, time to open, lists fetched at random.

    python benchmarks/store.py --rows 20000000 --json store.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from irdistill.collections import Collection
from irdistill.runs import RankedList, RunIdentity, RunWriter, compile_run, open_run, verify

DEPTH = 100
DOCUMENTS = 200_000
OPENING = """
import json, sys, time, psutil
began = time.perf_counter()
from irdistill.runs import open_run
imported = time.perf_counter()
run = open_run(sys.argv[1])
opened = time.perf_counter()
first = run[run.query_ids[0]]
print(json.dumps({"import": imported - began, "open": opened - imported, "first_list": time.perf_counter() - opened,
                  "resident": psutil.Process().memory_info().rss}))
"""


def lists(query_ids: list[str], names: list[str], draw: np.random.Generator) -> Iterator[RankedList]:
    """Made-up lists; documents of one query are spread over the corpus."""
    for query_id in query_ids:
        start, step = int(draw.integers(DOCUMENTS)), int(draw.integers(1, 1999))
        docs = [names[(start + place * step) % DOCUMENTS] for place in range(DEPTH)]
        yield RankedList(query_id, docs, draw.normal(size=DEPTH).astype(np.float32))


def main() -> None:
    """Run the benchmark and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--part-queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5, help="of opening and fetching")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    draw = np.random.default_rng(arguments.seed)
    names = [f"d{number:07}" for number in range(DOCUMENTS)]
    queries = [f"q{number:07}" for number in range(arguments.rows // DEPTH)]
    held = Collection.from_dicts("synthetic", {name: name for name in names}, {"q": "a question"}, {})
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        identity = RunIdentity("teacher", {"model": "synthetic"}, held.describe() | {"queries": "synthetic"})
        writing = making = 0.0
        with RunWriter(folder, identity, queries, arguments.part_queries) as writer:
            for number, ids in writer.pending():
                began = time.perf_counter()
                made = list(lists(ids, names, draw))
                made_at = time.perf_counter()
                writer.write_part(number, made)
                making += made_at - began
                writing += time.perf_counter() - made_at
            writer.finish()
        size = sum(path.stat().st_size for path in folder.iterdir())
        opened = [json.loads(subprocess.run([sys.executable, "-c", OPENING, str(folder)], capture_output=True, text=True,
                                            check=True).stdout) for _ in range(arguments.rounds)]
        run = open_run(folder)
        began = time.perf_counter()
        compiled = compile_run(run, held.corpus)
        compiling = time.perf_counter() - began
        rates = []
        for _ in range(arguments.rounds):
            chosen = draw.integers(0, len(queries), 20_000).tolist()
            began = time.perf_counter()
            for number in chosen:
                compiled.list(number)
            rates.append(len(chosen) / (time.perf_counter() - began))
        began = time.perf_counter()
        problems = verify(folder)
        checking = time.perf_counter() - began
        result = {
            "rows": run.num_rows, "part_queries": arguments.part_queries, "rows_written_per_second": run.num_rows / writing,
            "bytes_per_row": size / run.num_rows, "problems": problems,
            "open_seconds": statistics.median(entry["open"] for entry in opened),
            "import_seconds": statistics.median(entry["import"] for entry in opened),
            "first_list_seconds": statistics.median(entry["first_list"] for entry in opened),
            "resident_bytes_after_opening": statistics.median(entry["resident"] for entry in opened),
            "compile_seconds": compiling, "lists_fetched_per_second": statistics.median(rates),
            "verify_seconds": checking, "seconds_spent_making_rows": making,
        }
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
