"""Rewrites by a person, by a template, and by a language model that is killed or answers badly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from irdistill.collections import Collection, load_collection
from irdistill.errors import IrdistillError
from irdistill.queries import HistoryTemplate, RewriteOptions, rewrite
from irdistill.queries.rewriting import read_prompt, transcript
from irdistill.teachers.llm.language_model import Answer, Request

OPTIONS = RewriteOptions(prompt={"user": "{history}\n--\n{question}"})


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collection:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "source"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d0", "text": "text"}) + "\n")
    lines = [{"_id": "q0", "text": "who is Ada?", "rewrite": "who is Ada?"}]
    history = []
    for number in range(1, 7):
        turns = [
            {"role": "user", "text": lines[-1]["text"]},
            {"role": "assistant", "text": f"SECRET answer {number - 1}"},
        ]
        history = [*history, *turns]
        lines.append(
            {
                "_id": f"q{number}",
                "text": f"and {number}?",
                "history": history,
                "rewrite": f"REWRITE {number}",
            }
        )
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "qrels" / "test.tsv").write_text(
        "q\td\tscore\n" + "".join(f"q{i}\td0\t1\n" for i in range(7))
    )
    return load_collection(folder)


class Model:
    """A language model that answers with the question in capitals and can be stopped."""

    parallel = 2

    def __init__(self, stop_after: int = 99, answers: dict[str, Answer] | None = None) -> None:
        self.stop_after, self.answers = stop_after, answers or {}
        self.seen: list[str] = []

    @property
    def identity(self) -> dict[str, Any]:
        return {"model": "stub"}

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        if len(self.seen) + len(requests) > self.stop_after:
            raise KeyboardInterrupt
        self.seen += [request.messages[-1].content for request in requests]
        questions = [text.rsplit("--\n", 1)[1] for text in self.seen[-len(requests) :]]
        return [self.answers.get(question, Answer(question.upper())) for question in questions]


def test_human_rewrites_last_turns_and_histories(source: Collection, tmp_path: Path) -> None:
    human = rewrite(source, tmp_path / "human", "human")
    assert [query.text for query in human.queries.values()] == [
        "who is Ada?",
        *(f"REWRITE {i}" for i in range(1, 7)),
    ]
    last = rewrite(source, tmp_path / "last", "last-turn")
    assert [query.text for query in last.queries.values()][:2] == ["who is Ada?", "and 1?"]
    rendered = rewrite(
        source, tmp_path / "laid", history=HistoryTemplate.parse("newest questions tokens=9")
    )
    assert rendered.queries["q2"].text == "and 2? [SEP] and 1? [SEP] who is Ada?"
    assert rendered.queries["q3"].text == "and 3? [SEP] and 2? [SEP] and 1?"
    made_by = json.loads((tmp_path / "laid" / "derived.json").read_text())["made_by"]
    assert (made_by["turns_cut"], made_by["queries_cut"], made_by["tokens_by"]) == (
        1 + 2 + 3 + 4,
        4,
        "words",
    )
    assert rendered.qrels.to_dict() == source.qrels.to_dict()


def test_no_rewrite_answer_or_later_turn_leaks_into_the_text(
    source: Collection, tmp_path: Path
) -> None:
    """The text may contain answers to earlier questions only when the template shows them."""
    for name, template in (
        ("questions", "newest questions"),
        ("all", "oldest all"),
        ("last", None),
    ):
        rewritten = rewrite(
            source, tmp_path / name, None if template else "last-turn", history=template
        )
        for number, query in enumerate(rewritten.queries.values()):
            assert query.rewrite is None and query.history == () and "REWRITE" not in query.text
            later = [f"and {other}?" for other in range(number + 1, 7)]
            assert not any(text in query.text for text in later)
            assert f"SECRET answer {number}" not in query.text
            assert ("SECRET" in query.text) == (name == "all" and number > 0)
        assert "REWRITE" not in (tmp_path / name / "queries.jsonl").read_text()


def test_a_language_model_rewrites_questions_with_a_history(
    source: Collection, tmp_path: Path
) -> None:
    answers = {"and 2?": Answer(error="refused"), "and 3?": Answer("  \n")}
    model = Model(answers=answers)
    rewritten = rewrite(source, tmp_path / "llm", llm=model, options=OPTIONS)
    texts = [query.text for query in rewritten.queries.values()]
    assert texts == ["who is Ada?", "AND 1?", "and 2?", "and 3?", "AND 4?", "AND 5?", "AND 6?"]
    assert model.seen[0] == "user: who is Ada?\nassistant: SECRET answer 0\n--\nand 1?"
    assert (
        json.loads((tmp_path / "llm" / "derived.json").read_text())["made_by"]["kept_as_asked"] == 2
    )


def test_unusable_answers_leave_the_question_unchanged(
    source: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers = {
        "and 1?": Answer("<think>a</think>\n\nWhat is one?"),
        "and 2?": Answer("<think>and 9?"),
        "and 3?": Answer("What is", cut=True),
        "and 4?": Answer("I'm sorry, but I can't."),
        "and 5?": Answer("Here is the question:\n```\nWhat is five?\n```"),
    }
    rewritten = rewrite(source, tmp_path / "llm", llm=Model(answers=answers), options=OPTIONS)
    texts = [query.text for query in rewritten.queries.values()]
    assert texts == [
        "who is Ada?",
        "What is one?",
        "and 2?",
        "and 3?",
        "and 4?",
        "What is five?",
        "AND 6?",
    ]
    made_by = json.loads((tmp_path / "llm" / "derived.json").read_text())["made_by"]
    assert made_by["kept_as_asked"] == 3 and made_by["unusable"] == {"cut": 2, "refused": 1}
    assert (
        "WARNING: 3 of 6 answers hold no question: 2 cut, 1 refused." in caplog.text
        and "--retry-tokens" in caplog.text
    )


def test_a_rewrite_of_nothing_is_an_error_after_saving(source: Collection, tmp_path: Path) -> None:
    model = Model(answers={f"and {number}?": Answer("<think>", cut=True) for number in range(1, 7)})
    with pytest.raises(
        IrdistillError,
        match=r"none of the 6 answers .* holds a question \(all cut\).*--retry-tokens",
    ):
        rewrite(source, tmp_path / "llm", llm=model, options=OPTIONS)
    assert load_collection(tmp_path / "llm").queries["q2"].text == "and 2?"


def test_a_stopped_job_resumes_with_the_same_bytes(source: Collection, tmp_path: Path) -> None:
    whole = Model()
    rewrite(source, tmp_path / "whole", llm=whole, options=OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        rewrite(source, tmp_path / "cut", llm=Model(stop_after=4), options=OPTIONS)
    assert not (tmp_path / "cut").exists()
    rest = Model()
    rewrite(source, tmp_path / "cut", llm=rest, options=OPTIONS)
    assert rest.seen == whole.seen[4:]
    for path in (tmp_path / "whole").rglob("*"):
        if path.is_file() and path.name != ".lock":
            assert (
                tmp_path / "cut" / path.relative_to(tmp_path / "whole")
            ).read_bytes() == path.read_bytes()


def test_missing_rewrites_and_invalid_prompts_are_refused(
    source: Collection, tmp_path: Path
) -> None:
    derived = rewrite(source, tmp_path / "last", "last-turn")
    with pytest.raises(
        IrdistillError, match=r"7 of 7 questions of .* have no rewrite, for example 'q0'"
    ):
        rewrite(derived, tmp_path / "no", "human")
    with pytest.raises(IrdistillError, match="by 'nobody'"):
        rewrite(source, tmp_path / "no", "nobody")  # type: ignore[arg-type]
    with pytest.raises(IrdistillError, match=r"lacks \{history\}"):
        rewrite(
            source,
            tmp_path / "no",
            llm=Model(),
            options=RewriteOptions(prompt={"user": "{question}"}),
        )
    assert not (tmp_path / "no").exists()


def test_transcript(source: Collection) -> None:
    query = source.queries["q2"]
    assert (
        transcript(query, HistoryTemplate("newest", "questions", " / "))
        == "user: and 1? / user: who is Ada?"
    )
    assert (
        transcript(query, HistoryTemplate("oldest", "all", "\n", turns=1))
        == "assistant: SECRET answer 1"
    )
    assert set(read_prompt("prompts/rewrite")) == {"system", "user"}
