"""The bank of texts: its value and gradients, what it needs, and resuming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from irdistill.collections import Corpus, Document
from irdistill.errors import IrdistillError
from irdistill.storage.files import read_json
from irdistill.students import DenseStudent
from irdistill.training.data.text_bank import BankData
from irdistill.training.objectives.batch_scores import bank_divergence
from irdistill.training.objectives.encode import Encoder
from irdistill.training.options import TrainOptions
from irdistill.training.processes import Processes
from irdistill.training.trainer import train
from tests.training.support import LOSS, digests, log, stopped_before
from tests.training.tiny import WORDS, make_backbone, make_collection, make_run, make_student

OPTIONS = TrainOptions(
    steps=6,
    batch_size=4,
    list_size=5,
    learning_rate=1e-2,
    precision="float32",
    seed=7,
    log_every=1,
    checkpoint_every=2,
    dropout=False,
    bank_weight=3.0,
    bank_tau=0.1,
)
QUERIES = ["q0", "q3", "q5"]


def make_bank(texts: Sequence[str] = ()) -> Corpus:
    chosen = texts or [" ".join(WORDS[i : i + 3 + i % 4]) for i in range(12)]
    return Corpus.in_memory(Document(str(i), "", text) for i, text in enumerate(chosen))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank")
    make_run(folder / "scores", make_collection())
    make_backbone(folder / "backbone")
    make_backbone(folder / "other", seed=1)
    return folder


def opened(place: Path, student: DenseStudent, teacher: DenseStudent | None = None) -> Any:
    data = BankData.read(make_bank(), teacher, OPTIONS, student)
    assert data is not None
    return data.open(make_collection(), QUERIES, student, Processes(), place / "work")


def cosines(model: DenseStudent, queries: Sequence[str]) -> np.ndarray:
    """(B, n) of queries and the bank, by the model's own encoding."""
    asked = model.encode(list(queries), "query", "float32", normalize=True)
    texts = model.encode(make_bank().texts(range(12)), "document", "float32", normalize=True)
    return np.asarray(asked @ texts.T, dtype=np.float64)


def by_hand(teacher: np.ndarray, student: np.ndarray, tau: float) -> float:
    def softmax(scores: np.ndarray) -> np.ndarray:
        powers = np.exp(scores / tau)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    p, q = softmax(teacher), softmax(student)
    return float((p * np.log(p / q)).sum(axis=1).mean())


@pytest.mark.parametrize("frozen", [True, False])
def test_the_divergence_by_hand(place: Path, frozen: bool) -> None:
    student = make_student(place / "backbone", frozen)
    teacher = make_student(place / "other")
    bank = opened(place, student, teacher)(np.array([2, 0]))
    texts = [make_collection().queries[query_id].text for query_id in ("q5", "q0")]
    expected = cosines(teacher, texts)
    np.testing.assert_allclose(bank.teacher.numpy(), expected, atol=1e-2)  # stored as "auto"
    encoder = Encoder(student, torch.float32)
    queries = torch.from_numpy(student.encode(texts, "query", "float32"))
    value = bank_divergence(encoder, queries, bank, 0.1)
    assert value.item() == pytest.approx(
        by_hand(bank.teacher.double().numpy(), cosines(student, texts), 0.1), rel=2e-2
    )
    # the bank's texts have gradients if the document tower learns
    queries.requires_grad_()
    bank_divergence(encoder, queries, bank, 0.1).backward()
    assert queries.grad is not None and queries.grad.abs().sum() > 0
    learned = [p for p in student.model.parameters() if p.grad is not None]
    assert bool(learned) is not frozen


@pytest.mark.parametrize("frozen", [True, False])
def test_a_student_that_has_not_moved_has_no_divergence(place: Path, frozen: bool) -> None:
    student = make_student(place / "backbone", frozen)
    bank = opened(place, student)(np.arange(3))
    texts = [make_collection().queries[query_id].text for query_id in QUERIES]
    queries = torch.from_numpy(student.encode(texts, "query", "float32"))
    assert bank_divergence(Encoder(student, torch.float32), queries, bank, 0.1) < 1e-4
