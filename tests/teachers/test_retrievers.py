"""Sparse and late-interaction retrievers as teachers, against sentence-transformers' own
similarities.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder

from irdistill import IrdistillError
from irdistill.collections import Collection
from irdistill.modeling.batching import TokenBudget
from irdistill.students.model_kinds import describe_model
from irdistill.teachers import (
    LateInteractionTeacher,
    RetrieverTeacher,
    SparseRetrieverTeacher,
    TextPair,
    load_teacher,
    part_encoding,
    score_pairs,
)
from irdistill.teachers.retriever_teacher import load_retriever
from irdistill.teachers.teacher_kinds import kind_of
from tests.students.tiny import tiny_backbone
from tests.teachers.families import tiny_causal, tiny_classifier, tiny_t5
from tests.teachers.tiny import DOCS, QUERIES, tiny_colbert, tiny_splade

CPU: dict[str, Any] = {"precision": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def data() -> Collection:
    return Collection.from_dicts("small", DOCS, QUERIES, {"q1": {"a": 1}})


@pytest.fixture(scope="module")
def pairs(data: Collection) -> list[TextPair]:
    every = [
        TextPair(query, row, data.corpus.text(row))
        for query in data.queries.values()
        for row in range(len(data.corpus))
    ]
    return [every[place] for place in np.random.default_rng(1).permutation(len(every))]


@pytest.fixture(scope="module")
def splade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_splade(tmp_path_factory.mktemp("splade"))


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_colbert(tmp_path_factory.mktemp("colbert"))


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_a_sparse_retriever_gives_the_dot_product(
    splade: Path, pairs: list[TextPair], similarity: str
) -> None:
    model = SparseEncoder(str(splade), device="cpu", similarity_fn_name=similarity)
    expected = model.similarity_pairwise(
        model.encode_query([pair.query.text for pair in pairs]),
        model.encode_document([pair.text for pair in pairs]),
    )
    teacher = SparseRetrieverTeacher(str(splade), similarity=similarity, **CPU)
    scored, _ = score_pairs(teacher, pairs)
    assert scored.values.dtype == np.float32
    assert scored.values == pytest.approx(expected.numpy(), rel=1e-5)
    assert np.ptp(scored.values) > 0.01
    assert teacher.identity["type"] == "sparse" and teacher.identity["similarity"] == similarity


@pytest.mark.parametrize("similarity", ["maxsim", "meanmaxsim"])
def test_a_late_interaction_retriever_gives_maxsim(
    colbert: Path, pairs: list[TextPair], similarity: str
) -> None:
    model = MultiVectorEncoder(str(colbert), device="cpu", similarity_fn_name=similarity)
    queries = model.encode_query([pair.query.text for pair in pairs])
    documents = model.encode_document([pair.text for pair in pairs])
    scored, _ = score_pairs(
        LateInteractionTeacher(str(colbert), similarity=similarity, **CPU), pairs
    )
    assert scored.values.dtype == np.float32
    assert scored.values == pytest.approx(
        model.similarity_pairwise(queries, documents).numpy(), rel=1e-5
    )
    by_hand = [
        (query @ document.T).max(1).values.sum().item()
        for query, document in zip(queries, documents, strict=True)
    ]
    if similarity == "maxsim":
        assert scored.values == pytest.approx(by_hand, rel=1e-5)
    assert np.ptp(scored.values) > 0.01


@pytest.mark.parametrize("ahead", [1, 3, 1024])
def test_each_text_is_encoded_once_and_released(
    splade: Path, pairs: list[TextPair], monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    monkeypatch.setattr(part_encoding, "_AHEAD", ahead)
    teacher = SparseRetrieverTeacher(str(splade), **CPU)
    whole = teacher.score(pairs).values
    teacher.budget = TokenBudget(40)
    encoded: Counter[str] = Counter()
    forms = teacher.forms

    def counted(texts: list[str], kind: Any) -> Any:
        encoded.update(texts)
        return forms(texts, kind)

    monkeypatch.setattr(teacher, "forms", counted)
    assert teacher.score(pairs).values == pytest.approx(whole, rel=1e-5)
    assert encoded == Counter([*DOCS.values(), *QUERIES.values()])


def test_memory_running_out_halves_the_batches(
    colbert: Path, pairs: list[TextPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = LateInteractionTeacher(str(colbert), **CPU)
    whole, forms = teacher.score(pairs).values, teacher.forms

    def small(texts: list[str], kind: Any) -> Any:
        if len(texts) > 1:
            raise RuntimeError("CUDA out of memory")
        return forms(texts, kind)

    monkeypatch.setattr(teacher, "forms", small)
    assert teacher.score(pairs).values == pytest.approx(whole, rel=1e-5)
    assert teacher.budget.tokens < teacher.tokens_cpu


def test_half_precision_keeps_the_order(splade: Path, colbert: Path, pairs: list[TextPair]) -> None:
    for make, folder in ((SparseRetrieverTeacher, splade), (LateInteractionTeacher, colbert)):
        whole = make(str(folder), **CPU).score(pairs).values
        half = make(str(folder), precision="bfloat16", device="cpu").score(pairs).values
        assert half.dtype == np.float32
        assert np.corrcoef(whole, half)[0, 1] > 0.99
        assert not np.array_equal(half, torch.tensor(half).bfloat16().float().numpy())


def test_the_kind_of_a_model_is_detected(
    data: Collection, splade: Path, colbert: Path, tmp_path: Path
) -> None:
    dense = tiny_backbone(tmp_path / "dense")
    assert isinstance(load_teacher(str(splade), data.corpus, work=tmp_path), SparseRetrieverTeacher)
    assert isinstance(
        load_teacher(str(colbert), data.corpus, work=tmp_path), LateInteractionTeacher
    )
    assert isinstance(
        load_teacher(str(dense), data.corpus, work=tmp_path, kind="retriever"), RetrieverTeacher
    )
    assert kind_of(str(tiny_classifier(tmp_path / "ce", "roberta"))) == "cross-encoder"
    assert kind_of(str(tiny_t5(tmp_path / "t5"))) == "seq2seq"
    causal = tiny_causal(tmp_path / "causal")
    assert kind_of(str(causal)) == "causal"
    SentenceTransformer(str(causal), device="cpu").save(str(tmp_path / "embedding"))
    assert kind_of(str(tmp_path / "embedding")) == "retriever"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"config.json": '{"architectures": ["HF_ColBERT"], "model_type": "bert"}'},
            "late-interaction",
        ),
        ({"config_sentence_transformers.json": '{"model_type": "ColBERT"}'}, "late-interaction"),
        (
            {
                "modules.json": (
                    '[{"type":'
                    ' "sentence_transformers.sparse_encoder.models.SpladePooling.SpladePooling"}]'
                )
            },
            "sparse",
        ),
        ({"modules.json": '[{"type": "sentence_transformers.models.Pooling"}]'}, "dense"),
        (
            {
                "modules.json": (
                    '[{"type":'
                    ' "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask"}]'
                )
            },
            "late-interaction",
        ),
    ],
)
def test_published_layouts_are_known(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    for name, text in ({"config.json": "{}", "tokenizer.json": "{}"} | files).items():
        (tmp_path / name).write_text(text)
    assert describe_model(str(tmp_path)).retriever_type == expected


def test_similarity_and_type_can_be_set(
    data: Collection, pairs: list[TextPair], tmp_path: Path, splade: Path
) -> None:
    dense = str(tiny_backbone(tmp_path / "dense"))
    cosine = load_retriever(dense, data.corpus, tmp_path, **CPU).score(pairs).values
    dot = load_retriever(dense, data.corpus, tmp_path, similarity="dot", **CPU).score(pairs).values
    model = SentenceTransformer(dense, device="cpu")
    queries, documents = (model.encode([text]) for text in (pairs[0].query.text, pairs[0].text))
    assert dot[0] == pytest.approx(float(queries[0] @ documents[0]), rel=1e-4)
    assert np.abs(cosine).max() <= 1.0 + 1e-6 < np.abs(dot).max()
    with pytest.raises(IrdistillError, match="similarity 'maxsim' does not fit the dense model"):
        load_retriever(dense, data.corpus, tmp_path, similarity="maxsim")
    with pytest.raises(IrdistillError, match="type of retriever 'spars' is unknown"):
        load_retriever(str(splade), data.corpus, tmp_path, type="spars")
    with pytest.raises(IrdistillError, match="cannot be loaded as a sparse retriever"):
        SparseRetrieverTeacher(str(splade), similarity="maxsim")
