"""What is saved loads as the same model, or is refused and leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import (
    CrossEncoder,
    MultiVectorEncoder,
    SentenceTransformer,
    SparseEncoder,
)
from transformers import AutoTokenizer

from irdistill import IrdistillError
from irdistill.students import build_student
from irdistill.students.build import STUDENTS
from irdistill.students.dense_student import DenseStudent
from irdistill.students.student_base import Student
from irdistill.students.term_vectors import TermVectors
from irdistill.students.towers import copy_tower, two_towers
from irdistill.training.pretraining import pretrain
from irdistill.training.pretraining_options import PretrainOptions
from tests.students.tiny import tiny_backbone
from tests.teachers.tiny import tiny_cross_encoder
from tests.training.tiny import make_collection

TEXTS = ["The CAT sat", "the cat sat", "A Dog"]
KINDS = ["dense", "sparse", "late-interaction", "cross-encoder", "split-cross-encoder", "kernel"]


def lower_cased(folder: Path) -> Path:
    """A backbone whose tokenizer keeps case, and whose folder asks sentence-transformers for lower
    case.
    """
    SentenceTransformer(
        str(tiny_backbone(folder.with_name(folder.name + "-plain"), layers=2)), device="cpu"
    ).save(str(folder))
    for file, key in (
        ("tokenizer_config.json", "do_lower_case"),
        ("sentence_bert_config.json", "do_lower_case"),
    ):
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | {key: file.startswith("sentence")}))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def tokens(student: Student, kind: Any) -> list[list[int]]:
    texts: Any = TEXTS if kind != "pair" else [(TEXTS[0], text) for text in TEXTS]
    return student.tokenize(texts, kind)["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_lower_case_over_a_cased_tokenizer_is_kept(tmp_path: Path, kind: str) -> None:
    """In every kind, saved twice, and for whoever opens the tokenizer with transformers alone."""
    student = build_student(kind, str(lower_cased(tmp_path / "model")), device="cpu")
    before = {side: tokens(student, side) for side in student.sides}
    for side in student.sides:
        assert (
            student._first(side).tokenizer("The CAT")["input_ids"]
            == student._first(side).tokenizer("the cat")["input_ids"]
        )
    for place in (tmp_path / "one", tmp_path / "two"):
        student.save(place)
        student = STUDENTS[kind].load(str(place), device="cpu")
        assert {side: tokens(student, side) for side in student.sides} == before
    plain = AutoTokenizer.from_pretrained(tmp_path / "two")
    assert plain("The CAT")["input_ids"] == plain("the cat")["input_ids"]


@pytest.mark.parametrize(
    ("kind", "library"),
    [
        ("dense", SentenceTransformer),
        ("sparse", SparseEncoder),
        ("late-interaction", MultiVectorEncoder),
    ],
)
def test_lower_case_in_two_towers_and_in_sentence_transformers(
    tmp_path: Path, kind: str, library: Any
) -> None:
    student = build_student(
        kind, str(lower_cased(tmp_path / "model")), freeze_documents=True, device="cpu"
    )
    student.save(tmp_path / "saved")
    for encode in ("encode_query", "encode_document"):
        here, there = getattr(library(str(tmp_path / "saved"), device="cpu"), encode)(TEXTS[:2])
        dense = [
            torch.as_tensor(value.to_dense() if getattr(value, "is_sparse", False) else value)
            for value in (here, there)
        ]
        assert torch.allclose(dense[0], dense[1], atol=1e-6)


def test_lower_case_with_term_vectors_adapters_and_pretraining(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = lower_cased(tmp_path / "model")
    base = DenseStudent(str(folder), device="cpu")
    words = TermVectors(base._first("query").tokenizer, ["cat"], torch.ones(1, 32))
    student = DenseStudent.from_model(
        two_towers(base.model, [*copy_tower(base.model, None), words])
    )
    student.save(tmp_path / "terms")
    loaded = DenseStudent.load(str(tmp_path / "terms"), device="cpu")
    one, two = loaded.encode(TEXTS[:2], "query", "float32", show_progress=False)
    np.testing.assert_array_equal(one, two)
    for merge in (True, False):
        adapted = build_student("dense", str(folder), lora_rank=2, lora_merge=merge, device="cpu")
        adapted.save(tmp_path / f"lora-{merge}")
        assert tokens(
            DenseStudent.load(str(tmp_path / f"lora-{merge}"), device="cpu"), "query"
        ) == tokens(adapted, "query")
    saved = pretrain(
        make_collection(), str(folder), tmp_path / "pre", PretrainOptions(steps=0, max_length=32)
    )
    plain = AutoTokenizer.from_pretrained(saved)
    assert plain("The CAT")["input_ids"] == plain("the cat")["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_would_load_as_another_model_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    student = build_student(kind, str(tiny_backbone(tmp_path / "model", layers=2)), device="cpu")
    write = type(student)._write

    def damaged(self: Student, folder: Path) -> None:
        write(self, folder)
        content = json.loads((folder / "tokenizer.json").read_text())
        content["normalizer"]["lowercase"] = False
        (folder / "tokenizer.json").write_text(json.dumps(content))
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(config | {"do_lower_case": False}))

    monkeypatch.setattr(type(student), "_write", damaged)
    with pytest.raises(
        IrdistillError,
        match=r"cannot be saved without changing it.*'The CAT, and a Dog.* other tokens",
    ):
        student.save(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(IrdistillError, match="cannot be saved"):
        student.save(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]
    monkeypatch.undo()
    student.save(tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("weights", "numbers differ by up to"),
        ("prompts", "the query prompt is"),
        ("length", "the query length is 9"),
        ("pooling", "numbers differ"),
        ("similarity", "similarity is 'dot' instead of 'cosine'"),
        ("config", "does not load again"),
    ],
)
def test_each_setting_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, message: str
) -> None:
    student = build_student(
        "dense",
        str(tiny_backbone(tmp_path / "model", layers=2)),
        query_prompt="what ",
        max_length=20,
        device="cpu",
    )
    write = DenseStudent._write

    def damaged(self: Student, folder: Path) -> None:
        write(self, folder)
        changes = {
            "prompts": ("config_sentence_transformers.json", {"prompts": {}}),
            "length": ("tokenizer_config.json", {"model_max_length": 9}),
            "pooling": ("1_Pooling/config.json", {"pooling_mode": "cls"}),
            "similarity": ("config_sentence_transformers.json", {"similarity_fn_name": "dot"}),
            "config": ("config.json", {"num_hidden_layers": 3}),
        }
        if setting == "weights":
            with torch.no_grad():
                weight = self._first("query").model.encoder.layer[0].output.dense.weight
                weight.mul_(2.0)
                write(self, folder)
                weight.mul_(0.5)
            return
        file, values = changes[setting]
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | values))

    monkeypatch.setattr(DenseStudent, "_write", damaged)
    with pytest.raises(IrdistillError, match=message):
        student.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def prompted(folder: Path, **prompts: Any) -> Path:
    CrossEncoder(str(tiny_cross_encoder(folder.with_name("plain"))), device="cpu", **prompts).save(
        str(folder)
    )
    return folder


def test_a_cross_encoder_goes_on_with_its_saved_prompt(tmp_path: Path) -> None:
    """Its logits are those of ``CrossEncoder.predict`` before and after saving, and the prompt is
    in the saved folder.
    """
    folder = prompted(
        tmp_path / "model",
        prompts={"ask": "what is the ", "other": "no "},
        default_prompt_name="ask",
    )
    pairs = [("cat", "the cat sat"), ("dog in rain", "heat shock wave " * 9), ("bird", "red bird")]
    student = build_student("cross-encoder", str(folder), device="cpu")
    expected = CrossEncoder(str(folder), device="cpu").predict(
        pairs, activation_fn=torch.nn.Identity()
    )
    without = CrossEncoder(str(folder), device="cpu").predict(
        pairs, activation_fn=torch.nn.Identity(), prompt=""
    )
    assert np.abs(expected - without).max() > 0.01
    for _ in range(2):
        features = student.tokenize(pairs, "pair")  # type: ignore[arg-type]
        with torch.no_grad():
            trained = torch.cat(
                [student.embed(student.pad(features, "pair", [row]), "pair") for row in range(3)]
            )
        np.testing.assert_allclose(trained, expected, atol=1e-5)
        np.testing.assert_allclose(student.predict(pairs), expected, atol=1e-5)  # type: ignore[attr-defined]
        assert student.identity()["prompts"] == {"pair": "what is the "}
        student.save(tmp_path / "saved")
        student = STUDENTS["cross-encoder"].load(str(tmp_path / "saved"), device="cpu")
    saved = json.loads((tmp_path / "saved" / "config_sentence_transformers.json").read_text())
    assert saved["default_prompt_name"] == "ask" and saved["prompts"] == {
        "ask": "what is the ",
        "other": "no ",
    }


@pytest.mark.parametrize(
    ("prompts", "name"),
    [
        ({"query": "what is ", "document": "the "}, None),
        ({"query": "what is ", "passage": "the "}, None),
        ({"all": "big "}, "all"),
        ({"query": "", "document": "", "all": "big "}, "all"),
        ({"corpus": "red "}, None),
        ({"query": "how "}, "query"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "library"),
    [
        ("dense", SentenceTransformer),
        ("sparse", SparseEncoder),
        ("late-interaction", MultiVectorEncoder),
    ],
)
def test_prompts_of_encoders_are_those_of_sentence_transformers(
    tmp_path: Path, kind: str, library: Any, prompts: dict[str, str], name: str | None
) -> None:
    """By name, by default, empty or under another name; before and after saving."""
    student = build_student(kind, str(tiny_backbone(tmp_path / "model", layers=2)), device="cpu")
    student.save(tmp_path / "plain")
    peer = library(str(tmp_path / "plain"), device="cpu", prompts=prompts, default_prompt_name=name)
    peer.save(str(tmp_path / "prompted"))
    student = STUDENTS[kind].load(str(tmp_path / "prompted"), device="cpu")
    student.save(tmp_path / "again")
    for opened in (student, STUDENTS[kind].load(str(tmp_path / "again"), device="cpu")):
        for side in ("query", "document"):
            encode = peer.encode_query if side == "query" else peer.encode_document
            here = opened.search_vectors(TEXTS, side, "float32")
            options = {
                "sparse": {"convert_to_tensor": True},
                "dense": {"normalize_embeddings": opened.similarity == "cosine"},
            }
            there = encode(TEXTS, **options.get(kind, {}))
            if kind == "sparse":
                here, there = here.toarray(), there.to_dense().numpy()
            for one, two in zip(here, there, strict=True):
                np.testing.assert_allclose(one, np.asarray(two), atol=1e-5)


@pytest.mark.parametrize("kind", ["split-cross-encoder", "kernel"])
def test_a_saved_reranker_of_our_own_goes_on_with_its_head(tmp_path: Path, kind: str) -> None:
    """A second training begins where the first one ended, not with a head of random weights."""
    first = build_student(
        kind,
        str(tiny_backbone(tmp_path / "backbone", layers=3)),
        dimension=8,
        max_query_length=9,
        device="cpu",
    )
    with torch.no_grad():
        for parameter in first.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    first.save(tmp_path / "saved")
    settings: dict[str, Any] = {
        "dimension": 8,
        "max_query_length": 9,
        "layers": 3 if kind.startswith("split") else 2,
    }
    for inputs in ({}, settings):
        again = build_student(kind, str(tmp_path / "saved"), device="cpu", seed=5, **inputs)
        assert all(
            torch.equal(value, again.model.state_dict()[key])
            for key, value in first.model.state_dict().items()
        )
    for name, value in (
        ("dimension", 16),
        ("max_query_length", 12),
        ("layers", 1),
        ("max_length", 20),
    ):
        with pytest.raises(
            IrdistillError,
            match=f"{name}={value} was given, but the backbone .* is a saved {kind} student",
        ):
            build_student(kind, str(tmp_path / "saved"), device="cpu", **{name: value})
