"""Runs from and to dictionaries, data frames, ranx, ir_measures, datasets and TREC files."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import ir_measures
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ranx

from irdistill import IrdistillError
from irdistill.collections import Collection
from irdistill.errors import InputError, MissingExtraError, NotFoundError, WrongCollectionError
from irdistill.runs import MemoryRun, RankedList, Run, RunIdentity, as_run, open_run, write_run

SCORES = {"q1": {"a": 1.0, "b": 2.0, "c": 2.0, "d": None}, "10": {"c": -0.5, "a": 3.25}}
RANKED = {"q1": ["c", "b", "a", "d"], "10": ["a", "c"]}


@pytest.fixture()
def collection() -> Collection:
    docs = {"a": "x", "b": "y", "c": "z", "d": "w"}
    return Collection.from_dicts("c", docs, {"q1": "one", "10": "ten"}, {"q1": {"a": 1}})


def check(run: Run, unscored: bool = True) -> None:
    """The run is that of SCORES."""
    assert run.query_ids == list(SCORES)
    for query, doc_ids in RANKED.items():
        kept = [doc for doc in doc_ids if unscored or SCORES[query][doc] is not None]
        assert run[query].doc_ids == kept
        for doc, score in zip(kept, run[query].scores.tolist(), strict=True):
            expected = SCORES[query][doc]
            assert math.isnan(score) if expected is None else score == expected
    assert run.num_rows == 5 + unscored and run.num_unscored == unscored
    assert (run["q1"].flags == [None, None, None, "unscored"]) is unscored


def rows() -> list[tuple[str, str, float | None]]:
    return [(query, doc, score) for query, docs in SCORES.items() for doc, score in docs.items()]


def test_dictionary() -> None:
    run = as_run(SCORES)
    check(run)
    check(as_run(run.to_dict()))
    assert list(run.to_dict()["q1"]) == RANKED["q1"] and math.isnan(run.to_dict()["q1"]["d"])
    assert run.to_dict(scored_only=True) == {
        query: {doc: score for doc, score in docs.items() if score is not None}
        for query, docs in SCORES.items()
    }


def test_ids_that_are_numbers_become_strings() -> None:
    run = as_run({1: {7: 2.0, np.int64(8): 3}, "x": {}})
    assert (
        run.query_ids == ["1", "x"]
        and run["1"].doc_ids == ["8", "7"]
        and len(run["x"].doc_ids) == 0
    )
    frame = pd.DataFrame({"qid": [1, 1], "docno": [7, 8], "score": [1, 2]})
    assert as_run(frame).to_dict() == {"1": {"8": 2.0, "7": 1.0}}


def test_pyterrier_frame() -> None:
    """The columns of PyTerrier's retrieval results, which name documents by two kinds of ids."""
    frame = pd.DataFrame(rows(), columns=["qid", "docno", "score"])
    frame.insert(1, "docid", range(len(frame)))
    frame["query"] = "the text"
    frame["rank"] = 0
    run = as_run(frame)
    check(run)
    back = run.to_pandas()
    assert list(back.columns) == ["qid", "docno", "score", "rank", "flag"]
    assert back["qid"].tolist() == ["q1"] * 4 + ["10"] * 2
    assert back["docno"].tolist() == RANKED["q1"] + RANKED["10"]
    assert back["rank"].tolist() == [0, 1, 2, 3, 0, 1] and np.isnan(back["score"][3])
    check(as_run(back))
    check(as_run(back.sample(frac=1, random_state=3).sort_values("qid", ascending=False)))
    assert list(as_run({"q": {"a": 1.0}}).to_pandas().columns) == ["qid", "docno", "score", "rank"]


@pytest.mark.slow
def test_ranx() -> None:
    run = as_run(SCORES)
    other = run.to_ranx("bm25")
    assert isinstance(other, ranx.Run) and other.name == "bm25"
    assert other.to_dict() == run.to_dict(scored_only=True)
    back = as_run(other)  # ranx sorts the queries
    check(as_run({query: back.to_dict()[query] for query in SCORES}), unscored=False)


def test_scored_documents_of_ir_measures(tmp_path: Path) -> None:
    tuples = [ir_measures.ScoredDoc(*row) for row in rows()]
    check(as_run(tuples))
    check(as_run(iter(tuples)))
    check(as_run(rows()))
    as_run(SCORES).to_trec(tmp_path / "run.txt")
    check(as_run(ir_measures.read_trec_run(str(tmp_path / "run.txt"))), unscored=False)


def test_dataset() -> None:
    run = as_run(SCORES)
    dataset = run.to_dataset()
    assert isinstance(dataset, datasets.Dataset)
    assert dataset.column_names == ["query_id", "doc_id", "rank", "score", "flag"]
    assert dataset[3] == {
        "query_id": "q1",
        "doc_id": "d",
        "rank": 4,
        "score": None,
        "flag": "unscored",
    }
    check(as_run(dataset))
    check(as_run(dataset.select([1, 0, 3, 2, 5, 4])))  # an indirect view of the table
    check(
        as_run(
            pa.table(
                {
                    "query_id": [row[0] for row in rows()],
                    "doc_id": [row[1] for row in rows()],
                    "score": [row[2] for row in rows()],
                }
            )
        )
    )


