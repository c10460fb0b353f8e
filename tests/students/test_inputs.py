"""Padding and positions: a text's result is the same in any batch, and no text is longer than its
model's positions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from irdistill.collections import Query
from irdistill.errors import IrdistillError
from irdistill.modeling.padding import TOKENLESS, pad_rows, pad_texts
from irdistill.students import build_student, load_student
from irdistill.students.inputs import ensure_padding_token, position_limit, unused_token
from irdistill.students.student_base import Student
from irdistill.teachers import (
    CrossEncoderTeacher,
    LateInteractionTeacher,
    SparseRetrieverTeacher,
    TextPair,
    score_pairs,
)
from irdistill.training.data.collate import CachedTokenizer
from irdistill.training.objectives.encode import Encoder
from tests.teachers.families import tiny_decoder, tiny_roberta

TEXTS = ["cat", "the dog sat on the mat and the bird what", "fish heart lung", "a"]
PAIRS = [("what is rain", text) for text in TEXTS]
LONG = "cat dog " * 400
FAMILIES = ("gpt2", "llama")


def one_by_one(student: Student, texts: list[Any], kind: Any) -> list[Any]:
    return [
        student.join([student.embed(student.tokenize([text], kind), kind)], torch.tensor([0]))[0]
        for text in texts
    ]


def together(student: Student, texts: list[Any], kind: Any) -> list[Any]:
    return list(
        student.join([student.embed(student.tokenize(texts, kind), kind)], torch.arange(len(texts)))
    )


def trained(student: Student, texts: list[Any], kind: Any) -> list[Any]:
    """As the training loop pads them."""
    tokens = CachedTokenizer(student, kind, lambda numbers: [texts[number] for number in numbers])(
        range(len(texts))
    )
    return list(Encoder(student, torch.float32, token_budget=1024)(tokens, kind))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["dense", "late-interaction", "cross-encoder", "kernel"])
@torch.no_grad()
def test_without_a_padding_token_a_batch_gives_what_single_texts_give(
    kind: str, family: str, side: str, tmp_path: Path
) -> None:
    folder = tiny_decoder(tmp_path / "model", family, classifier=kind == "cross-encoder")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = side
    tokenizer.save_pretrained(folder)
    student = build_student(
        kind, str(folder), device="cpu", **({"pooling": "lasttoken"} if kind == "dense" else {})
    )
    texts, part = (PAIRS, "pair") if kind == "cross-encoder" else (TEXTS, "document")
    expected = one_by_one(student, texts, part)
    for way in (together, trained):
        for one, other in zip(expected, way(student, texts, part), strict=True):
            assert one.shape == other.shape and torch.allclose(one, other, atol=1e-4), way.__name__


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_saved_student_pads_alike_in_sentence_transformers(family: str, tmp_path: Path) -> None:
    student = build_student(
        "dense", str(tiny_decoder(tmp_path / "model", family)), device="cpu", pooling="lasttoken"
    )
    student.save(tmp_path / "saved")
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS)
    assert np.allclose(
        plain, torch.stack(one_by_one(student, TEXTS, "document")).numpy(), atol=1e-4
    )
    reranker = build_student(
        "cross-encoder", str(tiny_decoder(tmp_path / "reranker", family, True)), device="cpu"
    )
    reranker.save(tmp_path / "saved-reranker")
    scores = CrossEncoder(str(tmp_path / "saved-reranker"), device="cpu").predict(PAIRS)
    assert np.allclose(scores, torch.stack(one_by_one(reranker, PAIRS, "pair")).numpy(), atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_without_a_padding_token_teaches(family: str, tmp_path: Path) -> None:
    folder = tiny_decoder(tmp_path / "model", family, classifier=True)
    teacher = CrossEncoderTeacher(str(folder), precision="float32", device="cpu")
    pairs = [TextPair(Query("q", query), row, text) for row, (query, text) in enumerate(PAIRS)]
    # the end of a text may be the token that pads elsewhere
    pairs.append(TextPair(Query("q", "cat"), 9, "dog <|endoftext|>"))
    batch = score_pairs(teacher, pairs)[0].values
    single = np.concatenate([score_pairs(teacher, [pair])[0].values for pair in pairs])
    assert np.allclose(batch, single, atol=1e-4) and len(set(np.round(batch, 3))) == len(batch)
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        plain = [
            network(**tokenizer(pair.query.text, pair.text, return_tensors="pt")).logits.item()
            for pair in pairs
        ]
    assert np.allclose(batch, plain, atol=1e-4)
    with pytest.raises(IrdistillError, match="no padding token, which openvino needs"):
        CrossEncoderTeacher(str(folder), backend="openvino", device="cpu")


def test_a_late_interaction_teacher_without_a_padding_token(tmp_path: Path) -> None:
    build_student("late-interaction", str(tiny_decoder(tmp_path / "model")), device="cpu").save(
        tmp_path / "saved"
    )
    teacher = LateInteractionTeacher(str(tmp_path / "saved"), precision="float32", device="cpu")
    for one, text in zip(teacher.encode(TEXTS, "document"), TEXTS, strict=True):
        assert torch.allclose(one, teacher.encode([text], "document")[0], atol=1e-4)


def test_a_tokenizer_without_special_tokens_is_refused_in_words(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_decoder(tmp_path / "model"))
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(IrdistillError, match="no padding token, and no special token"):
        ensure_padding_token(bare, "model")


def test_padding_by_hand() -> None:
    assert unused_token([[0, 1], [3]]) == 2 and unused_token([[1]]) == 0
    rows = [
        {"input_ids": [5, 6], "attention_mask": [1, 1]},
        {"input_ids": [7], "attention_mask": [1]},
    ]
    padded = pad_rows(rows, {"input_ids": 9})
    assert padded["input_ids"].tolist() == [[5, 6], [7, 9]]
    assert padded["attention_mask"].tolist() == [[1, 1], [1, 0]]
    decoder = pad_rows(rows, {"input_ids": 9}, left=True)
    assert decoder["input_ids"].tolist() == [[5, 6], [9, 7]]
    assert decoder["attention_mask"].tolist() == [[1, 1], [0, 1]]


def test_a_text_without_tokens_gets_a_padding_token() -> None:
    padded = pad_texts([{"input_ids": [5, 6]}, {"input_ids": []}], {"input_ids": 9})
    assert padded["input_ids"].tolist() == [[5, 6], [9, 9]]
    assert padded["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert padded[TOKENLESS].tolist() == [False, True]
    assert TOKENLESS not in pad_texts([{"input_ids": [5]}], {})


@pytest.mark.parametrize(
    "kind",
    ["dense", "sparse", "late-interaction", "cross-encoder", "split-cross-encoder", "kernel"],
)
@torch.no_grad()
def test_positions_behind_the_padding_token_are_not_exceeded(kind: str, tmp_path: Path) -> None:
    folder = tiny_roberta(
        tmp_path / "model", {"cross-encoder": "classifier", "sparse": "masked"}.get(kind, "")
    )
    student = build_student(kind, str(folder), device="cpu")
    for side in student.sides:
        text: Any = (LONG, LONG) if side == "pair" else LONG
        tokens = student.tokenize([text], side)
        assert (
            len(tokens["input_ids"][0]) <= 200
            if kind == "kernel"
            else len(tokens["input_ids"][0]) <= 64
        )
        student.embed(tokens, side)
    student.save(tmp_path / "saved")
    if kind == "dense":  # what an export writes beside its network
        assert SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode([LONG]).shape == (
            1,
            32,
        )
    if kind in ("dense", "sparse", "late-interaction"):
        assert load_student(tmp_path / "saved", device="cpu").max_length("document") == 64
        with pytest.raises(
            IrdistillError, match="max_length=65 was given; this backbone takes 3 to 64 tokens"
        ):
            build_student(kind, str(folder), device="cpu", max_length=65)
    if kind == "late-interaction":
        with pytest.raises(
            IrdistillError, match="expand_queries=65 was given; this backbone takes 3 to 64"
        ):
            build_student(kind, str(folder), device="cpu", expand_queries=65)


@pytest.mark.parametrize(
    ("kind", "teacher"),
    [("sparse", SparseRetrieverTeacher), ("late-interaction", LateInteractionTeacher)],
)
def test_teachers_honor_positions(kind: str, teacher: Any, tmp_path: Path) -> None:
    folder = tiny_roberta(tmp_path / "model", "masked" if kind == "sparse" else "")
    student = build_student(kind, str(folder), device="cpu")
    student.save(tmp_path / "saved")
    for path in (tmp_path / "saved").glob("*.json"):
        path.write_text(
            path.read_text().replace('"model_max_length": 64', '"model_max_length": 100000')
        )
    made = teacher(str(tmp_path / "saved"), precision="float32", device="cpu")
    assert made.identity["max_length"] == 64
    made.score([TextPair(Query("q", LONG), 0, LONG)])


def test_the_limit_of_tables_and_configs(tmp_path: Path) -> None:
    assert position_limit(AutoModel.from_pretrained(tiny_roberta(tmp_path / "roberta"))) == 64
    assert position_limit(AutoModel.from_pretrained(tiny_decoder(tmp_path / "gpt2"))) == 128
    assert (
        position_limit(AutoModel.from_pretrained(tiny_decoder(tmp_path / "llama", "llama"))) == 128
    )
