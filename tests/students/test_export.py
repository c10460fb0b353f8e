"""Exported folders give the vectors and scores of sentence-transformers, from texts on, in a process
without torch and irdistill; disagreement and parts that no network can hold are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize

from irdistill.errors import IrdistillError
from irdistill.students import build_student
from irdistill.students import exporting as module
from irdistill.students.dense_student import DenseStudent
from irdistill.students.exported_model import ExportedModel
from irdistill.students.exporting import (
    FORMATS,
    ExportAgreement,
    export_query_tower,
    export_student,
)
from irdistill.students.static_tower import summed_model
from irdistill.students.term_vectors import TermVectors
from irdistill.students.towers import copy_tower, two_towers
from irdistill.students.word_vectors import WordVectors
from tests.students.plain_library import run_without
from tests.students.tiny import WORDS, tiny_backbone
from tests.students.torch_networks import run_by_torch

pytest.importorskip("onnxruntime", reason="export needs the extra onnx")
pytest.importorskip("onnxscript", reason="export needs the extra onnx")
QUERIES = ["the cat", "heart", "a big dog sat in rain"]
DOCUMENTS = [" ".join(WORDS[at : at + 1 + at % 9]) for at in range(12)]
DOCUMENTS += ["heat, shock (wave) in the cell " * 9, "x"]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "one tower": ("dense", {}),
    "two towers": ("dense", {"query_layers": 1, "query_prompt": "what is ", "max_length": 12}),
    "static queries": ("dense", {"query_layers": 0}),
    "sparse": ("sparse", {}),
    "inference-free": ("sparse", {"inference_free": True}),
    "late interaction": ("late-interaction", {"expand_queries": 16}),
    "late interaction, two towers": ("late-interaction", {"query_layers": 1}),
    "cross-encoder": ("cross-encoder", {}),
    "similarity": ("cross-encoder", {"head": "similarity", "max_length": 24}),
}
ONE_NETWORK = ("one tower", "sparse", "late interaction", "cross-encoder", "similarity")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_backbone(tmp_path_factory.mktemp("backbone"), layers=1))


def with_words(backbone: str, prompt: str | None = None) -> DenseStudent:
    """Towers that share a transformer, and words behind the query tower."""
    base = build_student("dense", backbone, device="cpu")
    model = SentenceTransformer(modules=[*base.model, Normalize()], device="cpu")
    weight = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    words = WordVectors(model.tokenizer, [["cat", "cats"], ["heart"], ["big"]], weight)
    return DenseStudent.from_model(two_towers(model, [*model, words, Normalize()], prompt))


def with_tokens(backbone: str) -> DenseStudent:
    """A tower of one layer with token vectors beside it."""
    student = build_student("dense", backbone, device="cpu", query_layers=1)
    assert isinstance(student, DenseStudent)
    weight = np.random.default_rng(1).normal(size=(len(student._first("query").tokenizer), 32))
    return DenseStudent.from_model(summed_model(student, weight.astype(np.float32)))


def student_of(case: str, backbone: str) -> Any:
    if case in CASES:
        kind, options = CASES[case]
        return build_student(kind, backbone, device="cpu", **options)
    if case == "tokens":
        return with_tokens(backbone)
    return with_words(backbone, "small " if "prompt" in case else None)


@pytest.mark.parametrize("case", [*CASES, "words", "words and a prompt", "tokens"])
def test_exported_folders_agree(
    case: str, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts are read as by sentence-transformers; torch runs the networks that are exported."""
    run_by_torch(monkeypatch)
    student = student_of(case, backbone)
    result = export_student(student, tmp_path / "out", "onnx", QUERIES, DOCUMENTS)
    assert result.pairs == 42 and result.difference <= 1e-5 and result.vector_difference <= 1e-5
    assert result.tau > 0.999
    shared = case in ("one tower", "sparse", "late interaction") or case.startswith("words")
    names = {"text"} if shared else {"query", "document"}
    names = {"pair"} if student.kind == "cross-encoder" else names
    assert {path.parent.name for path in (tmp_path / "out").rglob("*.onnx")} == names
    assert not list((tmp_path / "out").rglob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("case", [*ONE_NETWORK, "static queries", "inference-free", "tokens"])
def test_networks_in_onnx_runtime(case: str, backbone: str, tmp_path: Path) -> None:
    """Every kind of network; of two towers that of the queries, which is of another kind than that
    of the documents.
    """
    student = student_of(case, backbone)
    if case in ONE_NETWORK:
        result = export_student(student, tmp_path / "out", "onnx", QUERIES, DOCUMENTS)
        assert result.difference <= 1e-5 and result.vector_difference <= 1e-5
    else:
        (tmp_path / "out").mkdir()
        export_query_tower(student, tmp_path / "out")
        vectors = ExportedModel(tmp_path / "out").encode_query([*QUERIES, *DOCUMENTS])
        plain = student.model.encode_query([*QUERIES, *DOCUMENTS], show_progress_bar=False)
        for one, two in zip(module._tensors(vectors), module._tensors(plain), strict=True):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    assert len(list((tmp_path / "out").rglob("*.onnx"))) == 1


@pytest.mark.slow
def test_a_folder_needs_neither_torch_nor_irdistill(backbone: str, tmp_path: Path) -> None:
    student = with_words(backbone)
    export_student(student, tmp_path / "out", "onnx", QUERIES, DOCUMENTS)
    with pytest.raises(IrdistillError, match="exists already"):
        export_student(student, tmp_path / "out", "onnx", QUERIES, DOCUMENTS)
    code = f"""
import numpy, sys
sys.path.insert(0, "out")
from encode import ExportedModel

model = ExportedModel()
numpy.save("queries.npy", model.encode_query({QUERIES!r}))
numpy.save("documents.npy", model.encode_document({DOCUMENTS!r}, batch_size=4))
"""
    blocked = ("irdistill", "torch", "transformers", "sentence_transformers")
    run_without(code, tmp_path, blocked)
    np.testing.assert_allclose(
        np.load(tmp_path / "queries.npy"), student.model.encode_query(QUERIES), atol=1e-5
    )
    np.testing.assert_allclose(
        np.load(tmp_path / "documents.npy"), student.model.encode_document(DOCUMENTS), atol=1e-5
    )


@pytest.mark.slow
def test_a_cross_encoder_with_8_bit_weights(backbone: str, tmp_path: Path) -> None:
    """The figures are those of ONNX Runtime's logits: alike, and not the same."""
    student = build_student("cross-encoder", backbone, device="cpu")
    out = tmp_path / "out"
    result = export_student(student, out, "onnx-int8", QUERIES, DOCUMENTS, least_tau=0.5)
    assert result.file_bytes == (out / "pair" / "model_qint8.onnx").stat().st_size
    pairs = [(query, document) for query in QUERIES for document in DOCUMENTS]
    off = np.abs(ExportedModel(out).predict(pairs) - student.predict(pairs).numpy()).max()  # type: ignore[attr-defined]
    assert 1e-5 < result.difference < 0.1 and result.vector_difference == pytest.approx(
        result.difference, rel=1e-3
    )
    assert off == pytest.approx(result.difference, rel=1e-3) and 0.5 <= result.tau < 1


@pytest.mark.slow
def test_openvino(backbone: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    student = with_words(backbone)
    result = export_student(student, tmp_path / "out", "openvino", QUERIES, DOCUMENTS)
    assert result.difference <= 1e-4 and result.vector_difference <= 1e-4
    assert sorted(path.name for path in (tmp_path / "out" / "text").iterdir()) == [
        "openvino_model.bin",
        "openvino_model.xml",
        "tokenizer.json",
        "words.json",
    ]


def test_another_network_is_noticed(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If what is written computes something else, nothing is left."""
    monkeypatch.setattr(module, "_write_network", lambda *inputs: None)
    monkeypatch.setattr(
        "irdistill.students.exported_model.open_network",
        lambda path, inputs: lambda arrays: [np.sin(np.arange(32.0) * arrays["input_ids"][:, 1:2])],
    )
    student = build_student("dense", backbone, device="cpu")
    for form, message in (("onnx", "vectors or scores differ"), ("onnx-int8", "Kendall's tau")):
        with pytest.raises(IrdistillError, match=message):
            export_student(student, tmp_path / "out", form, QUERIES, DOCUMENTS)
        assert list(tmp_path.iterdir()) == []


def test_what_no_network_holds_is_refused_by_name(backbone: str, tmp_path: Path) -> None:
    """A folder without these parts would rank in another way."""
    base = build_student("dense", backbone, device="cpu")
    words = TermVectors(base._first("query").tokenizer, ["cat"], torch.ones(1, 32))
    student = DenseStudent.from_model(
        two_towers(base.model, [*copy_tower(base.model, None), words])
    )
    pooled = build_student("late-interaction", backbone, token_pooling=2, device="cpu")
    for one, name in ((student, "TermVectors"), (pooled, "HierarchicalTokenPooling")):
        with pytest.raises(IrdistillError, match=f"{name}, which no exported network can carry"):
            export_student(one, tmp_path / "out", "onnx", QUERIES, DOCUMENTS)
    pytest.importorskip("peft")
    adapted = build_student("dense", backbone, lora_rank=2, lora_merge=False, device="cpu")
    with pytest.raises(IrdistillError, match="holds adapters"):
        export_student(adapted, tmp_path / "out", "onnx", QUERIES, DOCUMENTS)
    assert not (tmp_path / "out").exists()


def test_figures_of_agreement(tmp_path: Path) -> None:
    (tmp_path / "irdistill_export.json").write_text("{}")
    one = np.array([[1.0, 2, 3], [4, 5, 8]])
    other = np.array([[1.0, 3, 2], [4, 5, 8]])
    result = module._agreement(one, other, 0.5, ExportedModel(tmp_path))
    # one of three pairs of the first query is turned round: tau 1/3; the difference of 1 is an
    # eighth of the largest score
    assert result == ExportAgreement(6, 0.125, pytest.approx((1 / 3 + 1) / 2), 0, 0.5)
    module._check(ExportAgreement(1, 1e-4, 1.0, 1, 1e-4), "onnx", 0.9)
    for wrong in ((1.1e-4, 0.0), (0.0, 1.1e-4)):
        with pytest.raises(IrdistillError, match="differ"):
            module._check(ExportAgreement(1, wrong[0], 1.0, 1, wrong[1]), "onnx", 0.9)
    with pytest.raises(IrdistillError, match=r"below 0\.9"):
        module._check(ExportAgreement(1, 0.0, 0.89, 1, 0.0), "onnx-int8", 0.9)


def test_what_is_refused(backbone: str, tmp_path: Path) -> None:
    student = build_student("dense", backbone, device="cpu")
    for kind, form, queries, message in (
        ("dense", "tflite", QUERIES, "one of onnx, onnx-int8, openvino"),
        ("kernel", "onnx", QUERIES, "dense, sparse, late-interaction, cross-encoder can"),
        ("dense", "onnx", [], "no texts"),
    ):
        chosen = student if kind == "dense" else build_student(kind, backbone, device="cpu")
        with pytest.raises(IrdistillError, match=message):
            export_student(chosen, tmp_path / "no", form, queries, DOCUMENTS)
    assert list(FORMATS) == ["onnx", "onnx-int8", "openvino"]
