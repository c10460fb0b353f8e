"""In-batch teacher scores: they are the teacher's own, and trainings on them resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder

from irdistill.collections import Collection
from irdistill.errors import InputError, IrdistillError, OptionError
from irdistill.losses import KL, parse_loss
from irdistill.runs import (
    METHODS,
    Mixing,
    RankedList,
    RunIdentity,
    compile_run,
    open_run,
    write_run,
)
from irdistill.runs.fusion import fuse
from irdistill.students import CrossEncoderStudent, DenseStudent, build_student
from irdistill.students.student_base import Student
from irdistill.teachers import ScoreOptions, TeacherSpec, score
from irdistill.training.data.collate import make_collator
from irdistill.training.data.in_batch_teachers import (
    InBatchScores,
    InBatchTeachers,
    open_in_batch_teachers,
)
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.data.list_source import SamplerOptions
from irdistill.training.data.mixed_run import MixedRun
from irdistill.training.data.sampler_setup import judgments_by_row
from irdistill.training.loop import TrainingLoop
from irdistill.training.objectives.batch_scores import score_batch
from irdistill.training.objectives.encode import Encoder
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from tests.training.support import digests
from tests.training.tiny import make_backbone, make_collection, make_run

OPTIONS = TrainOptions(
    steps=6,
    batch_size=4,
    list_size=5,
    learning_rate=5e-3,
    precision="float32",
    seed=7,
    checkpoint_every=3,
    log_every=2,
)
DRAWING = SamplerOptions(batch_size=4, list_size=5, seed=1)
CPU: dict[str, Any] = {"precision": "float32", "device": "cpu"}
BATCH_KL = 'KL(tau=0.1, teacher_tau=0.1, negatives="batch")'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Candidates, and runs of four teachers; all but ``plain`` have in-batch scores."""
    folder = tmp_path_factory.mktemp("in-batch")
    collection = make_collection()
    make_run(folder / "scores", collection)
    make_backbone(folder / "dense", seed=1)
    colbert = MultiVectorEncoder(str(folder / "dense-bert"), device="cpu")
    colbert.save(str(folder / "colbert"))
    colbert.similarity_fn_name = "meanmaxsim"
    colbert.save(str(folder / "mean"))
    CrossEncoderStudent(str(folder / "dense"), device="cpu").save(folder / "cross")
    for name in ("dense", "colbert", "mean", "cross"):
        inputs = CPU | ({"backend": "torch"} if name == "cross" else {"type": "auto"})
        sort = "cross-encoder" if name == "cross" else "retriever"
        teacher = TeacherSpec(str(folder / name), sort, folder / "work", settings=inputs)
        options = ScoreOptions(part_queries=3, representations="float32")
        score(collection, folder / "scores", teacher, folder / f"{name}-scores", options)
    teacher = TeacherSpec(str(folder / "dense"), "retriever", folder / "work", settings=CPU)
    score(collection, folder / "scores", teacher, folder / "plain-scores")
    score(collection, folder / "scores", "bm25", folder / "bm25-scores")
    return folder


def make(place: Path, kind: str = "dense") -> Student:
    return build_student(kind, str(make_backbone(place / "backbone")), device="cpu")


def scores_of(
    place: Path, *names: str, mix: str = "none", collection: Collection | None = None
) -> tuple[InBatchScores, ListSampler]:
    """In-batch scores of runs, and the sampler of their lists."""
    collection = collection or make_collection()
    runs = [open_run(place / f"{name}-scores") for name in names]
    compiled: list[Any] = [compile_run(run, collection.corpus) for run in runs]
    if mix != "none":
        compiled = [MixedRun(compiled, Mixing(mix), collection.corpus)]  # type: ignore[arg-type]
    sampler = ListSampler(compiled, judgments_by_row(collection), DRAWING)
    source = open_in_batch_teachers(parse_loss(BATCH_KL), runs, None, collection, mix)
    assert source is not None
    return source.of_lists(sampler), sampler


