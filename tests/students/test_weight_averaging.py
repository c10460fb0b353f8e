"""Averages of models: values by hand, the bytes of a model at weight 1, towers, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize

from irdistill.errors import IrdistillError
from irdistill.students import DenseStudent, build_student, load_student
from irdistill.students.student_base import Student
from irdistill.students.term_vectors import TermVectors
from irdistill.students.towers import copy_tower, two_towers
from irdistill.students.weight_averaging import average_students, check_weights, without_adapters
from tests.students.test_matrix import SETTINGS
from tests.training.tiny import make_backbone

TEXTS = ["w1 w2 w3", "w4 w5", "w6 w7 w8 w9"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_backbone(tmp_path_factory.mktemp("averaging") / "backbone"))


def changed(student: Student, seed: int = 1) -> Student:
    """The student after what could be a training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in student.train_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return student


def tensors(student: Student, kind: Any) -> dict[str, torch.Tensor]:
    return {
        f"{place}.{name}": value.detach()
        for place, module in enumerate(student.tower(kind))
        for name, value in module.named_parameters()
    }


def make(kind: str, backbone: str, **options: Any) -> Student:
    return build_student(kind, backbone, device="cpu", **SETTINGS.get(kind, {}) | options)


@pytest.mark.parametrize("kind", ["dense", "sparse", "late-interaction", "cross-encoder", "kernel"])
def test_each_weight_is_the_average(kind: str, backbone: str) -> None:
    first, second, third = (changed(make(kind, backbone), seed) for seed in (1, 2, 3))
    merged = average_students([first, second, third], [0.5, 0.2, 0.3])
    for side in first.sides:
        parts = [tensors(student, side) for student in (first, second, third)]
        for name, value in tensors(merged, side).items():
            a, b, c = (part[name].double() for part in parts)
            torch.testing.assert_close(value, (0.5 * a + 0.2 * b + 0.3 * c).float())
            assert not torch.equal(value, parts[0][name])
    assert first.weights_digest() == changed(make(kind, backbone), 1).weights_digest()


def test_the_average_by_hand(backbone: str) -> None:
    first, second = make("dense", backbone), make("dense", backbone)
    weights = [student.model[0].model.embeddings.LayerNorm.bias for student in (first, second)]
    with torch.no_grad():
        weights[0][:3], weights[1][:3] = torch.tensor([1, -2, 3]), torch.tensor([3, 2, 3])
    merged = average_students([first, second], [0.25, 0.75])
    result = merged.model[0].model.embeddings.LayerNorm.bias[:3]
    assert result.tolist() == [0.25 * 1 + 0.75 * 3, 0.25 * -2 + 0.75 * 2, 3]


def test_a_weight_of_one_gives_the_bytes_of_a_model(backbone: str) -> None:
    first, second = make("dense", backbone), changed(make("dense", backbone))
    with torch.no_grad():
        second.model[0].model.embeddings.LayerNorm.bias[:2] = torch.tensor([-0.0, torch.nan])
    for weights, same in (((1, 0), first), ((0, 1), second)):
        merged = average_students([first, second], weights)
        assert merged.weights_digest() == same.weights_digest()
    assert average_students([first, first], (0.3, 0.7)).weights_digest() == first.weights_digest()


@pytest.mark.parametrize("base_first", [True, False])
def test_a_trained_query_tower_is_merged_with_its_base_and_documents_stay(
    backbone: str, base_first: bool, tmp_path: Path
) -> None:
    base = make("dense", backbone)
    student = changed(make("dense", backbone, freeze_documents=True))
    models, weights = ([base, student], [0.4, 0.6]) if base_first else ([student, base], [0.6, 0.4])
    merged = average_students(models, weights)
    assert merged.weights_digest("document") == base.weights_digest("document")
    assert merged.document_identity() == base.document_identity()
    old, new = tensors(base, "query"), tensors(student, "query")
    for name, value in tensors(merged, "query").items():
        expected = 0.4 * old[name].double() + 0.6 * new[name].double()
        torch.testing.assert_close(value, expected.float())
    merged.save(tmp_path / "model")
    plain = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert isinstance(merged, DenseStudent)
    np.testing.assert_allclose(
        plain.encode_query(TEXTS), merged.encode(TEXTS, "query", "float32"), atol=1e-6
    )
    assert not load_student(tmp_path / "model").learns("document")


