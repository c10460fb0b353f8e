"""Folders of `irdistill export` in `retrieve` and `search`: the scores of the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irdistill as ird
from irdistill.errors import MissingExtraError, ModelError, OptionError
from irdistill.students import build_student
from irdistill.students import exported_encoder as module
from irdistill.students.exported_encoder import ExportedEncoder, is_exported
from irdistill.students.exporting import export_student
from irdistill.students.student_base import Student
from irdistill.verbs.result_cache import _model_identity
from tests.search.tiny_collection import make_collection
from tests.students.tiny import WORDS, tiny_backbone
from tests.students.torch_networks import run_by_torch

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("dense", {"query_prompt": "a ", "max_length": 8}),
    "static queries": ("dense", {"query_layers": 0}),
    "sparse": ("sparse", {}),
    "late-interaction": ("late-interaction", {"expand_queries": 8}),
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_backbone(tmp_path_factory.mktemp("model"), layers=1))


@pytest.fixture(autouse=True)
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    run_by_torch(monkeypatch)


def exported(student: Student, out: Path) -> Path:
    export_student(student, out, "onnx", WORDS[:3], WORDS[3:9])
    return out


def scores_of(run: ird.Run) -> dict[tuple[str, str], float]:
    return {
        (one.query_id, doc_id): score
        for one in run
        for doc_id, score in zip(one.doc_ids, one.scores.tolist(), strict=True)
    }


@pytest.mark.parametrize("case", CASES)
def test_the_scores_are_those_of_the_model(
    case: str, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, options = CASES[case]
    student = build_student(kind, backbone, device="cpu", **options)
    folder, collection = exported(student, tmp_path / "out"), make_collection()
    monkeypatch.setattr(module, "_BLOCK", 25)  # 63 texts, so that the last block is shorter
    run = ird.retrieve(collection, str(folder), k=63, precision="float32", out=tmp_path / "run")
    expected = scores_of(
        ird.retrieve(collection, student, k=63, precision="float32", out=tmp_path / "expected")
    )
    scores = scores_of(run)
    assert scores.keys() == expected.keys() and len(scores) > 50
    np.testing.assert_allclose(
        list(scores.values()), [expected[pair] for pair in scores], rtol=1e-4
    )
    producer = run.manifest.identity.producer
    assert producer["model"] == str(folder) and producer["format"] == "onnx"
    hits = ird.search_text(collection, "cat dog", str(folder), k=3, precision="float32")
    assert len(hits) == 3 and hits[0].score >= hits[1].score >= hits[2].score


@pytest.mark.parametrize("case", CASES)
def test_truncated_texts_are_counted_as_the_model_counts_them(
    case: str, backbone: str, tmp_path: Path
) -> None:
    kind, options = CASES[case]
    student = build_student(kind, backbone, device="cpu", **{"max_length": 8} | options)
    encoder = ExportedEncoder(exported(student, tmp_path / "out"))
    texts = ["cat dog", " ".join(WORDS[:20]), "", "bird"]
    student.truncation.clear()
    for one in (student, encoder):
        one.search_vectors(texts, "document", "float32")
    counts = encoder.truncation["document"]
    assert counts == student.truncation["document"]
    assert (counts.read, counts.cut) == (4, 1) and counts.tokens_cut > 10


def test_what_determines_the_vectors(backbone: str, tmp_path: Path) -> None:
    """Weights, tokenizer and settings of a side; not the place of the folder."""
    student = build_student("dense", backbone, device="cpu")
    folder = exported(student, tmp_path / "out")
    first = ExportedEncoder(folder)
    assert is_exported(folder) and not is_exported(tmp_path) and not is_exported("bm25")
    assert (first.kind, first.similarity, first.dimension) == ("dense", "cosine", 32)
    assert first.max_length("document") == student.max_length("document")
    identity = first.document_identity()
    moved = ExportedEncoder(folder.rename(tmp_path / "moved"))
    assert moved.document_identity() == identity
    cached = _model_identity(str(tmp_path / "moved"))
    (moved.model.folder / "text" / "model.onnx").write_text("0\n")
    other = ExportedEncoder(moved.model.folder)
    assert other.document_identity() != identity
    assert _model_identity(str(tmp_path / "moved")) != cached


def test_no_text(backbone: str, tmp_path: Path) -> None:
    for kind in ("dense", "sparse"):
        student = build_student(kind, backbone, device="cpu")
        vectors = ExportedEncoder(exported(student, tmp_path / kind)).search_vectors([], "query")
        expected = student.search_vectors([], "query", "float32")
        assert vectors.shape == expected.shape and type(vectors) is type(expected)


def test_what_is_refused(backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = exported(build_student("cross-encoder", backbone, device="cpu"), tmp_path / "pair")
    with pytest.raises(ModelError, match=r"exported cross-encoder.*irdistill score"):
        ExportedEncoder(pair)
    dense = exported(build_student("dense", backbone, device="cpu"), tmp_path / "dense")
    with pytest.raises(OptionError, match="dimension needs a model"):
        ird.retrieve(make_collection(), str(dense), dimension=8, out=tmp_path / "run")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"onnxruntime.*irdistill\[onnx\]"):
        ExportedEncoder(dense)
