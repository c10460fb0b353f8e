"""Listwise and pairwise teachers run by the scoring loop: nulls, flags, usage, resume, cards."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill.collections import Collection
from irdistill.runs import MemoryRun, RankedList, RunIdentity, verify
from irdistill.teachers import ScoreOptions, read_card, score
from irdistill.teachers.llm.language_model import Answer, Request
from irdistill.teachers.llm.listwise_teacher import ListwiseLLMTeacher
from irdistill.teachers.llm.pairwise_teacher import PairwiseTeacher
from tests.teachers.llm.ranking_fakes import (
    LISTWISE,
    PAIRWISE,
    FakeModel,
    choose_better,
    list_answer,
)
from tests.teachers.scoring_helpers import contents

WORTHS = [13, 28, 11, 25, 19, 22, 10, 27, 16]
DOCS = {f"d{row}": f"passage worth {worth} points" for row, worth in enumerate(WORTHS)} | {
    "empty": "  "
}
QUERIES = {f"q{number}": f"what is number {number}" for number in range(8)}


def small() -> tuple[Collection, MemoryRun]:
    collection = Collection.from_dicts(
        "small", DOCS, QUERIES, {query: {"d1": 1} for query in QUERIES}
    )
    lists = [
        RankedList(
            query,
            ["empty", *(f"d{(number + place) % 9}" for place in range(7))],
            np.arange(8, 0, -1, dtype=np.float32),
        )
        for number, query in enumerate(QUERIES)
    ]
    return collection, MemoryRun(
        RunIdentity("first-stage", {"model": "made up"}, collection.describe()), lists
    )


def careless(worths: list[int]) -> str:
    """Never names the passage worth 19, and names the one worth 22 twice."""
    names = list_answer(worths).split(" > ")
    kept = [name for name in names if worths[int(name[1:-1]) - 1] != 19]
    return " > ".join(kept + [name for name in kept if worths[int(name[1:-1]) - 1] == 22])


def unsure(worths: list[int]) -> Answer:
    return Answer(error="refused") if 19 in worths else choose_better(worths)


def both_forms(worths: list[int]) -> Answer:
    """The labels' log-probabilities, one of them not reported, and the order that it writes."""
    logs = np.array([np.nan if worth == 19 else worth - 99 for worth in worths], np.float32)
    return Answer(list_answer(worths), logs)


TEACHERS: dict[str, Callable[..., Any]] = {
    "sliding": lambda **more: ListwiseLLMTeacher(
        FakeModel(careless, **more), LISTWISE, window=4, step=2, passes=3
    ),
    "top-down": lambda **more: ListwiseLLMTeacher(
        FakeModel(careless, **more), LISTWISE, method="top-down", window=4, top=2
    ),
    "first token": lambda **more: ListwiseLLMTeacher(
        FakeModel(both_forms, **more),
        LISTWISE | {"labels": ["1", "2", "3", "4"]},
        by="labels",
        window=4,
        step=2,
        compare_generated=0.5,
    ),
    "all": lambda **more: PairwiseTeacher(FakeModel(unsure, **more), PAIRWISE),
    "heapsort": lambda **more: PairwiseTeacher(
        FakeModel(unsure, **more), PAIRWISE, method="heapsort", top=3
    ),
}


def test_unranked_documents_are_null_with_a_flag(tmp_path: Path) -> None:
    collection, first = small()
    run = score(collection, first, TEACHERS["sliding"](), tmp_path / "run")
    scored = run["q0"]
    scores = dict(zip(scored.doc_ids, scored.scores.tolist(), strict=True))
    flags = dict(zip(scored.doc_ids, scored.flags or [], strict=True))
    ranked = [
        doc for doc in sorted(scores, key=lambda doc: -scores[doc]) if not np.isnan(scores[doc])
    ]
    assert ranked == ["d1", "d3", "d0", "d2", "d6"]
    assert [scores[doc] for doc in ranked] == [7.0, 6.0, 5.0, 4.0, 3.0]
    assert {doc: flag for doc, flag in flags.items() if flag} == {
        "empty": "empty text",
        "d4": "omitted",
        "d5": "repeated",
    }
    usage = run.manifest.usage
    assert usage["windows"] == usage["requests"] > usage["windows_ok"]
    assert usage["omitted"] > 0 and usage["repeated"] > 0 and usage["tokens"] > 0
    assert run.manifest.nulls == sum(np.isnan(run[query].scores).sum() for query in QUERIES)
    assert verify(tmp_path / "run") == []


