"""Losses between representations, and losses that learn, trained on the students they are for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder, MultiVectorEncoder
from sentence_transformers.sentence_transformer.modules import Dense

from irdistill.errors import IrdistillError
from irdistill.losses import parse_loss
from irdistill.losses.spans import pooled_tokens
from irdistill.runs import open_run
from irdistill.runs.stored_representations import FOLDER, Representations
from irdistill.students import (
    CrossEncoderStudent,
    DenseStudent,
    LateInteractionStudent,
    build_student,
)
from irdistill.students.build import STUDENTS
from irdistill.students.student_base import Student
from irdistill.teachers import ScoreOptions, TeacherSpec, score
from irdistill.teachers.late_interaction_teacher import LateInteractionTeacher
from irdistill.training import checkpoints
from irdistill.training.data.span_pooling import SpanPooling
from irdistill.training.data.teacher_representations import TeacherRepresentations
from irdistill.training.loop import TrainingLoop
from irdistill.training.objectives.batch_scores import score_batch
from irdistill.training.objectives.encode import Encoder
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from tests.students.test_matrix import collate, digests, plain_scores
from tests.training.tiny import make_backbone, make_collection, make_run

OPTIONS = TrainOptions(
    steps=6,
    batch_size=4,
    list_size=5,
    learning_rate=5e-3,
    loss_learning_rate=1e-2,
    precision="float32",
    seed=7,
    checkpoint_every=3,
    log_every=2,
)
CPU: dict[str, Any] = {"precision": "float32", "device": "cpu"}
#: Loss, student, and the teacher whose representations it reads (None: none).
CASES = [
    ("DACKL(tau=0.2, teacher_tau=2)", "dense", None),
    ('EmbeddingMSE(side="document", normalize=False)', "dense", "dense"),
    ("EmbeddingMSE", "dense", "wide"),
    ('KL(tau=0.2) + 0.5*MIAlpha(side="query", dimension=None)', "dense", "dense"),
    ("MIAlpha(dimension=8)", "dense", "wide"),
    ('KL(tau=0.2) + 0.5*EmbeddingCosine + 0.1*SpreadOut(side="document")', "dense", "wide"),
    ("KL(tau=0.2) + 0.1*SpreadOut", "dense", None),
    ('Relational(tau=0.1) + Relational(side="document")', "dense", "wide"),
    ('TRG(side="query")', "late-interaction", "colbert"),
    ("TRG(tokens=64)", "late-interaction", "colbert"),
    ('KL(tau=0.2) + SpanCosine(side="query") + SpanRelation', "late-interaction", "colbert"),
    ('EmbeddingMSE(side="pair") + KL@4', "cross-encoder", "cross"),
    ("LELP(directions=2)", "cross-encoder", "cross"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone, teachers of another seed with their representations of the candidates, and a run
    without any.
    """
    folder = tmp_path_factory.mktemp("representations")
    collection = make_collection()
    make_run(folder / "scores", collection)
    make_backbone(folder / "backbone")
    make_backbone(folder / "dense", seed=1)
    torch.manual_seed(2)
    wide = DenseStudent.load(folder / "dense", device="cpu").model
    wide.append(Dense(16, 24))
    wide.save(str(folder / "wide"), create_model_card=False)
    CrossEncoderStudent(str(folder / "dense"), device="cpu").save(folder / "cross")
    MultiVectorEncoder(str(folder / "dense-bert"), device="cpu").save(str(folder / "colbert"))
    for name in ("dense", "wide", "colbert", "cross"):
        kind = {"colbert": "late-interaction"}.get(name, "dense")
        inputs = CPU | ({"backend": "torch"} if name == "cross" else {"type": kind})
        sort = "cross-encoder" if name == "cross" else "retriever"
        teacher = TeacherSpec(str(folder / name), sort, folder / "work", settings=inputs)
        score(
            collection,
            folder / "scores",
            teacher,
            folder / f"{name}-scores",
            ScoreOptions(part_queries=3, representations="float16"),
        )
    return folder


