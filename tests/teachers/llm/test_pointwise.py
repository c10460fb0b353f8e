"""Scores from probabilities: log-odds, expected gains, and null where there is no probability."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill.card_files import card_folder
from irdistill.collections import Collection, Query
from irdistill.errors import IrdistillError, NothingScoredError
from irdistill.runs import MemoryRun, RankedList, RunIdentity, open_run, verify
from irdistill.teachers import ScoreOptions, TeacherCard, TextPair, load_teacher, score
from irdistill.teachers.llm import Answer, Request
from irdistill.teachers.llm.pointwise_teacher import NOT_REPORTED, PointwiseTeacher
from irdistill.teachers.llm.pointwise_teacher import PROMPT as PLAIN_PROMPT
from irdistill.teachers.protocol import Teacher
from irdistill.teachers.scoring_reports import unscored_flags
from tests.teachers.llm.tiny import tiny_lm

PROMPT = {"system": "Judge.", "user": "Query: {query}\nPassage: {passage}"}
CAT, DOG = Query("q2", "cat"), Query("q1", "dog")


class Scripted:
    """Answers by the passage, and records its requests."""

    identity: dict[str, Any] = {"model": "scripted", "revision": "1"}  # noqa: RUF012
    parallel = 4

    def __init__(self, **by_passage: Answer) -> None:
        self.by_passage, self.received = by_passage, list[Request]()

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        self.received += requests
        return [
            self.by_passage[request.messages[-1].content.rsplit(maxsplit=1)[1]]
            for request in requests
        ]


def logs(*probabilities: float) -> np.ndarray:
    return np.log(np.array(probabilities, np.float32))


def mass(total: float, count: int, low: int = 0) -> dict[str, Any]:
    return {
        "label_mass_sum": pytest.approx(total),
        "label_mass_count": count,
        "label_mass_low_count": low,
    }


def test_two_labels_give_log_odds() -> None:
    model = Scripted(
        good=Answer(labels=logs(0.6, 0.1), input_tokens=9, cached_tokens=5),
        bad=Answer(labels=logs(0.1, 0.3)),
    )
    teacher = PointwiseTeacher(model, PROMPT)
    scored = teacher.score(
        [TextPair(CAT, 0, "good"), TextPair(DOG, 1, "bad"), TextPair(CAT, 1, "bad")]
    )
    assert scored.values.dtype == np.float32
    assert scored.values == pytest.approx([math.log(6), -math.log(3), -math.log(3)])
    assert scored.flags is None and scored.usage == {
        "requests": 3,
        "tokens": 9,
        "cached_tokens": 5,
        **mass(1.5, 3),
    }
    assert isinstance(teacher, Teacher)
    assert [request.messages[-1].content for request in model.received] == [
        "Query: dog\nPassage: bad",
        "Query: cat\nPassage: good",
        "Query: cat\nPassage: bad",
    ]  # query by query
    assert {request.labels for request in model.received} == {("yes", "no")}


def test_gains_give_the_expected_gain_among_the_labels() -> None:
    teacher = PointwiseTeacher(
        Scripted(x=Answer(labels=logs(0.05, 0.1, 0.1, 0.25))),
        PROMPT,
        labels=("0", "1", "2", "3"),
        gains=(0, 1, 2, 3),
    )
    assert teacher.score([TextPair(CAT, 0, "x")]).values == pytest.approx(
        [(0.1 + 0.2 + 0.75) / 0.5]
    )
    assert teacher.identity["score"] == "expected gain"


def test_pairs_without_an_answer_are_null_with_the_reason() -> None:
    model = Scripted(
        half=Answer(labels=np.array([-0.1, np.nan], np.float32)),
        long=Answer(error="too long"),
        good=Answer(labels=logs(0.5, 0.5)),
    )
    scored = PointwiseTeacher(model, PROMPT).score(
        [TextPair(CAT, row, text) for row, text in enumerate(("half", "long", "good"))]
    )
    assert np.isnan(scored.values).tolist() == [True, True, False] and scored.values[2] == 0
    assert scored.flags == [NOT_REPORTED, "too long", None]


def test_long_passages_are_cut_and_counted() -> None:
    model = Scripted(three=Answer(labels=logs(0.5, 0.5)))
    scored = PointwiseTeacher(model, PROMPT, passage_words=3).score(
        [TextPair(CAT, 0, "one two three four"), TextPair(CAT, 1, "three")]
    )
    assert model.received[0].messages[-1].content.endswith("Passage: one two three")
    assert scored.usage == {"requests": 2, "passages_cut": 1, **mass(2.0, 2)}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"labels": [True, False]}, "quotes"),
        ({"labels": "yes"}, "quotes"),
        ({"labels": ("a", "b", "c")}, "without gains"),
        ({"labels": ("a", "a")}, "two different"),
        ({"gains": (1,)}, "one number per label"),
        ({"passage_words": 0}, "at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(IrdistillError, match=said):
        PointwiseTeacher(Scripted(), PROMPT, **settings)


def test_a_prompt_is_checked_when_the_teacher_is_created(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(IrdistillError, match=r"\{passage\}"):
        PointwiseTeacher(Scripted(), {"user": "{query}"})
    with caplog.at_level(logging.WARNING):
        PointwiseTeacher(Scripted(), PROMPT)
        assert caplog.text == ""
        PointwiseTeacher(Scripted(), {"user": "{passage} {query}"})
    assert "before the query" in caplog.text


def test_without_a_prompt_yes_or_no_is_asked() -> None:
    teacher = PointwiseTeacher(Scripted(), {})
    assert teacher.identity["prompt"] == PLAIN_PROMPT and teacher.template.order("query", "passage")
    with pytest.raises(IrdistillError, match="a prompt that asks for them"):
        PointwiseTeacher(Scripted(), {}, labels=("true", "false"))


CARDS = sorted(
    path
    for path in card_folder("teachers").glob("*.yaml")
    if "kind: llm-pointwise" in path.read_text()
)


@pytest.mark.parametrize("path", CARDS, ids=[path.stem for path in CARDS])
def test_prompts_and_settings_of_cards_fit(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Prompt, labels and settings are accepted, without the model; the query comes first, so that
    it is computed once.
    """
    monkeypatch.setattr(
        "irdistill.teachers.llm.llm_loading.load_language_model", lambda card, settings: Scripted()
    )
    teacher = load_teacher(str(path), Collection.from_dicts("x", {"a": "a"}, {}, {}).corpus)
    assert isinstance(teacher, PointwiseTeacher)
    assert teacher.template.order("query", "passage") and caplog.text == ""
    assert {"smollm2-pointwise", "smollm2-graded", "qwen3-8b-pointwise"} <= {
        card.stem for card in CARDS
    }


