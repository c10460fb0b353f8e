"""The bank of texts: its value and gradients, what it needs, and resuming."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import irdistill as ird
from irdistill.collections import Corpus, Document
from irdistill.errors import IrdistillError
from irdistill.queries.raw_texts import TextOptions, open_texts
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
    steps=4,
    batch_size=4,
    list_size=5,
    learning_rate=1e-2,
    precision="float32",
    seed=7,
    log_every=1,
    checkpoint_every=2,
    dropout=False,
    bank_queries=2,
    bank_weight=2.0,
    bank_tau=0.1,
)
NO_BANK: Mapping[str, Any] = {"bank_queries": 16, "bank_weight": 3.0, "bank_tau": 0.05}
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
    return data.open(
        make_collection(),
        QUERIES,
        student,
        replace(OPTIONS, bank_queries=0),
        Processes(),
        place / "work",
    )


def cosines(model: DenseStudent, queries: Sequence[str]) -> np.ndarray:
    """(B, n) of queries and the bank, by the model's own encoding."""
    vectors = model.encode(list(queries), "query", "float32", normalize=True)
    texts = model.encode(make_bank().texts(range(12)), "document", "float32", normalize=True)
    return np.asarray(vectors @ texts.T, dtype=np.float64)


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


def test_texts_of_the_bank_are_queries_too(place: Path) -> None:
    """Three of them, drawn for each batch; none is compared with itself."""
    student, teacher = make_student(place / "backbone"), make_student(place / "other")
    data = BankData.read(make_bank(), teacher, OPTIONS, student)
    assert data is not None
    options = replace(OPTIONS, bank_queries=3)
    looked_up = data.open(make_collection(), QUERIES, student, options, Processes(), place / "work")
    bank = looked_up(np.array([1, 2]))
    rows = [int(np.flatnonzero(np.isnan(row))[0]) for row in bank.teacher.numpy()[2:]]
    assert len(set(rows)) == 3 and np.isnan(bank.teacher.numpy()).sum() == 3
    assert torch.equal(looked_up(np.array([1, 2])).teacher.nan_to_num(), bank.teacher.nan_to_num())
    texts = [make_collection().queries[query_id].text for query_id in ("q3", "q5")]
    read = [*texts, *make_bank().texts(rows)]
    expected, scores = cosines(teacher, read), cosines(student, read)
    np.testing.assert_allclose(bank.teacher[:2].numpy(), expected[:2], atol=1e-2)
    queries = torch.from_numpy(student.encode(texts, "query", "float32"))
    value = bank_divergence(Encoder(student, torch.float32), queries, bank, 0.1)
    divergences = [by_hand(expected[i : i + 1], scores[i : i + 1], 0.1) for i in (0, 1)]
    for i, row in enumerate(rows, start=2):
        others = np.arange(12) != row
        divergences.append(by_hand(expected[i : i + 1, others], scores[i : i + 1, others], 0.1))
    assert value.item() == pytest.approx(np.mean(divergences), rel=2e-2)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_student_that_has_not_moved_has_no_divergence(place: Path, frozen: bool) -> None:
    student = make_student(place / "backbone", frozen)
    bank = opened(place, student)(np.arange(3))
    texts = [make_collection().queries[query_id].text for query_id in QUERIES]
    queries = torch.from_numpy(student.encode(texts, "query", "float32"))
    assert bank_divergence(Encoder(student, torch.float32), queries, bank, 0.1) < 1e-4


def test_training_keeps_the_scores_on_the_bank(place: Path, tmp_path: Path) -> None:
    """The log has the term, and the divergence at the end is smaller than without a bank."""
    ends = {}
    for weight in (None, 2.0):
        student = make_student(place / "backbone")
        options = OPTIONS if weight else replace(OPTIONS, **NO_BANK)
        bank = make_bank() if weight else None
        train(make_collection(), place / "scores", student, LOSS, tmp_path / f"{weight}", options,
              bank=bank, work=place / "work")  # fmt: skip
        texts = [query.text for query in make_collection().queries.values()]
        start = cosines(make_student(place / "backbone"), texts)
        ends[weight] = by_hand(start, cosines(student, texts), 0.1)
    assert ends[2.0] < 0.5 * ends[None]
    rows = log(tmp_path / "2.0")
    assert rows[0]["terms"]["bank"] < 1e-3 < rows[2]["terms"]["bank"]
    assert "bank" not in log(tmp_path / "None")[0]["terms"]


