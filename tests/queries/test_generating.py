"""Synthetic queries: kinds, source passages, duplicates, and resumed jobs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irdistill.collections import Collection, Document, load_collection
from irdistill.errors import IrdistillError
from irdistill.queries import Generation, generate
from irdistill.queries.generating import example_pairs, query_kind
from irdistill.queries.passage_keywords import KeywordSampler
from irdistill.queries.query_kinds import (
    normalize_query,
    passage_title,
    split_sentences,
    title_question,
)
from irdistill.teachers.llm.language_model import Answer, Request

TEXT = (
    "The first sentence has six words. Too short. A second one, again of eight words here! and this"
    " goes on"
)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collection:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "source"
    (folder / "qrels").mkdir(parents=True)
    lines = [
        {
            "_id": f"d{i}",
            "title": f"Title number {i}" if i else "",
            "text": f"Number {i} is here in this sentence. {TEXT}",
        }
        for i in range(10)
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "a real query"}) + "\n")
    (folder / "qrels" / "test.tsv").write_text("q\td\tscore\nq\td3\t1\nq\td4\t2\nq\td5\t0\n")
    return load_collection(folder)


def test_titles_and_sentences(source: Collection, tmp_path: Path) -> None:
    generated = generate(source, tmp_path / "out", Generation(sentences=9, held_out=0))
    assert (
        generated.id == f"{tmp_path / 'out'}#train"
        and generated.corpus.fingerprint == source.corpus.fingerprint
    )
    texts = {query.id: query.text for query in generated.queries.values()}
    assert texts["title:d1:0"] == "Title number 1" and "title:d0:0" not in texts
    assert texts["sentence:d0:0"] == "Number 0 is here in this sentence."
    assert texts["sentence:d0:1"] == "The first sentence has six words."
    assert [key for key in texts if key.startswith("sentence:d1:")] == [
        "sentence:d1:0"
    ]  # the others are duplicates of d0's
    made_by = json.loads((tmp_path / "out" / "derived.json").read_text())["made_by"]
    assert made_by["counts"] == {
        "title": 7,
        "sentence": 10,
        "duplicates": 14,
    }  # 8 sources, two sentences in common
    assert (made_by["sources"], made_by["avoided"]) == (8, 2)
    assert all(generated.qrels[query_id] == {query_id.split(":")[1]: 1} for query_id in texts)
    assert {query_kind(query_id) for query_id in texts} == {"title", "sentence"}


def test_relevant_passages_are_not_sources(source: Collection, tmp_path: Path) -> None:
    def used(**settings: Any) -> set[str]:
        out = tmp_path / str(sorted(settings.items()))
        return {
            doc
            for judged in generate(source, out, Generation(held_out=0, **settings)).qrels.values()
            for doc in judged
        }

    assert used() == {f"d{i}" for i in range(10)} - {"d3", "d4"}
    assert used(avoid="where-possible") == used()
    assert used(avoid="never") == {f"d{i}" for i in range(10)}
    assert len(used(passages=3)) == 3


def test_too_few_sources_are_recorded_or_an_error(source: Collection, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    (folder / "qrels" / "test.tsv").write_text(
        "q\td\tscore\n" + "".join(f"q\td{i}\t1\n" for i in range(9))
    )
    collection = load_collection(folder)
    assert len(generate(collection, tmp_path / "strict", Generation(held_out=0)).qrels) == 3
    generate(collection, tmp_path / "loose", Generation(avoid="where-possible"))
    made_by = json.loads((tmp_path / "loose" / "derived.json").read_text())["made_by"]
    assert made_by["avoided"] == 0 and made_by["note"].startswith(
        "9 of 10 passages are judged relevant"
    )
    (folder / "qrels" / "test.tsv").write_text(
        "q\td\tscore\n" + "".join(f"q\td{i}\t1\n" for i in range(10))
    )
    with pytest.raises(IrdistillError, match=r"every passage .* is judged relevant"):
        generate(load_collection(folder), tmp_path / "none")


def test_queries_of_one_passage_are_held_out_together(source: Collection, tmp_path: Path) -> None:
    options = Generation(avoid="never", held_out=0.4)
    train = generate(source, tmp_path / "out", options)
    dev = load_collection(f"{tmp_path / 'out'}#dev")
    sources = [{doc for judged in split.qrels.values() for doc in judged} for split in (train, dev)]
    assert sources[0] | sources[1] == {f"d{i}" for i in range(10)} and not sources[0] & sources[1]
    assert sources[1] == {"d0", "d4", "d5"}  # determined by the seed
    whole = generate(source, tmp_path / "whole", Generation(avoid="never", held_out=0))
    assert {key: query.text for key, query in {**train.queries, **dev.queries}.items()} == {
        key: query.text for key, query in whole.queries.items()
    }
    # an extracted training query excludes its source; a held-out query does not
    assert all(query.excluded == tuple(train.qrels[key]) for key, query in train.queries.items())
    assert not any(query.excluded for query in dev.queries.values())


class Model:
    """A language model that answers with the last word of the passage and can be stopped."""

    parallel = 2

    def __init__(self, stop_after: int = 99) -> None:
        self.stop_after, self.seen = stop_after, 0
        self.prompts: list[str] = []

    @property
    def identity(self) -> dict[str, Any]:
        return {"model": "stub"}

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        if self.seen + len(requests) > self.stop_after:
            raise KeyboardInterrupt
        self.seen += len(requests)
        generated = []
        for request in requests:
            text = next(message.content for message in request.messages if message.role == "user")
            self.prompts.append(text)
            number = text.rsplit("Number ", 1)[1][0]
            generated.append(
                Answer(error="refused")
                if number == "7"
                else Answer(f'Query: "what is {number}?"\nbecause')
            )
        return generated


def test_queries_are_written_and_a_stopped_job_resumes(source: Collection, tmp_path: Path) -> None:
    options = Generation(kinds=("questions", "web"), held_out=0)
    whole = generate(source, tmp_path / "whole", options, Model())
    assert [query.text for query in whole.queries.values()] == [
        f"what is {i}?" for i in (0, 1, 2, 5, 6, 8, 9)
    ]
    counts = json.loads((tmp_path / "whole" / "derived.json").read_text())["made_by"]["counts"]
    assert counts == {"questions": 7, "web": 0, "refused": 2, "duplicates": 7}
    with pytest.raises(KeyboardInterrupt):
        generate(source, tmp_path / "cut", options, Model(stop_after=11))
    rest = Model()
    generate(source, tmp_path / "cut", options, rest)
    assert rest.seen == 6  # sixteen texts, ten of them logged
    for name in ("derived.json", "queries.jsonl", "qrels/train.tsv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_extracted_questions_and_keywords(source: Collection, tmp_path: Path) -> None:
    options = Generation(kinds=("title-question", "keyword"), held_out=0)
    generated = generate(source, tmp_path / "out", options)
    texts = {query.id: query.text for query in generated.queries.values()}
    assert texts["title-question:d1:0"] == title_question(
        "Title number 1", np.random.default_rng([42, 1, 1])
    )
    keywords = {key: text for key, text in texts.items() if query_kind(key) == "keyword"}
    # all documents have the words of TEXT, so only "title", which d0 does not have, distinguishes
    assert not keywords and "title-question:d0:0" not in texts
    assert all(query.excluded for query in generated.queries.values())


def test_keywords_are_drawn_by_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path))
    texts = {f"d{i}": f"common pair{i // 2} pair{i // 2} word{i % 3} alone{i} 12" for i in range(6)}
    sampler = KeywordSampler(Collection.from_dicts("six", texts, {}).corpus)
    drawn = [sampler.draw(0, np.random.default_rng(seed)) for seed in range(300)]
    # "common" is in all, "alone0" in one, "12" is a number
    assert all(sorted(words) == ["pair0", "word0"] for words in drawn)
    firsts = [words[0] for words in drawn]
    # both are in two of six documents, and "pair0" is twice in this one: its chance is 2/3
    assert 0.6 < firsts.count("pair0") / 300 < 0.73


class SeesParts(Model):
    """A language model that keeps its prompts and answers with a number of its own."""

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        answers = []
        for request in requests:
            self.prompts += [m.content for m in request.messages if m.role == "user"]
            answers.append(Answer(f"what is {len(self.prompts)}?"))
        return answers


def test_some_kinds_are_written_without_the_passage(source: Collection, tmp_path: Path) -> None:
    model = SeesParts()
    options = Generation(kinds=("title-questions", "paraphrases"), held_out=0)
    generated = generate(source, tmp_path / "out", options, model)
    titles = [prompt for prompt in model.prompts if "Title:" in prompt]
    statements = [prompt for prompt in model.prompts if "Statement:" in prompt]
    # d0 has no title, and d3 and d4 are judged relevant
    assert [prompt.split()[-1] for prompt in titles] == ["1", "2", "5", "6", "7", "8", "9"]
    assert not any("sentence" in prompt for prompt in titles)
    shown = [prompt.split("Statement: ")[1].strip() for prompt in statements]
    assert shown and all(
        text in split_sentences(source.corpus.text(9)) or "Number" in text for text in shown
    )
    assert generated.qrels["title-questions:d1:0"] == {"d1": 1}
    assert generated.qrels["paraphrases:d0:0"] == {"d0": 1}
    assert not any(query.excluded for query in generated.queries.values())


class Says(Model):
    """A language model with one fixed answer, and another answer if it may write more tokens."""

    def __init__(self, said: Answer, more: str = "what is more?") -> None:
        super().__init__()
        self.said, self.more = said, more

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        self.seen += len(requests)
        return [Answer(self.more) if request.max_tokens > 50 else self.said for request in requests]


UNUSABLE = {
    "refused": Answer("I'm sorry, but I can't write that."),
    "cut": Answer("<think>The passage says"),
    "no answer": Answer("Here is the question:"),
    "too long": Answer(error="too long"),
}


@pytest.mark.parametrize("flag", UNUSABLE)
def test_no_usable_answer_is_an_error(source: Collection, tmp_path: Path, flag: str) -> None:
    model = Says(UNUSABLE[flag])
    with pytest.raises(
        IrdistillError,
        match=rf"none of the 8 answers .* holds a query \(all {flag}\).*nothing.responses.jsonl",
    ):
        generate(source, tmp_path / "nothing", Generation(kinds=("web",)), model)
    assert (
        model.seen == 8
        and not (tmp_path / "nothing").exists()
        and (tmp_path / "nothing.responses.jsonl").exists()
    )
    for _ in range(2):
        with pytest.raises(
            IrdistillError, match="none of the 8 answers"
        ):  # extracted queries are saved
            generate(source, tmp_path / "titles", Generation(kinds=("title", "web")), model)
    made_by = json.loads((tmp_path / "titles" / "derived.json").read_text())["made_by"]
    assert made_by["counts"] == {"title": 7, flag: 8, "web": 0} and "retry_tokens" not in made_by
    assert len(load_collection(f"{tmp_path / 'titles'}#train").queries) == 6


def test_cut_answers_are_retried(
    source: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Says(Answer("<think>The passage", cut=True))
    generated = generate(
        source, tmp_path / "out", Generation(kinds=("web",), held_out=0, retry_tokens=900), model
    )
    assert [query.text for query in generated.queries.values()] == ["what is more?"]
    assert model.seen == 16 and "WARNING:" not in caplog.text
    rest = Says(Answer("other"))
    generate(
        source, tmp_path / "out", Generation(kinds=("web",), held_out=0, retry_tokens=900), rest
    )
    assert rest.seen == 0
    with pytest.raises(IrdistillError, match="retry_tokens is 50"):
        Generation(retry_tokens=50)


def test_few_shot_shows_real_queries(source: Collection, tmp_path: Path) -> None:
    assert example_pairs(source) == [
        (source.corpus.text(4), "a real query")
    ]  # the best-judged passage
    model = Model()
    pairs = [(f"passage {i}", f"real query {i}") for i in range(5)]
    generate(source, tmp_path / "shown", Generation(kinds=("few-shot",), passages=4), model, pairs)
    for prompt in model.prompts:
        assert sum(f"Passage: passage {i}\nQuery: real query {i}" in prompt for i in range(5)) == 3
    assert len({prompt.split("Number")[0] for prompt in model.prompts}) > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ()}, "kinds of queries"),
        ({"kinds": ("poems",)}, "poems"),
        ({"kinds": ("title", "title")}, "each once"),
        ({"avoid": "maybe"}, "avoid is 'maybe'"),
        ({"sentences": 0}, "sentences is 0"),
        ({"passages": -1}, "passages is -1"),
    ],
)
def test_invalid_options_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(IrdistillError, match=message):
        Generation(**settings)


def test_kinds_need_a_model_and_examples(source: Collection, tmp_path: Path) -> None:
    with pytest.raises(IrdistillError, match="need a language model"):
        generate(source, tmp_path / "no", Generation(kinds=("questions",)))
    with pytest.raises(IrdistillError, match="got 0"):
        generate(source, tmp_path / "no", Generation(kinds=("few-shot",)), Model())


@given(st.text())
def test_sentences_are_in_the_text(text: str) -> None:
    flat = " ".join(text.split())
    for generated in split_sentences(text):
        assert generated in flat and 5 <= len(generated.split()) <= 40
    assert normalize_query(normalize_query(text)) == normalize_query(text)


def test_passage_titles() -> None:
    assert passage_title(Document("d", " A  title ", "# Heading")) == "A title"
    assert (
        passage_title(Document("d", "", "text\n## The passage_title ##\n# Other"))
        == "The passage_title"
    )
    assert passage_title(Document("d", "", "no passage_title")) == ""
    assert split_sentences("one two three four five .\nsix seven eight nine ten eleven .") == [
        "one two three four five .",
        "six seven eight nine ten eleven .",
    ]
