"""Fitting static query towers: the regression against numpy's, token counts, and the saved model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import WordEmbeddings

import irdistill as ird
from irdistill.collections import Corpus, Document
from irdistill.errors import IrdistillError, ModelError
from irdistill.queries.raw_texts import open_texts
from irdistill.students import DenseStudent
from irdistill.students.static_tower import query_tokenizer, summed_model
from irdistill.training import computed_models
from irdistill.training import static_fitting as module
from irdistill.training.static_fitting import fit_static, fit_token_vectors, token_bags
from irdistill.training.term_vector_fitting import fit_term_vectors
from tests.training.tiny import make_backbone, make_collection


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path_factory.getbasetemp() / "static-cache"))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_backbone(tmp_path_factory.mktemp("static") / "backbone"))


@pytest.mark.parametrize("keep_lengths", [False, True])
def test_token_vectors_are_numpy_s_ridge_regression_towards_the_prior(
    keep_lengths: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TOLERANCE", 1e-10)
    random = np.random.default_rng(0)
    counts = random.poisson(0.6, (30, 8)).astype(np.float64)
    counts[:, 5] = 0  # a token of no text
    counts[3] = 0  # a text without tokens
    targets, prior = random.normal(size=(30, 4)), random.normal(size=(8, 4))
    fitted = fit_token_vectors(csr_matrix(counts), targets, prior, 0.7, keep_lengths)
    lengths = np.sqrt(np.maximum(counts.sum(axis=1, keepdims=True), 1))
    rows = counts / lengths
    if keep_lengths:
        targets = targets * lengths
    start = prior * np.log(31 / (1 + (counts > 0).sum(axis=0)))[:, None]
    start *= ((rows @ start) * targets).sum() / np.square(rows @ start).sum()
    # ridge regression as least squares over rows added for the penalty
    design = np.concatenate([rows, np.sqrt(0.7) * np.eye(8)])
    padded = np.concatenate([targets, np.sqrt(0.7) * start])
    want = np.linalg.lstsq(design, padded, rcond=None)[0]
    np.testing.assert_allclose(fitted, want, atol=1e-7)
    np.testing.assert_allclose(fitted[5], start[5])


def test_texts_without_tokens_are_refused() -> None:
    with pytest.raises(IrdistillError, match="none of the 3 texts has a token"):
        fit_token_vectors(csr_matrix((3, 2)), np.ones((3, 4)), np.ones((2, 4)), 1.0)


def cosine(student: DenseStudent, teacher: DenseStudent, texts: list[str]) -> float:
    ours, theirs = (
        model.encode(texts, "query", "float32", show_progress=False, normalize=True)
        for model in (student, teacher)
    )
    return float((ours * theirs).sum(axis=1).mean())


def test_the_fitted_tower_is_close_to_the_teacher_and_documents_stay(
    backbone: str, tmp_path: Path
) -> None:
    collection = make_collection(queries=20, documents=200)
    corpus = open_texts([collection])
    teacher = DenseStudent(backbone)
    fitted = fit_static(corpus, teacher, tmp_path / "out")
    texts = [query.text for query in collection.queries.values()]
    begun = DenseStudent(backbone, query_layers=0)
    assert cosine(fitted, teacher, texts) > max(0.9, cosine(begun, teacher, texts))
    assert fitted.weights_digest("document") == teacher.weights_digest("document")
    assert fitted.learns("query") and not fitted.learns("document")
    plain = SentenceTransformer(str(tmp_path / "out" / "model"), device="cpu")
    np.testing.assert_allclose(
        plain.encode_query(texts), fitted.encode(texts, "query", show_progress=False), atol=1e-6
    )
    again = fit_static(corpus, teacher, tmp_path / "out")
    assert again.weights_digest() == fitted.weights_digest()
    with pytest.raises(IrdistillError, match=r"settings\.ridge: 0\.1 there, 2\.0 here"):
        fit_static(corpus, teacher, tmp_path / "out", ridge=2.0)
    changed = fit_static(corpus, teacher, tmp_path / "out", ridge=2.0, overwrite=True)
    assert changed.weights_digest() != fitted.weights_digest()


def test_bags_count_the_tokens_without_special_ones(backbone: str) -> None:
    texts = ["W1 w1 zebra", "", "w2 " * 60]
    corpus = Corpus.in_memory(Document(str(i), "", text) for i, text in enumerate(texts))
    bags = token_bags(query_tokenizer(DenseStudent(backbone)), corpus)
    want = np.zeros((3, 45))
    want[0, [6, 1]], want[2, 7] = [2, 1], 32  # unknown words are one token; texts are cut
    np.testing.assert_array_equal(bags.toarray(), want)


def test_a_teacher_with_two_towers_gives_its_query_tower(backbone: str, tmp_path: Path) -> None:
    collection = make_collection(queries=20, documents=200)
    terms = fit_term_vectors(collection, backbone, tmp_path / "terms")
    fitted = fit_static(open_texts([collection]), terms, tmp_path / "out")
    texts = [query.text for query in collection.queries.values()]
    assert cosine(fitted, terms, texts) > cosine(fitted, DenseStudent(backbone), texts)
    assert fitted.weights_digest("document") == terms.weights_digest("document")


def test_a_killed_fit_begins_again_and_ends_with_the_same_bytes(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, teacher = open_texts([make_collection(documents=100)]), DenseStudent(backbone)
    whole = fit_static(corpus, teacher, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(
            computed_models, "place_model", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            fit_static(corpus, teacher, tmp_path / "killed")
    assert not (tmp_path / "killed" / "model").exists()
    resumed = fit_static(corpus, teacher, tmp_path / "killed")
    assert resumed.weights_digest() == whole.weights_digest()


def test_from_python_and_as_a_backbone(backbone: str, tmp_path: Path) -> None:
    collection = make_collection(documents=60)
    student = ird.fit_static(collection, backbone, out=tmp_path / "out", kinds=("queries",))
    assert student.size()["query_layers"] == 0
    continued = DenseStudent(str(tmp_path / "out" / "model"))
    assert continued.weights_digest() == student.weights_digest()
    assert continued.learns("query") and not continued.learns("document")


def _two_layers(backbone: str, folder: Path, kind: str) -> DenseStudent:
    """A model for token vectors to be added to."""
    if kind == "words":  # they come after the scaling to length 1
        return fit_term_vectors(make_collection(), backbone, folder / "terms")
    small = DenseStudent(
        backbone, query_layers=1, query_prompt="find: " if kind == "prompt" else ""
    )
    if kind != "tokens":
        return small
    weight = np.random.default_rng(3).normal(
        size=(query_tokenizer(small).get_vocab_size(), small.dimension)
    )
    return DenseStudent.from_model(summed_model(small, weight.astype(np.float32)))


@pytest.mark.parametrize(
    ("kind", "special"), [("plain", 2), ("prompt", 1), ("words", 2), ("tokens", 2)]
)
def test_token_vectors_beside_a_tower_are_added_as_written(
    backbone: str, tmp_path: Path, kind: str, special: int
) -> None:
    """By hand: the tower's direction plus the tokens' sum over the root of their number.

    The first token is left out of it together with the prompt.
    """
    collection = make_collection(queries=20, documents=200)
    corpus, teacher = open_texts([collection]), DenseStudent(backbone)
    small = _two_layers(backbone, tmp_path, kind)
    assert module._special_tokens(small) == special
    fitted = fit_static(corpus, teacher, tmp_path / "out", beside=small)
    embedding = [part for part in fitted.tower("query") if isinstance(part, WordEmbeddings)][-1]
    weight = embedding.emb_layer.weight.numpy()
    texts = [*(query.text for query in collection.queries.values()), "zebra"]
    tower = small.encode(texts, "query", "float32", show_progress=False, normalize=True)
    counts = token_bags(
        query_tokenizer(small),
        Corpus.in_memory(Document(str(n), "", text) for n, text in enumerate(texts)),
    ).toarray()
    want = tower + counts @ weight / np.sqrt(counts.sum(axis=1, keepdims=True) + special)
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    ours = fitted.encode(texts, "query", "float32", show_progress=False)
    np.testing.assert_allclose(ours, want, atol=1e-6)
    assert not weight[:3].any()  # padding and special tokens add nothing
    plain = SentenceTransformer(
        str(tmp_path / "out" / "model"), device="cpu", trust_remote_code=kind == "words"
    )
    np.testing.assert_allclose(plain.encode_query(texts), want, atol=1e-6)


def test_the_sum_is_closer_to_the_teacher_and_documents_stay(backbone: str, tmp_path: Path) -> None:
    collection = make_collection(queries=20, documents=200)
    corpus, teacher = open_texts([collection]), DenseStudent(backbone)
    small = DenseStudent(backbone, query_layers=1)
    embeddings = small.tower("query")[0].model.get_input_embeddings().weight
    with torch.no_grad():  # a tower that has learned the teacher's vectors in part
        embeddings += (
            2
            * embeddings.std()
            * torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(0))
        )
    fitted = fit_static(corpus, teacher, tmp_path / "out", beside=small)
    texts = [query.text for query in collection.queries.values()]
    assert cosine(fitted, teacher, texts) > cosine(small, teacher, texts) + 0.02
    assert fitted.weights_digest("document") == teacher.weights_digest("document")
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["cosine"] > record["cosine_alone"] and 0.1 <= record["share"] <= 1
    assert fit_static(corpus, teacher, tmp_path / "out", beside=small).weights_digest() == (
        fitted.weights_digest()
    )
    with pytest.raises(IrdistillError, match="beside"):
        fit_static(corpus, teacher, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query_layers": 0}, "has a static query tower already"),
        ({"query_layers": 1, "similarity": "dot"}, "compared by dot products"),
    ],
)
def test_models_that_token_vectors_cannot_join_are_refused(
    backbone: str, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    corpus = open_texts([make_collection(documents=20)])
    with pytest.raises(ModelError, match=message):
        fit_static(
            corpus,
            DenseStudent(backbone),
            tmp_path / "out",
            beside=DenseStudent(backbone, **options),
        )
    assert not (tmp_path / "out").exists()