def with_words(backbone: str, words: list[str], seed: int) -> DenseStudent:
    model = SentenceTransformer(backbone, device="cpu")
    weight = torch.randn(len(words), 16, generator=torch.Generator().manual_seed(seed))
    tower: list[Any] = copy_tower(model, None)
    tower += [TermVectors(tower[0].tokenizer, words, weight), Normalize()]
    return DenseStudent.from_model(two_towers(model, tower))


def test_term_vectors_are_averaged_and_their_words_must_be_the_same(backbone: str) -> None:
    first, second = with_words(backbone, ["w1", "w2"], 1), with_words(backbone, ["w1", "w2"], 2)
    merged = average_students([first, second], [0.5, 0.5])
    weights: list[Any] = [student.tower("query")[2].weight for student in (first, second, merged)]
    torch.testing.assert_close(weights[2], (weights[0] + weights[1]) / 2)
    with pytest.raises(IrdistillError, match="vocabulary: other contents"):
        average_students([first, with_words(backbone, ["w1", "w3"], 2)], [0.5, 0.5])
    with pytest.raises(
        IrdistillError,
        match=r'modules\.query: "Transformer, Pooling, TermVectors, Normalize" there,'
        ' "Transformer, Pooling" here',
    ):
        average_students([first, make("dense", backbone)], [0.5, 0.5])


def test_what_differs_is_named(backbone: str, tmp_path: Path) -> None:
    base = make("dense", backbone)
    cases = [
        (make("dense", backbone, query_layers=1), "query.*num_hidden_layers: 2 there, 1 here"),
        (make("dense", backbone, query_prompt="q: "), 'prompts.query: "" there, "q: " here'),
        (make("dense", backbone, pooling="cls"), 'pooling_mode: "mean" there, "cls" here'),
        (make("dense", backbone, similarity="dot"), 'similarity: "cosine" there, "dot" here'),
        (make("sparse", backbone), 'kind: "dense" there, "sparse" here'),
    ]
    for other, message in cases:
        with pytest.raises(IrdistillError, match=f"more than their weights: .*{message}"):
            average_students([base, other], [0.5, 0.5])
    other = make("dense", backbone)
    other.model[0].tokenizer.add_tokens(["new"])
    with pytest.raises(IrdistillError, match=r"tokenizer\.document: other contents"):
        average_students([base, other], [0.5, 0.5])


def test_lengths_come_from_the_first_model(backbone: str) -> None:
    short, long = make("dense", backbone, max_length=8), make("dense", backbone, max_length=20)
    assert average_students([short, long], [0.5, 0.5]).max_length("query") == 8
    towers = make("dense", backbone, freeze_documents=True, max_query_length=5)
    assert average_students([long, towers], [0.5, 0.5]).max_length("query") == 5


def test_adapters_are_added_to_the_weights(backbone: str) -> None:
    pytest.importorskip("peft", reason="LoRA needs the extra lora")
    base = make("dense", backbone)
    plain = without_adapters(changed(make("dense", backbone, lora_rank=2)))
    merged = average_students([base, plain], [0.5, 0.5])
    for name, value in tensors(merged, "query").items():
        torch.testing.assert_close(
            value, (tensors(base, "query")[name] + tensors(plain, "query")[name]) / 2
        )
    assert plain.weights_digest() != base.weights_digest()


@pytest.mark.parametrize(
    ("weights", "count", "message"),
    [
        ([0.3, 0.3], 2, "0.3 0.3 have the sum 0.6; expected 1, such as 0.5 0.5"),
        ([1, 2, 1], 3, "are 1 2 1; numbers from 0 to 1 were expected"),
        ([-0.5, 1.5], 2, "are -0.5 1.5; numbers from 0 to 1"),
        ([float("nan"), 1], 2, "numbers from 0 to 1"),
        ([1], 2, "1 weights .1. were given for 2 models"),
        ([1], 1, "a merge needs two or more"),
    ],
)
def test_weights_that_mean_nothing_are_refused(
    weights: list[float], count: int, message: str
) -> None:
    with pytest.raises(IrdistillError, match=message):
        check_weights(weights, count)