def test_a_card_scores_a_run(tmp_path: Path) -> None:
    lm = tiny_lm(tmp_path / "lm")
    card = tmp_path / "tiny.yaml"
    card.write_text(f"""kind: llm-pointwise
backend: transformers
model: {lm}
settings: {{precision: float32, device: cpu, labels: ["yes", "no"], passage_words: 4}}
prompt:
  user: |-
    Is the passage relevant to the query?
    Query: {{query}}
    Passage: {{passage}}
""")
    collection = Collection.from_dicts(
        "small",
        {"a": "the cat sat on the mat", "b": "rain", "c": " "},
        {"q1": "a cat", "q2": "wet"},
        {},
    )
    lists = [
        RankedList(query, ["a", "b", "c"], np.array([3, 2, 1], np.float32))
        for query in collection.queries
    ]
    candidates = MemoryRun(RunIdentity("first-stage", {}, collection.describe()), lists)
    teacher = load_teacher(str(card), collection.corpus)
    assert isinstance(teacher, PointwiseTeacher)
    run = score(collection, candidates, teacher, tmp_path / "run")
    scored = run["q1"]
    assert (
        np.isfinite(scored.scores[:2]).all()
        and scored.scores[0] != scored.scores[1]
        and np.isnan(scored.scores[2])
    )
    assert run.manifest.usage["passages_cut"] == 2 and run.manifest.usage["requests"] == 4
    assert run.manifest.identity.producer["labels"] == ["yes", "no"]
    assert TeacherCard("x", "llm-pointwise", "m", backend="transformers").prompt == {}