@pytest.mark.parametrize("name", ["dense", "colbert", "mean", "bm25"])
def test_the_scores_are_those_of_the_teacher(name: str, place: Path) -> None:
    """Of the documents of a list, and of any other pair of a query and a document of the batch."""
    collection = make_collection()
    in_batch, sampler = scores_of(place, name)
    lists = sampler(0)
    unique, inverse = np.unique(lists.rows, return_inverse=True)
    table = in_batch(lists, unique).numpy()
    assert table.shape == (4, len(unique)) and table.dtype == np.float32
    index = inverse.reshape(lists.rows.shape)
    listed = np.take_along_axis(table, index, axis=1)
    known = ~np.isnan(lists.teacher[0])
    assert known.sum() >= 18
    np.testing.assert_allclose(listed[known], lists.teacher[0][known], rtol=2e-5, atol=2e-6)
    query_ids = [sampler.query_ids[number] for number in lists.queries]
    every = [collection.corpus.id(int(row)) for row in unique]
    pairs = [
        RankedList(query_id, every, np.zeros(len(every), np.float32)) for query_id in query_ids
    ]
    identity = RunIdentity("first-stage", {}, collection.describe())
    out = place / f"all-{name}"
    write_run(out, identity, pairs)
    inputs = {} if name == "bm25" else {"settings": CPU}
    teacher = TeacherSpec(
        "bm25" if name == "bm25" else str(place / name),
        "bm25" if name == "bm25" else "retriever",
        None if name == "bm25" else place / "work",
        **inputs,
    )
    whole = score(collection, out, teacher, place / f"whole-{name}")
    for query_id, row in zip(query_ids, table, strict=True):
        expected = dict(zip(whole[query_id].doc_ids, whole[query_id].scores, strict=True))
        np.testing.assert_allclose(
            row, [expected[doc_id] for doc_id in every], rtol=2e-5, atol=2e-6
        )


def test_a_student_equal_to_its_teacher_has_no_loss(place: Path) -> None:
    """Through the collator: columns, masks and scores belong to the same documents."""
    collection = make_collection()
    in_batch, sampler = scores_of(place, "dense")
    student = DenseStudent.load(place / "dense", device="cpu")
    collator = make_collator(collection, sampler, student)
    collator.in_batch = in_batch
    with torch.no_grad():
        scores = score_batch(Encoder(student, torch.float32), collator(0), True)
    assert scores.teacher_in_batch is not None
    assert scores.in_batch.shape == scores.teacher_in_batch.shape  # type: ignore[union-attr]
    loss = KL(tau=0.05, teacher_tau=0.05, negatives="batch")
    assert loss(scores).item() == pytest.approx(0.0, abs=1e-6)
    assert KL(tau=0.05, teacher_tau=0.1, negatives="batch")(scores).item() > 0.01


@pytest.mark.parametrize("method", [method for method in METHODS if method != "rrf"])
def test_mixed_scores_are_on_the_scale_of_the_mixed_lists(method: str, place: Path) -> None:
    in_batch, sampler = scores_of(place, "dense", "bm25", mix=method)
    lists = sampler(0)
    unique, inverse = np.unique(lists.rows, return_inverse=True)
    table = in_batch(lists, unique).numpy()
    index = inverse.reshape(lists.rows.shape)
    listed, known = np.take_along_axis(table, index, axis=1), ~np.isnan(lists.teacher[0])
    assert known.sum() >= 18
    np.testing.assert_allclose(listed[known], lists.teacher[0][known], rtol=1e-4, atol=1e-5)
    assert not np.isnan(table).any()
    # a document's score does not depend on the other documents of the batch
    some = unique[::3]
    np.testing.assert_allclose(in_batch(lists, some).numpy(), table[:, ::3], atol=1e-5)