def test_gradient_accumulation_has_the_same_bank(place: Path, tmp_path: Path) -> None:
    values = []
    for parts in (1, 2):
        out = tmp_path / str(parts)
        options = replace(OPTIONS, steps=1, bank_queries=0, gradient_accumulation=parts)
        train(make_collection(), place / "scores", make_student(place / "backbone"), "MSE", out,
              options, bank=make_bank(), bank_teacher=make_student(place / "other"),
              work=place / "work")  # fmt: skip
        values.append(log(out)[0]["terms"]["bank"])
    assert values[0] > 0 and values[0] == pytest.approx(values[1], rel=1e-4)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_killed_training_ends_with_the_same_bytes(
    place: Path, tmp_path: Path, frozen: bool
) -> None:
    def go(out: Path) -> None:
        train(make_collection(), place / "scores", make_student(place / "backbone", frozen), LOSS,
              out, OPTIONS, bank=make_bank(), work=place / "work")  # fmt: skip

    go(tmp_path / "whole")
    with stopped_before(3):
        go(tmp_path / "killed")
    go(tmp_path / "killed")
    assert digests(tmp_path / "whole") == digests(tmp_path / "killed")


def test_the_identity_has_texts_teacher_and_options_of_the_bank(
    place: Path, tmp_path: Path
) -> None:
    def go(bank: Any = None, teacher: Any = None, **options: Any) -> Any:
        settings = replace(OPTIONS, steps=1, **options)
        train(make_collection(), place / "scores", make_student(place / "backbone", True), LOSS,
              tmp_path / "out", settings, bank=bank, bank_teacher=teacher,
              work=place / "work")  # fmt: skip
        return read_json(tmp_path / "out" / "training.json")["identity"]

    identity = go(make_bank())["bank"]
    assert identity["teacher"]["document"]["corpus"] == make_bank().fingerprint
    assert (identity["weight"], identity["tau"]) == (2.0, 0.1)
    others: list[dict[str, Any]] = [
        {"bank": make_bank(["w1 w2", "w3"])},
        {"bank": make_bank(), "teacher": make_student(place / "other")},
        {"bank": make_bank(), "bank_tau": 0.2},
        {"bank": make_bank(), "bank_queries": 5},
        {"bank": None, **NO_BANK},
    ]
    for arguments in others:
        with pytest.raises(IrdistillError, match="bank"):
            go(**arguments)
    assert go(make_bank(), bank_size=9)["bank"] == identity  # the texts are in the identity


def test_what_cannot_be_banked_is_refused(place: Path) -> None:
    student = make_student(place / "backbone")
    assert BankData.read(None, None, TrainOptions(), student) is None
    with pytest.raises(IrdistillError, match="bank_tau was given without bank"):
        BankData.read(None, None, TrainOptions(bank_tau=0.1), student)
    with pytest.raises(IrdistillError, match="bank_teacher was given without bank"):
        BankData.read(None, student, TrainOptions(), student)
    pairs = ird.CrossEncoderStudent(str(place / "backbone-bert"), device="cpu")
    with pytest.raises(IrdistillError, match="a bank was given for a cross-encoder student"):
        BankData.read(make_bank(), None, TrainOptions(), pairs)


def test_the_verb_draws_the_bank(place: Path, tmp_path: Path) -> None:
    """``bank_size`` texts of the sources; sentences, if no kind is named."""
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(make_bank().texts(range(12))))
    student = ird.train(
        make_collection(), str(place / "scores"), make_student(place / "backbone", True),
        loss=LOSS, bank=[file, make_collection()], bank_size=20, bank_tau=0.1, steps=1,
        bank_teacher=str(place / "other"), out=tmp_path / "out",
    )  # fmt: skip
    bank = read_json(tmp_path / "out" / "training.json")["identity"]["bank"]
    corpus = open_texts([file, make_collection()], TextOptions(max_texts=20), 42)
    assert bank["teacher"]["query"]["corpus"] == corpus.fingerprint and len(corpus) == 20
    assert student.dimension == 16
