"""Benchmark of the run store on 100 million synthetic scores.

It measures rows written per second, bytes per row, the time to open a run, and lists read at random
per second. Each stage runs in a new process, which reports its peak of resident memory. The writing
process also writes the same rows as a TREC run and as JSON lines, one query per line. Rates are
given by the wall clock and by processor time, which varies less on a shared machine; ratios are of
processor time.

    python benchmarks/store.py --json store.json
    python benchmarks/store.py --rows 2000000            (a minute; needs little disk)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections import Corpus
from irdistill.collections.compiling import compile_corpus
from irdistill.collections.document_table import Document
from irdistill.runs import RankedList, RunIdentity, RunWriter, compile_run, open_run, verify
from irdistill.runs.journal import Journal
from irdistill.runs.manifest import JOURNAL, MANIFEST

DEPTH = 100
FETCHED, LIST = 20_000, 64
PEER_ROWS = 2_000_000


class Clock:
    """Seconds by the wall clock and of the processor, summed over all uses."""

    def __init__(self) -> None:
        self.wall = self.processor = 0.0

    def __enter__(self) -> Clock:
        self._begun = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.wall += time.perf_counter() - self._begun[0]
        self.processor += time.process_time() - self._begun[1]


def memory(key: str) -> int:
    """Bytes of this process, from /proc: ``VmHWM`` is the peak of resident memory, ``RssAnon`` its
    current private memory.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def ids(options: argparse.Namespace) -> list[str]:
    """The query ids."""
    return [f"q{number:07}" for number in range(options.rows // DEPTH)]


def lists(
    query_ids: list[str], names: list[str], draw: np.random.Generator
) -> Iterator[RankedList]:
    """Synthetic lists; the documents of a query are spread over the corpus."""
    for query_id in query_ids:
        start, step = (
            int(draw.integers(len(names))),
            int(draw.integers(1, min(1999, len(names) // DEPTH + 1))),
        )
        docs = [names[(start + place * step) % len(names)] for place in range(DEPTH)]
        yield RankedList(query_id, docs, draw.normal(size=DEPTH).astype(np.float32))


def write_trec(rows: list[RankedList], path: Path) -> None:
    """A TREC run; nine digits preserve a float32."""
    with open(path, "w", encoding="utf-8") as stream:
        for row in rows:
            order = np.argsort(-row.scores, kind="stable").tolist()
            scores = row.scores.tolist()
            stream.writelines(
                f"{row.query_id} Q0 {row.doc_ids[place]} {rank} {scores[place]:.9g} made-up\n"
                for rank, place in enumerate(order, 1)
            )
        stream.flush()
        os.fsync(stream.fileno())


def write_jsonl(rows: list[RankedList], path: Path) -> None:
    """One query per line, as sets of hard negatives are published."""
    with open(path, "w", encoding="utf-8") as stream:
        for row in rows:
            order = np.argsort(-row.scores, kind="stable").tolist()
            scores = row.scores.tolist()
            stream.write(
                json.dumps(
                    {
                        "query_id": row.query_id,
                        "doc_ids": [row.doc_ids[place] for place in order],
                        "scores": [float(f"{scores[place]:.9g}") for place in order],
                    }
                )
                + "\n"
            )
        stream.flush()
        os.fsync(stream.fileno())


def write(options: argparse.Namespace) -> dict[str, Any]:
    """Write the run, and some of its rows in the other formats."""
    draw = np.random.default_rng(options.seed)
    names = [f"d{number:07}" for number in range(options.documents)]
    queries = ids(options)
    identity = RunIdentity(
        "teacher", {"model": "made up"}, {"id": "made up", "corpus": "0", "queries": "0"}
    )
    making, writing, starting, finishing, again = (Clock() for _ in range(5))
    kept: list[RankedList] = []
    peak = 0
    with starting:
        writer = RunWriter(options.folder / "run", identity, queries, options.part_queries)
        writer.__enter__()
        pending = writer.pending()
    for number, query_ids in pending:
        with making:
            rows = list(lists(query_ids, names, draw))
        with writing:
            writer.write_part(number, rows)
        kept += rows if len(kept) * DEPTH < PEER_ROWS else []
    peak = memory("VmHWM")
    with finishing:
        run = writer.finish()
    writer.__exit__(None, None, None)
    with again:
        parts = len(Journal(options.folder / "run").read())
    files = [path for path in (options.folder / "run").iterdir() if path.is_file()]
    row_bytes = sum(path.stat().st_size for path in files) / run.num_rows
    result = {
        "rows": run.num_rows,
        "parts": parts,
        "rows_written_per_second": run.num_rows / writing.wall,
        "rows_written_per_processor_second": run.num_rows / writing.processor,
        "bytes_per_row": row_bytes,
        "writer_start_seconds": starting.wall,
        "finish_seconds": finishing.wall,
        "journal_read_seconds": again.wall,
        "manifest_bytes": (options.folder / "run" / MANIFEST).stat().st_size,
        "journal_bytes": (options.folder / "run" / JOURNAL).stat().st_size,
        "write_peak_bytes": peak,
        "seconds_spent_making_rows": making.wall,
    }
    peers: dict[str, Callable[[list[RankedList], Path], None]] = {
        "trec": write_trec,
        "jsonl": write_jsonl,
    }
    for name, peer in peers.items():
        path, clock = options.folder / f"peer.{name}", Clock()
        with clock:
            peer(kept, path)
        size, count = path.stat().st_size / (len(kept) * DEPTH), len(kept) * DEPTH
        result |= {
            f"{name}_rows_per_processor_second": count / clock.processor,
            f"{name}_bytes_per_row": size,
            f"{name}_write_ratio": (run.num_rows / writing.processor) / (count / clock.processor),
            f"{name}_bytes_ratio": size / row_bytes,
        }
        path.unlink()
    return result


def opening(options: argparse.Namespace) -> dict[str, Any]:
    """Open the run, then read its first list, which reads all query ids."""
    began = time.perf_counter()
    run = open_run(options.folder / "run")
    opened = time.perf_counter()
    resident = memory("VmRSS")
    assert len(run[f"q{0:07}"].doc_ids) == DEPTH
    return {
        "open_seconds": opened - began,
        "open_resident_bytes": resident,
        "first_list_seconds": time.perf_counter() - opened,
        "first_list_resident_bytes": memory("VmRSS"),
    }


def compiling(options: argparse.Namespace) -> dict[str, Any]:
    """Compile the run into arrays, as the first training does."""
    run, corpus = open_run(options.folder / "run"), Corpus.open(options.folder / "corpus")
    with Clock() as clock:
        compile_run(run, corpus)
    return {
        "compile_rows_per_second": run.num_rows / clock.wall,
        "compile_rows_per_processor_second": run.num_rows / clock.processor,
        "compile_peak_bytes": memory("VmHWM"),
    }


def fetching(options: argparse.Namespace) -> dict[str, Any]:
    """Read lists at random, by query id."""
    began = time.perf_counter()
    compiled = compile_run(open_run(options.folder / "run"), Corpus.open(options.folder / "corpus"))
    names, index = compiled.query_ids, compiled.index
    ready = time.perf_counter() - began
    draw = np.random.default_rng(options.seed)
    rates, checksum = [], 0
    for _ in range(options.rounds):
        chosen = [names[number] for number in draw.integers(0, len(names), FETCHED).tolist()]
        began = time.perf_counter()
        for query_id in chosen:
            rows, scores = compiled.list(index[query_id])
            checksum += int(np.array(rows[:LIST])[-1]) + int(np.array(scores[:LIST])[-1] > 0)
        rates.append(FETCHED / (time.perf_counter() - began))
    return {
        "fetch_ready_seconds": ready,
        "lists_fetched_per_second": statistics.median(rates),
        "fetch_peak_bytes": memory("VmHWM"),
        "fetch_own_bytes": memory("RssAnon"),
        "fetch_mapped_bytes": memory("RssFile"),
    }


def verifying(options: argparse.Namespace) -> dict[str, Any]:
    """Read and check every byte."""
    with Clock() as clock:
        problems = verify(options.folder / "run")
    return {
        "verify_seconds": clock.wall,
        "problems": problems,
        "verify_peak_bytes": memory("VmHWM"),
    }


STAGES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "write": write,
    "open": opening,
    "compile": compiling,
    "fetch": fetching,
    "verify": verifying,
}
REPEATED = ("open", "fetch")


def main() -> None:
    """Run the stages in order and print their figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--part-queries", type=int, default=64)
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="repetitions of opening and fetching; medians are reported",
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(STAGES[options.stage](options)))
        return
    result: dict[str, Any] = {"part_queries": options.part_queries, "documents": options.documents}
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "corpus").mkdir()
        texts = (
            Document(f"d{number:07}", "", f"text {number}") for number in range(options.documents)
        )
        compile_corpus(texts, Path(place) / "corpus", "made up")
        for stage in STAGES:
            results = [
                _run(stage, place, options)
                for _ in range(options.rounds if stage in REPEATED else 1)
            ]
            result |= {
                key: statistics.median(row[key] for row in results) if len(results) > 1 else value
                for key, value in results[0].items()
            }
            print(f"{stage}: done", file=sys.stderr)
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def _run(stage: str, place: str, options: argparse.Namespace) -> dict[str, Any]:
    names = ("rows", "documents", "part_queries", "rounds", "seed")
    passed = [
        f"--stage={stage}",
        f"--folder={place}",
        *(f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names),
    ]
    done = subprocess.run([sys.executable, __file__, *passed], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
