"""The store of token states: contents, resumed builds, identity, and float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.search.multi_vector.token_states import TokenStates, corpus_states
from irdistill.students.kernel_student import KernelStudent
from irdistill.students.split_cross_encoder_student import SplitCrossEncoderStudent
from tests.students.tiny import WORDS, tiny_backbone


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> SplitCrossEncoderStudent:
    folder = tiny_backbone(tmp_path_factory.mktemp("bert"), layers=2)
    return SplitCrossEncoderStudent(str(folder), max_length=9, device="cpu")


@pytest.fixture(scope="module")
def collection() -> Collection:
    rng = np.random.default_rng(0)
    docs = {
        f"d{number}": " ".join(rng.choice(WORDS, size=int(rng.integers(0, 12))))
        for number in range(50)
    }
    return Collection.from_dicts("tiny", docs, {"q1": "cat dog"}, {})


def test_states_of_every_token(
    student: SplitCrossEncoderStudent, collection: Collection, tmp_path: Path
) -> None:
    store = TokenStates.build(
        collection.corpus, student, tmp_path / "a", shard_rows=16, precision="float32"
    )
    texts = list(collection.corpus.texts(range(50)))
    expected = student.encode(texts, "document", "float32")
    assert len(store) == 50 and store.nbytes == 4 * 32 * sum(map(len, expected)) + 4 * 50
    assert [len(store.of(row)) for row in range(50)] == [
        min(len(text.split()) + 1, 9) for text in texts
    ]
    for row in range(50):
        torch.testing.assert_close(store.of(row), expected[row], atol=1e-5, rtol=1e-5)
    half = TokenStates.build(
        collection.corpus, student, tmp_path / "b", precision="float32", storage="float16"
    )
    assert (half.nbytes - 200) * 2 == store.nbytes - 200 and half.of(3).dtype == torch.float32
    torch.testing.assert_close(half.of(3), store.of(3), atol=1e-2, rtol=1e-2)
    assert not torch.equal(half.of(3), store.of(3))


@pytest.mark.parametrize("killed_at", [0, 2])
def test_a_killed_build_resumes_with_the_same_bytes(
    killed_at: int,
    student: SplitCrossEncoderStudent,
    collection: Collection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = TokenStates.build(collection.corpus, student, tmp_path / "whole", shard_rows=16)
    encode, calls = SplitCrossEncoderStudent.encode, []

    def killed(
        self: SplitCrossEncoderStudent, *args: object, **settings: object
    ) -> list[torch.Tensor]:
        calls.append(1)
        if len(calls) == killed_at + 1:
            raise KeyboardInterrupt
        return encode(self, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(SplitCrossEncoderStudent, "encode", killed)
    with pytest.raises(KeyboardInterrupt):
        TokenStates.build(collection.corpus, student, tmp_path / "cut", shard_rows=16)
    with pytest.raises(IrdistillError, match="no finished vectors"):
        TokenStates(tmp_path / "cut")
    calls.extend([1] * 10)
    done = len(calls)
    resumed = TokenStates.build(collection.corpus, student, tmp_path / "cut", shard_rows=16)
    assert len(calls) - done == 4 - killed_at
    for name in ("states.bin", "lengths.bin", "manifest.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    assert resumed.fingerprint == whole.fingerprint
    (tmp_path / "cut" / "lengths.bin").unlink()
    with pytest.raises(IrdistillError, match=r"lengths\.bin is damaged: it is missing"):
        TokenStates(tmp_path / "cut")


def test_stores_differ_by_student_and_length(
    student: SplitCrossEncoderStudent, collection: Collection, tmp_path: Path
) -> None:
    first = corpus_states(collection.corpus, student, tmp_path)
    assert corpus_states(collection.corpus, student, tmp_path).folder == first.folder
    for other in (
        SplitCrossEncoderStudent(student.source, max_length=9, split_layer=0, device="cpu"),
        SplitCrossEncoderStudent(student.source, max_length=9, max_query_length=6, device="cpu"),
        KernelStudent(student.source, max_length=9, device="cpu"),
    ):
        assert corpus_states(collection.corpus, other, tmp_path).folder != first.folder
        with pytest.raises(IrdistillError, match="contains other vectors"):
            TokenStates.build(collection.corpus, other, first.folder)


def test_states_that_overflow_the_storage_are_refused(
    student: SplitCrossEncoderStudent,
    collection: Collection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        SplitCrossEncoderStudent,
        "encode",
        lambda self, texts, *rest, **more: [torch.full((1, 32), 1e6) for _ in texts],
    )
    with pytest.raises(IrdistillError, match="not finite in float16"), np.errstate(over="ignore"):
        TokenStates.build(collection.corpus, student, tmp_path, storage="float16")
