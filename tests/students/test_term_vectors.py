"""Term vectors as earlier versions saved them: what they add, whatever the padding and the prompt,
and the same when saved and opened.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize

from irdistill.errors import IrdistillError
from irdistill.students import DenseStudent, load_student
from irdistill.students.term_vectors import TermVectors
from irdistill.students.towers import copy_tower, two_towers
from tests.training.tiny import make_backbone


def build(
    folder: Path, prompt: str | None = None
) -> tuple[DenseStudent, SentenceTransformer, torch.Tensor]:
    """A student with the vectors of w1, w2 and w3, and its backbone."""
    model = SentenceTransformer(str(make_backbone(folder / "backbone")), device="cpu")
    weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    tower = copy_tower(model, None)
    tower = [*tower, TermVectors(tower[0].tokenizer, ["w1", "w2", "w3"], weight), Normalize()]  # type: ignore
    student = DenseStudent.from_model(two_towers(model, tower, prompt))
    return student, model, weight


def expected(
    model: SentenceTransformer, weight: torch.Tensor, text: str, places: list[int]
) -> np.ndarray:
    vector = model.encode([text])[0] + (weight[places].sum(0) / max(1, len(places)) ** 0.5).numpy()
    return np.asarray(vector / np.linalg.norm(vector))


def test_it_adds_the_vectors_of_the_words_over_the_root_of_their_number(tmp_path: Path) -> None:
    student, model, weight = build(tmp_path)
    texts = {
        "w1": [0],
        "w2 w2 w9 w3": [1, 1, 2],
        "w9 w8": [],
        "W1 w2 w3 w7 w6 w5 w2 w2 w1": [0, 1, 2, 1, 1, 0],
    }
    result = student.search_vectors(list(texts), "query", precision="float32")
    want = np.stack(
        [expected(model, weight, text.lower(), places) for text, places in texts.items()]
    )
    np.testing.assert_allclose(result, want, atol=1e-6)
    documents = student.search_vectors(list(texts), "document", precision="float32")
    plain = model.encode(list(texts), normalize_embeddings=True)
    np.testing.assert_allclose(documents, plain, atol=1e-6)  # documents have none


def test_a_prompt_is_no_word_of_the_query(tmp_path: Path) -> None:
    student, model, weight = build(tmp_path, prompt="w1 w1 ")
    result = student.search_vectors(["w3 w9"], "query", precision="float32")
    vector = model.encode(["w1 w1 w3 w9"])[0] + weight[2].numpy()
    np.testing.assert_allclose(result[0], vector / np.linalg.norm(vector), atol=1e-6)


def test_it_is_saved_and_opened_here_and_in_sentence_transformers(tmp_path: Path) -> None:
    student, _, _ = build(tmp_path)
    student.save(tmp_path / "saved")
    texts = ["w1 w2", "w3", "w20 w30"]
    want = student.search_vectors(texts, "query", precision="float32")
    opened = load_student(tmp_path / "saved")
    np.testing.assert_array_equal(opened.search_vectors(texts, "query", precision="float32"), want)
    assert opened.weights_digest() == student.weights_digest()
    there = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=True, device="cpu")
    np.testing.assert_allclose(
        there.encode_query(texts, normalize_embeddings=True), want, atol=1e-6
    )
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(tmp_path / "saved"), device="cpu")


def test_what_does_not_fit_or_is_damaged_is_refused(tmp_path: Path) -> None:
    student, model, weight = build(tmp_path)
    with pytest.raises(ValueError, match=r"2 words and vectors of shape \(3, 16\)"):
        TermVectors(model.tokenizer, ["w1", "w2"], weight)
    student.save(tmp_path / "saved")
    [words] = (tmp_path / "saved").rglob("words.json")
    words.unlink()
    with pytest.raises(IrdistillError, match=r"holds term vectors that cannot be read"):
        load_student(tmp_path / "saved")
