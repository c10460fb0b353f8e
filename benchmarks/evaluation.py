"""A run of MS MARCO's size, 6,980 queries by 1,000 documents, from file to table, beside
pytrec_eval and ranx.

Each contestant runs in a process of its own, from start to end: it reads a TREC run and TREC qrels
and gives the means of nDCG@10, RR@10 and R@1000. Ours also checks every line, gives 95% intervals
(10,000 bootstrap samples), tie bounds and the share of judged documents. pytrec_eval is fed by a
loop over the lines, as most people feed it; ranx reads the file itself and compiles its measures on
first use (its cache is an empty folder here, as in a new environment).

Seconds are told by the wall clock and by processor time, which is the steadier one where a machine
is shared; ratios are of processor time, theirs over ours.

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
    """A made-up run, and one relevant document a query, which two queries of three find."""
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
    """``irdistill evaluate``, to its table."""
    from irdistill.collections import read_judgments
    from irdistill.evaluation import evaluate

    found = evaluate(read_judgments(folder / "qrels.txt"), {"run": folder / "run.trec"}, MEASURES)
    found.to_markdown()
    return [row.value for row in found.rows]


def pytrec(folder: Path) -> list[float]:
    """pytrec_eval, fed by a loop; a cut of the reciprocal rank at 10 is taken from a run of ten
    documents.
    """
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
    found = pytrec_eval.RelevanceEvaluator(
        qrels, {"ndcg_cut_10", "recip_rank", "recall_1000"}
    ).evaluate(run)
    values = [
        [
            query["ndcg_cut_10"],
            query["recip_rank"] if query["recip_rank"] >= 0.1 else 0.0,
            query["recall_1000"],
        ]
        for query in found.values()
    ]
    return [float(value) for value in np.mean(values, axis=0)]


def ranx(folder: Path) -> list[float]:
    """ranx, by its own readers."""
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
    parser.add_argument("--rounds", type=int, default=3, help="medians are given; ranx runs once")
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
        told: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTESTANTS}
        for number in range(options.rounds):
            for name in CONTESTANTS:
                if name != "ranx" or number == 0:
                    told[name].append(alone(name, Path(place)))
    for name, rounds in told.items():
        for key in ("wall_seconds", "processor_seconds", "peak_bytes"):
            result[f"{name}_{key}"] = statistics.median(one[key] for one in rounds)
    for name in ("pytrec_eval", "ranx"):
        result[f"{name}_largest_difference"] = max(
            abs(a - b)
            for a, b in zip(told["irdistill"][0]["values"], told[name][0]["values"], strict=True)
        )
        for key in ("processor", "wall"):
            ratio = result[f"{name}_{key}_seconds"] / result[f"irdistill_{key}_seconds"]
            result[f"{name}_ratio" if key == "processor" else f"{name}_wall_ratio"] = ratio
        result[f"{name}_memory_ratio"] = (
            result[f"{name}_peak_bytes"] / result["irdistill_peak_bytes"]
        )
    result["irdistill_values"] = dict(zip(MEASURES, told["irdistill"][0]["values"], strict=True))
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
