"""Static query towers: the mean of token vectors, the same here and in plain sentence-transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from tokenizers import Tokenizer

from irdistill.errors import IrdistillError
from irdistill.students import DenseStudent, load_student
from irdistill.students.static_tower import (
    query_tokenizer,
    rank_weights,
    static_model,
    token_texts,
    token_vectors,
)
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from tests.training.support import digests, stopped_before
from tests.training.tiny import make_backbone, make_collection, make_run

TEXTS = ["w1", "w2 w2 w9 w3", "W1 unknown w7", "", "w5 " * 60]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_backbone(tmp_path_factory.mktemp("static") / "backbone"))


def test_a_query_is_the_mean_of_its_token_vectors(backbone: str) -> None:
    plain, student = DenseStudent(backbone), DenseStudent(backbone, query_layers=0)
    first = student.tower("query")[0]
    alone = plain.encode([f"w{i}" for i in range(40)], precision="float32", normalize=True)
    vectors = np.zeros((45, 16), np.float32)
    vectors[5:] = alone - alone.mean(axis=0)
    vectors *= rank_weights(45)[:, None]
    np.testing.assert_allclose(first.embedding.weight.detach().numpy(), vectors, atol=1e-6)
    want = [
        vectors[6],
        (2 * vectors[7] + vectors[14] + vectors[8]) / 4,
        (vectors[6] + vectors[1] + vectors[12]) / 3,
        np.zeros(16),
        vectors[10],
    ]
    result = student.encode(TEXTS, "query", show_progress=False)
    np.testing.assert_allclose(result, np.stack(want), atol=1e-6)
    documents = student.encode(TEXTS, "document", precision="float32", show_progress=False)
    want_documents = plain.encode(TEXTS, precision="float32", show_progress=False)
    np.testing.assert_array_equal(documents, want_documents)
    assert student.learns("query") and not student.learns("document")
    assert student.size()["query_layers"] == 0
    assert student.size()["query_parameters"] == 45 * 16


def test_special_tokens_have_no_text_and_no_vector(backbone: str) -> None:
    student = DenseStudent(backbone)
    texts = token_texts(query_tokenizer(student))
    assert texts[:7] == ["", "", "", "", "", "w0", "w1"]
    assert not token_vectors(student, texts)[:5].any()


def test_the_vectors_are_those_of_plain_sentence_transformers(
    backbone: str, tmp_path: Path
) -> None:
    student = DenseStudent(backbone, query_layers=0)
    student.save(tmp_path / "saved")
    opened = load_student(tmp_path / "saved")
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    want = student.encode(TEXTS, "query", show_progress=False)
    np.testing.assert_array_equal(opened.encode(TEXTS, "query", show_progress=False), want)
    np.testing.assert_allclose(plain.encode_query(TEXTS), want, atol=1e-7)
    assert opened.identity() == student.identity() | {
        "model": str(tmp_path / "saved"),
        "revision": opened.revision,
    }
    assert not opened.learns("document")


def test_a_query_is_cut_and_counted(backbone: str, tmp_path: Path) -> None:
    student = DenseStudent(backbone, query_layers=0, max_query_length=3)
    assert student.max_length("query") == 3 and student.max_length("document") == 32
    cut, short = student.encode(["w1 w2 w3 w4 w5", "w1 w2 w3"], "query", show_progress=False)
    np.testing.assert_array_equal(cut, short)
    counts = student.truncation["query"]
    assert (counts.read, counts.cut, counts.tokens, counts.tokens_cut) == (2, 1, 6, 2)
    student.save(tmp_path / "saved")
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(plain.encode_query(["w1 w2 w3 w4 w5"])[0], short, atol=1e-7)


def test_the_prompt_of_queries_is_left_out_and_vectors_are_normalized_as_before(
    backbone: str, tmp_path: Path
) -> None:
    model = SentenceTransformer(backbone, device="cpu")
    model.append(Normalize())
    model.prompts = {"query": "w1 w1 ", "document": "w2 "}
    weight = np.random.default_rng(0).normal(size=(45, 16)).astype(np.float32)
    student = DenseStudent.from_model(model)
    routed = DenseStudent.from_model(static_model(student, query_tokenizer(student), weight))
    assert routed.identity()["prompts"] == {"query": "", "document": "w2 "}
    mean = (weight[8] + weight[9]) / 2
    want = mean / np.linalg.norm(mean)
    vector = routed.encode(["w3 w4"], "query", show_progress=False)[0]
    np.testing.assert_allclose(vector, want, atol=1e-6)
    routed.save(tmp_path / "saved")
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(plain.encode_query(["w3 w4"])[0], want, atol=1e-6)


def test_it_is_trained_and_resumes_to_the_same_bytes(backbone: str, tmp_path: Path) -> None:
    collection = make_collection()
    run = make_run(tmp_path / "run", collection)
    options = TrainOptions(
        steps=12, batch_size=4, list_size=5, learning_rate=1e-2, seed=7, checkpoint_every=4
    )

    def learn(out: Path) -> DenseStudent:
        student = DenseStudent(backbone, query_layers=0)
        train(collection, [run], student, "KL(tau=0.5)", out, options)
        return student

    before = DenseStudent(backbone, query_layers=0)
    after = learn(tmp_path / "whole")
    assert before.weights_digest("document") == after.weights_digest("document")
    assert before.weights_digest("query") != after.weights_digest("query")
    with stopped_before(9):
        learn(tmp_path / "parts")
    learn(tmp_path / "parts")
    assert digests(tmp_path / "parts" / "model") == digests(tmp_path / "whole" / "model")
    continued = DenseStudent(str(tmp_path / "whole" / "model"))
    assert continued.size()["query_layers"] == 0
    texts = ["w1 w2", "w3"]
    np.testing.assert_array_equal(
        continued.encode(texts, "query", show_progress=False),
        after.encode(texts, "query", show_progress=False),
    )


def test_gradients_reach_the_tokens_of_the_texts_only(backbone: str) -> None:
    student = DenseStudent(backbone, query_layers=0)
    features = student.tokenize(["w1 w2", "w2"], "query")
    student.embed(features, "query").sum().backward()
    gradient = student.tower("query")[0].embedding.weight.grad
    want = torch.zeros(45, 16)
    want[6], want[7] = 0.5, 1.5
    torch.testing.assert_close(gradient, want)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query_layers": 0, "query_backbone": "other"}, "leave out query_backbone"),
        ({"query_layers": 0, "lora_rank": 4}, "leave out lora_rank"),
        ({"lora_rank": 4}, "leave out lora_rank"),
        ({"query_layers": 1}, "the query tower of the backbone has no transformer"),
    ],
)
def test_options_that_a_static_tower_lacks_are_refused(
    backbone: str, options: dict[str, object], message: str, tmp_path: Path
) -> None:
    start = backbone
    if options.get("query_layers") != 0:
        start = str(tmp_path / "static")
        DenseStudent(backbone, query_layers=0).save(tmp_path / "static")
    with pytest.raises(IrdistillError, match=message):
        DenseStudent(start, **options)


def test_the_token_limits_of_a_saved_static_tower_can_be_changed(
    backbone: str, tmp_path: Path
) -> None:
    DenseStudent(backbone, query_layers=0).save(tmp_path / "saved")
    limits = [
        (student.max_length("query"), student.max_length("document"))
        for student in (
            DenseStudent(str(tmp_path / "saved"), max_query_length=3),
            DenseStudent(str(tmp_path / "saved"), max_length=4),
            DenseStudent(str(tmp_path / "saved"), max_length=4, max_query_length=3),
        )
    ]
    assert limits == [(3, 32), (4, 4), (3, 4)]


def test_other_students_and_python_tokenizers_are_refused(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from irdistill.students import LateInteractionStudent

    with pytest.raises(IrdistillError, match="layers=0 was given"):
        LateInteractionStudent(backbone, query_layers=0)
    student = DenseStudent(backbone)
    monkeypatch.setattr(Transformer, "tokenizer", object())
    with pytest.raises(IrdistillError, match=r"needs a fast tokenizer"):
        query_tokenizer(student)


def test_a_static_model_of_both_towers_is_a_dense_student(tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a"))
    tokenizer.pre_tokenizer = Whitespace()
    weight = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, weight)], device="cpu")
    model.save(str(tmp_path / "static"), create_model_card=False)
    student = load_student(tmp_path / "static")
    vectors = student.search_vectors(["b", "c c b", "c"], "document", done=False)
    np.testing.assert_allclose(vectors, [[1, 0], [1 / 37**0.5, 6 / 37**0.5], [0, 1]], atol=1e-6)