def test_mixed_scores_by_hand() -> None:
    places = np.array([0, 1, 2])
    parts = [(places, np.array([3.0, 1.0, 2.0])), (places[:2], np.array([10.0, 0.0]))]
    further = np.array([[5.0, np.nan, 2.0], [5.0, 20.0, np.nan]])

    def mixed(missing: Any, **settings: Any) -> list[float]:
        mixing = Mixing("zscore", missing=missing, **settings).for_teachers(2)
        return mixing.mix_further(parts, 3, further).tolist()  # type: ignore[arg-type]

    first, second = (5 - 2) / np.std([1, 2, 3]), 0.0
    assert mixed("null") == pytest.approx([(first + second) / 2, np.nan, np.nan], nan_ok=True)
    assert mixed("skip") == pytest.approx([(first + second) / 2, 3.0, 0.0])
    low = -1 / np.std([1, 2, 3])
    assert mixed("min") == pytest.approx([(first + second) / 2, (low + 3) / 2, (0 - 1) / 2])
    assert mixed("skip", weights=(3.0, 1.0)) == pytest.approx([first * 0.75, 3.0, 0.0])
    assert mixed("skip", weights=(0.0, 1.0)) == pytest.approx([0.0, 3.0, np.nan], nan_ok=True)
    assert mixed("skip", abstain="sd>1") == pytest.approx([np.nan, 3.0, 0.0], nan_ok=True)


def test_texts_without_a_vector_are_unknown(place: Path) -> None:
    """Documents and queries that the store does not have, and a document that is a copy."""
    in_batch, sampler = scores_of(place, "dense")
    lists = sampler(0)
    stored = in_batch.source.teachers[0].stored  # type: ignore[attr-defined]
    known = np.unique(lists.rows)
    rows = np.arange(len(make_collection().corpus))
    absent = [row for row in rows if not len(stored.documents(np.array([row]))[0])]
    table = in_batch(lists, rows).numpy()
    assert absent and np.isnan(table[:, absent]).all()
    assert not np.isnan(table[:, known]).any()
    teacher = in_batch.source.teachers[0]
    assert np.isnan(teacher.scores(["unknown"], known)).all()
    only_absent = lists._replace(rows=np.full_like(lists.rows, absent[0]))
    with pytest.raises(InputError, match="was made for other candidates"):
        in_batch.check([only_absent])


def test_unmixed_teachers_have_a_table_each(place: Path) -> None:
    in_batch, sampler = scores_of(place, "dense", "bm25", "colbert")
    lists = sampler(0)
    rows = np.unique(lists.rows)
    tables = in_batch(lists, rows)
    assert tables.shape == (3, 4, len(rows))
    for place_, name in enumerate(("dense", "bm25", "colbert")):
        alone = InBatchScores(
            InBatchTeachers(in_batch.source.teachers[place_ : place_ + 1]), sampler
        )
        assert torch.equal(alone(lists, rows), tables[place_]), name


# -- training
# ------------------------------------------------------------------------------------------------

TRAININGS: list[tuple[str, str, tuple[str, ...], dict[str, Any]]] = [
    (BATCH_KL, "dense", ("dense",), {}),
    (
        'KL(teacher_tau=2, negatives="batch") + InfoNCE(masked="teacher", masked_in="all")',
        "dense",
        ("bm25", "dense"),
        {"mix": "zscore", "gradient_accumulation": 2},
    ),
    (
        'KL(tau=2, negatives="batch")@6',
        "sparse",
        ("dense", "colbert"),
        {"validate_measures": "loss", "validate_every": 2},
    ),
]


