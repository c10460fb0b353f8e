"""Several judges become qrels: policies by hand, files, and what is never replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irdistill.collections import Collection, read_judgments
from irdistill.collections.judging import (
    CombinedJudgments,
    JudgeRecords,
    Judgment,
    combine_judges,
    export_qrels,
)
from irdistill.collections.judgments import judgment_files
from irdistill.errors import InputError, OptionError, OutputExistsError, WrongCollectionError

GRADES = {
    "anna": {"a": 1, "b": 0, "c": 3, "d": 2, "e": None},
    "ben": {"a": 1, "b": 1, "c": 0, "d": 3},
    "cleo": {"a": 1, "c": 1, "d": 0, "f": 0},
}


def records(collection: dict[str, str] | None = None, *judges: str) -> JudgeRecords:
    return JudgeRecords(
        collection or {"id": "pets"},
        {
            judge: {
                ("q", doc): Judgment(
                    "q", doc, "skipped" if grade is None else "judged", grade, judge, f"t-{judge}"
                )
                for doc, grade in GRADES[judge].items()
            }
            for judge in judges or GRADES
        },
    )


@pytest.mark.parametrize(
    ("policy", "expected", "differing", "undecided"),
    [
        ("any", {"a": 1, "b": 1, "c": 3, "d": 3, "f": 0}, 3, 0),
        ("all", {"a": 1, "b": 0, "c": 0, "d": 0, "f": 0}, 3, 0),
        ("majority", {"a": 1, "c": 1, "d": 2, "f": 0}, 3, 1),  # b: one against one
        ("ben", {"a": 1, "b": 1, "c": 0, "d": 3}, 0, 0),
    ],
)
def test_policies(policy: str, expected: dict[str, int], differing: int, undecided: int) -> None:
    combined = combine_judges(records(), policy)
    assert combined.qrels.to_dict() == {"q": expected}
    assert (combined.differing, combined.undecided) == (differing, undecided)


def test_relevance_from_a_grade() -> None:
    """From grade 2 on, c is 3, 0 and 1: not relevant, the lower middle grade of that side is 0."""
    assert combine_judges(records(), "majority", 2).qrels["q"]["c"] == 0


def test_several_judges_need_a_policy() -> None:
    with pytest.raises(OptionError, match=r"3 people judged \(anna, ben, cleo\); say with --pol"):
        combine_judges(records())
    with pytest.raises(OptionError, match="'dora' is not known"):
        combine_judges(records(), "dora")
    assert combine_judges(records(None, "anna")).policy == "anna"


def test_both_layouts_are_read_back(tmp_path: Path) -> None:
    combined = combine_judges(records(), "majority")
    exported = export_qrels(combined, tmp_path / "qrels" / "judged.tsv")
    assert exported._asdict() == {
        "policy": "majority",
        "judges": ["anna", "ben", "cleo"],
        "differing": 3,
        "undecided": 1,
        "judgments": 4,
        "relevant": 3,
        "added": 4,
        "changed": 0,
    }
    export_qrels(combined, tmp_path / "judged.qrels")
    table = (tmp_path / "qrels" / "judged.tsv").read_text()
    assert table.startswith("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    assert (tmp_path / "judged.qrels").read_text() == "q 0 a 1\nq 0 c 1\nq 0 d 2\nq 0 f 0\n"
    for name in ("qrels/judged.tsv", "judged.qrels"):
        assert read_judgments(tmp_path / name).to_dict() == combined.qrels.to_dict()
    assert list(judgment_files(tmp_path / "qrels")) == ["judged"]
    lines = (tmp_path / "judged.qrels.judges").read_text().splitlines()
    assert json.loads(lines[0])["policy"] == "majority"
    assert json.loads(lines[2]) == {
        "query_id": "q",
        "doc_id": "c",
        "grade": 1,
        "judged": [
            {"judge": "anna", "grade": 3, "time": "t-anna"},
            {"judge": "ben", "grade": 0, "time": "t-ben"},
            {"judge": "cleo", "grade": 1, "time": "t-cleo"},
        ],
    }


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    combined = combine_judges(records(None, "anna"))
    (tmp_path / "mine.qrels").write_text("q 0 z 1\n")
    (tmp_path / "other.qrels.judges").write_text("notes\n")
    for name in ("mine.qrels", "other.qrels"):
        with pytest.raises(OutputExistsError, match="never overwritten"):
            export_qrels(combined, tmp_path / name)
    assert (tmp_path / "mine.qrels").read_text() == "q 0 z 1\n"
    assert not (tmp_path / "other.qrels").exists()
    export_qrels(combined, tmp_path / "new.qrels")
    with pytest.raises(OutputExistsError):  # not even its own
        export_qrels(combined, tmp_path / "new.qrels")


def test_the_judgments_of_the_collection_are_kept(tmp_path: Path) -> None:
    collection = Collection.from_dicts(
        "pets", {"a": "x", "b": "y", "z": "w"}, {"q": "?", "r": "!"}, {"q": {"b": 1}, "r": {"z": 2}}
    )
    combined = combine_judges(records(collection.describe(), "anna"))
    exported = export_qrels(combined, tmp_path / "all.qrels", collection=collection)
    assert read_judgments(tmp_path / "all.qrels").to_dict() == {
        "q": {"b": 0, "a": 1, "c": 3, "d": 2},
        "r": {"z": 2},
    }
    assert (exported.added, exported.changed) == (3, 1)
    other = Collection.from_dicts("other", {"a": "x"}, {"q": "?"})
    with pytest.raises(WrongCollectionError, match="give the collection that was judged"):
        export_qrels(combined, tmp_path / "no.qrels", collection=other)
    assert not (tmp_path / "no.qrels").exists()


def test_ids_that_a_layout_cannot_hold(tmp_path: Path) -> None:
    def combined(doc: str) -> CombinedJudgments:
        judgment = Judgment("q", doc, "judged", 1, "anna", "t")
        return combine_judges(JudgeRecords({}, {"anna": {("q", doc): judgment}}))

    with pytest.raises(InputError, match="TREC files cannot hold"):
        export_qrels(combined("two words"), tmp_path / "a.qrels")
    export_qrels(combined("two words"), tmp_path / "a.tsv")
    with pytest.raises(InputError, match="a table cannot hold"):
        export_qrels(combined("a\tb"), tmp_path / "b.tsv")
    assert not (tmp_path / "b.tsv").exists()
