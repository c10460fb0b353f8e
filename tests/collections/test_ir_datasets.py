"""Collections of ir_datasets, with small datasets that are registered here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from irdistill.collections import Query, Turn, load_collection
from irdistill.errors import IrdistillError
from tests.collections.conversations import published

ir_datasets = pytest.importorskip("ir_datasets")

from ir_datasets.datasets.base import Dataset  # noqa: E402
from ir_datasets.datasets.trec_cast import Cast2020Query, Cast2022Query  # noqa: E402
from ir_datasets.formats import (  # noqa: E402
    BaseDocs,
    BaseQrels,
    BaseQueries,
    GenericDoc,
    GenericQuery,
    TrecQrel,
    TrecSubQrel,
)


class TitledDoc(NamedTuple):
    doc_id: str
    title: str
    body: str

    def default_text(self) -> str:
        return f"{self.title} {self.body}"


class Docs(BaseDocs):
    def __init__(self, docs: list[Any]) -> None:
        self.docs = docs

    def docs_iter(self) -> Iterator[Any]:
        return iter(self.docs)

    def docs_count(self) -> int:
        return len(self.docs)


class Queries(BaseQueries):
    def __init__(self, queries: list[Any]) -> None:
        self.queries = queries

    def queries_iter(self) -> Iterator[Any]:
        return iter(self.queries)


class Qrels(BaseQrels):
    def __init__(self, qrels: list[Any]) -> None:
        self.qrels = qrels

    def qrels_iter(self) -> Iterator[Any]:
        return iter(self.qrels)


class Unreachable(BaseDocs):
    def docs_iter(self) -> Iterator[Any]:
        raise ConnectionError("the host does not answer")


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers datasets and removes them after the test."""
    monkeypatch.setattr(ir_datasets.registry, "_registered", dict(ir_datasets.registry._registered))
    return ir_datasets.registry.register


DOCS = [TitledDoc("d1", "One", "first"), TitledDoc("d2", "Two", "second")]


def test_registered_data_set_loads(register: Any, tmp_path: Path) -> None:
    queries = [
        GenericQuery("q1", "what?"),
        GenericQuery("q2", "and?"),
        GenericQuery("q3", "unjudged"),
    ]
    qrels = [
        TrecQrel("q2", "d1", 2, "0"),
        TrecQrel("q1", "d2", 0, "0"),
        TrecQrel("q1", "gone", 1, "0"),
    ]
    register("irdistill-test/test", Dataset(Docs(DOCS), Queries(queries), Qrels(qrels)))
    collection = load_collection("irdistill-test/test", cache=tmp_path)
    assert collection.id == "irdistill-test/test"
    assert dict(zip(collection.corpus.ids, collection.corpus.texts([0, 1]), strict=True)) == {
        "d1": "One first",
        "d2": "Two second",
    }
    assert list(collection.queries.values()) == [Query("q1", "what?"), Query("q2", "and?")]
    assert collection.qrels.to_dict() == {"q2": {"d1": 2}, "q1": {"d2": 0, "gone": 1}}
    assert collection.report.places("positive judgments without document") == [
        "irdistill-test/test qrels (query q1, document gone)"
    ]
    assert collection.report.count("unjudged queries") == 1


@pytest.mark.parametrize("grade", [0.5, 1.9, "1.5", float("nan"), None])
def test_fractional_grades_are_refused(grade: Any, register: Any, tmp_path: Path) -> None:
    qrels = Qrels([TrecQrel("q1", "d1", grade, "0")])
    register(
        "irdistill-test/grades", Dataset(Docs(DOCS), Queries([GenericQuery("q1", "what?")]), qrels)
    )
    with pytest.raises(
        IrdistillError,
        match=r"irdistill-test/grades qrels \(query q1, document d1\): the grade is .*whole number",
    ):
        load_collection("irdistill-test/grades", cache=tmp_path)


def test_whole_grades_of_other_types_are_accepted(register: Any, tmp_path: Path) -> None:
    qrels = [TrecQrel("q1", "d1", 2.0, "0"), TrecQrel("q1", "d2", "3", "0")]
    register(
        "irdistill-test/types",
        Dataset(Docs(DOCS), Queries([GenericQuery("q1", "what?")]), Qrels(qrels)),
    )
    assert load_collection("irdistill-test/types", cache=tmp_path).qrels.to_dict() == {
        "q1": {"d1": 2, "d2": 3}
    }