def test_trec_files_and_runs(tmp_path: Path, collection: Collection) -> None:
    run = as_run(SCORES, collection)
    for name in ("run.txt", "run.txt.gz"):
        assert run.to_trec(tmp_path / name) == 5
        check(as_run(tmp_path / name), unscored=False)
        check(as_run(str(tmp_path / name), collection), unscored=False)
    stored = write_run(tmp_path / "run", run.identity, run)
    check(as_run(tmp_path / "run", collection))
    assert as_run(stored) is stored and as_run(stored, collection) is stored
    with pytest.raises(NotFoundError):
        as_run(tmp_path / "no such run")
    with pytest.raises(IrdistillError, match="one word"):
        run.to_trec(tmp_path / "x.txt", "two words")


def test_candidates_without_scores_keep_their_ranks() -> None:
    frame = pd.DataFrame({"qid": ["q"] * 3, "docno": list("abc"), "rank": [2, 0, 1]})
    assert as_run(frame)["q"].doc_ids == ["b", "c", "a"] and as_run(frame).num_unscored == 3
    assert as_run(frame.drop(columns="rank"))["q"].doc_ids == ["a", "b", "c"]


def test_flags_and_lists_are_kept() -> None:
    lists = [RankedList("q", ["a", "b"], np.array([2, 1], np.float32), ["doubtful", None])]
    run = as_run(lists)
    assert run["q"].flags == ["doubtful", None]
    assert (
        as_run(run.to_dataset())["q"].flags
        == as_run(run.to_pandas())["q"].flags
        == ["doubtful", None]
    )


def test_a_collection_is_checked(collection: Collection, caplog: pytest.LogCaptureFixture) -> None:
    run = as_run(SCORES, collection)
    assert run.identity.collection == collection.describe() and open_run(run, collection) is run
    free = as_run(SCORES)
    assert free.identity.collection == {}
    check(as_run(free, collection))
    assert as_run(free, collection).identity.collection == collection.describe()
    with caplog.at_level(logging.WARNING):
        check(as_run({**SCORES, "other": {"a": 1.0}}, collection))
    assert "left out 1 query that c does not have (first: other)" in caplog.text
    with pytest.raises(WrongCollectionError, match="none of the run's 1 query is in 'c'"):
        as_run({"other": {"a": 1.0}}, collection)
    with pytest.raises(
        WrongCollectionError, match="'zzz' of query 'q1' is not in the corpus of 'c'"
    ):
        as_run({"q1": {"zzz": 1.0}}, collection)
    another = Collection.from_dicts("d", {"a": "other"}, {"q1": "one"})
    with pytest.raises(WrongCollectionError, match="made for the collection 'c'"):
        as_run(run, another)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "int is not a run"),
        (b"run", "bytes is not a run"),
        ({"q": [1, 2]}, "query 'q' has a list"),
        ({"q": {"a": "high"}}, "a score is not a number"),
        ({"q": {"a": math.inf}}, "a finite number was expected"),
        ({1: {"a": 1}, "1": {"b": 1}}, "two query ids are the same"),
        ({"q": {1: 1.0, "1": 2.0}}, "the document '1' twice"),
        ({1.5: {"a": 1}}, "the query id 1.5 is float"),
        ([("q", "a")], "was given as rows such as"),
        ([("q", "a", 1.0), ("q", "a", 2.0)], "the document 'a' twice"),
        (
            pd.DataFrame({"qid": ["q"], "score": [1.0]}),
            "the columns qid, score; a column of query ids",
        ),
    ],
)
def test_what_is_no_run_is_refused(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_run(source)


@pytest.mark.parametrize(
    ("name", "convert"),
    [("ranx", Run.to_ranx), ("datasets", Run.to_dataset), ("pandas", Run.to_pandas)],
)
def test_a_missing_library_names_the_extra(
    name: str, convert: Callable[[Run], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = as_run(SCORES)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"irdistill\[interchange\]"):
        convert(run)


def test_a_run_shows_itself(tmp_path: Path) -> None:
    run = MemoryRun(RunIdentity("teacher", {"model": "<tiny>"}, {}), as_run(SCORES))
    assert repr(run) == "MemoryRun('in memory', 2 queries, 6 rows)"
    assert run.to_json() == {
        "run": None,
        "kind": "teacher",
        "producer": {"model": "<tiny>"},
        "collection": None,
        "queries": 2,
        "rows": 6,
        "unscored": 1,
        "fingerprint": run.fingerprint,
    }
    assert "&lt;tiny&gt;" in run._repr_html_() and "<th" in run._repr_html_()
    stored = write_run(tmp_path / "run", run.identity, run)
    assert repr(stored) == f"StoredRun('{tmp_path / 'run'}', 2 queries, 6 rows)"
    assert stored.to_json() | {"run": None, "fingerprint": run.fingerprint} == run.to_json()
    json.dumps(stored.to_json())
