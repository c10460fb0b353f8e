"""The late-interaction student: MaxSim by hand, expansion of queries, masked punctuation,
chunks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder

from irdistill.students import late_interaction_student as late_interaction
from irdistill.students.late_interaction_student import LateInteractionStudent
from irdistill.training.data.collate import TokenRows
from irdistill.training.objectives.encode import Encoder
from tests.students.tiny import tiny_backbone

TEXTS = ["the cat sat", "a big dog and a small bird in the air flow", "heat", "shock wave " * 9]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone(tmp_path_factory.mktemp("bert"))


def encoded(student: LateInteractionStudent, texts: list[str], kind: str) -> list[torch.Tensor]:
    """In small chunks, as in training."""
    tokens = student.tokenize(texts, kind)  # type: ignore[arg-type]
    rows = [
        {name: np.array(values[i]) for name, values in tokens.items() if name != "attention_mask"}
        for i in range(len(texts))
    ]
    vectors: list[torch.Tensor] = Encoder(student, torch.float32, token_budget=30)(
        TokenRows(rows),
        kind,  # type: ignore[arg-type]
    )
    return vectors


def test_scores_are_maxsim_in_lists_batches_and_chunks(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = LateInteractionStudent(str(bert), dimension=8, device="cpu")
    queries, documents = encoded(student, TEXTS[:2], "query"), encoded(student, TEXTS, "document")
    by_hand = torch.tensor(
        [
            [
                sum(max(float((q @ d).detach()) for d in document) for q in query)
                for document in documents
            ]
            for query in queries
        ]
    )
    index = torch.tensor([[3, 0, 3], [2, 1, -1]])
    lists, every = student.scores(queries, documents, index)
    assert torch.allclose(every, by_hand, atol=1e-5)
    assert torch.allclose(lists[:, :2], by_hand.gather(1, index[:, :2]), atol=1e-5)
    apart, none = student.scores(queries, documents, index, every=False)
    assert none is None and torch.allclose(apart, lists, atol=1e-6)
    gradient = torch.autograd.grad(
        every.sum(), student.train_parameters(), retain_graph=True, allow_unused=True
    )
    monkeypatch.setattr(late_interaction, "_CHUNK", 1)
    _, small = student.scores(queries, documents, index)
    assert torch.allclose(small, every, atol=1e-6)
    again = torch.autograd.grad(small.sum(), student.train_parameters(), allow_unused=True)
    assert all(
        torch.allclose(a, b, atol=1e-4)
        for a, b in zip(gradient, again, strict=True)
        if a is not None
    )
    student.model.similarity_fn_name = "meanmaxsim"
    mean, _ = student.scores(queries, documents, index)
    assert torch.allclose(mean[0] * len(queries[0]), lists[0], atol=1e-5)


@pytest.mark.parametrize("strategy", ["fixed", "min"])
@pytest.mark.parametrize("attend", [False, True])
def test_expanded_queries_are_those_of_sentence_transformers(
    bert: Path, tmp_path: Path, strategy: str, attend: bool
) -> None:
    student = LateInteractionStudent(str(bert), dimension=8, expand_queries=12, device="cpu")
    student.model[0].query_expansion = {"strategy": strategy, "attend": attend, "length": 12}
    student.save(tmp_path / "model")
    plain = MultiVectorEncoder(str(tmp_path / "model"), device="cpu")
    result = encoded(student, TEXTS, "query")
    for ours, theirs in zip(result, plain.encode_query(TEXTS), strict=True):
        assert ours.shape == theirs.shape
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert len(result[2]) == 12
    assert len(result[3]) == (12 if strategy == "fixed" else 20)
    assert student.identity()["query_expansion"]["length"] == 12


def test_masked_punctuation_is_not_scored(bert: Path, tmp_path: Path) -> None:
    folder = tiny_backbone(tmp_path / "marks")
    text = (folder / "tokenizer.json").read_text()
    assert '"cat"' in text
    (folder / "tokenizer.json").write_text(text.replace('"cat"', '"."'))
    (folder / "vocab.txt").unlink(missing_ok=True)
    masked = LateInteractionStudent(str(folder), dimension=8, device="cpu")
    kept = LateInteractionStudent(str(folder), dimension=8, mask_punctuation=False, device="cpu")
    assert masked.identity()["skiplist"] == ["."]
    lengths = [
        [
            len(student.embed(student.tokenize(["the dog ."], kind), kind)[0])
            for kind in ("query", "document")
        ]
        for student in (masked, kept)
    ]
    assert lengths == [[5, 4], [5, 5]]
