"""`align`: the linear start, the order of texts, what is learned, and that it resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense

import irdistill as ird
from irdistill.collections import Corpus, Document
from irdistill.errors import IrdistillError
from irdistill.losses import BatchRepresentations, EmbeddingMSE, ScoreBatch, parse_loss
from irdistill.search.vectors.vector_store import VectorStore, corpus_vectors
from irdistill.storage.files import read_json
from irdistill.students import DenseStudent
from irdistill.training.align_options import AlignOptions
from irdistill.training.aligning import align
from irdistill.training.alignment_loop import loss_of_sides
from irdistill.training.alignment_start import begin_student, fit_linear, mean_cosine
from irdistill.training.data.text_batches import LengthOrder, known_or_nan
from tests.training.support import digests, log, stopped_before
from tests.training.tiny import WORDS, make_backbone

OPTIONS = AlignOptions(
    steps=8,
    batch_size=16,
    learning_rate=3e-3,
    precision="float32",
    checkpoint_every=3,
    log_every=1,
    start="none",
)
FITTED = replace(OPTIONS, start="least-squares")
CPU: dict[str, Any] = {"device": "cpu"}


def texts(count: int = 120) -> Corpus:
    random = np.random.default_rng(5)
    words = [" ".join(random.choice(WORDS, 2 + i % 9)) for i in range(count)]
    return Corpus.in_memory(Document(str(i), "", text) for i, text in enumerate(words))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, one of other dimensions, another backbone, and an alignment of it."""
    folder = tmp_path_factory.mktemp("align")
    make_backbone(folder / "teacher")
    make_backbone(folder / "other", seed=1)
    torch.manual_seed(2)
    wide = DenseStudent.load(folder / "teacher", device="cpu").model
    wide.append(Dense(16, 24))
    wide.save(str(folder / "wide"), create_model_card=False)
    align(texts(), teacher(folder), asymmetric(folder), folder / "out", "EmbeddingCosine", OPTIONS)
    return folder


def teacher(place: Path, name: str = "teacher") -> DenseStudent:
    return DenseStudent(str(place / name), **CPU)


def asymmetric(place: Path) -> DenseStudent:
    """The documents of the teacher, and queries of another backbone."""
    return DenseStudent(str(place / "teacher"), query_backbone=str(place / "other"), **CPU)


def cosine(student: DenseStudent, other: DenseStudent, kind: Any = "query") -> float:
    words = texts().texts(range(120))
    encoded = [model.encode(words, kind, "float32") for model in (student, other)]
    return mean_cosine(*encoded)


# -- the linear start


def test_the_linear_layer_is_numpys_least_squares() -> None:
    random = np.random.default_rng(0)
    vectors, targets = random.normal(size=(50, 4)), random.normal(size=(50, 3))
    expected = np.linalg.lstsq(vectors, targets, rcond=None)[0]
    assert np.allclose(fit_linear(vectors, targets, ridge=0), expected, atol=1e-6)
    weight = 0.3 * np.square(vectors).sum() / 4
    ridge = np.linalg.solve(vectors.T @ vectors + weight * np.eye(4), vectors.T @ targets)
    assert np.allclose(fit_linear(vectors, targets, ridge=0.3), ridge, atol=1e-6)


def test_a_tower_begins_at_the_least_squares_solution(place: Path) -> None:
    corpus, student = texts(), asymmetric(place)
    store: VectorStore = corpus_vectors(corpus, teacher(place), kind="query")
    before = student.encode(corpus.texts(range(120)), "query", "float32")
    begin_student(student, "query", corpus, store, FITTED)
    layer = student.route("query")[-1]
    assert isinstance(layer, Dense) and layer.linear.bias is None
    weight = fit_linear(before, np.asarray(store.matrix[:]))
    actual = layer.linear.weight.detach().numpy().T
    assert np.allclose(actual / np.linalg.norm(actual), weight / np.linalg.norm(weight), atol=1e-5)
    lengths = [np.linalg.norm(vectors, axis=1).mean() for vectors in (before, before @ actual)]
    assert lengths[1] == pytest.approx(lengths[0], rel=1e-4)
    assert cosine(student, teacher(place)) > cosine(asymmetric(place), teacher(place))
    assert not student.learns("document") and student.learns("query")
    begin_student(student, "query", corpus, store, FITTED)
    assert len(student.route("query")) == len(asymmetric(place).route("query")) + 1, (
        "it is replaced"
    )


