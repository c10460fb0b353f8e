"""False-negative rules by hand: whom they flag, whom never, and what is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from irdistill.collections import Collection
from irdistill.collections.judging import (
    CombinedJudgments,
    JudgeRecords,
    Judgment,
    combine_judges,
)
from irdistill.errors import (
    IrdistillError,
    OptionError,
    SettingsDifferError,
    WrongCollectionError,
)
from irdistill.runs import RankedList, Run, RunIdentity, compile_run, mask, stats, verify, write_run
from irdistill.runs.flags import DOUBTFUL, SUSPECTED, UNFLAGGED

DOCS = {f"d{i}": f"text {i}" for i in range(8)}
QUERIES = {"a": "first", "b": "second", "c": "third"}
QRELS = {"a": {"d2": 1, "d1": 0, "d5": 2}, "b": {"d2": 1}, "c": {"d7": 1}}


@pytest.fixture()
def collection() -> Collection:
    return Collection.from_dicts("tiny", DOCS, QUERIES, QRELS)


@pytest.fixture()
def run(tmp_path: Path, collection: Collection) -> Run:
    """a: positives at 4 and 2, a judged negative at 9; b: the positive is at -1; c: the positive
    has no score.
    """
    nan = np.nan
    flags = [None, None, None, None, "truncated", None, None]
    lists = [
        RankedList(
            "a",
            ["d1", "d0", "d2", "d3", "d4", "d5", "d6"],
            np.array([9, 6, 4, 3.5, 3, 2, nan], np.float32),
            flags,
        ),
        RankedList("b", ["d0", "d1", "d2", "d3"], np.array([2, -0.9, -1, -3], np.float32)),
        RankedList("c", ["d0", "d1", "d7"], np.array([8, 1, nan], np.float32)),
    ]
    return write_run(
        tmp_path / "r",
        RunIdentity("teacher", {"model": "m"}, collection.describe()),
        lists,
        part_queries=2,
    )


def flagged(run: Run) -> dict[str, list[str]]:
    return {
        marked.query_id: [
            doc
            for doc, flag in zip(marked.doc_ids, marked.flags or [], strict=bool(marked.flags))
            if flag and flag.startswith("false negative")
        ]
        for marked in run
    }


@pytest.mark.parametrize(
    ("rule", "positive", "expected"),
    [
        ("above-positive", "highest", {"a": ["d0"], "b": ["d0", "d1"], "c": []}),
        ("above-positive", "lowest", {"a": ["d0", "d3", "d4"], "b": ["d0", "d1"], "c": []}),
        ("above-positive", "mean", {"a": ["d0", "d3"], "b": ["d0", "d1"], "c": []}),
        ("margin=0", "highest", {"a": ["d0"], "b": ["d0", "d1"], "c": []}),
        (
            "margin=0.5",
            "highest",
            {"a": ["d0"], "b": ["d0", "d1"], "c": []},
        ),  # 3.5 is not above 4 - 0.5
        ("margin=0.6", "highest", {"a": ["d0", "d3"], "b": ["d0", "d1"], "c": []}),
        (
            "percentage=0.8",
            "highest",
            {"a": ["d0", "d3"], "b": [], "c": []},
        ),  # b: 0.8 * -1 lies above -1
        ("threshold=2.5", "highest", {"a": ["d0", "d3", "d4"], "b": [], "c": ["d0"]}),
        ("top-k=2", "highest", {"a": ["d0"], "b": ["d0", "d1"], "c": ["d0", "d1"]}),
    ],
)
def test_rules_by_hand(
    tmp_path: Path,
    collection: Collection,
    run: Run,
    rule: str,
    positive: str,
    expected: dict[str, list[str]],
) -> None:
    marked = mask(run, collection, tmp_path / "m", rule, positive)  # type: ignore[arg-type]
    assert flagged(marked) == expected
    name = rule.partition("=")[0]
    count = sum(map(len, expected.values()))
    assert marked.manifest.usage[f"flagged_{name}"] == count
    assert (
        sum(
            n
            for flag, n in stats(marked)["flags"].items()
            if flag.startswith(f"false negative: {name}")
        )
        == count
    )
    unruled = {"threshold": 0, "top-k": 0, "percentage": 2}.get(name, 1)
    assert marked.manifest.usage["unruled_queries"] == unruled
    for one, other in zip(run, marked, strict=True):  # no score and no order changes
        assert one.doc_ids == other.doc_ids
        np.testing.assert_array_equal(one.scores, other.scores)
    assert verify(tmp_path / "m") == []


def test_the_first_rule_that_hits_gives_the_reason_and_other_flags_stay(
    tmp_path: Path, collection: Collection, run: Run
) -> None:
    marked = mask(run, collection, tmp_path / "m", ["above-positive", "threshold=2.5"])
    flags = dict(zip(marked["a"].doc_ids, marked["a"].flags or [], strict=True))
    assert (
        flags["d0"] == "false negative: above-positive"
        and flags["d3"] == "false negative: threshold"
    )
    assert flags["d4"] == "false negative: threshold; truncated" and flags["d6"] == "unscored"
    assert flags["d1"] is flags["d2"] is flags["d5"] is None
    assert marked.manifest.usage == {
        "flagged_above-positive": 3,
        "flagged_threshold": 3,
        "unruled_queries": 1,
    }
    assert marked.identity.kind == "teacher" and marked.identity.producer == run.identity.producer
    assert marked.identity.settings["mask"]["rules"] == ["above-positive", "threshold=2.5"]
    again = mask(marked, collection, tmp_path / "again", "threshold=2.5")
    assert [row.flags for row in again] == [
        row.flags for row in marked
    ]  # what is flagged is not flagged twice
    assert again.manifest.usage["flagged_threshold"] == 0


def test_compiled_runs_know_the_flags_of_what_is_scored(
    tmp_path: Path, collection: Collection, run: Run
) -> None:
    assert (
        compile_run(run, collection.corpus).flags(0).tolist()
        == [UNFLAGGED] * 4 + [DOUBTFUL] + [UNFLAGGED] * 2
    )
    marked = compile_run(mask(run, collection, tmp_path / "m", "above-positive"), collection.corpus)
    assert marked.flags(0).tolist() == [
        UNFLAGGED,
        SUSPECTED,
        UNFLAGGED,
        UNFLAGGED,
        DOUBTFUL,
        UNFLAGGED,
        UNFLAGGED,
    ]
    assert marked.flags(1).tolist() == [
        SUSPECTED,
        SUSPECTED,
        UNFLAGGED,
        UNFLAGGED,
    ] and marked.flags(2).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "rule",
    [
        "margin",
        "margin=-1",
        "percentage=1.5",
        "percentage=0",
        "top-k=1.5",
        "top-k=0",
        "nonsense=1",
        "above-positive=3",
        "threshold=x",
        "threshold=e",
        "",
    ],
)
def test_rules_that_cannot_be_meant_are_refused(
    tmp_path: Path, collection: Collection, run: Run, rule: str
) -> None:
    with pytest.raises(IrdistillError, match="rule"):
        mask(run, collection, tmp_path / "m", rule)
    assert not (tmp_path / "m").exists()


def test_a_collection_without_judgments_is_refused(tmp_path: Path, run: Run) -> None:
    with pytest.raises(IrdistillError, match="no judgments"):
        mask(run, Collection.from_dicts("tiny", DOCS, QUERIES, {}), tmp_path / "m", "margin=1")
    with pytest.raises(IrdistillError, match="at least one rule"):
        mask(run, Collection.from_dicts("tiny", DOCS, QUERIES, QRELS), tmp_path / "m", [])


def people(collection: Collection, **grades: dict[str, int]) -> CombinedJudgments:
    judgments = {
        (query, doc): Judgment(query, doc, "judged", grade, "anna", "2026")
        for query, some in grades.items()
        for doc, grade in some.items()
    }
    return combine_judges(JudgeRecords(collection.describe(), {"anna": judgments}))


def test_what_people_judged_relevant_is_flagged(
    collection: Collection, run: Run, tmp_path: Path
) -> None:
    """d0 is a false negative, d1 too though the collection has it as 0; d2 is known to be relevant,
    d3 is not relevant, d6 has no score.
    """
    judged = people(collection, a={"d0": 1, "d1": 2, "d2": 1, "d3": 0, "d6": 1, "d4": 1})
    marked = mask(run, collection, tmp_path / "m", people=judged)
    flags = dict(zip(marked["a"].doc_ids, marked["a"].flags or [], strict=True))
    assert flags["d0"] == flags["d1"] == "false negative: judged"
    assert flags["d4"] == "false negative: judged; truncated"
    assert (flags["d2"], flags["d3"], flags["d6"]) == (None, None, "unscored")
    assert marked.manifest.usage["flagged_judged"] == 3
    assert np.array_equal(marked["a"].scores, run["a"].scores, equal_nan=True)
    codes = compile_run(marked, collection.corpus).codes[0:7].tolist()
    assert codes.count(SUSPECTED) == 3


def test_what_people_refuted_is_flagged_by_no_rule(
    collection: Collection, run: Run, tmp_path: Path
) -> None:
    judged = people(collection, a={"d0": 0}, b={"d1": 0})
    marked = mask(run, collection, tmp_path / "both", "threshold=2.5", people=judged)
    assert flagged(marked) == {"a": ["d3", "d4"], "b": [], "c": ["d0"]}
    by_rule = mask(run, collection, tmp_path / "rule", "threshold=2.5")
    assert flagged(by_rule)["a"] == ["d0", "d3", "d4"]
    cleared = mask(
        by_rule, collection, tmp_path / "cleared", people=people(collection, a={"d4": 0})
    )
    assert flagged(cleared)["a"] == ["d0", "d3"]
    flags = dict(zip(cleared["a"].doc_ids, cleared["a"].flags or [], strict=True))
    assert flags["d4"] == "truncated" and cleared.manifest.usage["cleared_judged"] == 1


def test_judgments_are_part_of_the_identity(
    collection: Collection, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "m"
    mask(run, collection, out, people=people(collection, a={"d0": 1}))
    with pytest.raises(SettingsDifferError, match=r"people\.qrels"):
        mask(run, collection, out, people=people(collection, a={"d0": 0}))
    plain = mask(run, collection, tmp_path / "plain", "threshold=2.5")
    assert "people" not in plain.identity.settings["mask"]
    other = Collection.from_dicts("other", {"x": "y"}, {"a": "first"})
    with pytest.raises(WrongCollectionError, match="give the collection that was judged"):
        mask(run, collection, tmp_path / "no", people=people(other, a={"d0": 1}))
    with pytest.raises(OptionError, match="0 rules"):
        mask(run, collection, tmp_path / "no")
