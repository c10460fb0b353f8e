"""Word vectors behind a tower that is stored once, opened without irdistill."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize

from irdistill import IrdistillError
from irdistill.students import DenseStudent, load_student
from irdistill.students.towers import shared_modules, tower_modules, two_towers
from irdistill.students.weight_averaging import average_students
from irdistill.students.word_vectors import WordVectors
from tests.students.plain_library import plain_vectors
from tests.training.tiny import make_backbone

TEXTS = ["w1", "w2 w22 w9 w3", "w9 w8", "W1 w2 w3 w7 w6 w5 w2 w2 w1"]
PLACES = [[0], [1, 1, 2], [], [0, 1, 2, 1, 1, 0]]


def build(folder: Path) -> tuple[DenseStudent, torch.Tensor]:
    """A student whose towers share the transformer; w2 and w22 have the same vector."""
    model = SentenceTransformer(str(make_backbone(folder / "backbone")), device="cpu")
    weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(1)).half().float()
    tower = tower_modules(model, "query")
    words = WordVectors(tower[0].tokenizer, [["w1"], ["w2", "w22"], ["w3"]], weight)
    student = DenseStudent.from_model(two_towers(model, [*tower, words, Normalize()]))
    student._freeze("document")
    return student, weight


def test_plain_sentence_transformers_gives_the_same_vectors(tmp_path: Path) -> None:
    """By hand: the backbone's vector and the words' sum, divided by the root of their number."""
    student, weight = build(tmp_path)
    student.save(tmp_path / "saved")
    queries, documents = plain_vectors(tmp_path / "saved", TEXTS, tmp_path, trust=True)
    model = SentenceTransformer(str(tmp_path / "backbone"), device="cpu")
    alone = model.encode(TEXTS)
    sums = [weight[places].sum(0) / max(1, len(places)) ** 0.5 for places in PLACES]
    expected = alone + torch.stack(sums).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(queries, expected, atol=1e-6)
    np.testing.assert_allclose(documents, alone, atol=1e-6)
    ours = load_student(tmp_path / "saved")
    np.testing.assert_array_equal(ours.model.encode_query(TEXTS), queries)
    np.testing.assert_array_equal(ours.model.encode_document(TEXTS), documents)
    np.testing.assert_allclose(
        ours.search_vectors(TEXTS, "query", precision="float32"), queries, atol=1e-6
    )
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(tmp_path / "saved"), device="cpu")


def test_weights_are_stored_once(tmp_path: Path) -> None:
    student, weight = build(tmp_path)
    student.save(tmp_path / "saved")
    stored = sorted(str(path.parent.name) for path in (tmp_path / "saved").rglob("*.safetensors"))
    assert stored == ["document_0_Transformer", "query_2_WordVectors"]
    with safe_open(tmp_path / "saved/query_2_WordVectors/model.safetensors", "pt") as file:
        assert file.get_tensor("weight").dtype == torch.float16
        assert torch.equal(file.get_tensor("weight").float(), weight)
    frozen = json.loads((tmp_path / "saved" / "irdistill_student.json").read_text())
    assert frozen == {"frozen": ["query", "document"]}
    opened = load_student(tmp_path / "saved")
    assert len(shared_modules(opened.model)) == 1
    assert opened.weights_digest() == student.weights_digest()


def test_training_separates_what_the_towers_share(tmp_path: Path) -> None:
    student, weight = build(tmp_path)
    student.save(tmp_path / "saved")
    started = DenseStudent(str(tmp_path / "saved"), device="cpu")
    assert started.learns("query") and not started.learns("document")
    assert not shared_modules(started.model)
    names = [name for name, value in started.model.named_parameters() if value.requires_grad]
    assert names and all(".query." in name for name in names)
    assert not any(name.endswith("query.2.weight") for name in names)  # words stay
    for parameter in started.train_parameters():
        parameter.data += 0.5
    assert started.weights_digest("document") == student.weights_digest("document")
    merged = average_students([load_student(tmp_path / "saved"), started], [0.5, 0.5])
    assert merged.weights_digest("document") == student.weights_digest("document")
    one, two = (next(iter(each.tower("query")[0].parameters())) for each in (student, merged))
    torch.testing.assert_close(two, one + 0.25)
    assert torch.equal(merged.tower("query")[2].weight, weight)


def test_an_untrained_copy_is_stored_once_and_can_still_be_trained(tmp_path: Path) -> None:
    backbone = str(make_backbone(tmp_path / "backbone"))
    student = DenseStudent(backbone, freeze_documents=True, device="cpu")
    student.save(tmp_path / "same")
    assert len(list((tmp_path / "same").rglob("model.safetensors"))) == 1
    opened = load_student(tmp_path / "same")
    assert opened.learns("query") and not opened.learns("document")
    assert not shared_modules(opened.model)
    student.train_parameters()[0].data += 1
    student.save(tmp_path / "other")
    assert len(list((tmp_path / "other").rglob("model.safetensors"))) == 2


def test_what_does_not_fit_or_is_damaged_is_refused(tmp_path: Path) -> None:
    student, _ = build(tmp_path)
    with pytest.raises(ValueError, match=r"2 words and vectors of shape \(3, 16\)"):
        WordVectors(None, [["w1"], ["w2"]], torch.zeros(3, 16))
    student.save(tmp_path / "saved")
    [words] = (tmp_path / "saved").rglob("words.json")
    words.unlink()
    with pytest.raises(IrdistillError, match=r"words\.json.*Was it saved completely"):
        load_student(tmp_path / "saved")