def test_without_a_start_nothing_is_added(place: Path) -> None:
    student = asymmetric(place)
    store = corpus_vectors(texts(), teacher(place), kind="query")
    begin_student(student, "query", texts(), store, OPTIONS)
    assert len(student.route("query")) == len(asymmetric(place).route("query"))


# -- what is learned


def test_it_learns_and_loads_in_sentence_transformers(place: Path) -> None:
    rows = log(place / "out")
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert rows[-1]["loss"] < rows[0]["loss"]
    student = DenseStudent.load(place / "out" / "model", device="cpu")
    assert cosine(student, teacher(place)) > cosine(asymmetric(place), teacher(place)) + 0.1
    plain = SentenceTransformer(str(place / "out" / "model"), device="cpu")
    words = ["w1 w2 w3", "w4"]
    assert np.allclose(
        plain.encode_query(words), student.encode(words, "query", "float32"), atol=1e-5
    )
    assert np.allclose(
        plain.encode_document(words), teacher(place).encode(words, "document", "float32"), atol=1e-5
    )


def test_the_index_of_the_teacher_stays_valid(place: Path) -> None:
    student, corpus = DenseStudent.load(place / "out" / "model", device="cpu"), texts()
    assert student.document_identity() == teacher(place).document_identity()
    assert corpus_vectors(corpus, student).folder == corpus_vectors(corpus, teacher(place)).folder


def test_a_killed_alignment_ends_with_the_same_bytes(place: Path, tmp_path: Path) -> None:
    arguments = (texts(), teacher(place))
    with stopped_before(5):
        align(*arguments, asymmetric(place), tmp_path / "out", "EmbeddingCosine", OPTIONS)
    assert (tmp_path / "out" / "checkpoints" / "checkpoint-3" / "complete.json").exists()
    align(*arguments, asymmetric(place), tmp_path / "out", "EmbeddingCosine", OPTIONS)
    assert digests(tmp_path / "out") == digests(place / "out")
    other = replace(OPTIONS, learning_rate=1e-3)
    with pytest.raises(IrdistillError, match=r"learning_rate: 0\.003 there, 0\.001 here"):
        align(*arguments, asymmetric(place), tmp_path / "out", "EmbeddingCosine", other)


def test_a_student_of_another_width_learns_both_sides(place: Path, tmp_path: Path) -> None:
    """A projection is added and saved, and it is in every loss."""
    student, wide = DenseStudent(str(place / "teacher"), **CPU), teacher(place, "wide")
    loss = "EmbeddingMSE + 0.1*Relational(tau=0.1) + 0.01*SpreadOut"
    options = replace(FITTED, side="both", matryoshka_dims=(24, 8), freeze_embeddings=True)
    before = student.model[0].model.get_input_embeddings().weight.detach().clone()
    model = align(texts(), wide, student, tmp_path / "out", loss, options)
    row = log(tmp_path / "out")[0]
    assert len(row["terms"]) == 12 and "0.5*" not in str(row["terms"])
    assert 'SpreadOut(side="document") [:8]' in row["terms"]
    aligned = DenseStudent.load(model, device="cpu")
    assert aligned.dimension == 24 and cosine(aligned, wide, "document") > 0.9
    after = aligned.model[0].model.get_input_embeddings().weight
    assert torch.equal(before, after)


