"""Every student with every score loss: it learns, resumes to the same bytes, and is saved as what
was trained.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import (
    CrossEncoder,
    MultiVectorEncoder,
    SentenceTransformer,
    SparseEncoder,
)

from irdistill.errors import IrdistillError
from irdistill.losses import REGISTRY, parse_loss
from irdistill.runs import compile_run, open_run
from irdistill.students import KINDS, build_student
from irdistill.students.build import STUDENTS
from irdistill.students.student_base import Student
from irdistill.training import checkpoints
from irdistill.training.data.collate import make_collator
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.data.list_source import SamplerOptions
from irdistill.training.loop import TrainingLoop
from irdistill.training.objectives.batch_scores import score_batch
from irdistill.training.objectives.encode import Encoder
from irdistill.training.objectives.sparsity import Sparsity
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from tests.training.tiny import make_backbone, make_collection, make_run

OPTIONS = TrainOptions(
    steps=20,
    batch_size=4,
    list_size=5,
    learning_rate=5e-3,
    precision="float32",
    seed=7,
    checkpoint_every=0,
    log_every=10,
    dropout=False,
)
#: A loss, and the same with numbers for scores that are no cosines.
LOSSES = [
    "KL(tau={tau}, teacher_tau=2)",
    "MSE(scale={scale})",
    "BCE(tau={tau})",
    "MarginMSE(scale={scale})",
    "RankNet(tau={tau})",
    "Hinge",
    "Preference",
    "ListNet(tau={tau})",
    "ListMLE(tau={tau})",
    "ADRMSE",
    "ApproxNDCG",
    "LambdaLoss",
    'InfoNCE(tau={tau}, negatives="{negatives}")',
    'CPRD(tau={tau}, negatives="{negatives}")',
]
#: Losses that other modules train: tests/losses/test_dackl.py and, of vectors alone,
#: tests/students/test_representations.py.
TRAINED_ELSEWHERE = {"DACKL", "SpreadOut"}
PLAIN: dict[str, Any] = {
    "dense": SentenceTransformer,
    "sparse": SparseEncoder,
    "late-interaction": MultiVectorEncoder,
    "cross-encoder": CrossEncoder,
}
SETTINGS: dict[str, dict[str, Any]] = {"late-interaction": {"dimension": 8}}


def test_every_loss_of_scores_is_in_the_matrix() -> None:
    score_losses = {
        name
        for name, kind in REGISTRY.items()
        if kind.__module__.startswith("irdistill.losses.") and "representation" not in kind().needs
    }
    names = {loss.partition("(")[0] for loss in LOSSES}
    assert names == score_losses - TRAINED_ELSEWHERE, "add the loss to LOSSES"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("matrix")
    make_run(folder / "scores", make_collection())
    make_backbone(folder / "backbone")
    return folder


def make(kind: str, place: Path, **settings: Any) -> Student:
    return build_student(
        kind, str(place / "backbone"), device="cpu", **SETTINGS.get(kind, {}) | settings
    )


def written(loss: str, kind: str) -> str:
    narrow = kind == "dense"
    return loss.format(
        tau=0.2 if narrow else 1,
        scale=6 if narrow else 1,
        negatives="list" if kind == "cross-encoder" else "all",
    )


def collate(place: Path, student: Student) -> Any:
    collection = make_collection()
    compiled = compile_run(open_run(place / "scores", collection), collection.corpus)
    relevant = {f"q{i}": {i: 1.0} for i in range(8)}
    sampler = ListSampler([compiled], relevant, SamplerOptions(batch_size=4, list_size=5, seed=7))
    return sampler, make_collator(collection, sampler, student, None)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_loss_trains_every_student(kind: str, loss: str, place: Path, tmp_path: Path) -> None:
    """The loss of one batch, seen again and again, falls; no step is NaN."""
    student = make(kind, place)
    expression = parse_loss(written(loss, kind))
    _, collator = collate(place, student)
    encoder = Encoder(student, torch.float32)
    optimiser = torch.optim.Adam(student.train_parameters(), lr=3e-3)
    batch = collator(0)
    seen = []
    for _ in range(8):
        value = expression(score_batch(encoder, batch, expression.uses_in_batch))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        seen.append(float(value.detach()))
    assert np.isfinite(seen).all()
    assert min(seen[-2:]) < seen[0] - 1e-4 * abs(seen[0]), seen


def digests(folder: Path) -> dict[str, str]:
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("journal.jsonl", ".lock")
    ]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def plain_scores(kind: str, model: Path, query: str, texts: list[str]) -> np.ndarray:
    """By sentence-transformers alone; of what it does not know, by the saved folder."""
    if kind not in PLAIN:
        saved = STUDENTS[kind].load(model, device="cpu")
        return saved.compare(
            saved.encode([query], "query", "float32")[0],
            saved.encode(texts, "document", "float32"),
            "float32",
        )
    plain = PLAIN[kind](str(model), device="cpu")
    if kind == "cross-encoder":
        return np.asarray(plain.predict([(query, text) for text in texts], show_progress_bar=False))
    vectors = plain.encode_query([query]), plain.encode_document(texts)
    return plain.similarity(*vectors).to_dense()[0].float().numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_stops_goes_on_to_the_same_bytes_and_scores(
    kind: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between checkpoints; then the saved model is loaded by sentence-transformers and
    scores as in training.
    """
    collection = make_collection()
    options = replace(OPTIONS, steps=8, checkpoint_every=3, log_every=2, dropout=True)
    loss = written(LOSSES[0], kind)
    if kind == "sparse":
        options = replace(options, document_flops=0.01, query_l1=0.01, ramp=7)
    if kind == "kernel":
        options = replace(options, head_learning_rate=2e-2)
    train(collection, place / "scores", make(kind, place), loss, tmp_path / "whole", options)

    def stopped(self: TrainingLoop, step: int, batches: Any) -> None:
        if step == 5:
            raise KeyboardInterrupt
        inner(self, step, batches)

    inner = TrainingLoop.train_step
    monkeypatch.setattr(TrainingLoop, "train_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(collection, place / "scores", make(kind, place), loss, tmp_path / "stopped", options)
    monkeypatch.undo()
    assert (
        checkpoints.step_of(checkpoints.find_checkpoints(tmp_path / "stopped" / "checkpoints")[-1])
        == 3
    )
    student = make(kind, place)
    model = train(collection, place / "scores", student, loss, tmp_path / "stopped", options)
    assert digests(tmp_path / "stopped") == digests(tmp_path / "whole")
    losses = [
        json.loads(line)["loss"]
        for line in (tmp_path / "whole" / "train_log.jsonl").read_text().splitlines()
    ]
    assert len(losses) == 8 and np.isfinite(losses).all()

    sampler, collator = collate(place, student)
    lists = sampler(0)
    for reread in (student, STUDENTS[kind].load(model, device="cpu")):
        reread.model.eval()
        result = score_batch(
            Encoder(reread, torch.float32, token_budget=60), _again(collator, reread, place), False
        )
        for i, number in enumerate(lists.queries.tolist()):
            valid = lists.rows[i] >= 0
            query = collection.queries[sampler.query_ids[number]].text
            expected = plain_scores(
                kind, model, query, collection.corpus.texts(lists.rows[i][valid])
            )
            np.testing.assert_allclose(
                result.student[i][torch.from_numpy(valid)].detach(), expected, atol=1e-5
            )


@pytest.mark.parametrize("kind", ["split-cross-encoder", "kernel"])
def test_a_head_learns_at_its_own_rate(kind: str, place: Path, tmp_path: Path) -> None:
    """Adam's first step moves a parameter by the learning rate, whatever its gradient."""
    student = make(kind, place)
    before = {name: value.detach().clone() for name, value in student.model.named_parameters()}
    head = {id(parameter) for parameter in student.head}
    options = replace(OPTIONS, steps=1, warmup=0, learning_rate=1e-4, head_learning_rate=1e-2)
    train(make_collection(), place / "scores", student, "RankNet", tmp_path, options)
    moved = {True: 0.0, False: 0.0}
    for name, value in student.model.named_parameters():
        student_vectors = id(value) in head
        moved[student_vectors] = max(
            moved[student_vectors], float((value.detach() - before[name]).abs().max())
        )
    assert moved == {True: pytest.approx(1e-2, rel=1e-3), False: pytest.approx(1e-4, rel=1e-2)}
    with pytest.raises(
        IrdistillError,
        match=r"head_learning_rate=0.01 was given for a dense student, which has no head",
    ):
        train(
            make_collection(),
            place / "scores",
            make("dense", place),
            "RankNet",
            tmp_path / "no",
            options,
        )


def _again(collator: Any, student: Student, place: Path) -> Any:
    return collate(place, student)[1](0)


def test_sparse_queries_without_a_model_are_weights_of_their_tokens(
    place: Path, tmp_path: Path
) -> None:
    student = make("sparse", place, inference_free=True, max_query_length=8)
    vectors = student.embed(student.tokenize(["w1 w3 w1", "w2 " * 20], "query"), "query")
    first = student.model.tokenizer if hasattr(student.model, "tokenizer") else None
    assert sorted(vectors.sum(dim=1).tolist()) == [1.0, 2.0] and first is not None
    model = train(
        make_collection(),
        place / "scores",
        student,
        "KL(teacher_tau=2)",
        tmp_path / "free",
        OPTIONS,
    )
    plain = SparseEncoder(str(model), device="cpu")
    trained = student.embed(student.tokenize(["w1 w3 w1", "w2 " * 20], "query"), "query")
    assert not torch.allclose(trained, vectors, atol=1e-3)
    assert torch.allclose(
        plain.encode_query(["w1 w3 w1", "w2 " * 20]).to_dense(), trained, atol=1e-6
    )
    texts = ["w1 w2", "w3 w4 w5"]
    student.model.eval()
    ours = student.embed(student.tokenize(texts, "document"), "document")
    assert torch.allclose(plain.encode_document(texts).to_dense(), ours, atol=1e-5)
    again = STUDENTS["sparse"].load(model, device="cpu")
    assert again.max_length("query") == 8 and again.identity()["similarity"] == "dot"


def test_penalties_make_vectors_sparse_and_are_logged_with_their_ramp(
    place: Path, tmp_path: Path
) -> None:
    rows = {}
    for name, weight in (("free", 0.0), ("pressed", 0.05)):
        options = replace(OPTIONS, document_flops=weight, query_l1=weight, ramp=10)
        train(
            make_collection(),
            place / "scores",
            make("sparse", place),
            "KL(teacher_tau=2)",
            tmp_path / name,
            options,
        )
        rows[name] = [
            json.loads(line)
            for line in (tmp_path / name / "train_log.jsonl").read_text().splitlines()
        ]
    first, *_, last = rows["pressed"]
    assert set(first["terms"]) == {"KL(teacher_tau=2)", "FLOPS(document)", "L1(query)"}
    assert first["terms"]["FLOPS(document)"] == first["terms"]["L1(query)"] == 0
    sparsity = Sparsity(replace(OPTIONS, query_l1=0.3, document_flops=0.1, ramp=10))
    sparsity("query", torch.ones(2, 4))
    sparsity("document", torch.ones(3, 4))
    assert {key: round(float(value), 6) for key, value in sparsity.penalties(5).items()} == {
        "L1(query)": 0.3,
        "FLOPS(document)": 0.1,
    }  # a quarter of the weight, times 4
    for kind in ("query", "document"):
        assert last["sparsity"][kind]["active"] < rows["free"][-1]["sparsity"][kind]["active"]
    assert "terms" not in rows["free"][0]
    with pytest.raises(IrdistillError, match="given for a dense student"):
        train(
            make_collection(),
            place / "scores",
            make("dense", place),
            "KL",
            tmp_path / "no",
            replace(OPTIONS, query_l1=1),
        )


def test_all_zero_and_all_active_vectors_raise_an_alarm(caplog: pytest.LogCaptureFixture) -> None:
    sparsity = Sparsity(replace(OPTIONS, ramp=2))
    sparsity("query", torch.zeros(2, 10))
    sparsity("document", torch.ones(2, 10))
    result = sparsity.end_step()
    assert sparsity.log(1, result) == {
        "query": {"active": 0.0, "all_zero": 1.0},
        "document": {"active": 10.0, "all_zero": 0.0},
    }
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "at step 1 100% of the query vectors are all zero"
    ]
    sparsity.log(3, result)
    sparsity.log(4, result)
    assert len(caplog.records) == 2 and "100% of all dimensions active" in caplog.records[1].message


