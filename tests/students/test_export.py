"""Exported students score as the student does, in the runtime they were exported to, and
disagreement is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from irdistill.errors import IrdistillError
from irdistill.students import build_student
from irdistill.students import exporting as module
from irdistill.students.dense_student import DenseStudent
from irdistill.students.exporting import FORMATS, ExportAgreement, export_student
from irdistill.students.student_base import Student
from irdistill.students.term_vectors import TermVectors
from irdistill.students.towers import copy_tower, two_towers
from tests.students.tiny import WORDS, tiny_backbone

onnxruntime = pytest.importorskip("onnxruntime", reason="export needs the extra onnx")
pytest.importorskip("onnxscript", reason="export needs the extra onnx")
QUERIES = ["the cat", "heart", "a big dog sat in rain"]
DOCUMENTS = [" ".join(WORDS[at : at + 1 + at % 9]) for at in range(12)]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_backbone(tmp_path_factory.mktemp("backbone"), layers=1))


def run(network: Path, student: Student, kind: Any, texts: list[Any]) -> np.ndarray:
    """What ONNX Runtime makes of texts, without sentence-transformers."""
    session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    features = student.pad(student.tokenize(texts, kind), kind)
    inputs = {value.name: features[value.name].numpy() for value in session.get_inputs()}
    return np.asarray(session.run(None, inputs)[0])


@pytest.mark.slow
def test_a_dense_student_with_two_towers(backbone: str, tmp_path: Path) -> None:
    """A network in the folder of each, whose token vectors have the mean that is the student's
    vector.
    """
    student = build_student("dense", backbone, freeze_documents=True, device="cpu")
    with torch.no_grad():
        for parameter in student.tower("query")[0].parameters():
            parameter.mul_(1.1)
    result = export_student(student, tmp_path / "out", "onnx", QUERIES, DOCUMENTS)
    assert result.pairs == 36 and result.difference <= 1e-5 and result.tau > 0.999
    for kind in ("query", "document"):
        folder = tmp_path / "out" / f"{kind}_0_Transformer" / "onnx"
        assert [path.name for path in folder.iterdir()] == ["model.onnx"]
        tokens = run(folder / "model.onnx", student, kind, DOCUMENTS)
        mask = student.pad(student.tokenize(DOCUMENTS, kind), kind)["attention_mask"].numpy()[
            :, :, None
        ]  # type: ignore[arg-type]
        mean = (tokens * mask).sum(axis=1) / mask.sum(axis=1)
        assert np.allclose(mean, student.encode(DOCUMENTS, kind, "float32"), atol=1e-4)  # type: ignore[attr-defined]
    saved = json.loads((tmp_path / "out" / "irdistill_export.json").read_text())
    assert saved["format"] == "onnx" and saved["agreement"]["pairs"] == 36
    with pytest.raises(IrdistillError, match="exists already"):
        export_student(student, tmp_path / "out", "onnx", QUERIES, DOCUMENTS)


@pytest.mark.slow
def test_a_cross_encoder_with_8_bit_weights(backbone: str, tmp_path: Path) -> None:
    """The figures are those of ONNX Runtime's own logits: alike, and not the same."""
    student = build_student("cross-encoder", backbone, device="cpu")
    result = export_student(
        student, tmp_path / "out", "onnx-int8", QUERIES, DOCUMENTS, least_tau=0.5
    )
    network = tmp_path / "out" / "onnx" / "model_qint8.onnx"
    assert (
        list(network.parent.iterdir()) == [network] and result.file_bytes == network.stat().st_size
    )
    pairs = [(query, document) for query in QUERIES for document in DOCUMENTS]
    off = np.abs(
        run(network, student, "pair", pairs).reshape(-1) - student.predict(pairs).numpy()
    ).max()  # type: ignore[attr-defined]
    assert (
        1e-5 < result.difference < 0.1 and 0.2 < off / result.difference < 5
    )  # the batches, and so the scales, are others
    assert 0.5 <= result.tau < 1


