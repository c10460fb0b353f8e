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
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

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

DOCS = {
    "a": "the cat sat in the red mat",
    "b": "dog and bird",
    "c": "heat shock wave in the cell " * 20,
    "d": "rain and snow and small fish",
    "e": "why is the gene slow",
}
QUERIES = {"q1": "how does the cat sat", "q2": "what is heat", "q3": "small dog"}
CPU: dict[str, Any] = {"precision": "float32", "device": "cpu"}


def tiny_splade(folder: Path) -> Path:
    """A SPLADE of random weights."""
    tiny_backbone(folder / "mlm", layers=2)
    tokenizer, config = (
        AutoTokenizer.from_pretrained(folder / "mlm"),
        AutoConfig.from_pretrained(folder / "mlm"),
    )
    torch.manual_seed(3)
    network = AutoModelForMaskedLM.from_config(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.2)
    network.save_pretrained(folder / "mlm")
    tokenizer.save_pretrained(folder / "mlm")
    transformer = Transformer(str(folder / "mlm"), transformer_task="fill-mask")
    model = SparseEncoder(modules=[transformer, SpladePooling("max")], device="cpu")
    model.save(str(folder / "splade"))
    return folder / "splade"


def tiny_colbert(folder: Path) -> Path:
    """A ColBERT of random weights, with its own lengths and query expansion."""
    MultiVectorEncoder(str(tiny_backbone(folder / "bert", layers=2)), device="cpu").save(
        str(folder / "colbert")
    )
    return folder / "colbert"


@pytest.fixture(scope="module")
def held() -> Collection:
    return Collection.from_dicts("small", DOCS, QUERIES, {"q1": {"a": 1}})


@pytest.fixture(scope="module")
def pairs(held: Collection) -> list[TextPair]:
    every = [
        TextPair(query, row, held.corpus.text(row))
        for query in held.queries.values()
        for row in range(len(held.corpus))
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
    found, _ = score_pairs(teacher, pairs)
    assert found.values.dtype == np.float32
    assert found.values == pytest.approx(expected.numpy(), rel=1e-5)
    assert np.ptp(found.values) > 0.01
    assert teacher.identity["type"] == "sparse" and teacher.identity["similarity"] == similarity


@pytest.mark.parametrize("similarity", ["maxsim", "meanmaxsim"])
def test_a_late_interaction_retriever_gives_maxsim(
    colbert: Path, pairs: list[TextPair], similarity: str
) -> None:
    model = MultiVectorEncoder(str(colbert), device="cpu", similarity_fn_name=similarity)
    queries = model.encode_query([pair.query.text for pair in pairs])
    documents = model.encode_document([pair.text for pair in pairs])
    found, _ = score_pairs(
        LateInteractionTeacher(str(colbert), similarity=similarity, **CPU), pairs
    )
    assert found.values.dtype == np.float32
    assert found.values == pytest.approx(
        model.similarity_pairwise(queries, documents).numpy(), rel=1e-5
    )
    by_hand = [
        (query @ document.T).max(1).values.sum().item()
        for query, document in zip(queries, documents, strict=True)
    ]
    if similarity == "maxsim":
        assert found.values == pytest.approx(by_hand, rel=1e-5)
    assert np.ptp(found.values) > 0.01


@pytest.mark.parametrize("ahead", [1, 3, 1024])
def test_each_text_is_encoded_once_and_let_go(
    splade: Path, pairs: list[TextPair], monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    monkeypatch.setattr(part_encoding, "_AHEAD", ahead)
    teacher = SparseRetrieverTeacher(str(splade), **CPU)
    whole = teacher.score(pairs).values
    teacher.budget = TokenBudget(40)
    seen: Counter[str] = Counter()
    forms = teacher.forms

    def counted(texts: list[str], kind: Any) -> Any:
        seen.update(texts)
        return forms(texts, kind)

    monkeypatch.setattr(teacher, "forms", counted)
    assert teacher.score(pairs).values == pytest.approx(whole, rel=1e-5)
    assert seen == Counter([*DOCS.values(), *QUERIES.values()])


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


def test_a_model_says_what_kind_it_is(
    held: Collection, splade: Path, colbert: Path, tmp_path: Path
) -> None:
    dense = tiny_backbone(tmp_path / "dense")
    assert isinstance(load_teacher(str(splade), held.corpus, work=tmp_path), SparseRetrieverTeacher)
    assert isinstance(
        load_teacher(str(colbert), held.corpus, work=tmp_path), LateInteractionTeacher
    )
    assert isinstance(
        load_teacher(str(dense), held.corpus, work=tmp_path, kind="retriever"), RetrieverTeacher
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
    held: Collection, pairs: list[TextPair], tmp_path: Path, splade: Path
) -> None:
    dense = str(tiny_backbone(tmp_path / "dense"))
    cosine = load_retriever(dense, held.corpus, tmp_path, **CPU).score(pairs).values
    dot = load_retriever(dense, held.corpus, tmp_path, similarity="dot", **CPU).score(pairs).values
    model = SentenceTransformer(dense, device="cpu")
    queries, documents = (model.encode([text]) for text in (pairs[0].query.text, pairs[0].text))
    assert dot[0] == pytest.approx(float(queries[0] @ documents[0]), rel=1e-4)
    assert np.abs(cosine).max() <= 1.0 + 1e-6 < np.abs(dot).max()
    with pytest.raises(IrdistillError, match="similarity 'maxsim' was asked of the dense model"):
        load_retriever(dense, held.corpus, tmp_path, similarity="maxsim")
    with pytest.raises(IrdistillError, match="type 'spars' was asked"):
        load_retriever(str(splade), held.corpus, tmp_path, type="spars")
    with pytest.raises(IrdistillError, match="cannot be loaded as a sparse retriever"):
        SparseRetrieverTeacher(str(splade), similarity="maxsim")