@pytest.mark.parametrize(("loss", "kind", "names", "changes"), TRAININGS)
def test_a_training_that_stops_resumes_to_the_same_bytes(
    loss: str,
    kind: str,
    names: tuple[str, ...],
    changes: dict[str, Any],
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collection, options = make_collection(), replace(OPTIONS, **changes)
    runs = [place / f"{name}-scores" for name in names]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    share = 0.3 if "validate_measures" in changes else None
    train(collection, runs, make(place, kind), loss, whole, options, validate=share)
    inner = TrainingLoop.train_step

    def stop(self: TrainingLoop, step: int, batches: Any) -> None:
        if step == 4:
            raise KeyboardInterrupt
        inner(self, step, batches)

    monkeypatch.setattr(TrainingLoop, "train_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train(collection, runs, make(place, kind), loss, stopped, options, validate=share)
    monkeypatch.undo()
    train(collection, runs, make(place, kind), loss, stopped, options, validate=share)
    assert digests(stopped) == digests(whole)
    lines = (whole / "train_log.jsonl").read_text().splitlines()
    losses = [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]
    assert len(losses) == 6 and np.isfinite(losses).all() and min(losses) > 0
    record = json.loads((whole / "training.json").read_text())
    assert len(record["identity"]["in_batch"]) == len(names)
    assert "representations" not in record["identity"]


def test_a_guide_beside_the_runs(place: Path, tmp_path: Path) -> None:
    """A cross-encoder teaches, and a retriever's vectors mask; other vectors are another training."""
    collection = make_collection()
    loss = 'KL(tau=0.1) + InfoNCE(masked="share", share=0.9, masked_in="all")'

    def attempt(loss: str, guide: str | None) -> None:
        scores = place / "cross-scores"
        train(
            collection,
            scores,
            make(place),
            loss,
            tmp_path / "out",
            OPTIONS,
            representations=None if guide is None else place / f"{guide}-scores",
        )

    attempt(loss, "dense")
    with pytest.raises(IrdistillError, match=r"in_batch: .* there, .* here"):
        attempt(loss, "colbert")
    with pytest.raises(InputError, match="of pairs, which only a reader of pairs has"):
        attempt(loss, None)
    identity = json.loads((tmp_path / "out" / "training.json").read_text())["identity"]
    assert len(identity["in_batch"]) == 1


def test_what_is_missing_is_an_error_with_the_command(place: Path, tmp_path: Path) -> None:
    collection = make_collection()
    fuse([place / "dense-scores", place / "bm25-scores"], tmp_path / "fused", "zscore")

    def attempt(runs: Any, **changes: Any) -> None:
        options = replace(OPTIONS, **changes)
        train(collection, runs, make(place), BATCH_KL, tmp_path / "out", options)

    with pytest.raises(
        InputError, match=r"stores no vectors. Make them: irdistill score tiny --cand"
    ):
        attempt(place / "plain-scores")
    with pytest.raises(InputError, match="is of a teacher without vectors of single texts"):
        attempt(place / "scores")
    with pytest.raises(InputError, match="is fused from several"):
        attempt(tmp_path / "fused")
    with pytest.raises(InputError, match="is of a teacher without"):
        attempt([place / "dense-scores", place / "scores"], mix="zscore")
    with pytest.raises(OptionError, match="mix=rrf mixes ranks"):
        attempt([place / "dense-scores", place / "bm25-scores"], mix="rrf")
    with pytest.raises(OptionError, match=r'cross-encoder student scores only .*negatives="list"'):
        train(
            collection,
            place / "dense-scores",
            make(place, "cross-encoder"),
            BATCH_KL,
            tmp_path / "out",
            OPTIONS,
        )
    other = make_collection(documents=41)
    make_run(tmp_path / "other", other)
    with pytest.raises(IrdistillError, match="was made for the collection"):
        train(
            other,
            tmp_path / "other",
            make(place),
            BATCH_KL,
            tmp_path / "out",
            OPTIONS,
            representations=place / "dense-scores",
        )
    assert not (tmp_path / "out").exists()


def test_temperatures_are_checked_on_the_scores_of_the_batch(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loss = 'KL(tau=0.1, teacher_tau=1000, negatives="batch")'
    train(make_collection(), place / "bm25-scores", make(place), loss, tmp_path / "out", OPTIONS)
    assert "almost uniform" in caplog.text and "Try teacher_tau=" in caplog.text
