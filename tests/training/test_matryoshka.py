"""Losses at several dimensions from one forward pass, and searching with cut vectors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from irdistill.errors import IrdistillError
from irdistill.losses import ScoreBatch, parse_loss
from irdistill.runs import compile_run, open_run
from irdistill.search import RetrieveOptions, retrieve
from irdistill.students import DenseStudent
from irdistill.students.student_base import Student
from irdistill.training.data.collate import make_collator
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.data.list_source import SamplerOptions
from irdistill.training.objectives.batch_scores import encode_batch, score_batch
from irdistill.training.objectives.encode import Encoder
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from tests.training.tiny import make_backbone, make_collection, make_run, make_student

LOSS = "KL(tau=0.2, teacher_tau=2)"
OPTIONS = TrainOptions(
    steps=3,
    batch_size=4,
    list_size=5,
    learning_rate=1e-2,
    precision="float32",
    seed=7,
    log_every=1,
    checkpoint_every=0,
    dropout=False,
    matryoshka_dims=(16, 8, 3),
    matryoshka_weights=(1, 0.5, 2),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("matryoshka")
    make_run(folder / "scores", make_collection())
    train(
        make_collection(),
        folder / "scores",
        make_student(folder / "backbone"),
        LOSS,
        folder / "out",
        OPTIONS,
    )
    return folder


def first_batch(place: Path, student: Student) -> tuple[Any, Any]:
    collection = make_collection()
    compiled = compile_run(open_run(place / "scores", collection), collection.corpus)
    sampler = ListSampler(
        [compiled],
        {f"q{i}": {i: 1} for i in range(8)},
        SamplerOptions(batch_size=4, list_size=5, seed=7),
    )
    return sampler, make_collator(collection, sampler, student, None)(0)


def plain_scores(model: str, sampler: Any, dimension: int) -> np.ndarray:
    """(B, N) cosines of the first step's lists, by sentence-transformers with ``truncate_dim``; 0
    on padding.
    """
    collection, lists = make_collection(), sampler(0)
    plain = SentenceTransformer(model, device="cpu", truncate_dim=dimension)
    queries = plain.encode_query(
        [collection.queries[sampler.query_ids[query]].text for query in lists.queries]
    )
    documents = plain.encode_document(
        [collection.corpus.text(row) for row in range(len(collection.corpus))]
    )
    return np.take_along_axis(
        plain.similarity(queries, documents).numpy(), lists.rows.clip(0), axis=1
    ) * (lists.rows >= 0)


def test_each_dimension_has_its_loss_and_weight(place: Path) -> None:
    row = json.loads((place / "out" / "train_log.jsonl").read_text().splitlines()[0])
    sampler, batch = first_batch(place, make_student(place / "backbone"))
    total = 0.0
    for dimension, weight in ((16, 1.0), (8, 0.5), (3, 2.0)):
        scores = torch.from_numpy(plain_scores(str(place / "backbone"), sampler, dimension))
        expected = weight * float(
            parse_loss(LOSS)(ScoreBatch(student=scores, teacher=batch.teacher[0], mask=batch.mask))
        )
        assert row["terms"][f"{LOSS} [:{dimension}]"] == pytest.approx(expected, rel=1e-4)
        total += expected
    assert row["loss"] == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("dimension", [16, 8, 3])
def test_the_saved_model_scores_as_in_training(dimension: int, place: Path) -> None:
    student = DenseStudent.load(place / "out" / "model", device="cpu")
    sampler, batch = first_batch(place, student)
    encoder = Encoder(student, torch.float32)
    scores = score_batch(encoder, batch, False, None, encode_batch(encoder, batch), dimension)
    plain = plain_scores(str(place / "out" / "model"), sampler, dimension)
    assert np.allclose(scores.student.detach().numpy() * batch.mask.numpy(), plain, atol=1e-5)


def test_a_search_with_cut_vectors(place: Path) -> None:
    """Also after one with whole vectors, which are kept in the same place."""
    collection, model = make_collection(), place / "out" / "model"
    for dimension in (None, 3):
        run = retrieve(
            collection,
            model,
            place / f"run-{dimension}",
            40,
            RetrieveOptions(precision="float32", dimension=dimension),
            work=place / "work",
        )
        plain = SentenceTransformer(str(model), device="cpu", truncate_dim=dimension)
        documents = plain.encode_document([collection.corpus.text(row) for row in range(40)])
        for query in list(collection.queries.values())[:3]:
            expected = plain.similarity(plain.encode_query([query.text]), documents)[0]
            ranked = run[query.id]
            rows = [int(name[1:]) for name in ranked.doc_ids]
            assert np.allclose(ranked.scores, expected[rows], atol=1e-5)
            assert np.allclose(ranked.scores, expected.sort(descending=True).values, atol=1e-5)
    assert open_run(place / "run-3").manifest.identity.producer["dimension"] == 3


def test_what_is_refused(place: Path) -> None:
    for wrong, message in ((0, "1 to 16"), (17, "1 to 16")):
        with pytest.raises(IrdistillError, match=message):
            DenseStudent.load(place / "out" / "model", device="cpu", dimension=wrong)
    with pytest.raises(IrdistillError, match="dimension needs a model given by"):
        retrieve(make_collection(), "bm25", place / "no", options=RetrieveOptions(dimension=3))
    with pytest.raises(
        IrdistillError, match="matryoshka_dims has 32, and the student's vectors have 16"
    ):
        train(
            make_collection(),
            place / "scores",
            make_student(place / "backbone"),
            LOSS,
            place / "no",
            replace(OPTIONS, matryoshka_dims=(32, 8, 3)),
        )
    for settings, message in (
        ({"matryoshka_dims": (8, 8)}, "must differ"),
        ({"matryoshka_dims": (0,)}, "greater than or equal to 1"),
        ({"matryoshka_dims": (8, 4), "matryoshka_weights": (1,)}, "for each of 2 dimensions"),
    ):
        with pytest.raises(IrdistillError, match=message):
            TrainOptions(**settings)  # type: ignore[arg-type]


def test_dimensions_that_no_loss_reaches_are_warned_of(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_backbone(place / "backbone")
    train(
        make_collection(),
        place / "scores",
        make_student(place / "backbone"),
        LOSS,
        place / "short",
        replace(OPTIONS, steps=1, matryoshka_dims=[8], matryoshka_weights=None),
    )  # type: ignore[arg-type]
    assert "the last 8 of the 16 dimensions are in no loss" in caplog.text
