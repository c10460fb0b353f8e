"""The kernel student: pooling by hand and in plain loops, masks, gradients, embeddings, saving."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel

from irdistill.errors import IrdistillError
from irdistill.students.dense_student import DenseStudent
from irdistill.students.kernel_student import MU, SIGMA, KernelStudent, kernel_features
from tests.students.tiny import tiny_backbone

TEXTS = ["the cat sat", "a big dog and a small bird in the air flow", "heat", "shock wave " * 9]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone(tmp_path_factory.mktemp("bert"))


@pytest.fixture()
def student(bert: Path) -> KernelStudent:
    return KernelStudent(str(bert), device="cpu")


def test_kernel_pooling_by_hand() -> None:
    """One query term whose cosines to the two terms of a document are 1 and 0.5.

    The kernel at 0.9 holds exp(-0.1² / 0.02) + exp(-0.4² / 0.02) = exp(-0.5) + exp(-8) matches, and
    so on.
    """
    result = kernel_features(
        torch.tensor([[[1.0, 0.5]]], dtype=torch.float64),
        torch.ones(1, 1).bool(),
        torch.ones(1, 2).bool(),
    )
    counts = [
        1 + math.exp(-12.5),
        math.exp(-0.5) + math.exp(-8),
        math.exp(-4.5) + math.exp(-2),
        1 + math.exp(-12.5),
        math.exp(-2) + math.exp(-24.5),
        math.exp(-8) + math.exp(-40.5),
        math.exp(-18) + math.exp(-60.5),
        math.exp(-32),
        math.exp(-50),
        math.exp(-72),
        math.exp(-98),
    ]
    expected = torch.tensor(
        [
            [
                0.000005,
                -0.720550,
                -2.771576,
                0.000005,
                -2.885390,
                -11.541560,
                -25.968511,
                *[math.log2(1e-10)] * 4,
                *(count / 2 for count in counts),
            ]
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)
    assert len(MU) == 11 and (MU[0], MU[-1], SIGMA) == (1.0, -0.9, 0.1)


def test_kernel_pooling_in_plain_loops() -> None:
    generator = torch.Generator().manual_seed(5)
    cosines = torch.rand(3, 4, 6, generator=generator, dtype=torch.float64) * 2 - 1
    queries, documents = [4, 2, 1], [6, 1, 3]
    masks = [
        torch.arange(width) < torch.tensor(lengths).unsqueeze(1)
        for width, lengths in ((4, queries), (6, documents))
    ]
    result = kernel_features(cosines, *masks)
    for pair in range(3):
        for number, mu in enumerate(MU):
            logarithms = parts = 0.0
            for i in range(queries[pair]):
                count = sum(
                    math.exp(-((float(cosines[pair, i, j]) - mu) ** 2) / (2 * 0.01))
                    for j in range(documents[pair])
                )
                logarithms += math.log2(max(count, 1e-10))
                parts += count / documents[pair]
            assert math.isclose(float(result[pair, number]), logarithms, abs_tol=1e-9)
            assert math.isclose(float(result[pair, 11 + number]), parts, abs_tol=1e-9)


def test_gradients_of_kernel_pooling() -> None:
    cosines = (
        torch.rand(2, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    ).requires_grad_()
    query_mask, document_mask = (
        torch.tensor([[True, True], [True, False]]),
        torch.tensor([[True] * 3, [True, True, False]]),
    )
    # only the lengths' half, and logarithms above the least count, have gradients that finite
    # differences can see
    assert torch.autograd.gradcheck(
        lambda x: kernel_features(x, query_mask, document_mask)[:, 11:], (cosines,)
    )
    assert torch.autograd.gradcheck(
        lambda x: kernel_features(x * 0.1 + 0.3, query_mask, document_mask)[:, 3:6], (cosines,)
    )
    result = torch.autograd.grad(
        kernel_features(cosines, query_mask, document_mask).sum(), cosines
    )[0]
    assert (result[1, 1] == 0).all() and (result[1, :, 2] == 0).all() and (result[0] != 0).all()


def test_the_score_is_linear_in_the_features_of_mixed_states(student: KernelStudent) -> None:
    """With alpha at 1 there is no context: cosines are those of the words, centred and scaled as
    they were.
    """
    table = AutoModel.from_pretrained(student.source).get_input_embeddings().weight.detach()
    words = table - table.mean(dim=0)
    torch.testing.assert_close(
        student.model[0].embeddings.weight.square().mean(), torch.tensor(1.0)
    )
    with torch.no_grad():
        student.model[1].alpha.fill_(1.0)
    states = [student.encode(TEXTS[:2], kind, "float32") for kind in ("query", "document")]
    ids = student.tokenize(TEXTS[:2], "document")["input_ids"]
    assert ids == [
        student.model[0].tokenizer.convert_tokens_to_ids(text.split()) for text in TEXTS[:2]
    ]
    expected = []
    for document in ids:
        query, other = F.normalize(words[ids[0]], dim=1), F.normalize(words[document], dim=1)
        torch.testing.assert_close(states[1][ids.index(document)], other)
        there = [torch.ones(1, len(terms)).bool() for terms in (query, other)]
        features = kernel_features((query @ other.T).unsqueeze(0), *there)
        expected.append(float((features @ student.model[2].weights.weight.T).detach()))
    np.testing.assert_allclose(
        student.compare(states[0][0], states[1], "float32"), expected, atol=1e-5
    )
    with torch.no_grad():
        student.model[1].alpha.fill_(0.5)
    mixed = student.encode(TEXTS[:1], "query", "float32")[0]
    assert not torch.allclose(mixed, states[0][0], atol=1e-2)
    torch.testing.assert_close(mixed.norm(dim=1), torch.ones(3))


def test_padding_and_company_do_not_change_scores(student: KernelStudent) -> None:
    queries = student.embed(student.tokenize(TEXTS[:2], "query"), "query")
    documents = student.embed(student.tokenize(TEXTS, "document"), "document")
    lists, every = student.scores(queries, documents, torch.tensor([[3, 0, 3], [2, 1, -1]]))
    for i, query in enumerate(TEXTS[:2]):
        for j, text in enumerate(TEXTS):
            alone = student.compare(
                student.encode([query], "query", "float32")[0],
                student.encode([text], "document", "float32"),
                "float32",
            )
            torch.testing.assert_close(
                every[i, j].detach(), torch.tensor(alone[0]), atol=1e-5, rtol=1e-5
            )
    assert torch.equal(lists[0], every[0, [3, 0, 3]])
    apart, none = student.scores(
        queries, documents, torch.tensor([[3, 0, 3], [2, 1, -1]]), every=False
    )
    assert none is None
    torch.testing.assert_close(apart[:, :2], lists[:, :2], atol=1e-6, rtol=1e-6)
    features = student.pad(student.tokenize(TEXTS, "document"), "document")
    spoiled = {
        **features,
        "input_ids": torch.where(features["attention_mask"].bool(), features["input_ids"], 7),
    }
    for one, other in zip(documents, student.embed(spoiled, "document"), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_gradients_reach_everything_and_half_precision_stays_close(student: KernelStudent) -> None:
    student.model.train()
    queries, documents = (
        student.embed(student.tokenize(TEXTS, kind), kind) for kind in ("query", "document")
    )
    lists, every = student.scores(queries, documents, torch.arange(4).expand(4, 4))
    (every * torch.randn(4, 4, generator=torch.Generator().manual_seed(0))).sum().backward()
    for name, parameter in student.model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    with torch.autocast("cpu", dtype=torch.bfloat16):
        queries, documents = (
            student.embed(student.tokenize(TEXTS, kind), kind) for kind in ("query", "document")
        )
        rough, _ = student.scores(queries, documents, torch.arange(4).expand(4, 4))
    assert rough.dtype == torch.float32 and float(
        (rough - lists).detach().abs().max()
    ) < 0.1 * float(lists.detach().abs().max())


def test_saved_as_a_small_folder(student: KernelStudent, bert: Path, tmp_path: Path) -> None:
    shaped = KernelStudent(
        str(bert), layers=1, dimension=20, max_length=9, max_query_length=4, device="cpu"
    )
    shaped.save(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "irdistill_student.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert json.loads((tmp_path / "model" / "irdistill_student.json").read_text()) == {
        "kind": "kernel",
        "dimension": 20,
        "layers": 1,
        "max_query_length": 4,
        "max_document_length": 9,
    }
    again = KernelStudent.load(tmp_path / "model", device="cpu")
    assert again.identity() == shaped.identity() | {
        "model": str(tmp_path / "model"),
        "revision": again.revision,
    }
    assert [
        len(again.tokenize([TEXTS[3]], kind)["input_ids"][0]) for kind in ("query", "document")
    ] == [4, 9]
    assert (
        again.size()["query_layers"] == 1
        and again.model[1].layers.layers[0].self_attn.num_heads == 10
    )
    with pytest.raises(IrdistillError, match="holds a kernel student, which can only rerank"):
        DenseStudent.load(tmp_path / "model")
    with pytest.raises(IrdistillError, match="no saved kernel student"):
        KernelStudent.load(bert)
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(IrdistillError, match=r"model\.safetensors, were expected"):
        KernelStudent.load(tmp_path / "model")


def test_nonsense_is_refused_and_nothing_has_no_tokens(student: KernelStudent, bert: Path) -> None:
    for name in ("layers", "dimension", "max_length"):
        with pytest.raises(IrdistillError, match=f"{name}=0 (is not allowed|was given)"):
            KernelStudent(str(bert), device="cpu", **{name: 0})
    assert student.tokenize([""], "query")["input_ids"] == [[]]
    assert [len(states) for states in student.encode(["", "cat dog"], "document")] == [0, 2]
