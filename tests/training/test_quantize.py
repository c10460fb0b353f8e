"""Short codes inside losses: values and gradients by hand, and trainings that search with codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from irdistill.errors import IrdistillError
from irdistill.losses import SpreadOut, parse_loss
from irdistill.runs import compile_run, open_run
from irdistill.search.retrieve_options import CodeOptions
from irdistill.search.vectors.quantized_index import QuantizedIndex
from irdistill.search.vectors.vector_store import corpus_vectors
from irdistill.students import DenseStudent
from irdistill.training.align_options import AlignOptions
from irdistill.training.aligning import align
from irdistill.training.data.collate import make_collator
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.data.list_source import SamplerOptions
from irdistill.training.objectives.batch_scores import score_batch
from irdistill.training.objectives.encode import Encoder
from irdistill.training.objectives.quantization import straight_through
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from tests.training.tiny import make_backbone, make_collection, make_run, make_student

LOSS = "KL(tau=0.2, teacher_tau=2)"
OPTIONS = TrainOptions(
    steps=3,
    batch_size=4,
    list_size=5,
    learning_rate=1e-2,
    precision="float32",
    seed=7,
    checkpoint_every=0,
    dropout=False,
)


def test_signs_and_gradients_by_hand() -> None:
    vectors = torch.tensor([[0.6, -0.2, 0.1, -0.9], [0.0, 0.0, 0.0, 0.0]], requires_grad=True)
    codes = straight_through(vectors, "binary")
    assert codes.tolist() == [[0.5, -0.5, 0.5, -0.5], [0.0] * 4]
    query = torch.tensor([1.0, 2.0, -3.0, 4.0])
    (codes @ query).square().sum().backward()
    # the score is (1 - 2 - 3 - 4) / 2 = -4, and its square has the gradient 2 * -4 * query
    assert vectors.grad is not None
    np.testing.assert_allclose(vectors.grad, [[-8, -16, 24, -32], [0, 0, 0, 0]])


def test_bytes_by_hand_and_as_the_index_decodes_them(tmp_path: Path) -> None:
    vectors = torch.tensor([[0.0, -1.0], [0.51, 1.0], [2.55, 0.0], [0.0, 0.0]])
    decoded = straight_through(vectors.requires_grad_(), "int8")
    # steps of 2.55 / 255 and 2 / 255; zeros are no document
    expected = [[0.005, -1 + 1 / 255], [0.515, 1 + 1 / 255], [2.555, 0.0], [0, 0]]
    np.testing.assert_allclose(decoded.detach(), expected, atol=1e-6)
    decoded.sum().backward()
    assert vectors.grad is not None and vectors.grad.tolist() == [[1.0, 1.0]] * 4
    collection = make_collection()
    student = make_student(tmp_path / "backbone")
    store = corpus_vectors(collection.corpus, student, tmp_path / "work")
    index = QuantizedIndex.build(store, CodeOptions(vectors="int8"), tmp_path / "index")
    least, largest = index.ranges
    here = straight_through(torch.tensor(store.matrix[:]), "int8").numpy()
    there = least + (index.codes + 0.5) / 255 * (largest - least)
    # a number at the border of two steps may fall on either side
    assert np.mean(np.abs(here - there) > 1e-5) < 0.01
    assert np.all(np.abs(here - there) <= (largest - least) / 255 + 1e-5)


def lists_of(folder: Path, student: DenseStudent) -> tuple[Encoder, object]:
    collection = make_collection()
    make_run(folder / "scores", collection)
    compiled = compile_run(open_run(folder / "scores", collection), collection.corpus)
    sampler = ListSampler(
        [compiled], {}, SamplerOptions(batch_size=4, list_size=5, seed=7, positives=False)
    )
    return Encoder(student, torch.float32), make_collator(collection, sampler, student, None)(0)


def test_any_loss_sees_codes_of_documents_and_float_queries(tmp_path: Path) -> None:
    student = make_student(tmp_path / "backbone")
    student.model.eval()
    encoder, batch = lists_of(tmp_path, student)
    student.keep_representations = True
    plain = score_batch(encoder, batch, True)  # type: ignore[arg-type]
    encoder.codes = "binary"
    coded = score_batch(encoder, batch, True)  # type: ignore[arg-type]
    assert plain.student_representations and coded.student_representations
    queries, documents = (
        F.normalize(getattr(plain.student_representations, name), dim=1)
        for name in ("queries", "documents")
    )
    signs = documents.sign() / documents.shape[1] ** 0.5
    torch.testing.assert_close(coded.student_representations.documents, signs)
    torch.testing.assert_close(coded.in_batch, queries @ signs.T)
    loss = parse_loss(LOSS) + 0.1 * SpreadOut(side="document")
    loss(coded).backward()
    gradients = [p.grad for p in student.train_parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
    # of half of the dimensions: the same signs
    half = score_batch(encoder, batch, True, dimension=8)  # type: ignore[arg-type]
    torch.testing.assert_close(
        half.in_batch, F.normalize(queries[:, :8], dim=1) @ (signs[:, :8] * 2**0.5).T
    )


def test_training_with_codes_validates_them_and_keeps_other_identities(tmp_path: Path) -> None:
    collection = make_collection()
    make_run(tmp_path / "scores", collection)
    options = replace(OPTIONS, quantize="binary", matryoshka_dims=(16, 8))
    for name, chosen in (("codes", options), ("float", replace(options, quantize="none"))):
        student = make_student(tmp_path / "backbone")
        train(collection, tmp_path / "scores", student, LOSS, tmp_path / name, chosen)
    records = {
        name: json.loads((tmp_path / name / "training.json").read_text())
        for name in ("codes", "float")
    }
    assert records["codes"]["identity"]["options"]["quantize"] == "binary"
    assert "quantize" not in records["float"]["identity"]["options"]
    weights = {
        name: DenseStudent.load(tmp_path / name / "model").weights_digest() for name in records
    }
    assert weights["codes"] != weights["float"]
    assert "quantize" not in AlignOptions().identity()
    assert AlignOptions(quantize="int8", side="both").identity()["quantize"] == "int8"
    with pytest.raises(IrdistillError, match="quantize=int8 was given with side=query"):
        AlignOptions(quantize="int8")


def test_a_frozen_document_tower_trains_the_query_tower_on_codes(tmp_path: Path) -> None:
    collection = make_collection()
    make_run(tmp_path / "scores", collection)
    backbone = str(make_backbone(tmp_path / "backbone"))
    student = DenseStudent(backbone, freeze_documents=True, device="cpu")
    before = student.weights_digest("document")
    out = train(
        collection,
        tmp_path / "scores",
        student,
        LOSS,
        tmp_path / "out",
        replace(OPTIONS, quantize="binary", validate_every=2),
        "stored",
        tmp_path / "work",
        validate=collection,
    )
    trained = DenseStudent.load(out)
    assert trained.weights_digest("document") == before
    rows = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").open()]
    assert any(row.get("step") == 2 and "validation" in row for row in rows)
    assert list((tmp_path / "work").rglob("codes.faiss"))  # the validation searched codes


def test_align_rounds_the_document_vectors(tmp_path: Path) -> None:
    teacher = DenseStudent(str(make_backbone(tmp_path / "backbone")), device="cpu")
    corpus = make_collection().corpus
    digests = set()
    for quantize in ("none", "binary"):
        student = DenseStudent(str(make_backbone(tmp_path / "backbone")), device="cpu")
        options = AlignOptions(
            side="document",
            start="none",
            steps=2,
            batch_size=8,
            quantize=quantize,  # type: ignore[arg-type]
            learning_rate=1e-2,
            precision="float32",
        )
        out = align(corpus, teacher, student, tmp_path / quantize, options=options)
        digests.add(DenseStudent.load(out).weights_digest())
    assert len(digests) == 2


def test_codes_are_for_dense_students(tmp_path: Path) -> None:
    from irdistill.training.checks import check_student

    student = make_student(tmp_path / "backbone")
    student.__class__ = type("Sparse", (DenseStudent,), {"kind": "sparse"})
    with pytest.raises(IrdistillError, match="quantize=int8 was given for a sparse student"):
        check_student(replace(OPTIONS, quantize="int8"), parse_loss(LOSS), student)