def test_contradicting_judgments_are_refused(register: Any, tmp_path: Path) -> None:
    queries = Queries([GenericQuery("q1", "what?")])
    twice = [TrecQrel("q1", "d1", 1, "0"), TrecQrel("q1", "d1", 2, "0")]
    register("irdistill-test/twice", Dataset(Docs(DOCS), queries, Qrels(twice)))
    with pytest.raises(
        IrdistillError, match="judge document 'd1' for query 'q1' twice and differently: 1 and 2"
    ):
        load_collection("irdistill-test/twice", cache=tmp_path)
    topics = [TrecSubQrel("q1", "d1", 0, "1"), TrecSubQrel("q1", "d1", 1, "2")]
    register("irdistill-test/diversity", Dataset(Docs(DOCS), queries, Qrels(topics)))
    with pytest.raises(
        IrdistillError,
        match=r"0 for subtopic 1, 1 for subtopic 2.*judgments are for measures of diversity",
    ):
        load_collection("irdistill-test/diversity", cache=tmp_path)
    same = [TrecSubQrel("q1", "d1", 1, "1"), TrecSubQrel("q1", "d1", 1, "2")]
    register("irdistill-test/same", Dataset(Docs(DOCS), queries, Qrels(same)))
    collection = load_collection("irdistill-test/same", cache=tmp_path)
    assert (
        collection.qrels.to_dict() == {"q1": {"d1": 1}}
        and collection.report.count("duplicate judgments") == 1
    )


def test_changed_registered_dataset_is_compiled_again(register: Any, tmp_path: Path) -> None:
    docs = Docs([GenericDoc("d1", "before")])
    register("irdistill-test/changing", Dataset(docs, Queries([GenericQuery("q1", "what?")])))
    first = load_collection("irdistill-test/changing", cache=tmp_path)
    docs.docs = [GenericDoc("d1", "after")]
    second = load_collection("irdistill-test/changing", cache=tmp_path)
    assert (first.corpus.text(0), second.corpus.text(0)) == ("before", "after")
    assert first.corpus.fingerprint != second.corpus.fingerprint
    assert len(list((tmp_path / "corpora").glob("[!.]*"))) == 2


def test_turns_of_a_topic_become_history(register: Any, tmp_path: Path) -> None:
    queries = [
        Cast2020Query("1_1", "tell me of X", "auto 1", "tell me of X", "c", 1, 1),
        Cast2020Query("1_2", "why?", "auto 2", "why is X?", "c", 1, 2),
        Cast2020Query("2_1", "what is Y?", "auto 3", "", "c", 2, 1),
    ]
    register("irdistill-test/cast", Dataset(Docs(DOCS), Queries(queries)))
    assert list(load_collection("irdistill-test/cast", cache=tmp_path).queries.values()) == [
        Query("1_1", "tell me of X", (), "tell me of X"),
        Query("1_2", "why?", (Turn("user", "tell me of X"),), "why is X?"),
        Query("2_1", "what is Y?", (), "auto 3"),
    ]


def test_canonical_answers_are_passages_of_the_corpus(register: Any, tmp_path: Path) -> None:
    queries = [
        Cast2020Query("1_1", "tell me of X", "auto 1", "tell me of X", "d2", 1, 1),
        Cast2020Query("1_2", "why?", "auto 2", "why is X?", "gone", 1, 2),
        Cast2020Query("1_3", "since when?", "auto 3", "since when is X?", "d1", 1, 3),
    ]
    register("irdistill-test/answers", Dataset(Docs(DOCS), Queries(queries)))
    collection = load_collection("irdistill-test/answers", cache=tmp_path)
    before = (Turn("user", "tell me of X"), Turn("assistant", "Two second"))
    assert [query.history for query in collection.queries.values()] == [
        (),
        before,
        (*before, Turn("user", "why?")),
    ]
    assert collection.report.places("responses without document") == [
        "irdistill-test/answers queries (query 1_2, document gone)"
    ]


def test_branches_follow_the_parent(register: Any, tmp_path: Path) -> None:
    queries = [
        Cast2022Query("1-1", "", "User", "of X?", "of X?", "", [], 1, 1),
        Cast2022Query("1-2", "1-1", "System", "", "", "X is.", [], 1, 2),
        Cast2022Query("1-3", "1-2", "User", "why?", "why is X?", "", [], 1, 3),
        Cast2022Query("1-5", "1-2", "User", "since when?", "since when is X?", "", [], 1, 5),
    ]
    register("irdistill-test/branches", Dataset(Docs(DOCS), Queries(queries)))
    history = (Turn("user", "of X?"), Turn("assistant", "X is."))
    assert list(load_collection("irdistill-test/branches", cache=tmp_path).queries.values()) == [
        Query("1-1", "of X?", (), "of X?"),
        Query("1-3", "why?", history, "why is X?"),
        Query("1-5", "since when?", history, "since when is X?"),
    ]


