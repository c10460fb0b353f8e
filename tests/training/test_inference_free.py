"""Inference-free sparse students: the IDF start, the IDF-aware penalty, the threshold of penalties
and the double logarithm, by hand and in a training.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.losses import FlopsLoss
from torch import Tensor

from irdistill.collections import Collection
from irdistill.errors import OptionError
from irdistill.losses.regularizers import flops, longer_than
from irdistill.students.sparse_student import SparseStudent
from irdistill.training.objectives import token_idf as module
from irdistill.training.objectives.sparsity import Sparsity
from irdistill.training.objectives.token_idf import TokenIdf, corpus_idf
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from tests.training.support import digests, stopped_before
from tests.training.tiny import make_backbone, make_collection, make_run

OPTIONS = TrainOptions(
    steps=6,
    batch_size=4,
    list_size=5,
    learning_rate=5e-3,
    precision="float32",
    seed=7,
    checkpoint_every=2,
    dropout=False,
)
EVERYTHING = replace(
    OPTIONS, idf_start=True, idf_penalty=True, document_above=4, document_active=8, ramp=0
)
LOSS = "KL(teacher_tau=2)"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inference-free")
    make_run(folder / "scores", make_collection())
    make_backbone(folder / "backbone")
    return folder


def make(place: Path, **settings: Any) -> SparseStudent:
    settings = {"inference_free": True, **settings}
    return SparseStudent(str(place / "backbone"), device="cpu", **settings)


def query_weights(student: SparseStudent) -> Tensor:
    (weights,) = student.head
    return weights.detach()


# -- IDF


def test_idf_by_hand(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """w0 is in all three documents (twice in one), w1 in two, w2 in one; w3 in none."""
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path))
    texts = {"a": "w0 w0 w1", "b": "w1 w0", "c": "w2 w0"}
    corpus = Collection.from_dicts("idf", texts, {"q": "w1"}, {"q": {"a": 1}}).corpus
    tokenizer = make(place).model.tokenizer
    idf = corpus_idf(corpus, tokenizer, 45)
    places = tokenizer.convert_tokens_to_ids(["w0", "w1", "w2", "w3"])
    assert idf.documents == 3 and idf.frequencies[places].tolist() == [3, 2, 1, 0]
    assert idf.frequencies.sum() == 6  # no special tokens
    expected = [np.log1p(0.5 / 3.5), np.log1p(1.5 / 2.5), np.log1p(2.5 / 1.5), np.log1p(3.5 / 0.5)]
    assert idf.weights[places] == pytest.approx(expected)
    mean = (3 * expected[0] + 2 * expected[1] + expected[2]) / 6
    assert idf.costs[places] == pytest.approx([mean / value for value in expected])
    # from the cache, and again if it is damaged
    monkeypatch.setattr(module, "_count", lambda *arguments: pytest.fail("counted again"))
    assert np.array_equal(corpus_idf(corpus, tokenizer, 45).frequencies, idf.frequencies)
    monkeypatch.undo()
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path))
    (path,) = tmp_path.rglob("counts.json")
    path.write_text(path.read_text().replace("3", "4", 1))
    assert np.array_equal(corpus_idf(corpus, tokenizer, 45).frequencies, idf.frequencies)


def test_a_token_in_every_document_costs_ten_times_the_mean() -> None:
    idf = TokenIdf(np.array([1000, 10, 0]), 1000)
    assert idf.weights[0] < 1e-3
    assert idf.costs == pytest.approx(
        [10, idf.weights[:2] @ [1000, 10] / 1010 / idf.weights[1], idf.costs[2]]
    )
    assert idf.costs[2] < idf.costs[1] < idf.costs[0]
    assert TokenIdf(np.zeros(2, np.int64), 0).costs.tolist() == pytest.approx([1 / np.log(2)] * 2)


# -- penalties


def test_documents_with_few_active_dimensions_pay_nothing() -> None:
    """The gradient of a sparse document is zero; a long one pays with the mean over all three."""
    vectors = torch.tensor(
        [[1.0, 0, 0], [1.0, 2.0, 3.0], [2.0, 1.0, 0.5]], dtype=torch.float64, requires_grad=True
    )
    kept = longer_than(vectors, 1)
    assert kept.tolist() == [[0, 0, 0], [1, 2, 3], [2, 1, 0.5]]
    value = flops(kept)
    assert value.item() == pytest.approx(2 * (1 * 2 + 2 * 1 + 3 * 0.5) / (3 * 2))
    value.backward()
    assert vectors.grad is not None and vectors.grad[0].tolist() == [0, 0, 0]
    assert vectors.grad[1].tolist() == pytest.approx([2 * 2 / 6, 2 * 1 / 6, 2 * 0.5 / 6])
    assert flops(longer_than(vectors, 0)).item() == pytest.approx(flops(vectors).item())
    # the mask of sentence-transformers, whose FLOPS has the products of a text with itself, too
    peer = FlopsLoss(None, threshold=1).compute_loss_from_embeddings(vectors.detach())  # type: ignore[arg-type]
    squares = kept.square().sum().item()
    assert (9 * float(peer) - squares) / 6 == pytest.approx(value.item())


def test_the_idf_penalty_by_hand() -> None:
    """A weight of a token pays ``mean / IDF``, squared in FLOPS; queries pay as before."""
    idf = TokenIdf(np.array([3, 1]), 3)
    common, rare = idf.costs.tolist()
    options = replace(OPTIONS, ramp=0, document_flops=2.0, document_l1=3.0, query_l1=1.0)
    sparsity = Sparsity(replace(options, idf_penalty=True))
    sparsity.idf = idf
    documents = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    sparsity("document", documents)
    sparsity("query", torch.tensor([[5.0, 0.0]]))
    terms = sparsity.penalties(0)
    assert float(terms["FLOPS(document)"]) == pytest.approx(2 * (3 * common**2 + 8 * rare**2))
    assert float(terms["L1(document)"]) == pytest.approx(3 * (4 * common + 6 * rare) / 2)
    assert float(terms["L1(query)"]) == pytest.approx(5)
    terms["L1(document)"].backward()
    assert documents.grad is not None
    assert documents.grad[0].tolist() == pytest.approx([1.5 * common, 1.5 * rare])
    assert common > 1 > rare


def test_idf_in_the_query_is_an_idf_aware_penalty() -> None:
    """With fixed query weights IDF and plain FLOPS, a document ``d`` scores and pays as ``d * IDF``
    does with query weights 1 and FLOPS divided by IDF squared.
    """
    idf = TokenIdf(np.array([3, 2, 1]), 3)
    documents = torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
    query, weights = torch.tensor([1.0, 0, 1]), torch.from_numpy(idf.weights)
    scaled = documents * weights
    assert torch.allclose(documents @ (query * weights), scaled @ query)
    mean = float(idf.costs[1] * weights[1])
    aware = flops(scaled * torch.from_numpy(idf.costs)) / mean**2
    assert float(aware) == pytest.approx(float(flops(documents)), rel=1e-5)


# -- activation


def test_the_double_logarithm_by_hand_and_in_sentence_transformers(
    place: Path, tmp_path: Path
) -> None:
    student, plain = (make(place, activation=activation) for activation in ("log1p_relu", None))
    texts = ["w1 w2 w7", "w3"]
    once, twice = (
        one.embed(one.tokenize(texts, "document"), "document") for one in (plain, student)
    )
    assert torch.allclose(twice, once.log1p(), atol=1e-6) and (once > 0).any()
    logits = torch.tensor([[[np.e - 1, -2.0]]], requires_grad=True)
    from irdistill.students.sparse_student import _max_pool

    value = _max_pool(logits, torch.ones(1, 1), "log1p_relu")
    assert value.tolist() == [[pytest.approx(np.log(2)), 0.0]]
    value.sum().backward()
    assert logits.grad is not None  # 1 / ((1 + log(1 + x)) (1 + x)) = 1 / (2 e)
    assert logits.grad[0, 0].tolist() == [pytest.approx(1 / (2 * np.e)), 0.0]
    student.save(tmp_path / "model")
    (pooling,) = (tmp_path / "model").rglob("*SpladePooling/config.json")
    assert json.loads(pooling.read_text())["activation_function"] == "log1p_relu"
    opened = SparseEncoder(str(tmp_path / "model"), device="cpu")
    assert torch.allclose(opened.encode_document(texts).to_dense(), twice, atol=1e-5)
    # a saved student keeps its activation, unless another one is given
    again = SparseStudent(str(tmp_path / "model"), device="cpu")
    assert torch.allclose(again.embed(again.tokenize(texts, "document"), "document"), twice)
    other = SparseStudent(str(tmp_path / "model"), device="cpu", activation="relu")
    assert torch.allclose(other.embed(other.tokenize(texts, "document"), "document"), once)
    with pytest.raises(OptionError, match="activation='gelu' is not allowed"):
        make(place, activation="gelu")


def test_both_towers_get_the_activation(place: Path) -> None:
    student = make(place, inference_free=False, query_layers=1, activation="log1p_relu")
    assert [student.tower(kind)[-1].activation_function for kind in student.sides] == [
        "log1p_relu",
        "log1p_relu",
    ]


# -- trainings


def test_a_training_begins_at_the_idf_and_saves_a_plain_model(place: Path, tmp_path: Path) -> None:
    student, collection = make(place), make_collection()
    idf = corpus_idf(collection.corpus, student.model.tokenizer, 45)
    still = replace(OPTIONS, idf_start=True, steps=1, learning_rate=1e-9)
    model = train(collection, place / "scores", student, LOSS, tmp_path / "out", still)
    weights = query_weights(student)
    assert weights[5:].numpy() == pytest.approx(idf.weights[5:], abs=1e-6)
    assert weights[:5].tolist() == [0.0] * 5  # special tokens
    plain = SparseEncoder(str(model), device="cpu")
    row = plain.encode_query(["w1 w3 w1"]).to_dense()[0]
    expected = torch.zeros(45)
    for word in ("w1", "w3"):
        token = student.model.tokenizer.convert_tokens_to_ids(word)
        expected[token] = float(idf.weights[token])
    assert torch.allclose(row, expected, atol=1e-6)
    # the table is saved as sentence-transformers does
    (table,) = model.rglob("query_0_SparseStaticEmbedding/model.safetensors")
    assert torch.equal(load_file(table)["weight"], weights)


def test_the_query_weights_have_their_own_learning_rate(place: Path, tmp_path: Path) -> None:
    moved = []
    for rate in (None, 0.5):
        student = make(place)
        options = replace(OPTIONS, learning_rate=1e-5, head_learning_rate=rate, warmup=0)
        train(make_collection(), place / "scores", student, LOSS, tmp_path / f"{rate}", options)
        moved.append(float((query_weights(student) - 1).abs().max()))
    assert moved[0] < 1e-4 and moved[1] > 0.3


def test_a_training_that_stops_ends_with_the_same_bytes(place: Path, tmp_path: Path) -> None:
    def learn(out: Path) -> None:
        student = make(place, activation="log1p_relu")
        train(make_collection(), place / "scores", student, LOSS, out, EVERYTHING)

    learn(tmp_path / "whole")
    with stopped_before(3):
        learn(tmp_path / "out")
    learn(tmp_path / "out")
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    options = json.loads((tmp_path / "out/training.json").read_text())["identity"]["options"]
    assert options["idf_start"] and options["idf_penalty"] and options["document_above"] == 4


def test_options_that_are_off_are_in_no_identity() -> None:
    names = {"idf_start", "idf_penalty", "document_above"}
    assert not names & OPTIONS.identity().keys()
    assert not names & replace(OPTIONS, document_flops=0.1).identity().keys()
    assert names <= EVERYTHING.identity().keys()


def test_what_does_not_fit_is_refused(place: Path, tmp_path: Path) -> None:
    for options in ({"idf_penalty": True}, {"document_above": 4, "query_l1": 0.1}):
        with pytest.raises(OptionError, match="without a penalty on documents"):
            replace(OPTIONS, **options)
    with pytest.raises(OptionError, match="without query weights"):
        train(
            make_collection(),
            place / "scores",
            make(place, inference_free=False),
            LOSS,
            tmp_path / "out",
            replace(OPTIONS, idf_start=True),
        )
    with pytest.raises(OptionError, match="Build it with inference_free=True"):
        make(place, inference_free=False).set_query_weights(np.ones(45, np.float32))


def test_several_teachers_are_mixed_for_an_inference_free_student(
    place: Path, tmp_path: Path
) -> None:
    """KL from two runs, fused as lists are drawn, or against each run."""
    collection = make_collection()
    make_run(tmp_path / "other", collection, shift=1.0)
    runs = [place / "scores", tmp_path / "other"]
    for mix in ("minmax", "none"):
        options = replace(EVERYTHING, mix=mix, steps=2)
        student = make(place)
        train(collection, runs, student, "KL(teacher_tau=0.5)", tmp_path / mix, options)
        assert not torch.allclose(query_weights(student), torch.ones(45))