def candidates_of(collection: Collection) -> MemoryRun:
    lists = [
        RankedList(query, ["a", "b"], np.array([2, 1], np.float32)) for query in collection.queries
    ]
    return MemoryRun(RunIdentity("first-stage", {}, collection.describe()), lists)


def test_label_mass_is_measured_and_low_mass_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a model that begins to think, the labels' odds are noise, however large they are."""
    collection = Collection.from_dicts(
        "two", {"a": "good", "b": "bad"}, {"q1": "cat", "q2": "dog"}, {}
    )
    thinking = Scripted(good=Answer(labels=logs(8e-6, 2e-6)), bad=Answer(labels=logs(2e-6, 8e-6)))
    run = score(
        collection,
        candidates_of(collection),
        PointwiseTeacher(thinking, PROMPT),
        tmp_path / "thinking",
        ScoreOptions(part_queries=1),
    )
    usage = run.manifest.usage
    assert (
        usage["label_mass_mean"] == pytest.approx(1e-5)
        and usage["label_mass_low_share"] == 1
        and usage["label_mass_count"] == 4
    )
    assert (
        caplog.text.count("rarely begins its answers with the labels 'yes', 'no'") == 1
        and "enable_thinking: false" in caplog.text
    )
    caplog.clear()
    sure = Scripted(good=Answer(labels=logs(0.8, 0.1)), bad=Answer(labels=logs(0.02, 0.04)))
    usage = score(
        collection,
        candidates_of(collection),
        PointwiseTeacher(sure, PROMPT),
        tmp_path / "sure",
        ScoreOptions(part_queries=1),
    ).manifest.usage
    assert (
        usage["label_mass_mean"] == pytest.approx((0.9 + 0.06) / 2)
        and usage["label_mass_low_share"] == 0.5
    )
    assert "something else" not in caplog.text
    relative = Scripted(good=Answer(labels=logs(0.5, 0.5)), bad=Answer(labels=logs(0.5, 0.5)))
    relative.relative_labels = True  # type: ignore[attr-defined]
    assert not [
        key
        for key in PointwiseTeacher(relative, PROMPT).score([TextPair(CAT, 0, "good")]).usage
        if "mass" in key
    ]


def test_a_run_without_a_score_is_an_error_and_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collection = Collection.from_dicts(
        "two", {"a": "good", "b": "bad"}, {"q1": "cat", "q2": "dog"}, {}
    )
    failing = PointwiseTeacher(
        Scripted(good=Answer(error="thinks first"), bad=Answer(error="too long")), PROMPT
    )
    for _ in range(2):  # a finished run says so again
        with pytest.raises(
            NothingScoredError,
            match=r"none of 4 documents \(2 thinks first, 2 too long\).*saved in .*--overwrite",
        ):
            score(
                collection,
                candidates_of(collection),
                failing,
                tmp_path / "none",
                ScoreOptions(part_queries=1),
            )
    assert caplog.text.count("scored none of the 2 documents of part 0") == 1
    run = open_run(tmp_path / "none")
    assert run.manifest.complete and run.manifest.nulls == 4 and verify(tmp_path / "none") == []
    assert unscored_flags(run) == {"thinks first": 2, "too long": 2}
    caplog.clear()
    half = PointwiseTeacher(
        Scripted(good=Answer(labels=logs(0.5, 0.5)), bad=Answer(error="cut")), PROMPT
    )
    run = score(collection, candidates_of(collection), half, tmp_path / "half")
    assert (
        "WARNING: 2 of 4 scores (50%) are null: all cut; the token limit ended the answers"
        in caplog.text
    )
    assert unscored_flags(run) == {"cut": 2}