def make(kind: str, place: Path) -> Student:
    inputs = {"dimension": 8, "mask_punctuation": False} if kind == "late-interaction" else {}
    return build_student(kind, str(place / "backbone"), device="cpu", **inputs)


@pytest.mark.parametrize(
    ("loss", "kind", "teacher"), CASES[::2], ids=[case[0] for case in CASES[::2]]
)
def test_a_training_that_stops_goes_on_to_the_same_bytes(
    loss: str,
    kind: str,
    teacher: str | None,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped between checkpoints; the saved model is plain, and what the loss learnt lies beside
    it.
    """
    collection = make_collection()
    scores = place / (f"{teacher}-scores" if teacher else "scores")
    whole = tmp_path / "whole"
    train(collection, scores, make(kind, place), loss, whole, OPTIONS)

    def stopped(self: TrainingLoop, step: int, batches: Any) -> None:
        if step == 4:
            raise KeyboardInterrupt
        inner(self, step, batches)

    inner = TrainingLoop.train_step
    monkeypatch.setattr(TrainingLoop, "train_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(collection, scores, make(kind, place), loss, tmp_path / "stopped", OPTIONS)
    monkeypatch.undo()
    assert (
        checkpoints.step_of(checkpoints.find_checkpoints(tmp_path / "stopped" / "checkpoints")[-1])
        == 3
    )
    student = make(kind, place)
    model = train(collection, scores, student, loss, tmp_path / "stopped", OPTIONS)
    assert digests(tmp_path / "stopped") == digests(whole)
    losses = [
        json.loads(line)["loss"] for line in (whole / "train_log.jsonl").read_text().splitlines()
    ]
    assert len(losses) == 6 and np.isfinite(losses).all()

    record = json.loads((whole / "training.json").read_text())
    assert ("representations" in record["identity"]) == (teacher is not None)
    if "loss" in record:
        stored = load_file(whole / "loss.safetensors")
        assert sum(record["loss"]["parameters"].values()) > 0 and set(
            record["loss"]["parameters"]
        ) == {name.rpartition("/")[0] for name in stored}
    else:
        assert not (whole / "loss.safetensors").exists()
    texts = collection.corpus.texts([0, 1, 2])
    again = STUDENTS[kind].load(model, device="cpu")
    for one in (student, again):
        one.model.eval()
    plain = plain_scores(kind, model, "w1 w2", texts)
    assert np.isfinite(plain).all() and not (model / "loss.safetensors").exists()
    if kind == "cross-encoder":
        assert CrossEncoder(str(model), device="cpu").num_labels == 1
        np.testing.assert_allclose(
            plain, student.predict([("w1 w2", text) for text in texts]), atol=1e-5
        )  # type: ignore[attr-defined]


@pytest.mark.parametrize(("loss", "kind", "teacher"), CASES, ids=[case[0] for case in CASES])
def test_each_loss_falls_on_a_batch_seen_again(
    loss: str, kind: str, teacher: str | None, place: Path, tmp_path: Path
) -> None:
    """Over 40 steps of two queries, with what the loss learns."""
    options = replace(OPTIONS, steps=40, batch_size=8, checkpoint_every=0, dropout=False)
    scores = place / (f"{teacher}-scores" if teacher else "scores")
    train(make_collection(), scores, make(kind, place), loss, tmp_path / "out", options)
    losses = [
        json.loads(line)["loss"]
        for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()
    ]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.01 * abs(np.mean(losses[:5])), losses


@pytest.mark.parametrize(
    ("kind", "teacher"),
    [("dense", "dense"), ("late-interaction", "colbert"), ("cross-encoder", "cross")],
)
def test_the_representations_of_a_batch_are_those_of_the_texts(
    kind: str, teacher: str, place: Path
) -> None:
    """The student's come out of the pass that scores, the teacher's out of the store: with the
    teacher as student they agree.
    """
    collection = make_collection()
    student = STUDENTS[kind].load(place / teacher, device="cpu")
    sampler, collator = collate(place, student)
    stored = Representations(place / f"{teacher}-scores")
    collator.representations = TeacherRepresentations(
        stored,
        student.representation_names,
        sampler.query_ids,
        SpanPooling(collection, sampler.query_ids, student),
    )
    calls = []
    embed = student.embed
    student.embed = lambda *inputs: calls.append(inputs[1]) or embed(*inputs)
    student.keep_representations = True
    batch = collator(0)
    result = score_batch(Encoder(student, torch.float32, token_budget=10**6), batch, False)
    assert sorted(calls) == sorted(student.sides)  # one pass a side
    assert result.student_representations is not None and result.teacher_representations is not None
    for name in student.representation_names:
        student_vectors, theirs = (
            getattr(result.student_representations, name),
            getattr(result.teacher_representations, name),
        )
        if name.endswith("spans"):
            tokens = getattr(result.student_representations, name.replace("spans", "tokens"))
            pooled = pooled_tokens(tokens, theirs)
            assert len(pooled) and torch.allclose(pooled, theirs.vectors[theirs.mask], atol=2e-3)
            continue
        if name.endswith("tokens"):
            assert torch.equal(student_vectors.mask, theirs.mask) and student_vectors.mask.any()
            assert torch.allclose(
                student_vectors.vectors[student_vectors.mask],
                theirs.vectors[theirs.mask],
                atol=2e-3,
            )
            continue
        student_vectors, theirs = (
            (student_vectors[result.valid], theirs[result.valid])
            if name == "pairs"
            else (student_vectors, theirs)
        )
        there = ~theirs.isnan().any(dim=-1)
        assert there.any()
        unit = [x[there] / x[there].norm(dim=-1, keepdim=True) for x in (student_vectors, theirs)]
        assert torch.allclose(*unit, atol=2e-3), name
    if kind == "cross-encoder":
        logit = (
            result.student_representations.pairs[result.valid]
            @ torch.from_numpy(stored.classifier)[0]
        )
        expected = result.student[result.valid] - student.model.model.classifier.bias
        assert torch.allclose(logit, expected, atol=1e-5)
        assert len(collection.queries) == 8


def test_places_of_tokens_are_stored_with_their_vectors(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a store without them, of an earlier version, is refused by losses over spans."""
    collection = make_collection()
    student = LateInteractionStudent.load(place / "colbert", device="cpu")
    stored = Representations(place / "colbert-scores")
    text = collection.queries["q1"].text
    (offsets,) = student.token_offsets([text], "query")
    assert np.array_equal(stored.query_offsets("q1"), offsets)
    assert [text[start:end] for start, end in offsets] == ["", *text.split(), ""]
    rows = np.array([2, 5])
    texts = list(collection.corpus.texts(rows))
    for one, other in zip(
        stored.document_offsets(rows), student.token_offsets(texts, "document"), strict=True
    ):
        assert np.array_equal(one, other)
    assert not len(stored.document_offsets(np.array([-3]))[0])
    monkeypatch.delattr(LateInteractionTeacher, "token_offsets")
    spec = TeacherSpec(
        str(place / "colbert"), "retriever", settings=CPU | {"type": "late-interaction"}
    )
    options = ScoreOptions(part_queries=3, representations="float16")
    score(collection, place / "scores", spec, tmp_path / "old", options)
    assert not Representations(tmp_path / "old").query_offsets("q1").any()
    with pytest.raises(IrdistillError, match="no places of the tokens"):
        train(collection, tmp_path / "old", student, "SpanCosine", tmp_path / "out", OPTIONS)


def test_what_is_missing_is_said_with_the_command_that_makes_it(
    place: Path, tmp_path: Path
) -> None:
    collection = make_collection()

    def attempt(kind: str, loss: str, scores: str, **inputs: Any) -> None:
        train(
            collection, place / scores, make(kind, place), loss, tmp_path / "out", OPTIONS, **inputs
        )

    command = (
        r"irdistill score tiny --candidates \S+scores --teacher TEACHER --out NEW"
        r" --representations float16, with a dense retriever"
    )
    with pytest.raises(IrdistillError, match=command):
        attempt("dense", "EmbeddingMSE", "scores")
    with pytest.raises(IrdistillError, match="are pairs, and the loss EmbeddingMSE needs vectors"):
        attempt("dense", "EmbeddingMSE", "cross-scores")
    with pytest.raises(
        IrdistillError,
        match=r"a dense student does not give \(pairs\); it is for a cross-encoder student",
    ):
        attempt("dense", "LELP", "cross-scores")
    with pytest.raises(IrdistillError, match="a sparse student does not give"):
        attempt("sparse", "MIAlpha", "dense-scores")
    with pytest.raises(IrdistillError, match="the loss KL reads none"):
        attempt("dense", "KL", "scores", representations=place / "dense-scores")
    other = make_collection(documents=41)
    make_run(tmp_path / "other", other)
    with pytest.raises(IrdistillError, match="was made for the collection"):
        train(
            other,
            tmp_path / "other",
            make("dense", place),
            "MIAlpha",
            tmp_path / "out",
            OPTIONS,
            representations=place / "dense-scores",
        )
    assert not (tmp_path / "out").exists()
    # those of another run of the same collection serve
    attempt("dense", "KL(tau=0.2) + EmbeddingMSE", "scores", representations=place / "dense-scores")
    with pytest.raises(
        IrdistillError,
        match=r"representations: other contents .fingerprint .{16} there, .{16} here",
    ):
        attempt(
            "dense", "KL(tau=0.2) + EmbeddingMSE", "scores", representations=place / "wide-scores"
        )


def test_a_token_graph_needs_the_same_tokens(place: Path, tmp_path: Path) -> None:
    student = build_student("late-interaction", str(place / "backbone"), device="cpu", max_length=6)
    with pytest.raises(IrdistillError, match="Use a teacher and a student with the same tokenizer"):
        train(
            make_collection(), place / "colbert-scores", student, "TRG", tmp_path / "out", OPTIONS
        )


def test_an_own_rate_for_what_the_loss_learns(place: Path, tmp_path: Path) -> None:
    learnt = {}
    for rate in (1e-9, 1e-2):
        options = replace(OPTIONS, loss_learning_rate=rate, checkpoint_every=0)
        train(
            make_collection(),
            place / "wide-scores",
            make("dense", place),
            "EmbeddingMSE",
            tmp_path / str(rate),
            options,
        )
        learnt[rate] = load_file(tmp_path / str(rate) / "loss.safetensors")["EmbeddingMSE/weight"]
    fresh = parse_loss("EmbeddingMSE")
    assert fresh.has_parameters and (learnt[1e-9] - learnt[1e-2]).abs().max() > 1e-2
    with pytest.raises(IrdistillError, match="loss_learning_rate is 0"):
        TrainOptions(loss_learning_rate=0)
    assert (
        "loss_learning_rate" not in TrainOptions().identity()
        and "loss_learning_rate" in OPTIONS.identity()
    )


def test_a_run_of_candidates_that_have_none_is_refused(place: Path, tmp_path: Path) -> None:
    run = open_run(place / "cross-scores")
    stored = Representations(place / "cross-scores")
    assert stored.folder.name == FOLDER and len(run) == 8
    with pytest.raises(IrdistillError, match="has no representation of any text"):
        TeacherRepresentations(stored, frozenset({"pairs"}), ["unknown"] * 8).check(
            [collate(place, make("cross-encoder", place))[0](0)]
        )