@pytest.mark.slow
def test_openvino(backbone: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    result = export_student(
        build_student("dense", backbone, device="cpu"),
        tmp_path / "out",
        "openvino",
        QUERIES,
        DOCUMENTS,
    )
    assert result.difference <= 1e-4
    assert sorted(path.name for path in (tmp_path / "out" / "openvino").iterdir()) == [
        "openvino_model.bin",
        "openvino_model.xml",
    ]


def test_another_network_is_found_out(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If what is written computes something else, nothing is left."""

    def wrong(module: Any, other: Any, *inputs: Any) -> int:
        inner = other.forward
        other.forward = lambda **features: {
            "last_hidden_state": inner(**features).last_hidden_state.flip(-1) ** 2
        }
        return 0

    monkeypatch.setattr(module, "_write", wrong)
    student = build_student("dense", backbone, device="cpu")
    for form, message in (("onnx", "scores differ"), ("onnx-int8", "Kendall's tau")):
        with pytest.raises(IrdistillError, match=message):
            export_student(student, tmp_path / "out", form, QUERIES, DOCUMENTS)
        assert list(tmp_path.iterdir()) == []


def test_term_vectors_and_adapters_are_refused_by_name(backbone: str, tmp_path: Path) -> None:
    """No network holds them; a folder without them would rank in another way."""
    base = build_student("dense", backbone, device="cpu")
    words = TermVectors(base._first("query").tokenizer, ["cat"], torch.ones(1, 32))
    student = DenseStudent.from_model(
        two_towers(base.model, [*copy_tower(base.model, None), words])
    )
    student.save(tmp_path / "terms")
    for one in (student, DenseStudent.load(str(tmp_path / "terms"), device="cpu")):
        with pytest.raises(
            IrdistillError, match="TermVectors, which no exported network can carry"
        ):
            export_student(one, tmp_path / "out", "onnx", QUERIES, DOCUMENTS)
    pytest.importorskip("peft")
    adapted = build_student("dense", backbone, lora_rank=2, lora_merge=False, device="cpu")
    with pytest.raises(IrdistillError, match="holds adapters"):
        export_student(adapted, tmp_path / "out", "onnx", QUERIES, DOCUMENTS)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_scores_are_compared_from_the_written_folder_on(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the folder lost would be missing on both sides, were the student in memory compared with
    itself; prompts and lengths are part of a whole text.
    """
    student = build_student("dense", backbone, query_prompt="what is ", max_length=12, device="cpu")
    long = [*DOCUMENTS, "heat shock wave in the cell " * 9]
    result = export_student(student, tmp_path / "out", "onnx", QUERIES, long)
    assert result.difference <= 1e-5
    plain = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    expected = plain.similarity(plain.encode_query(QUERIES), plain.encode_document(long)).numpy()
    vectors, masks = [], []
    for kind, texts in (("query", QUERIES), ("document", long)):
        vectors.append(run(tmp_path / "out" / "onnx" / "model.onnx", student, kind, texts))
        features = student.pad(student.tokenize(texts, kind), kind)  # type: ignore[arg-type]
        masks.append(features["attention_mask"].numpy()[:, :, None])
    means = [
        (one * mask).sum(axis=1) / mask.sum(axis=1)
        for one, mask in zip(vectors, masks, strict=True)
    ]
    units = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in means]
    np.testing.assert_allclose(units[0] @ units[1].T, expected, atol=1e-5)


def test_figures_of_agreement() -> None:
    one = np.array([[1.0, 2, 3], [4, 5, 8]])
    result = module._compare(one, np.array([[1.0, 3, 2], [4, 5, 8]]), 7)
    # one of three pairs of the first query is turned round: tau 1/3; the difference of 1 is an
    # eighth of the largest score
    assert result == ExportAgreement(6, 0.125, pytest.approx((1 / 3 + 1) / 2), 7)
    module._check(ExportAgreement(1, 1e-4, 1.0, 1), "onnx", 0.9)
    with pytest.raises(IrdistillError, match="differ"):
        module._check(ExportAgreement(1, 1.1e-4, 1.0, 1), "onnx", 0.9)
    with pytest.raises(IrdistillError, match=r"below 0\.9"):
        module._check(ExportAgreement(1, 0.0, 0.89, 1), "onnx-int8", 0.9)


def test_what_is_refused(backbone: str, tmp_path: Path) -> None:
    student = build_student("dense", backbone, device="cpu")
    for kind, form, queries, message in (
        ("dense", "tflite", QUERIES, "one of onnx, onnx-int8, openvino"),
        ("late-interaction", "onnx", QUERIES, "dense ones and cross-encoders"),
        ("dense", "onnx", [], "no texts"),
    ):
        chosen = student if kind == "dense" else build_student(kind, backbone, device="cpu")
        with pytest.raises(IrdistillError, match=message):
            export_student(chosen, tmp_path / "no", form, queries, DOCUMENTS)
    assert list(FORMATS) == ["onnx", "onnx-int8", "openvino"]
