"""Benchmark of collections and score files of MS MARCO's size: seconds and peak memory.

A synthetic collection (8.8 million passages of about 56 words, out of 3 million, with the frequency
distribution of text) and a TREC run (20,000 queries of 1,000 documents) are written to a folder.
Each stage then runs in a new process, which reports its seconds and its peak of resident memory,
including pages of mapped files:

- ``compile`` loads the collection, which compiles it; ``index`` builds the BM25 index;
  ``candidates`` searches 200 queries for 1,000 documents each;
- ``read`` passes over the run's lines in Python, for comparison: as text, as bytes, by blocks, and
  with ``line.split()``;
- ``evaluate`` computes nDCG@10, RR@10 and R@1000 and looks up every document in the corpus;
  ``judged`` does the same with judgments only, without a corpus; ``ungrouped`` with the same lines
  in another order;
- ``import`` imports the run; ``export`` writes it as a TREC file again.

Seconds are given by the wall clock and by processor time, which varies less on a shared machine.

    python benchmarks/scale.py --documents 100000 --lines 1000000              (a minute)
    python benchmarks/scale.py --folder DISK --json scale.json                 (an hour; 20 GB of
    disk)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bm25s.stopwords import STOPWORDS_EN
from store import Clock, memory

WORDS, VOCABULARY = 56, 3_000_000
DEPTH, SEARCHED = 1000, 200
LETTERS = "etaoinsrhldcumfpgwybvkxjqz"
MEASURES = ("nDCG@10", "RR@10", "R@1000")


def word(number: int) -> str:
    """A synthetic word by its frequency rank; the first are English stop words."""
    if number < len(STOPWORDS_EN):
        return STOPWORDS_EN[number]
    name, number = "", number + len(LETTERS)
    while number:
        name, number = name + LETTERS[number % len(LETTERS)], number // len(LETTERS)
    return name


def make(options: argparse.Namespace, folder: Path) -> None:
    """Write the collection and the run."""
    draw = np.random.default_rng(options.seed)
    vocabulary = list(map(word, range(VOCABULARY)))

    def text(count: int) -> str:
        ranks = np.exp(draw.random(count) * np.log(VOCABULARY)).astype(np.int64)
        return " ".join([vocabulary[number] for number in ranks.tolist()])

    with open(folder / "corpus.jsonl", "w") as stream:
        for first in range(0, options.documents, 10_000):
            sizes = draw.poisson(WORDS, min(10_000, options.documents - first)).tolist()
            drawn = text(sum(sizes)).split(" ")
            ends = np.cumsum(sizes).tolist()
            stream.writelines(
                f'{{"_id": "{number}", "title": "", "text":'
                f' "{" ".join(drawn[end - size : end])}"}}\n'
                for number, (size, end) in enumerate(zip(sizes, ends, strict=True), first)
            )
    queries = options.lines // DEPTH
    with open(folder / "queries.jsonl", "w") as stream:
        stream.writelines(
            f'{{"_id": "{1_000_000 + number}", "text": "{text(6)}"}}\n' for number in range(queries)
        )
    (folder / "qrels").mkdir()
    with open(folder / "run.trec", "w") as run, open(folder / "qrels" / "test.tsv", "w") as qrels:
        qrels.write("query-id\tcorpus-id\tscore\n")
        for number in range(1_000_000, 1_000_000 + queries):
            docs = draw.choice(options.documents, DEPTH, replace=False, shuffle=False)
            scores = -np.sort(-draw.normal(15, 4, DEPTH))
            run.write(
                "".join(
                    [
                        f"{number} Q0 {doc} {rank} {score:.6f} made-up\n"
                        for rank, (doc, score) in enumerate(
                            zip(docs.tolist(), scores.tolist(), strict=True), 1
                        )
                    ]
                )
            )
            place = min(int(draw.exponential(40)), DEPTH - 1)
            relevant = docs[place] if draw.random() < 2 / 3 else draw.integers(options.documents)
            qrels.write(f"{number}\t{relevant}\t1\n")


def shuffle(folder: Path) -> None:
    """Write the lines in another order: the first of each hundred lines, the second, and so on."""
    with open(folder / "run.trec", "rb") as run, open(folder / "ungrouped.trec", "wb") as stream:
        while lines := run.readlines(1 << 27):
            for first in range(100):
                stream.writelines(lines[first::100])


def stage_compile(folder: Path) -> dict[str, float]:
    """Compile the collection."""
    return {"documents": len(_collection(folder).corpus)}


def stage_index(folder: Path) -> dict[str, float]:
    """Build the BM25 index."""
    from irdistill.search.lexical.bm25 import BM25

    index = BM25(_collection(folder).corpus)
    return {
        "stems": len(index.stems),
        "postings": int(index._indptr[-1]),
        "index_bytes": index.bytes,
    }


def stage_candidates(folder: Path) -> dict[str, float]:
    """Retrieve for the first queries."""
    from dataclasses import replace

    from irdistill.search import retrieve

    whole = _collection(folder)
    some = replace(whole, queries=dict(list(whole.queries.items())[:SEARCHED]))
    began = time.perf_counter(), time.process_time()
    run = retrieve(some, "bm25", folder / "candidates", k=DEPTH)
    wall, processor = time.perf_counter() - began[0], time.process_time() - began[1]
    return {
        "queries": len(run),
        "candidate_rows": run.num_rows,
        "ms_per_query": 1000 * wall / len(run),
        "processor_ms_per_query": 1000 * processor / len(run),
    }


def stage_read(folder: Path) -> dict[str, float]:
    """Pass over the lines without using them."""

    def text() -> int:
        with open(folder / "run.trec", encoding="utf-8") as stream:
            return sum(1 for _ in stream)

    def binary() -> int:
        with open(folder / "run.trec", "rb") as stream:
            return sum(1 for _ in stream)

    def blocks() -> int:
        with open(folder / "run.trec", "rb") as stream:
            return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 22), b""))

    def split() -> int:
        with open(folder / "run.trec", encoding="utf-8") as stream:
            return sum(len(line.split()) == 6 for line in stream)

    result: dict[str, float] = {}
    for read in (text, binary, blocks, split):
        clock = Clock()
        with clock:
            result["lines"] = read()
        result |= {
            f"{read.__name__}_wall": clock.wall,
            f"{read.__name__}_processor": clock.processor,
        }
    return result


def stage_evaluate(folder: Path) -> dict[str, Any]:
    """Evaluate with a corpus."""
    return _figures(_collection(folder), folder / "run.trec")


def stage_judged(folder: Path) -> dict[str, Any]:
    """Evaluate with judgments only."""
    return _figures(_judgments(folder), folder / "run.trec")


def stage_ungrouped(folder: Path) -> dict[str, Any]:
    """Evaluate lines that are not grouped by query."""
    return _figures(_judgments(folder), folder / "ungrouped.trec")


def stage_import(folder: Path) -> dict[str, float]:
    """Import the run."""
    from irdistill.runs.formats import import_run

    run = import_run(
        folder / "run.trec", _collection(folder), folder / "imported", "trec", overwrite=True
    )
    return {
        "rows": run.num_rows,
        "bytes_per_row": sum(part.bytes for part in run.manifest.parts) / run.num_rows,
    }


def stage_export(folder: Path) -> dict[str, float]:
    """Export the run."""
    from irdistill.runs.formats import export_run

    return {"rows": export_run(folder / "imported", folder / "exported.trec", "trec").rows}


def _collection(folder: Path) -> Any:
    from irdistill.collections import load_collection

    return load_collection(str(folder), cache=folder / "cache")


def _judgments(folder: Path) -> Any:
    from irdistill.collections import read_judgments

    return read_judgments(folder / "qrels" / "test.tsv")


def _figures(judged: Any, run: Path) -> dict[str, Any]:
    from irdistill.evaluation import evaluate

    return {row.measure: row.value for row in evaluate(judged, {"run": run}, MEASURES).rows}


STAGES: dict[str, Callable[[Path], dict[str, Any]]] = {
    name.removeprefix("stage_"): value
    for name, value in list(globals().items())
    if name.startswith("stage_")
}


def alone(stage: str, folder: Path) -> dict[str, Any]:
    """Run a stage in a new process; the seconds include its start."""
    began = time.perf_counter()
    environment = {**os.environ, "IRDISTILL_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, __file__, "--stage", stage, "--folder", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    return {"wall_seconds": time.perf_counter() - began, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Create missing input, run the stages in order and print their figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=8_841_823)
    parser.add_argument("--lines", type=int, default=20_000_000)
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument(
        "--folder", type=Path, help="kept and used again (default: a temporary folder)"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        values = STAGES[options.stage](options.folder)
        print(
            json.dumps(
                {**values, "processor_seconds": time.process_time(), "peak_bytes": memory("VmHWM")}
            )
        )
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "qrels" / "test.tsv").exists():
            make(options, folder)
        if "ungrouped" in options.stages and not (folder / "ungrouped.trec").exists():
            shuffle(folder)
        result: dict[str, Any] = {"documents": options.documents, "lines": options.lines}
        for name in options.stages:
            result[name] = alone(name, folder)
            print(name, json.dumps(result[name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
