"""What ``torchrun`` starts in ``test_processes.py``: the trainings of `CASES`, or one of them that
kills a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from irdistill.collections import Corpus, Document
from irdistill.students import build_student
from irdistill.students.student_base import Student
from irdistill.training.align_options import AlignOptions
from irdistill.training.aligning import align
from irdistill.training.loop import TrainingLoop
from irdistill.training.options import TrainOptions
from irdistill.training.processes import Processes
from irdistill.training.trainer import train
from tests.training.tiny import WORDS, make_backbone, make_collection

OPTIONS = TrainOptions(
    steps=3,
    batch_size=2,
    list_size=5,
    learning_rate=1e-3,
    precision="float32",
    seed=7,
    warmup=0,
    weight_decay=0.1,
    checkpoint_every=1,
    log_every=1,
    dropout=False,
)
#: Lists differ in length and documents stand in several, so that means of means and copies would
#: show.
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "dense": ("dense", "KL(tau=0.2, teacher_tau=2) + InfoNCE(tau=0.2)", {}, {}),
    "batch": (
        "dense",
        'KL(tau=0.2, negatives="batch") + InfoNCE(tau=0.2, masked="teacher", masked_in="all")',
        {},
        {},
    ),
    "frozen": ("dense", "MarginMSE(scale=6)", {"freeze_documents": True}, {}),
    "sparse": (
        "sparse",
        "KL(teacher_tau=2) + CPRD",
        {},
        {"document_flops": 0.1, "query_flops": 0.1, "ramp": 0.0},
    ),
    "late": ("late-interaction", "KL(teacher_tau=2) + InfoNCE(tau=1)", {"dimension": 8}, {}),
    "cross": ("cross-encoder", "RankNet(tau=0.01)", {}, {}),
    "validated": (
        "dense",
        "KL(tau=0.2, teacher_tau=2)",
        {},
        {"validate_every": 1, "validate_measures": "loss nDCG@10"},
    ),
}
#: The share of the queries that is held out in a case.
SHARES = {"validated": 0.4}


GUARDED = ("dense", "cross")


def student(place: Path, case: str) -> Student:
    """The student of a case, untrained."""
    kind, _, settings, _ = CASES[case]
    return build_student(kind, str(make_backbone(place / "backbone")), device="cpu", **settings)


def gradient_descent(model: torch.nn.Module, learning_rate: float, *options: Any) -> Any:
    """Stands in for `make_optimizer`."""
    group = {"params": model.parameters(), "initial_lr": learning_rate}
    return torch.optim.SGD([group], learning_rate)


def descend(place: Path, out: Path, case: str, batch_size: int) -> None:
    """One training by plain gradient descent: AdamW forgets the size of a gradient, and makes a
    step of mere rounding.
    """
    with mock.patch("irdistill.training.loop.make_optimizer", gradient_descent):
        run(place, out, case, batch_size, learning_rate=0.1)


def run(place: Path, out: Path, case: str, batch_size: int, **changes: Any) -> None:
    """One training."""
    _, loss, _, options = CASES[case]
    settings = replace(OPTIONS, batch_size=batch_size, **options, **changes)
    scores = place / ("bm25-scores" if case == "batch" else "scores")  # BM25 has in-batch scores
    train(
        make_collection(),
        scores,
        student(place, case),
        loss,
        out,
        settings,
        validate=SHARES.get(case),
    )


def texts() -> Corpus:
    """Ten texts of different lengths, which do not divide evenly among steps and processes."""
    return Corpus.in_memory(
        Document(str(row), "", " ".join(WORDS[row : row + 1 + row % 4])) for row in range(10)
    )


def aligned(place: Path, out: Path, batch_size: int) -> None:
    """An alignment with a loss over all pairs of a batch, by plain gradient descent."""
    backbone = str(make_backbone(place / "backbone"))
    options = AlignOptions(
        steps=3,
        batch_size=batch_size,
        learning_rate=0.1,
        precision="float32",
        seed=7,
        warmup=0,
        log_every=1,
        dropout=False,
        start="none",
    )
    teacher, student = (
        build_student("dense", name, device="cpu")
        for name in (str(make_backbone(place / "teacher", seed=3)), backbone)
    )
    with mock.patch("irdistill.training.loop.make_optimizer", gradient_descent):
        align(texts(), teacher, student, out, "EmbeddingCosine + Relational", options)  # type: ignore[arg-type]


def guarded(place: Path, out: Path, case: str, batch_size: int) -> None:
    """A training with a probe that it may not lower."""
    kind, loss, _, _ = CASES[case]
    with mock.patch("irdistill.training.loop.make_optimizer", gradient_descent):
        train(
            make_collection(),
            place / "scores",
            build_student(kind, str(make_backbone(place / "backbone")), device="cpu"),
            loss,
            out,
            replace(OPTIONS, batch_size=batch_size, learning_rate=0.1, validate_measures="nDCG@10"),
            validate=0.4,
            keep=replace(make_collection(), id="probe"),
        )


def gather(folder: Path) -> None:
    """What `Processes.gather` makes of vectors and of lists of token vectors, and their gradients,
    by rank.
    """
    processes = Processes.join()
    whole = torch.arange(10.0).reshape(5, 2)
    part = whole[processes.share(5)].requires_grad_()
    gathered = processes.gather(part, 5)
    (gathered * torch.arange(1.0, 6)[:, None]).sum().backward()
    texts = [torch.full((length, 2), float(length)) for length in (3, 1, 4, 2, 5)]
    mine = [texts[place].clone().requires_grad_() for place in processes.share(5)]
    ragged = processes.gather(mine, 5)
    sum(place * vectors.sum() for place, vectors in enumerate(ragged, 1)).backward()  # type: ignore[union-attr]
    assert part.grad is not None
    (folder / f"gather-{processes.rank}.json").write_text(
        json.dumps(
            {
                "dense": gathered.tolist(),
                "dense_gradient": part.grad.tolist(),
                "ragged": [vectors.tolist() for vectors in ragged],
                "ragged_gradient": [float(vectors.grad[0, 0]) for vectors in mine],  # type: ignore[index]
            }
        )
    )


def kill_at(step: int, rank: int) -> None:
    """Let one process die, as by SIGKILL from outside, before it begins a step."""
    inner = TrainingLoop.train_step

    def step_or_die(self: TrainingLoop, current: int, batches: Any) -> None:
        if current == step and self.processes.rank == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        inner(self, current, batches)

    TrainingLoop.train_step = step_or_die  # type: ignore[method-assign]


if __name__ == "__main__":
    folder, what = Path(sys.argv[1]), sys.argv[2]
    if what == "all":
        gather(folder)
        for name in CASES:
            descend(folder, folder / f"two-{name}", name, 2)
        run(folder, folder / "whole", "late", 2, steps=5, dropout=True)
    elif what == "align":
        aligned(folder, folder / "two-align", 2)
    elif what == "guard":
        for name in GUARDED:
            guarded(folder, folder / f"two-{name}", name, 2)
    else:
        if what == "killed":
            kill_at(3, 1)
        run(folder, folder / "killed", "late", 2, steps=5, dropout=True)
