"""Cross-encoders whose score begins as the similarity of both texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sentence_transformers import CrossEncoder
from transformers import AutoModel, AutoTokenizer

from irdistill import IrdistillError, Query, train
from irdistill.students import build_student
from irdistill.students.cross_encoder_student import CrossEncoderStudent
from irdistill.students.pair_similarity import PairSimilarity
from irdistill.students.student_options import check_student_options
from irdistill.teachers.cross_encoder_teacher import CrossEncoderTeacher
from irdistill.teachers.protocol import TextPair
from tests.students.tiny import tiny_backbone
from tests.teachers.tiny import tiny_cross_encoder
from tests.training.tiny import make_collection

PAIRS = [
    ("cat dog", "the cat sat on a mat"),
    ("bird", "red bird"),
    ("what is snow", "rain heat shock wave " * 9),
]


def similar(folder: Path, **options: object) -> CrossEncoderStudent:
    student = build_student(
        "cross-encoder", str(folder), head="similarity", device="cpu", **options
    )
    assert isinstance(student, CrossEncoderStudent)
    return student


def by_hand(folder: Path, query: str, text: str) -> float:
    """10 times the cosine of the texts' mean states and the mean best match, of one pair."""
    tokens = AutoTokenizer.from_pretrained(folder)(query, text, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0]
    second = tokens["token_type_ids"][0].bool()
    first, other = states[~second], states[second]
    cosine = F.cosine_similarity(first.mean(0), other.mean(0), dim=0)
    best = (F.normalize(first, dim=1) @ F.normalize(other, dim=1).T).amax(1).mean()
    return float(10 * (cosine + best))


def scored_pairs() -> list[TextPair]:
    return [TextPair(Query(f"q{row}", query), row, text) for row, (query, text) in enumerate(PAIRS)]


@torch.no_grad()
def test_padding_and_the_other_text_do_not_change_the_means() -> None:
    """Texts of two tokens and one: u = (0.6, 0.8), v = (1, 0); best matches 0.6 and 1."""
    module = PairSimilarity(2)
    states = torch.tensor([[[0.2, 1.6], [1.0, 0.0], [5.0, 0.0], [9.0, 9.0]]])
    mask, second = torch.tensor([[1, 1, 1, 0]]), torch.tensor([[0, 0, 1, 0]])
    mean = F.normalize(torch.tensor([1.2, 1.6]), dim=0)
    best = (0.2 / (0.2**2 + 1.6**2) ** 0.5 + 1.0) / 2
    expected = 10 * (float(mean[0]) + best)
    assert float(module.scores(states, mask, second)) == pytest.approx(expected, rel=1e-5)
    short = module.scores(states[:, :3], mask[:, :3], second[:, :3])
    assert torch.equal(short, module.scores(states, mask, second))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(short, module.scores(states, mask, second))


def test_a_new_head_scores_similarity_in_every_reader(tmp_path: Path) -> None:
    """The student, its saved copy, plain sentence-transformers, and the teacher of the folder."""
    backbone = tiny_backbone(tmp_path / "bert", layers=2)
    student = similar(backbone)
    expected = [by_hand(backbone, *pair) for pair in PAIRS]
    np.testing.assert_allclose(student.predict(PAIRS), expected, rtol=1e-5)
    student.save(tmp_path / "saved")
    for reread in (
        CrossEncoderStudent.load(tmp_path / "saved", device="cpu"),
        build_student("cross-encoder", str(tmp_path / "saved"), device="cpu", max_length=48),
        CrossEncoder(str(tmp_path / "saved"), device="cpu", trust_remote_code=True),
    ):
        np.testing.assert_allclose(reread.predict(PAIRS), expected, rtol=1e-5)
    for backend in ("torch", "openvino"):
        if backend == "openvino":
            pytest.importorskip("openvino")
        teacher = CrossEncoderTeacher(
            str(tmp_path / "saved"),
            backend=backend,  # type: ignore[arg-type]
            precision="float32",
            device="cpu",
        )
        tokens, _ = teacher.tokenize(scored_pairs())
        np.testing.assert_allclose(teacher.forward(tokens, np.arange(3)), expected, rtol=1e-4)


def test_a_trained_head_is_kept_by_the_next_training(tmp_path: Path) -> None:
    collection = make_collection()
    student = similar(tiny_backbone(tmp_path / "bert", layers=2), max_length=32)
    scores = {
        query: {doc: float(len(doc) + place) for place, doc in enumerate(collection.corpus.ids)}
        for query in collection.queries
    }
    before = student.predict(PAIRS)
    options = {"steps": 3, "batch_size": 2, "list_size": 3, "learning_rate": 1e-2}
    trained = train(
        collection, scores, student, loss="KL(teacher_tau=7)", out=tmp_path / "out", **options
    )
    assert float((trained.predict(PAIRS) - before).abs().min()) > 0.01
    model = str(tmp_path / "out" / "model")
    for head in (None, "similarity"):
        again = build_student("cross-encoder", model, head=head, device="cpu")
        assert isinstance(again, CrossEncoderStudent)
        np.testing.assert_allclose(again.predict(PAIRS), trained.predict(PAIRS), rtol=1e-5)
    with pytest.raises(IrdistillError, match="with a trained similarity head; leave head out"):
        build_student("cross-encoder", model, head="classifier", device="cpu")


def test_representations_are_the_input_of_the_linear_layer(tmp_path: Path) -> None:
    student = similar(tiny_backbone(tmp_path / "bert", layers=2))
    student.keep_representations = True
    with torch.no_grad():
        result = student.embed(student.tokenize(PAIRS, "pair"), "pair")  # type: ignore[arg-type]
        assert result.shape == (3, 1 + 65)
        logits = student.model[1].score(result[:, 1:]).squeeze(1)
    torch.testing.assert_close(logits, result[:, 0])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    reranker = str(tiny_cross_encoder(tmp_path / "reranker"))
    with pytest.raises(IrdistillError, match="with a trained classifier head; leave head out"):
        build_student("cross-encoder", reranker, head="similarity", device="cpu")
    with pytest.raises(IrdistillError, match=r"head='bilinear' is not allowed"):
        check_student_options("cross-encoder", {"head": "bilinear"})
    with pytest.raises(IrdistillError, match="a dense student has no option head='similarity'"):
        check_student_options("dense", {"head": "similarity"})
    backbone = tiny_backbone(tmp_path / "bert", layers=2)
    settings = json.loads((backbone / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    (backbone / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(IrdistillError, match=r"which head='similarity' needs; use a backbone of"):
        similar(backbone)
