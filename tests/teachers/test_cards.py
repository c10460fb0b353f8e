"""Every card in ``teachers/``: what can be checked of it without its model."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill.card_files import card_folder
from irdistill.teachers import read_card
from irdistill.teachers.llm import llm_loading as loading
from irdistill.teachers.llm.language_model import Answer
from irdistill.teachers.pair_prompts import PairTemplate
from irdistill.teachers.protocol import TextPair
from irdistill.teachers.teacher_card import HOSTED_KINDS, LLM_KINDS
from irdistill.teachers.teacher_loading import known_settings
from tests.teachers.llm.ranking_fakes import FakeModel, choose_better, list_answer, query_pairs

CARDS = sorted(card_folder("teachers").glob("*.yaml"))
REPLIES: dict[str, Any] = {
    "llm-listwise": list_answer,
    "llm-pairwise": choose_better,
    "llm-pointwise": lambda worths: Answer(labels=choose_better([*worths, 0]).labels),
}


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_included_cards_make_prompts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = read_card(str(path))
    assert (
        card.name == path.stem
        and card.license
        and card.source
        and (card.description or card.kind == "bm25")
    )
    if card.kind in HOSTED_KINDS:
        return  # tests/teachers/hosted sends requests for these
    if card.kind not in LLM_KINDS:
        settings = card.settings
        assert set(settings) <= known_settings(card.kind)
        if "template" in settings:
            text, _, _ = PairTemplate(settings["template"], settings.get("instruction", "")).fill(
                "a query", "a document"
            )
            assert "a query" in text and "a document" in text and "{" not in text
        return
    # Settings must be known to the kind or to the back end, whose class is not called.
    backend = loading._find(loading._MODELS[card.backend])
    settings_used: dict[str, Any] = {}
    labels = card.settings.get("labels", ["yes", "no"])
    reply = REPLIES[card.kind]
    if card.kind == "llm-pointwise":

        def reply(worths: list[int]) -> Answer:
            return Answer(
                labels=choose_better([1, 2]).labels.repeat(len(labels))[: len(labels)] - 99
            )  # type: ignore[union-attr]

    elif card.settings.get("by") == "labels" and card.kind == "llm-listwise":

        def reply(worths: list[int]) -> Answer:
            return Answer(labels=np.array(worths, np.float32) - 99)

    model = FakeModel(reply)
    monkeypatch.setattr(
        loading,
        "load_language_model",
        lambda card, settings: settings_used.update(settings) or model,
    )
    teacher = loading.load_llm_teacher(card, card.settings)
    assert set(settings_used) <= set(inspect.signature(backend).parameters)
    pairs: list[TextPair] = query_pairs([11, 13, 12])
    if card.kind == "llm-pointwise":
        assert len(teacher.score(pairs).values) == 3  # type: ignore[union-attr]
    else:
        assert teacher.rank([pairs])[0].order[0] == 1  # type: ignore[union-attr]
    for request in model.requests:
        text = "\n".join(message.content for message in request.messages)
        assert "about q" in text and "points" in text and "{" not in text and len(text) > 60
    if "server" in path.stem or card.backend == "openai":
        assert card.server["url"].endswith("/v1")


def test_all_cards_are_covered() -> None:
    assert {
        "server-listwise",
        "gpt-4o-mini-pointwise",
        "rankzephyr",
        "qwen3-reranker-0.6b",
        "monot5-base",
    } <= {one.stem for one in CARDS}
