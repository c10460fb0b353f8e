"""Every card of a hosted model sends what its server understands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill.card_files import card_folder
from irdistill.collections import Query
from irdistill.teachers import read_card
from irdistill.teachers.hosted.hosted_loading import load_hosted
from irdistill.teachers.protocol import TextPair
from irdistill.teachers.teacher_card import HOSTED_KINDS
from tests.teachers.hosted.hosted_stub import SHAPES, HostedStub, pair_score, text_vector

pytest.importorskip("openai")

CARDS = [
    card
    for path in sorted(card_folder("teachers").glob("*.yaml"))
    if (card := read_card(str(path))).kind in HOSTED_KINDS
]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_card_scores_by_its_shape(card: Any, folder: Path) -> None:
    pairs = [TextPair(Query("q", "a query"), row, f"text {row}") for row in range(3)]
    with HostedStub(card.server["shape"]).running() as stub:
        settings = card.settings | {"url": stub.url, "log": folder / "log.jsonl", "max_retries": 0}
        teacher: Any = load_hosted(card, settings)
        scores = teacher.score(pairs)
    body = stub.bodies[-1]
    assert scores.flags is None
    if card.kind == "hosted-reranker":
        assert scores.values.tolist() == [pair_score("a query", f"text {row}") for row in range(3)]
    else:
        vectors = [text_vector(text) for text in ("a query", "text 0", "text 1", "text 2")]
        unit = [vector / np.linalg.norm(vector) for vector in vectors]
        assert scores.values == pytest.approx(
            [unit[0] @ document for document in unit[1:]], abs=1e-6
        )
        assert card.server.get("document_parameters", {}).items() <= body.items()
    assert card.server.get("parameters", {}).items() <= body.items()
    assert body.get("model", card.model) == card.model
    assert card.server["limits"]["texts"] >= 32
    if "key" in card.server:
        assert card.server["url"].startswith("https://")
        assert card.server.get("prices") or "price is not known" in card.description


def test_there_is_a_card_of_every_shape() -> None:
    assert {card.server["shape"] for card in CARDS} == {*SHAPES, "openai"}
