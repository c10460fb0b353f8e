"""Students with a query tower of their own: saved for plain sentence-transformers, trained on
stored document vectors.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

from irdistill.collections import Query
from irdistill.errors import IrdistillError
from irdistill.search import retrieve
from irdistill.search.vectors.vector_store import corpus_vectors
from irdistill.students import build_student, load_student
from irdistill.students.late_interaction_student import LateInteractionStudent
from irdistill.students.student_base import Student
from irdistill.teachers import LateInteractionTeacher, TextPair, score_pairs
from irdistill.training import TrainOptions, train
from tests.students.tiny import tiny_backbone
from tests.training.tiny import make_backbone, make_collection, make_run

PLAIN: dict[str, Any] = {
    "dense": SentenceTransformer,
    "sparse": SparseEncoder,
    "late-interaction": MultiVectorEncoder,
}
TEXTS = ["w1 w2 w3", "w4 w5 w6 w7 w8 w9 w1", "w30", "w2 w3 " * 9]
OPTIONS = TrainOptions(
    steps=6,
    batch_size=4,
    list_size=5,
    learning_rate=5e-3,
    precision="float32",
    seed=7,
    checkpoint_every=0,
    log_every=10,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("towers")
    make_run(folder / "scores", make_collection())
    make_backbone(folder / "large")
    make_backbone(folder / "small", seed=1)
    tiny_backbone(folder / "other", layers=2)
    return folder


def build(kind: str, place: Path, backbone: str = "large", **settings: Any) -> Any:
    return build_student(kind, str(place / backbone), device="cpu", **settings)


def same_scores(student: Any, folder: Path) -> None:
    """Of the student, of the student loaded again, and of sentence-transformers alone."""
    student.save(folder)
    plain, again = (
        PLAIN[student.kind](str(folder), device="cpu"),
        load_student(folder, device="cpu"),
    )
    assert type(again) is type(student)
    expected = (
        plain.similarity(plain.encode_query(TEXTS), plain.encode_document(TEXTS)).to_dense().float()
    )
    index = torch.arange(len(TEXTS)).repeat(len(TEXTS), 1)
    with torch.no_grad():
        for one in (student, again):
            vectors = [
                one.join([one.embed(one.tokenize(TEXTS, side), side)], torch.arange(len(TEXTS)))
                for side in ("query", "document")
            ]
            torch.testing.assert_close(
                one.scores(*vectors, index)[0], expected, atol=1e-5, rtol=1e-5
            )
    assert [again.learns(side) for side in ("query", "document")] == [
        student.learns(side) for side in ("query", "document")
    ]
    assert again.document_identity() == student.document_identity()


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize(
    "settings",
    [
        {"query_layers": 1},
        {"freeze_documents": True},
        {"query_backbone": "small"},
        {"query_backbone": "small", "query_layers": [1], "max_query_length": 8},
    ],
)
def test_a_query_tower_of_its_own(
    kind: str, settings: dict[str, Any], place: Path, tmp_path: Path
) -> None:
    inputs = dict(settings)
    if "query_backbone" in inputs:
        inputs["query_backbone"] = str(place / inputs["query_backbone"])
    student = build(kind, place, **inputs)
    size = student.size()
    assert student.learns("query") and not student.learns("document")
    assert size["query_layers"] == (2 if "query_layers" not in inputs else 1)
    assert (
        student.max_length("query") == inputs.get("max_query_length", 32)
        and student.max_length("document") == 32
    )
    whole = build(kind, place)
    assert student.document_identity() == whole.document_identity(), "documents keep the backbone"
    same_scores(student, tmp_path / "model")


@pytest.mark.parametrize("kind", ["dense", "late-interaction"])
def test_a_small_query_encoder_with_another_vocabulary_and_size(
    kind: str, place: Path, tmp_path: Path
) -> None:
    student = build(kind, place, query_backbone=str(place / "other"))
    names = [type(module).__name__ for module in student.tower("query")]
    assert names.count("Dense") == 1 and student.dimension == (16 if kind == "dense" else 128)
    assert (
        build(kind, place, query_backbone=str(place / "other")).weights_digest()
        == student.weights_digest()
    )
    assert (
        build(kind, place, query_backbone=str(place / "other"), seed=1).weights_digest()
        != student.weights_digest()
    )
    same_scores(student, tmp_path / "model")


def test_sparse_towers_share_a_vocabulary(place: Path, tmp_path: Path) -> None:
    with pytest.raises(IrdistillError, match=r"vocabularies of .* differ"):
        build("sparse", place, query_backbone=str(place / "other"))
    with pytest.raises(IrdistillError, match="leaves queries no layers"):
        build("sparse", place, query_layers=1, inference_free=True)
    free = build("sparse", place, inference_free=True, freeze_documents=True)
    assert free.learns("query") and not free.learns("document")
    same_scores(free, tmp_path / "model")
    assert build("sparse", place, inference_free=True).learns("document")


def test_the_mask_of_documents_reads_their_own_tokenizer(place: Path, tmp_path: Path) -> None:
    """A word of the skiplist has another number in the query tower's vocabulary."""
    plain = MultiVectorEncoder(str(place / "large"), device="cpu")
    mask = next(module for module in plain if type(module).__name__ == "MultiVectorMask")
    mask.skiplist_words = ["w2"]
    mask.resolve_with_tokenizer(plain.tokenizer)
    plain.save(str(tmp_path / "late"))
    student = LateInteractionStudent(
        str(tmp_path / "late"), query_backbone=str(place / "other"), device="cpu"
    )
    assert student.identity()["skiplist"] == ["w2"]
    lengths = [len(vectors) for vectors in student.encode(["w1 w2 w3"], "document", "float32")]
    assert lengths == [4], "[CLS] w1 w3 [SEP]"
    same_scores(student, tmp_path / "model")