def test_wins_and_ties_are_the_scores_of_all_pairs(tmp_path: Path) -> None:
    collection, first = small()
    run = score(collection, first, TEACHERS["all"](), tmp_path / "run")
    scored = run["q0"]
    scores = dict(zip(scored.doc_ids, scored.scores.tolist(), strict=True))
    assert np.isnan(scores.pop("empty")) and np.isnan(scores.pop("d4"))
    assert scores == {"d1": 5.0, "d3": 4.0, "d5": 3.0, "d0": 2.0, "d2": 1.0, "d6": 0.0}
    flags = dict(zip(scored.doc_ids, scored.flags or [], strict=True))
    assert {doc: flag for doc, flag in flags.items() if flag} == {
        "empty": "empty text",
        "d4": "refused",
    }
    assert run.manifest.usage["requests"] == 8 * 7 * 6
    assert run.manifest.usage["comparisons"] == 8 * 7 * 3


@pytest.mark.parametrize("name", TEACHERS)
@pytest.mark.parametrize("fail_after", [1, 15])
def test_an_interrupted_job_ends_with_the_same_bytes(
    tmp_path: Path, name: str, fail_after: int
) -> None:
    collection, first = small()
    score(collection, first, TEACHERS[name](), tmp_path / "whole", ScoreOptions(part_queries=2))

    class Stopping(FakeModel):
        def answer(self, requests: Sequence[Request]) -> list[Answer]:
            if len(self.requests) >= fail_after:
                raise KeyboardInterrupt
            return super().answer(requests)

    teacher = TEACHERS[name](delay=0.001)
    reply = teacher._model.reply
    teacher._model = Stopping(reply, 3, True)
    with pytest.raises(KeyboardInterrupt):
        score(collection, first, teacher, tmp_path / "cut", ScoreOptions(part_queries=2))
    assert not (tmp_path / "cut" / "part-00003.parquet").exists()
    score(
        collection,
        first,
        TEACHERS[name](parallel=5, concurrent=True, delay=0.001),
        tmp_path / "cut",
        ScoreOptions(part_queries=2),
    )
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "kind", "reply"),
    [
        ("smollm2-listwise", ListwiseLLMTeacher, list_answer),
        ("rankzephyr", ListwiseLLMTeacher, list_answer),
        ("smollm2-pairwise", PairwiseTeacher, choose_better),
    ],
)
def test_prompts_and_settings_of_ranking_cards_fit(
    tmp_path: Path, name: str, kind: type, reply: Any
) -> None:
    card = read_card(name)
    assert card.kind == {ListwiseLLMTeacher: "llm-listwise", PairwiseTeacher: "llm-pairwise"}[kind]
    assert card.license and card.source and card.description
    card_settings = {
        key: value
        for key, value in card.settings.items()
        if key in inspect.signature(kind).parameters
    }
    model = FakeModel(reply)
    collection, first = small()
    run = score(collection, first, kind(model, card.prompt, **card_settings), tmp_path / "run")
    scored = [
        doc
        for doc, value in zip(run["q0"].doc_ids, run["q0"].scores.tolist(), strict=True)
        if value == value
    ]
    assert len(scored) == 7 and scored[0] == "d1"
    request = model.requests[0]
    assert any("what is number 0" in message.content for message in request.messages)
