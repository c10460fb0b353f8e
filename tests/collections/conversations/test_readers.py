"""Published conversations: all layouts give the same questions, without rewrites, answers or later
turns.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from irdistill.collections import Collection, Query, Turn, load_collection
from irdistill.collections.derived import write_derived
from irdistill.errors import IrdistillError
from tests.collections.conversations import published
from tests.collections.conversations.published import ANSWERS, ASKED, PASSAGES, REWRITES


def talk(*ids: str, answers: list[str] | None = ANSWERS) -> dict[str, Query]:
    """The questions that every layout should give."""
    history: list[Turn] = []
    queries = {}
    for number, query_id in enumerate(ids):
        queries[query_id] = Query(query_id, ASKED[number], tuple(history), REWRITES[number])
        history.append(Turn("user", ASKED[number]))
        if answers:
            history.append(Turn("assistant", answers[number]))
    return queries


def mtrag_with_answers(folder: Path) -> None:
    published.mtrag(folder)
    published.mtrag_answers(folder)


LAYOUTS: dict[
    str, tuple[Callable[[Path], None], str, dict[str, Query], dict[str, dict[str, int]]]
] = {
    "qrecc": (published.qrecc, "test", talk("7_1", "7_2"), {"7_1": {"p1": 1}, "7_2": {"p2": 1}}),
    "topiocqa": (published.topiocqa, "dev", talk("1_1", "1_2"), {"1_1": {"1": 1}, "1_2": {"2": 1}}),
    "mtrag": (
        published.mtrag,
        "sky",
        talk("c0<::>1", "c0<::>2", answers=None),
        {"c0<::>1": {"p1": 1}, "c0<::>2": {"p2": 1}},
    ),
    "mtrag-answers": (
        mtrag_with_answers,
        "sky",
        talk("c0<::>1", "c0<::>2"),
        {"c0<::>1": {"p1": 1}, "c0<::>2": {"p2": 1}},
    ),
    "ikat23": (
        published.ikat,
        "2023",
        talk("9-1_1", "9-1_2"),
        {"9-1_1": {"p1": 3}, "9-1_2": {"p2": 0, "p3": 1}},
    ),
    "ikat25": (
        lambda folder: published.ikat(folder, 2025),
        "2025",
        talk("9-1_1", "9-1_2"),
        {"9-1_1": {"p1": 3}, "9-1_2": {"p2": 0, "p3": 1}},
    ),
    "cast19": (
        lambda folder: published.cast(folder, 2019),
        "2019",
        talk("31_1", "31_2", answers=None),
        {"31_1": {"p1": 4}, "31_2": {"p2": 2}},
    ),
    "cast20": (
        lambda folder: published.cast(folder, 2020),
        "2020",
        talk("31_1", "31_2", answers=list(PASSAGES.values())),
        {"31_1": {"p1": 4}, "31_2": {"p2": 2}},
    ),
    "cast21": (
        lambda folder: published.cast(folder, 2021),
        "2021",
        talk("31_1", "31_2"),
        {"31_1": {"p1": 4}, "31_2": {"p2": 2}},
    ),
    "cast22": (
        lambda folder: published.cast(folder, 2022),
        "2022",
        talk("31_1-1", "31_2-1", "31_3-2"),
        {"31_1-1": {"p1": 4}, "31_2-1": {"p2": 2}, "31_3-2": {"p3": 0}},
    ),
}


def load(name: str, tmp_path: Path, split: bool = True) -> Collection:
    write, chosen, _, _ = LAYOUTS[name]
    write(tmp_path / name)
    return load_collection(
        f"{tmp_path / name}{f'#{chosen}' if split else ''}", cache=tmp_path / "cache"
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_gives_the_same_questions(name: str, tmp_path: Path) -> None:
    collection = load(name, tmp_path)
    _, _, queries, judgments = LAYOUTS[name]
    other_branch = {key: query for key, query in collection.queries.items() if key == "31_1-3"}
    assert {
        key: query for key, query in collection.queries.items() if key not in other_branch
    } == queries
    assert {
        key: grades for key, grades in collection.qrels.to_dict().items() if key not in other_branch
    } == judgments
    assert len(collection.corpus) == 3
    assert collection.report.count("unjudged queries") == (0 if name == "cast22" else 1)


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_question_contains_its_rewrite_answer_or_later_turns(name: str, tmp_path: Path) -> None:
    collection = load(name, tmp_path)
    answers = list(PASSAGES.values()) if name == "cast20" else ANSWERS
    seen_before = 0
    for query in collection.queries.values():
        if query.text.startswith("SECRET of another branch"):
            continue
        place = ASKED.index(query.text)
        read = [query.text, *(turn.text for turn in query.history)]
        assert not [text for text in read if "REWRITE" in text or "SECRET" in text]
        assert not set(read) & {*answers[place:], *ASKED[place + 1 :]}
        assert query.rewrite == REWRITES[place]
        seen_before += len(query.history)
    assert seen_before > 0
    said = {turn.text for query in collection.queries.values() for turn in query.history}
    assert (answers[0] in said) == (name not in ("mtrag", "cast19"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_default_split_is_the_first(name: str, tmp_path: Path) -> None:
    assert load(name, tmp_path, split=False).queries.keys() >= LAYOUTS[name][2].keys()


def test_cast_2020_falls_back_to_manual_answers(
    tmp_path: Path,
) -> None:
    published.cast(tmp_path / "cast", 2020)
    (tmp_path / "cast/2020/2020_automatic_evaluation_topics_v1.0.json").unlink()
    collection = load_collection(tmp_path / "cast", cache=tmp_path / "cache")
    assert collection.queries["31_2"].history[1] == Turn("assistant", PASSAGES["p3"])
    topics = tmp_path / "cast/2020/2020_manual_evaluation_topics_v1.0.json"
    topics.write_text(topics.read_text().replace('"p3"', '"gone"'))
    collection = load_collection(tmp_path / "cast", cache=tmp_path / "cache")
    assert collection.queries["31_2"].history == (Turn("user", ASKED[0]),)
    assert collection.report.count("responses without document") == 3


def test_splits_of_one_folder_are_separate(tmp_path: Path) -> None:
    folder = tmp_path / "cast"
    for year in (2021, 2022):
        published.cast(folder, year)
    assert list(load_collection(folder, cache=tmp_path / "c").queries) == [
        "31_1-1",
        "31_1-3",
        "31_2-1",
        "31_3-2",
    ]
    assert list(load_collection(f"{folder}#2021", cache=tmp_path / "c").queries) == ["31_1", "31_2"]
    with pytest.raises(
        IrdistillError, match=r"has no '2020' of TREC CAsT; it has 2022, 2021.*treccastweb"
    ):
        load_collection(f"{folder}#2020", cache=tmp_path / "c")


def test_domain_of_mtrag_must_be_named(tmp_path: Path) -> None:
    published.mtrag(tmp_path / "m")
    tasks = tmp_path / "m/mtrag-human/retrieval_tasks"
    shutil.copytree(tasks / "sky", tasks / "sea")
    (tasks / "sea" / "sky_lastturn.jsonl").rename(tasks / "sea" / "sea_lastturn.jsonl")
    with pytest.raises(IrdistillError, match=r"2 domains of MTRAG.*#sea or .*#sky"):
        load_collection(tmp_path / "m", cache=tmp_path / "c")
    with pytest.raises(
        IrdistillError,
        match=r"no sea_questions.jsonl, which https://github.com/IBM/mt-rag-benchmark publishes",
    ):
        load_collection(f"{tmp_path / 'm'}#sea", cache=tmp_path / "c")


def test_files_of_two_releases_are_refused(tmp_path: Path) -> None:
    published.mtrag(tmp_path / "m")
    last = tmp_path / "m/mtrag-human/retrieval_tasks/sky/sky_lastturn.jsonl"
    last.write_text(last.read_text().replace(ASKED[1], "something else?"))
    with pytest.raises(
        IrdistillError, match=r"'c0<::>2' is 'something else\?' in .*of different releases"
    ):
        load_collection(tmp_path / "m", cache=tmp_path / "c")


def test_qrecc_falls_back_to_a_judgment_file(tmp_path: Path) -> None:
    published.qrecc(tmp_path / "q")
    turns = json.loads((tmp_path / "q/scai-qrecc21-test-turns.json").read_text())
    (tmp_path / "q/scai-qrecc21-test-turns.json").unlink()
    for turn in turns:
        turn["Rewrite"], turn["Answer"] = turn.pop("Truth_rewrite"), turn.pop("Truth_answer")
        del turn["Truth_passages"]
    published.dump(tmp_path / "q/qrecc_test.json", turns)
    unjudged = load_collection(tmp_path / "q", cache=tmp_path / "c")
    assert unjudged.queries == talk("7_1", "7_2", "7_3") and len(unjudged.qrels) == 0
    assert "10.5281/zenodo.4748782" in unjudged.report.places("no judgments")[0]
    published.dump(tmp_path / "q/qrels_test.txt", {"7_1": {"": 0}, "7_3": {"p3": 1}})
    assert load_collection(tmp_path / "q", cache=tmp_path / "c").qrels.to_dict() == {
        "7_3": {"p3": 1}
    }
    (tmp_path / "q/qrels_test.txt").write_text("7_2 0 p2 1\n")
    assert load_collection(tmp_path / "q", cache=tmp_path / "c").qrels.to_dict() == {
        "7_2": {"p2": 1}
    }
    for text, message in (
        ('{"7_3": {"p3": 0.5}}', r"query 7_3, document p3\): the grade is 0.5, and a whole number"),
        ('{"7_3": {"p3": 1, "p3": 2}}', "twice and differently: 1 and 2"),
        ('{"7_3": {"p3": 1}, "7_3": {"p3": 2}}', "twice and differently: 1 and 2"),
        ('{"7_3": ["p3"]}', "document ids with grades were expected"),
    ):
        (tmp_path / "q/qrels_test.txt").write_text(text)
        with pytest.raises(IrdistillError, match=message):
            load_collection(tmp_path / "q", cache=tmp_path / "c")
    (tmp_path / "q/qrels_test.txt").write_text('{"7_3": {"p3": 2.0, "p3": 2}}')
    assert load_collection(tmp_path / "q", cache=tmp_path / "c").qrels.to_dict() == {
        "7_3": {"p3": 2}
    }


def test_topiocqa_reads_gold_passages_from_the_dpr_file(tmp_path: Path) -> None:
    published.topiocqa(tmp_path / "t")
    old = tmp_path / "t/data/topiocqa_valid.jsonl"
    turns = [json.loads(line) for line in old.read_text().splitlines()]
    old.unlink()
    published.dump(
        tmp_path / "t/topiocqa_dev.json",
        [{k: v for k, v in turn.items() if k != "Gold_passage"} for turn in turns],
    )
    published.dump(
        tmp_path / "t/all_history/dev.json",
        [
            {
                "conv_id": 1,
                "turn_id": 3,
                "question": "SECRET",
                "positive_ctxs": [{"title": "", "text": "", "passage_id": "3"}],
            }
        ],
    )
    collection = load_collection(tmp_path / "t", cache=tmp_path / "c")
    assert collection.qrels.to_dict() == {"1_3": {"3": 1}}
    assert collection.queries["1_3"] == talk("1_1", "1_2", "1_3")["1_3"]


def test_missing_judged_passage_must_be_declared(tmp_path: Path) -> None:
    published.qrecc(tmp_path / "q")
    turns = json.loads((tmp_path / "q/scai-qrecc21-test-turns.json").read_text())
    turns[1]["Truth_passages"] = ["gone"]
    published.dump(tmp_path / "q/scai-qrecc21-test-turns.json", turns)
    with pytest.raises(
        IrdistillError, match=r"entry 2 of .*judges document 'gone' relevant to query '7_2'"
    ):
        load_collection(tmp_path / "q", cache=tmp_path / "c")
    published.dump(tmp_path / "q/stats.json", {"judgments_without_doc": 1})
    assert load_collection(tmp_path / "q", cache=tmp_path / "c").qrels["7_2"] == {"gone": 1}


def test_broken_files_are_named(tmp_path: Path) -> None:
    published.qrecc(tmp_path / "q")
    turns = tmp_path / "q/scai-qrecc21-test-turns.json"
    good = json.loads(turns.read_text())
    published.dump(turns, [good[0], good[0]])
    with pytest.raises(IrdistillError, match=r"has the question '7_1' twice"):
        load_collection(tmp_path / "q", cache=tmp_path / "c")
    published.dump(turns, [{**good[0], "Question": " "}])
    with pytest.raises(IrdistillError, match=r"question '7_1' of .* is empty"):
        load_collection(tmp_path / "q", cache=tmp_path / "c")
    published.dump(turns, [good[0], {"Question": "?", "Conversation_no": 1}])
    with pytest.raises(
        IrdistillError,
        match=r"entry 2 of .*turns.json has no 'Turn_no'; it has 'Question', 'Conversation_no'",
    ):
        load_collection(tmp_path / "q", cache=tmp_path / "c")
    turns.write_text("[")
    with pytest.raises(IrdistillError, match=r"is not JSON"):
        load_collection(tmp_path / "q", cache=tmp_path / "c")
    published.topiocqa(tmp_path / "q")
    with pytest.raises(IrdistillError, match=r"holds files of QReCC and TopiOCQA"):
        load_collection(tmp_path / "q", cache=tmp_path / "c")


def test_derived_questions_load_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.cast(tmp_path / "cast", 2021)
    monkeypatch.chdir(tmp_path)
    source = load_collection("cast#2021", cache=tmp_path / "c")
    write_derived(
        tmp_path / "made",
        source,
        [Query("31_1", REWRITES[0])],
        {"test": source.qrels},
        {"verb": "rewrite"},
        same_questions=True,
    )
    monkeypatch.chdir("/")
    made = load_collection(tmp_path / "made", cache=tmp_path / "c")
    assert made.corpus.fingerprint == source.corpus.fingerprint and made.qrels.to_dict() == {
        "31_1": {"p1": 4}
    }


@pytest.mark.parametrize(
    "layout",
    [
        published.qrecc,
        published.topiocqa,
        published.mtrag,
        published.ikat,
        lambda path: published.cast(path, 2019),
    ],
)
def test_every_published_file_may_be_compressed(
    tmp_path: Path, layout: Callable[[Path], None]
) -> None:
    layout(tmp_path / "plain")
    layout(tmp_path / "packed")
    for path in [*(tmp_path / "packed").rglob("*.json"), *(tmp_path / "packed").rglob("*.jsonl")]:
        path.with_name(f"{path.name}.gz").write_bytes(
            gzip.compress(b"\xef\xbb\xbf" + path.read_bytes())
        )
        path.unlink()
    plain, packed = (
        load_collection(tmp_path / name, cache=tmp_path / "c") for name in ("plain", "packed")
    )
    assert packed.queries == plain.queries and packed.qrels.to_dict() == plain.qrels.to_dict()


def test_contexts_that_are_null_are_empty(tmp_path: Path) -> None:
    published.qrecc(tmp_path / "q")
    published.topiocqa(tmp_path / "t")
    for path in (
        tmp_path / "q/scai-qrecc21-test-turns.json",
        tmp_path / "t/data/topiocqa_valid.jsonl",
    ):
        text = path.read_text()
        turns = (
            json.loads(text)
            if path.suffix == ".json"
            else [json.loads(line) for line in text.splitlines()]
        )
        turns[0]["Context"], turns[1]["Context"] = None, [None, "an answer"]
        published.dump(path, turns) if path.suffix == ".json" else published.lines(path, turns)
        folder = path.parent if path.suffix == ".json" else path.parent.parent
        first, second, *_ = load_collection(folder, cache=tmp_path / "c").queries.values()
        assert first.history == () and second.history == (Turn("assistant", "an answer"),)
        turns[0]["Context"] = "what?"
        published.dump(path, turns) if path.suffix == ".json" else published.lines(path, turns)
        with pytest.raises(
            IrdistillError, match=r"entry 1 of .*'Context' should be a list, got 'what\?'"
        ):
            load_collection(folder, cache=tmp_path / "c")
