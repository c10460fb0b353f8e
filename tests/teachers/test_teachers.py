"""Teachers, compared with the libraries that they use."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from irdistill import IrdistillError
from irdistill.card_files import card_folder
from irdistill.collections import Collection
from irdistill.search import BM25
from irdistill.students import DenseStudent
from irdistill.teachers import (
    BM25Teacher,
    CrossEncoderTeacher,
    RetrieverTeacher,
    TextPair,
    load_teacher,
    read_card,
    score_pairs,
)
from irdistill.teachers import teacher_loading as loading
from irdistill.teachers.pair_prompts import PairTemplate
from irdistill.teachers.teacher_card import HOSTED_KINDS, KINDS, LLM_KINDS
from irdistill.teachers.teacher_loading import known_settings
from tests.students.tiny import tiny_backbone
from tests.teachers.tiny import tiny_cross_encoder

DOCS = {
    "a": "the cat sat in the red mat",
    "b": "dog and bird",
    "c": "heat shock wave in the cell " * 20,
    "d": "rain and snow and small fish",
    "e": "why is the gene slow",
}
QUERIES = {"q1": "how does the cat sat", "q2": "what is heat", "q3": "small dog"}


@pytest.fixture(scope="module")
def data() -> Collection:
    return Collection.from_dicts("small", DOCS, QUERIES, {"q1": {"a": 1}})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cross_encoder(tmp_path_factory.mktemp("ce"))


@pytest.fixture(scope="module")
def pairs(data: Collection) -> list[TextPair]:
    return [
        TextPair(query, row, data.corpus.text(row))
        for query in data.queries.values()
        for row in range(len(data.corpus))
    ]


def predicted(model: Path, pairs: list[TextPair]) -> np.ndarray:
    return CrossEncoder(str(model), device="cpu").predict(
        [(pair.query.text, pair.text) for pair in pairs],
        activation_fn=torch.nn.Identity(),
        show_progress_bar=False,
    )


BACKENDS = [
    "torch",
    pytest.param(
        "openvino", marks=pytest.mark.skipif(find_spec("openvino") is None, reason="no openvino")
    ),
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cross_encoder_gives_the_raw_logits_of_predict(
    model: Path, pairs: list[TextPair], backend: str
) -> None:
    teacher = CrossEncoderTeacher(str(model), precision="float32", backend=backend, device="cpu")
    scored, tokens = score_pairs(teacher, pairs)
    assert scored.values.dtype == np.float32
    assert scored.values == pytest.approx(predicted(model, pairs), abs=2e-5)
    assert np.ptp(scored.values) > 0.1
    assert tokens > 5 * len(pairs)
    assert teacher.identity["activation"] == "none (raw logits)"
    assert teacher.identity["backend"] == backend


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precision_keeps_the_order(model: Path, pairs: list[TextPair], backend: str) -> None:
    whole, _ = score_pairs(
        CrossEncoderTeacher(str(model), precision="float32", device="cpu"), pairs
    )
    half, _ = score_pairs(
        CrossEncoderTeacher(str(model), precision="bfloat16", backend=backend, device="cpu"), pairs
    )
    assert np.corrcoef(whole.values, half.values)[0, 1] > 0.97
    # the head is computed in float32: logits are not rounded to the 8 bits of bfloat16
    assert len(set(half.values.tolist())) > len(pairs) * 0.8
    assert not np.array_equal(half.values, torch.tensor(half.values).bfloat16().float().numpy())


def test_two_outputs_give_log_odds_and_more_need_a_label(
    tmp_path: Path, pairs: list[TextPair]
) -> None:
    two = tiny_cross_encoder(tmp_path / "two", 2)
    both = predicted(two, pairs)
    scored, _ = score_pairs(
        CrossEncoderTeacher(str(two), precision="float32", backend="torch", device="cpu"), pairs
    )
    assert scored.values == pytest.approx(both[:, 1] - both[:, 0], abs=2e-5)
    three = tiny_cross_encoder(tmp_path / "three", 3)
    with pytest.raises(IrdistillError, match="3 outputs"):
        CrossEncoderTeacher(str(three), device="cpu")
    scored, _ = score_pairs(
        CrossEncoderTeacher(
            str(three), precision="float32", backend="torch", label=2, device="cpu"
        ),
        pairs,
    )
    assert scored.values == pytest.approx(predicted(three, pairs)[:, 2], abs=2e-5)


def test_texts_are_truncated_as_predict_truncates_them(model: Path, pairs: list[TextPair]) -> None:
    teacher = CrossEncoderTeacher(
        str(model), precision="float32", backend="torch", max_length=16, device="cpu"
    )
    _, lengths = teacher.tokenize(pairs)
    assert lengths.max() == 16
    short = CrossEncoder(str(model), device="cpu", max_length=16).predict(
        [(pair.query.text, pair.text) for pair in pairs],
        activation_fn=torch.nn.Identity(),
        show_progress_bar=False,
    )
    assert score_pairs(teacher, pairs)[0].values == pytest.approx(short, abs=2e-5)
    with pytest.raises(IrdistillError, match="max_length=4096"):
        CrossEncoderTeacher(str(model), max_length=4096, device="cpu")


def test_an_encoder_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IrdistillError, match="no trained classification head"):
        CrossEncoderTeacher(str(tiny_backbone(tmp_path)), device="cpu")


def test_bm25_scores_as_the_search_does(
    data: Collection, pairs: list[TextPair], tmp_path: Path
) -> None:
    scored = BM25Teacher(data.corpus, cache=tmp_path).score(pairs)
    index = BM25(data.corpus, cache=tmp_path)
    for pair, value in zip(pairs, scored.values.tolist(), strict=True):
        assert value == index.all_scores(pair.query.text)[pair.row]
    assert scored.values.max() > 0


def test_a_retriever_scores_by_its_vectors(
    data: Collection, pairs: list[TextPair], tmp_path: Path
) -> None:
    model = DenseStudent.load(str(tiny_backbone(tmp_path / "encoder")))
    teacher = RetrieverTeacher(model, data.corpus, tmp_path / "work", "float32")
    queries = model.encode([pair.query.text for pair in pairs], "query", "float32", normalize=True)
    documents = model.encode([pair.text for pair in pairs], "document", "float32", normalize=True)
    assert teacher.score(pairs).values == pytest.approx((queries * documents).sum(axis=1), abs=1e-5)


CARDS = sorted(path.stem for path in card_folder("teachers").glob("*.yaml"))


@pytest.mark.parametrize("name", CARDS)
def test_every_card_is_valid(name: str) -> None:
    card = read_card(name)
    assert (
        card.name == name
        and card.license
        and card.description
        and card.source.startswith("https://")
    )
    assert all(0 < figure < 1 for figure in card.published.values())
    if card.kind in (*LLM_KINDS, *HOSTED_KINDS):
        return
    assert set(card.settings) <= known_settings(card.kind)
    assert card.settings.get("type", "dense") in ("dense", "sparse", "late-interaction")
    if card.kind in ("seq2seq", "causal"):
        template = PairTemplate(card.settings["template"], card.settings.get("instruction", ""))
        text, start, end = template.fill("who?", "me")
        assert text[start:end] == "me" and text.count("who?") == 1 and "{" not in text
        assert isinstance(card.settings["positive"], str) and isinstance(
            card.settings.get("negative", ""), str
        )


def test_common_cards_exist() -> None:
    assert {
        "minilm",
        "bm25",
        "ms-marco-minilm-l6",
        "ms-marco-minilm-l12",
        "monoelectra-base",
        "bge-reranker-v2-m3",
        "monot5-3b",
        "mxbai-rerank-large-v2",
        "qwen3-reranker-0.6b",
        "rankt5-3b",
        "splade-v3",
        "colbertv2",
    } <= set(CARDS)


def test_cards_load_up_to_the_point_of_needing_weights(
    data: Collection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    created: list[tuple[str, dict[str, Any]]] = []
    served = (*LLM_KINDS, *HOSTED_KINDS)
    known = {kind: known_settings(kind) for kind in KINDS if kind not in (*served, "function")}
    monkeypatch.setattr(loading, "known_settings", known.__getitem__)
    monkeypatch.setattr(
        loading,
        "_creator",
        lambda kind: lambda *arguments, **options: created.append((kind, options)),
    )
    for name in CARDS:
        if read_card(name).kind not in served:
            load_teacher(name, data.corpus, work=tmp_path)
            assert created[-1][0] == read_card(name).kind
            assert read_card(name).settings.items() <= created[-1][1].items()


def test_the_kind_of_a_teacher_is_detected(data: Collection, model: Path, tmp_path: Path) -> None:
    encoder = tiny_backbone(tmp_path / "encoder")
    work = tmp_path / "work"
    assert isinstance(load_teacher("bm25", data.corpus, work=work), BM25Teacher)
    assert isinstance(
        load_teacher(str(model), data.corpus, work=work, max_length=32), CrossEncoderTeacher
    )
    assert isinstance(load_teacher(str(encoder), data.corpus, work=work), RetrieverTeacher)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("kind: oracle\nmodel: x", "oracle"),
        ("kind: retriever", "has no model"),
        ("kind: bm25\nmodle: x", "modle"),
        ("- a list", "a mapping of names"),
        ("kind: [", "YAML"),
        ("model: x", "lacks the key kind"),
    ],
)
def test_a_faulty_card_stops(tmp_path: Path, text: str, fault: str) -> None:
    card = tmp_path / "card.yaml"
    card.write_text(text)
    with pytest.raises(IrdistillError, match=fault):
        read_card(str(card))


def test_unknown_teachers_and_settings_stop(data: Collection, tmp_path: Path) -> None:
    with pytest.raises(IrdistillError, match="no model folder"):
        load_teacher("./absent/model", data.corpus)
    with pytest.raises(IrdistillError, match="no teacher 'absent-teacher'"):
        load_teacher("absent-teacher", data.corpus)
    with pytest.raises(IrdistillError, match="max_length"):
        load_teacher("bm25", data.corpus, work=tmp_path, max_length=10)
    with pytest.raises(IrdistillError, match="empty"):
        load_teacher("", data.corpus)