def test_a_trained_model_keeps_what_it_learnt(place: Path, tmp_path: Path) -> None:
    for kind, settings in (("late-interaction", {"dimension": 8}), ("sparse", {})):
        trained = build(kind, place, seed=5, **settings)
        trained.save(tmp_path / kind)
        frozen = build_student(kind, str(tmp_path / kind), query_layers=1, device="cpu")
        assert frozen.weights_digest("document") == trained.weights_digest("document")
        assert frozen.source == str(tmp_path / kind)
        frozen.save(tmp_path / f"{kind}-two")
        again = build_student(kind, str(tmp_path / f"{kind}-two"), query_layers=1, device="cpu")
        assert again.weights_digest("query") == frozen.weights_digest("query")
        assert again.weights_digest("document") == frozen.weights_digest("document")
    with pytest.raises(IrdistillError, match="token vectors of 8 numbers"):
        build_student(
            "late-interaction", str(tmp_path / "late-interaction"), dimension=16, device="cpu"
        )


@pytest.mark.parametrize("factor", [1.0, 2.0, 3.5])
def test_token_pooling_is_that_of_sentence_transformers(
    factor: float, place: Path, tmp_path: Path
) -> None:
    plain = build("late-interaction", place, dimension=8)
    pooled = build("late-interaction", place, dimension=8, token_pooling=factor)
    whole = plain.encode(TEXTS, "document", "float32")
    result = pooled.encode(TEXTS, "document", "float32")
    expected = HierarchicalTokenPooling(factor).pool(
        [torch.from_numpy(vectors) for vectors in whole]
    )
    for one, other, full in zip(result, expected, whole, strict=True):
        if len(full) > 3:  # scipy before 1.15 never joins the last two
            assert len(one) == 1 + max(int((len(full) - 1) // factor), 1)
        np.testing.assert_allclose(one, other, atol=1e-5)
    for one, other in zip(
        pooled.encode(TEXTS, "query", "float32"),
        plain.encode(TEXTS, "query", "float32"),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert pooled.identity()["token_pooling"] == factor and "token_pooling" not in plain.identity()
    assert pooled.document_identity()["modules"] != plain.document_identity()["modules"]
    vectors = pooled.embed(pooled.tokenize(TEXTS, "document"), "document")
    torch.stack([one.sum() for one in vectors]).sum().backward()
    assert all(
        p.grad is not None for name, p in pooled.model.named_parameters() if "pooler" not in name
    )
    same_scores(pooled, tmp_path / "model")
    rough = pooled.encode(TEXTS, "document", "bfloat16")
    teacher = LateInteractionTeacher(str(tmp_path / "model"), precision="bfloat16", device="cpu")
    pairs = [TextPair(Query("q", TEXTS[0]), row, text) for row, text in enumerate(TEXTS)]
    assert [len(one) for one in rough] == [len(one) for one in result] and np.isfinite(
        score_pairs(teacher, pairs)[0].values
    ).all()
    again = build_student(
        "late-interaction", str(tmp_path / "model"), token_pooling=4.0, device="cpu"
    )
    assert again.identity()["token_pooling"] == 4.0, "in place of the model's own"


def test_settings_out_of_range(place: Path) -> None:
    for name, value in (("token_pooling", 0.5), ("expand_queries", 2), ("dimension", -1)):
        with pytest.raises(IrdistillError, match=f"{name}={value} is not allowed"):
            build("late-interaction", place, **{name: value})
    with pytest.raises(IrdistillError, match="cannot be cut to less than they are filled up to"):
        build("late-interaction", place, expand_queries=9, max_query_length=5)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_frozen_tower_is_trained_on_stored_vectors_and_searched_with_them(
    kind: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make_collection()
    loss = "KL(tau=0.5, teacher_tau=2) + 0.1*InfoNCE(tau=0.5)"
    weights, folder = [], tmp_path / "work"
    monkeypatch.setattr(
        "irdistill.modeling.hardware.has_fast_bfloat16", lambda device: False
    )  # vectors and training in float32
    for name in ("texts", "stored"):
        student = build(
            kind,
            place,
            query_layers=1,
            **({"token_pooling": 2.0} if kind == "late-interaction" else {}),
        )
        if name == "stored":
            corpus_vectors(collection.corpus, student, folder)
            embed = type(student).embed

            def only_queries(self: Any, features: Any, side: str, embed: Any = embed) -> Any:
                assert side == "query", "a document was encoded"
                return embed(self, features, side)

            monkeypatch.setattr(type(student), "embed", only_queries)
            for check in ("check_saving", "check_saved"):  # they encode texts
                monkeypatch.setattr(Student, check, lambda *_: None)
        train(
            collection,
            place / "scores",
            student,
            loss,
            tmp_path / name,
            OPTIONS,
            "stored" if name == "stored" else None,
            folder,
        )
        weights.append(student.model.state_dict())
    assert weights[0].keys() == weights[1].keys()
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], atol=2e-4, rtol=1e-3)
    run = retrieve(collection, tmp_path / "stored" / "model", tmp_path / "run", k=5, work=folder)
    assert len(run) == len(collection.queries), "no document was encoded for the search either"
    monkeypatch.undo()
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1


def test_strange_vectors_are_refused(place: Path, tmp_path: Path) -> None:
    collection = make_collection()
    student = build("sparse", place, freeze_documents=True)
    other = build("sparse", place, "small", freeze_documents=True)
    arguments: Any = (
        collection,
        place / "scores",
        student,
        "KL(teacher_tau=2)",
        tmp_path / "out",
        OPTIONS,
    )
    with pytest.raises(
        IrdistillError, match=r"another document tower than the student's \(weights differ\)"
    ):
        train(*arguments, corpus_vectors(collection.corpus, other, tmp_path))
    with pytest.raises(IrdistillError, match="dense vectors of the corpus"):
        train(*arguments, corpus_vectors(collection.corpus, build("dense", place), tmp_path))
    with pytest.raises(IrdistillError, match="an array of vectors was given for a sparse student"):
        train(*arguments, np.zeros((40, 45)))
    with pytest.raises(IrdistillError, match="the document tower is frozen; leave them out"):
        train(*arguments[:-1], replace(OPTIONS, document_flops=0.1))
    learning = build("sparse", place)
    with pytest.raises(IrdistillError, match="document tower learns"):
        train(
            collection,
            place / "scores",
            learning,
            "KL(teacher_tau=2)",
            tmp_path / "out",
            OPTIONS,
            corpus_vectors(collection.corpus, learning, tmp_path),
        )
    assert not (tmp_path / "out" / "model").exists()
