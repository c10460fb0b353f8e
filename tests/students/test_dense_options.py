"""Pooling, prompts and similarity of a dense student out of a plain backbone, as
sentence-transformers has them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from irdistill.cli.entry_point import cli
from irdistill.errors import IrdistillError
from irdistill.students import DenseStudent, build_student
from tests.students.tiny import tiny_backbone
from tests.training.tiny import make_backbone


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_backbone(tmp_path_factory.mktemp("backbone"), layers=2))


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken", "weightedmean"])
def test_pooling(pooling: str, backbone: str, tmp_path: Path) -> None:
    texts = ["the cat sat", "dog"]
    student = build_student("dense", backbone, pooling=pooling, device="cpu")
    first = Transformer(backbone)
    plain = SentenceTransformer(
        modules=[first, Pooling(first.get_embedding_dimension(), pooling)], device="cpu"
    )
    expected = plain.encode(texts)
    assert np.allclose(student.encode(texts, "document", precision="float32"), expected, atol=1e-5)  # type: ignore[attr-defined]
    student.save(tmp_path / "model")
    assert np.allclose(
        SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(texts),
        expected,
        atol=1e-5,
    )


def test_prompts_and_similarity(backbone: str, tmp_path: Path) -> None:
    student = build_student(
        "dense",
        backbone,
        query_prompt="what is ",
        document_prompt="a ",
        similarity="dot",
        query_layers=1,
        device="cpu",
    )
    student.save(tmp_path / "model")
    plain = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    queries, documents = plain.encode_query(["cat"]), plain.encode_document(["dog", "fish"])
    assert np.allclose(queries, plain.encode(["what is cat"], prompt="", task="query"), atol=1e-6)
    assert np.allclose(
        documents, plain.encode(["a dog", "a fish"], prompt="", task="document"), atol=1e-6
    )
    vectors = [
        torch.from_numpy(student.encode(inputs, kind, precision="float32"))  # type: ignore[attr-defined]
        for inputs, kind in ((["cat"], "query"), (["dog", "fish"], "document"))
    ]
    outcome, _ = student.scores(*vectors, torch.tensor([[0, 1]]))
    assert np.allclose(outcome, plain.similarity(queries, documents), atol=1e-4)
    assert np.allclose(outcome, queries @ documents.T, atol=1e-4)  # a dot product, no cosine
    assert student.identity()["prompts"] == {"query": "what is ", "document": "a "}


def test_what_is_false_is_not_what_is_absent(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Punctuation is masked unless that is False, and here the word a counts as such."""
    monkeypatch.setattr("irdistill.students.late_interaction_student.string.punctuation", "a")
    outcome = [
        build_student(
            "late-interaction", backbone, mask_punctuation=inputs, device="cpu"
        ).identity()["skiplist"]
        for inputs in (None, False)
    ]
    assert outcome == [["a"], []]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pooling": "median"}, "expected 'mean', 'cls', 'max'"),
        ({"similarity": "euclidean"}, "expected 'cosine' or 'dot'"),
        ({"expand_queries": 32}, "a dense student has no option expand_queries"),
    ],
)
def test_what_is_refused(wrong: dict[str, object], message: str, backbone: str) -> None:
    with pytest.raises(IrdistillError, match=message):
        build_student("dense", backbone, device="cpu", **wrong)


def test_a_setting_that_the_student_has_not_is_refused_before_anything_is_loaded() -> None:
    command = [
        "train",
        "no-such-collection",
        "--scores",
        "no-run",
        "--student",
        "sparse",
        "--backbone",
        "none",
        "--loss",
        "KL",
        "--out",
        "out",
        "--pooling",
        "cls",
    ]
    result = CliRunner().invoke(cli, command)
    assert isinstance(result.exception, IrdistillError)
    assert "a sparse student has no option pooling='cls'" in str(result.exception)


def test_prompts_that_the_backbone_was_not_saved_with_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = DenseStudent(str(make_backbone(tmp_path / "backbone")), device="cpu")
    trained.model.prompts.update({"query": "q: ", "document": "d: "})
    trained.save(tmp_path / "trained")
    for options, warned in (
        ({"query_prompt": "query: "}, ["the query prompt of the student is 'query: '"]),
        ({"query_prompt": "q: ", "document_prompt": ""}, ["the document prompt"]),
        ({"query_prompt": "q: "}, []),
        ({}, []),
    ):
        caplog.clear()
        DenseStudent(str(tmp_path / "trained"), device="cpu", freeze_documents=True, **options)
        messages = [record.message for record in caplog.records]
        assert len(messages) == len(warned)
        assert all(map(str.startswith, messages, warned)), messages
    caplog.clear()
    plain = tmp_path / "backbone-bert"  # a transformer that was not trained for vectors
    DenseStudent(str(plain), device="cpu", query_prompt="q: ")
    assert not caplog.records