def test_unknown_id_lists_close_ids(tmp_path: Path) -> None:
    with pytest.raises(IrdistillError) as caught:
        load_collection("beir/scifcat/test", cache=tmp_path)
    said = str(caught.value)
    assert "there is no collection 'beir/scifcat/test'" in said
    assert "beir/scifact/test" in said.split("Close names: ")[1]
    assert "pydocs/train|dev|test|howto" in said and "FOLDER#SPLIT" in said
    with pytest.raises(IrdistillError, match="Close names: pydocs/"):
        load_collection("pydoc/test", cache=tmp_path)


def test_a_name_like_a_file_beside_it_is_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "handbook").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IrdistillError, match=r"no file or folder of that name.*: handbook[,.]"):
        load_collection("hanbook", cache=tmp_path / "cache")


def test_id_without_queries_lists_ids_below_it(tmp_path: Path) -> None:
    with pytest.raises(
        IrdistillError, match=r"'msmarco-passage' has no queries.*passage/dev/small,"
    ):
        load_collection("msmarco-passage", cache=tmp_path)


def test_passages_of_an_id_without_queries(register: Any, tmp_path: Path) -> None:
    register(
        "irdistill-test/passages",
        Dataset(Docs([GenericDoc(key, text) for key, text in published.PASSAGES.items()])),
    )
    published.cast(tmp_path / "cast", 2020)
    (tmp_path / "cast" / "passages.jsonl").unlink()
    (tmp_path / "cast" / "corpus.txt").write_text("irdistill-test/passages")
    collection = load_collection(tmp_path / "cast", cache=tmp_path / "cache")
    assert collection.queries["31_2"].history[1] == Turn("assistant", published.PASSAGES["p1"])


def test_unreachable_files_are_explained(register: Any, tmp_path: Path) -> None:
    register("irdistill-test/away", Dataset(Unreachable(), Queries([GenericQuery("q1", "what?")])))
    with pytest.raises(
        IrdistillError, match=r"'irdistill-test/away' could not be downloaded .*does not answer"
    ):
        load_collection("irdistill-test/away", cache=tmp_path)


def test_broken_datasets_are_refused(register: Any, tmp_path: Path) -> None:
    register("irdistill-test/empty", Dataset(Docs(DOCS), Queries([GenericQuery("q1", " ")])))
    with pytest.raises(IrdistillError, match="query 'q1' of irdistill-test/empty is empty"):
        load_collection("irdistill-test/empty", cache=tmp_path)
    twice = Docs([GenericDoc("d1", "a"), GenericDoc("d1", "b")])
    register("irdistill-test/twice", Dataset(twice, Queries([GenericQuery("q1", "what?")])))
    with pytest.raises(
        IrdistillError, match="document id 'd1' twice with different texts, in lines 1 and 2"
    ):
        load_collection("irdistill-test/twice", cache=tmp_path)


@pytest.mark.parametrize(
    ("doc", "query", "words"),
    [
        (b"1", "7", "doc_id b'1', which is bytes"),
        (None, "7", "doc_id None"),
        (1.0, "7", "doc_id 1.0, which is float"),
        ("1", 7.0, "query_id 7.0"),
        ("\ud800", "7", "half a character"),
        ("", "7", "doc_id ''"),
    ],
)
def test_ids_are_text_or_whole_numbers(
    register: Any, tmp_path: Path, doc: Any, query: Any, words: str
) -> None:
    qrels = Qrels([TrecQrel(query, doc, 1, "0")])
    register(
        "irdistill-test/ids",
        Dataset(Docs([GenericDoc(doc, "a")]), Queries([GenericQuery(query, "x")]), qrels),
    )
    with pytest.raises(IrdistillError, match=words):
        load_collection("irdistill-test/ids", cache=tmp_path)


def test_ids_that_are_numbers(register: Any, tmp_path: Path) -> None:
    qrels = Qrels([TrecQrel(7, 1, 1, "0")])
    register(
        "irdistill-test/numbers",
        Dataset(Docs([GenericDoc(1, "a")]), Queries([GenericQuery(7, "x")]), qrels),
    )
    assert load_collection("irdistill-test/numbers", cache=tmp_path).qrels.to_dict() == {
        "7": {"1": 1}
    }
