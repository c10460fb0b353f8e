"""Filters of synthetic queries: each rule, counts, and the curve of the critic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from irdistill.collections import Collection, Query, load_collection
from irdistill.collections.derived import write_derived
from irdistill.errors import IrdistillError
from irdistill.queries import FilterRule, critic_curve, filter_queries
from irdistill.queries.filtering import diversity, document_rank
from irdistill.runs import MemoryRun, RankedList, RunIdentity

NAN = float("nan")
#: The teacher's scores of d0, d1, d2; the source of every query is d0.
SCORES = {
    "title:d0:0": [3.0, 1.0, 2.0],
    "title:d0:1": [1.0, 5.0, 2.0],
    "sentence:d0:0": [2.0, 2.0, 1.0],
    "sentence:d0:1": [NAN, 1.0, 0.5],
    "sentence:d0:2": [-1.0, -2.0, -3.0],
}


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collection:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{i}", "text": f"text {i}"}) + "\n" for i in range(3))
    )
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "real"}) + "\n")
    queries = [Query(query_id, f"words of {query_id}") for query_id in SCORES]
    write_derived(
        tmp_path / "made",
        load_collection(folder),
        queries,
        {"train": {query.id: {"d0": 1} for query in queries}},
        {},
        same_questions=False,
    )
    return load_collection(tmp_path / "made")


def run(generated: Collection, scores: dict[str, list[float]] = SCORES) -> MemoryRun:
    lists = [
        RankedList(query_id, ["d0", "d1", "d2"], np.array(row, np.float32), None)
        for query_id, row in scores.items()
    ]
    return MemoryRun(RunIdentity("teacher", {}, generated.describe()), lists)


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("first", ["title:d0:0", "sentence:d0:2"]),  # a tie is not first
        ("first=2", ["title:d0:0", "sentence:d0:0", "sentence:d0:2"]),
        ("critic=1", ["title:d0:0", "title:d0:1", "sentence:d0:0"]),
        (
            "critic=-1",
            ["title:d0:0", "title:d0:1", "sentence:d0:0", "sentence:d0:2"],
        ),  # no score, no pass
        (
            "percentile=50",
            ["title:d0:1", "sentence:d0:0", "sentence:d0:1"],
        ),  # best scores: 3, 5 | 2, 1, -1
    ],
)
def test_rules_of_the_teacher(
    rule: str, kept: list[str], generated: Collection, tmp_path: Path
) -> None:
    filtered = filter_queries(generated, tmp_path / "out", [rule], run(generated))
    assert list(filtered.queries) == kept
    assert filtered.qrels.to_dict() == {query_id: {"d0": 1} for query_id in kept}


def test_rules_in_order_with_counts_by_kind(generated: Collection, tmp_path: Path) -> None:
    retrieved = run(generated, SCORES | {"title:d0:0": [0.0, 1.0, 2.0]})
    filtered = filter_queries(
        generated, tmp_path / "out", ["consistency=2", "first=1"], run(generated), retrieved
    )
    assert list(filtered.queries) == ["sentence:d0:2"]
    made_by = json.loads((tmp_path / "out" / "derived.json").read_text())["made_by"]
    assert made_by["counts"] == {
        "sentence: failed consistency=2": 1,
        "sentence: failed first=1": 1,
        "sentence: kept": 1,
        "title: failed consistency=2": 2,
    }
    assert (made_by["of"], made_by["kept"]) == (5, 1)
    assert made_by["runs"].keys() == {"scores", "retrieved"}


def test_the_curve_of_a_critic(generated: Collection) -> None:
    rows = critic_curve(generated, run(generated), steps=4)
    assert [row["threshold"] for row in rows] == [-1, 1, 2, 3]
    assert [row["kept"] for row in rows] == [0.8, 0.6, 0.4, 0.2]
    assert [row["first"] for row in rows] == pytest.approx([0.5, 1 / 3, 0.5, 1])
    assert [row["mrr"] for row in rows] == pytest.approx(
        [(1 + 1 / 3 + 1 / 2 + 1) / 4, (1 + 1 / 3 + 1 / 2) / 3, 0.75, 1]
    )


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([], "at least one rule"),
        (["second"], "cannot read the rule 'second'"),
        (["critic"], "cannot read"),
        (["first=0"], "out of range"),
        (["percentile=101"], "out of range"),
        (["consistency"], "needs the run retrieved"),
        (["critic=9"], "none of 5 queries"),
    ],
)
def test_invalid_rules_are_refused(
    rules: list[str], message: str, generated: Collection, tmp_path: Path
) -> None:
    with pytest.raises(IrdistillError, match=message):
        filter_queries(generated, tmp_path / "out", rules, run(generated))
    assert not (tmp_path / "out").exists()


def test_a_query_with_two_sources_is_refused(generated: Collection, tmp_path: Path) -> None:
    two = Collection.from_dicts(
        "two", {"d0": "a", "d1": "b"}, {"q": "x"}, {"q": {"d0": 1, "d1": 1}}
    )
    lists = [RankedList("q", ["d0", "d1"], np.array([1, 0], np.float32), None)]
    with pytest.raises(IrdistillError, match="has 2 relevant passages"):
        filter_queries(
            two,
            tmp_path / "out",
            ["first"],
            MemoryRun(RunIdentity("teacher", {}, two.describe()), lists),
        )


def test_document_rank_and_diversity() -> None:
    listed = RankedList("q", ["a", "b", "c"], np.array([1, 1, NAN], np.float32), None)
    assert (
        document_rank(listed, "a"),
        document_rank(listed, "c"),
        document_rank(listed, "z"),
        document_rank(None, "a"),
    ) == (2, None, None, None)
    assert diversity(["a b a", "A b"]) == {"distinct_1": 2 / 5, "distinct_2": 2 / 3, "words": 2.5}
    for text in ("consistency=20", "first=1", "percentile=25", "critic=-0.5"):
        assert str(FilterRule.parse(text)) == text
    assert FilterRule.parse("percentile") == FilterRule("percentile", 25)