def test_a_cross_encoder_refuses_losses_over_the_batch(place: Path, tmp_path: Path) -> None:
    student = make("cross-encoder", place)
    for loss in ("InfoNCE", "KL + 0.1*CPRD"):
        with pytest.raises(
            IrdistillError,
            match=r'cross-encoder student scores only .* negatives="list"|negatives="list"',
        ):
            train(make_collection(), place / "scores", student, loss, tmp_path / "no", OPTIONS)
    with pytest.raises(IrdistillError, match="separately"):
        student.scores(None, None, torch.zeros(1, 1, dtype=torch.int64))


def test_new_weights_depend_on_the_seed_alone(place: Path) -> None:
    for kind in ("sparse", "late-interaction", "cross-encoder", "split-cross-encoder", "kernel"):
        torch.manual_seed(1)
        one = make(kind, place).weights_digest()
        torch.manual_seed(2)
        assert make(kind, place).weights_digest() == one
        assert make(kind, place, seed=3).weights_digest() != one


@pytest.mark.parametrize("kind", KINDS)
def test_layers_and_lengths(kind: str, place: Path) -> None:
    student = make(kind, place, layers=1, max_length=9)
    assert student.size()["query_layers"] == 1
    texts: list[Any] = ["w1 " * 30]
    side = student.sides[-1]
    tokens = student.tokenize([(texts[0], texts[0])] if side == "pair" else texts, side)
    assert len(tokens["input_ids"][0]) == 9
    if kind == "kernel":
        assert (
            make(kind, place, max_length=99).max_length("document") == 99
        )  # its positions have no end
        return
    with pytest.raises(IrdistillError, match="3 to 32"):
        make(kind, place, max_length=99)


def test_settings_of_other_students_are_refused(place: Path) -> None:
    with pytest.raises(
        IrdistillError, match="a cross-encoder student has no option query_layers=2"
    ):
        make("cross-encoder", place, query_layers=2)
    with pytest.raises(IrdistillError, match="'colbert' is unknown"):
        make("colbert", place)
