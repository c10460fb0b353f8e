"""From file to table: irdistill, pytrec_eval and ranx on a run of 6,980 queries by 1,000 documents.

Each contestant runs in a separate process: it reads a TREC run and TREC qrels and gives the means
of nDCG@10, RR@10 and R@1000. irdistill also checks every line and gives 95% intervals (10,000
bootstrap samples), tie bounds and the share of judged documents. pytrec_eval gets its input from a
loop over the lines, the usual way to use it. ranx reads the file itself and compiles its measures
on first use (its cache is an empty folder here, as in a new environment).

Times are wall-clock and processor seconds; processor time varies less on a shared machine. Ratios
are of processor time, theirs over irdistill's.

    python benchmarks/evaluation.py --json evaluation.json
    python benchmarks/evaluation.py --queries 300        (a minute)
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DEPTH, CORPUS = 1000, 8_841_823
MEASURES = ("nDCG@10", "RR@10", "R@1000")


def make(folder: Path, queries: int, seed: int) -> None:
    """A random run and one relevant document per query, which two of three queries find."""
    draw = np.random.default_rng(seed)
    with open(folder / "run.trec", "w") as run, open(folder / "qrels.txt", "w") as qrels:
        for number in range(queries):
            docs = draw.choice(CORPUS, DEPTH, replace=False)
            scores = np.sort(draw.normal(15, 4, DEPTH).astype(np.float32))[::-1]
            run.writelines(
                f"{number} Q0 {doc} {rank} {score:.6f} made-up\n"
                for rank, (doc, score) in enumerate(
                    zip(docs.tolist(), scores.tolist(), strict=True), 1
                )
            )
            place = min(int(draw.exponential(40)), DEPTH - 1) if draw.random() < 2 / 3 else None
            qrels.write(f"{number} 0 {docs[place] if place is not None else CORPUS + number} 1\n")


def ours(folder: Path) -> list[float]:
    """``irdistill evaluate`` up to its table."""
    from irdistill.collections import read_judgments
    from irdistill.evaluation import evaluate

    result = evaluate(read_judgments(folder / "qrels.txt"), {"run": folder / "run.trec"}, MEASURES)
    result.to_markdown()
    return [row.value for row in result.rows]


def pytrec(folder: Path) -> list[float]:
    """pytrec_eval with a loop over the lines; it has no RR@10, so values below 0.1 become 0."""
    import pytrec_eval

    qrels: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    with open(folder / "qrels.txt") as lines:
        for line in lines:
            query, _, doc, grade = line.split()
            qrels.setdefault(query, {})[doc] = int(grade)
    with open(folder / "run.trec") as lines:
        for line in lines:
            query, _, doc, _, score, _ = line.split()
            run.setdefault(query, {})[doc] = float(score)
    by_query = pytrec_eval.RelevanceEvaluator(
        qrels, {"ndcg_cut_10", "recip_rank", "recall_1000"}
    ).evaluate(run)
    values = [
        [
            query["ndcg_cut_10"],
            query["recip_rank"] if query["recip_rank"] >= 0.1 else 0.0,
            query["recall_1000"],
        ]
        for query in by_query.values()
    ]
    return [float(value) for value in np.mean(values, axis=0)]


def ranx(folder: Path) -> list[float]:
    """ranx with its readers."""
    from ranx import Qrels, Run, evaluate

    means = evaluate(
        Qrels.from_file(str(folder / "qrels.txt"), kind="trec"),
        Run.from_file(str(folder / "run.trec"), kind="trec"),
        ["ndcg@10", "mrr@10", "recall@1000"],
        make_comparable=True,
    )
    return [float(value) for value in means.values()]


CONTESTANTS: dict[str, Callable[[Path], list[float]]] = {
    "irdistill": ours,
    "pytrec_eval": pytrec,
    "ranx": ranx,
}


def alone(name: str, folder: Path) -> dict[str, Any]:
    """Run one contestant in a new process."""
    with tempfile.TemporaryDirectory() as cache:
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, __file__, "--contestant", name, "--folder", str(folder)],
            capture_output=True,
            text=True,
            env={**os.environ, "NUMBA_CACHE_DIR": cache},
        )
        wall = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stderr)
    return {"wall_seconds": wall, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Run all contestants in turns and print their figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=6980)
    parser.add_argument("--rounds", type=int, default=3, help="results are medians; ranx runs once")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--contestant", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        values = CONTESTANTS[options.contestant](options.folder)
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        print(
            json.dumps(
                {
                    "values": values,
                    "processor_seconds": used.ru_utime + used.ru_stime,
                    "peak_bytes": used.ru_maxrss * 1024,
                }
            )
        )
        return
    result: dict[str, Any] = {
        "queries": options.queries,
        "documents": DEPTH,
        "measures": list(MEASURES),
    }
    with tempfile.TemporaryDirectory() as place:
        make(Path(place), options.queries, options.seed)
        result["file_bytes"] = (Path(place) / "run.trec").stat().st_size
        measured: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTESTANTS}
        for number in range(options.rounds):
            for name in CONTESTANTS:
                if name != "ranx" or number == 0:
                    measured[name].append(alone(name, Path(place)))
    for name, rounds in measured.items():
        for key in ("wall_seconds", "processor_seconds", "peak_bytes"):
            result[f"{name}_{key}"] = statistics.median(entry[key] for entry in rounds)
    for name in ("pytrec_eval", "ranx"):
        result[f"{name}_largest_difference"] = max(
            abs(a - b)
            for a, b in zip(
                measured["irdistill"][0]["values"], measured[name][0]["values"], strict=True
            )
        )
        for key in ("processor", "wall"):
            ratio = result[f"{name}_{key}_seconds"] / result[f"irdistill_{key}_seconds"]
            result[f"{name}_ratio" if key == "processor" else f"{name}_wall_ratio"] = ratio
        result[f"{name}_memory_ratio"] = (
            result[f"{name}_peak_bytes"] / result["irdistill_peak_bytes"]
        )
    result["irdistill_values"] = dict(
        zip(MEASURES, measured["irdistill"][0]["values"], strict=True)
    )
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