def test_vectors_are_cut_for_matryoshka_losses() -> None:
    vectors = BatchRepresentations(queries=torch.tensor([[3.0, 4.0, 9.0]]))
    other = BatchRepresentations(queries=torch.tensor([[4.0, 3.0, -1.0]]))
    batch = ScoreBatch(
        torch.zeros(1, 0),
        student_representations=vectors.first(2),
        teacher_representations=other.first(2),
    )
    assert parse_loss("EmbeddingCosine")(batch).item() == pytest.approx(1 - 24 / 25)


# -- losses, texts and errors


def test_losses_get_the_sides_that_learn() -> None:
    loss = parse_loss("EmbeddingCosine + 2*SpreadOut")
    assert str(loss_of_sides(loss, "query")) == "EmbeddingCosine + 2*SpreadOut"
    document = 'EmbeddingCosine(side="document") + 2*SpreadOut(side="document")'
    assert str(loss_of_sides(loss, "document")) == document
    for wrong in ("KL", "EmbeddingMSE@3", 'EmbeddingMSE(side="pair")', "TRG"):
        with pytest.raises(IrdistillError, match="does not compare vectors of texts"):
            loss_of_sides(parse_loss(wrong), "query")
    with pytest.raises(IrdistillError, match="leave the side out"):
        loss_of_sides(EmbeddingMSE(side="document"), "query")


def test_every_epoch_has_every_text_and_batches_have_similar_lengths() -> None:
    corpus = texts(100)
    order = LengthOrder(corpus, 10, seed=1)
    epochs = [np.stack([order(step) for step in range(at, at + 10)]) for at in (0, 10)]
    assert all(sorted(epoch.reshape(-1).tolist()) == list(range(100)) for epoch in epochs)
    assert not np.array_equal(*epochs)
    assert np.array_equal(LengthOrder(corpus, 10, seed=1)(13), epochs[1][3])
    lengths = np.array([len(text) for text in corpus.texts(range(100))])
    assert np.ptp(lengths[epochs[0]], axis=1).mean() < np.ptp(lengths) / 4
    assert len(np.unique(LengthOrder(texts(7), 10, seed=1)(0))) == 7, "texts fill the batch again"


def test_a_text_without_a_teacher_vector_is_in_no_loss(place: Path) -> None:
    corpus = Corpus.in_memory([Document("a", "", "w1"), Document("b", "", "w2")])
    store = corpus_vectors(corpus, teacher(place), kind="query")
    store.absent_rows = np.array([1])
    vectors = known_or_nan(store, np.array([1, 0]))
    assert vectors[0].isnan().all() and torch.equal(vectors[1], torch.tensor(store.matrix[0]))


def test_what_cannot_be_aligned_is_refused_before_any_work(place: Path, tmp_path: Path) -> None:
    def attempt(student: DenseStudent, of: DenseStudent, **changes: Any) -> None:
        align(texts(), of, student, tmp_path / "no", "EmbeddingMSE", replace(OPTIONS, **changes))

    with pytest.raises(IrdistillError, match="student's document tower is frozen"):
        attempt(asymmetric(place), teacher(place), side="both")
    with pytest.raises(IrdistillError, match=r"of 16 numbers, and the teacher .* has 24"):
        attempt(asymmetric(place), teacher(place, "wide"))
    with pytest.raises(IrdistillError, match="epochs and steps are both 0"):
        AlignOptions(epochs=0)
    assert not (tmp_path / "no").exists()


def test_the_verb_takes_files_and_collections(place: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(texts().texts(range(40))) + "\n")
    student = ird.align(
        [file],
        place / "teacher",
        query_layers=1,
        epochs=1,
        batch_size=16,
        max_texts=20,
        out=tmp_path / "out",
    )
    record = read_json(tmp_path / "out" / "training.json")
    assert record["texts"] == 20 and record["finished"]
    assert [row["step"] for row in log(tmp_path / "out")] == [1, 2]
    assert student.document_identity() == teacher(place).document_identity()
    with pytest.raises(IrdistillError, match="the student must be dense"):
        ird.align([file], place / "teacher", "sparse", out=tmp_path / "no")
    assert json.loads((tmp_path / "out" / "train_log.jsonl").read_text().splitlines()[0])
