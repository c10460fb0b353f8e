"""Retention: which collections a model was trained on, and the share of the teacher that it keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import irdistill as ird
from irdistill.collections import Collection
from irdistill.evaluation.evaluator import combine, evaluate
from irdistill.evaluation.unseen_collections import retention_finding
from irdistill.runs import RankedList, Run, RunIdentity, write_run

NAMES = ("python", "medicine", "law")


def collection(name: str) -> Collection:
    """Two documents and two queries; the first document is relevant."""
    docs = {f"{name}-a": f"{name} first", f"{name}-b": f"{name} second"}
    return Collection.from_dicts(
        name, docs, {"1": "x", "2": "y"}, {"1": {f"{name}-a": 1}, "2": {f"{name}-a": 1}}
    )


def training(folder: Path, identity: dict[str, Any]) -> str:
    """The folder of a model with the record of its training beside it."""
    (folder / "model").mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps({"identity": identity}))
    return str(folder / "model")


def run(path: Path, name: str, ranks: tuple[int, int], model: str) -> Run:
    """The relevant document of each query has this rank, 1 or 2."""
    lists = [
        RankedList(query, [f"{name}-{letter}" for letter in order], [2.0, 1.0], None)  # type: ignore[arg-type]
        for query, order in zip("12", ("ab" if rank == 1 else "ba" for rank in ranks), strict=True)
    ]
    described = collection(name).describe()
    return write_run(path, RunIdentity("student", {"model": model}, described), lists)


@pytest.fixture
def student(tmp_path: Path) -> str:
    """Trained on medicine from a model that was trained on python."""
    first = training(tmp_path / "one", {"collection": collection("python").describe()})
    identity = {"collection": collection("medicine").describe(), "student": {"model": first}}
    return training(tmp_path / "two", identity)


def figures(tmp_path: Path, model: str, system: str = "teacher", baseline: Any = None) -> Any:
    """Reciprocal ranks: the teacher always 1; the student 0.5 and 1, on law 0.5 and 0.5."""
    ranks = {"python": (2, 1), "medicine": (1, 1), "law": (2, 2)}
    return combine(
        *(
            evaluate(
                collection(name),
                {
                    system: run(tmp_path / f"{name}-teacher", name, (1, 1), "bm25"),
                    "student": run(tmp_path / f"{name}-student", name, ranks[name], model),
                },
                "RR@10",
                baseline,
            )
            for name in NAMES
        )
    )


def test_collections_of_all_earlier_trainings_are_not_unseen(tmp_path: Path, student: str) -> None:
    table = figures(tmp_path, student)
    trained = {name: table.row("student", name, "RR@10").trained for name in NAMES}
    assert trained == {"python": True, "medicine": True, "law": False}
    assert table.row("teacher", "law", "RR@10").trained is None
    (finding,) = retention_finding(table.rows)
    expected = ["student", "teacher", "RR@10", "87.5%", "50.0%", "50.0% (law)"]
    assert list(finding.tables[0].rows) == [expected]
    assert "## Retention" in table.to_markdown()


def test_of_a_baseline_where_no_system_is_the_teacher(tmp_path: Path, student: str) -> None:
    table = figures(tmp_path, student, "MiniLM", "MiniLM")
    (finding,) = retention_finding(table.rows)
    assert list(finding.tables[0].rows[0]) == [
        "student",
        "MiniLM",
        "RR@10",
        "87.5%",
        "50.0%",
        "50.0% (law)",
    ]
    # the figures of one system are enough: a model card has no others
    alone = [row for row in table.rows if row.system == "student"]
    assert retention_finding(alone) == [finding]


def test_merged_models_were_trained_where_their_parts_were(tmp_path: Path, student: str) -> None:
    merged = training(
        tmp_path / "merged", {"verb": "merge", "models": [{"model": student}, {"model": "other"}]}
    )
    table = figures(tmp_path, merged)
    assert [table.row("student", name, "RR@10").trained for name in NAMES] == [True, True, False]


@pytest.mark.parametrize("baseline", [None, "MiniLM"])
def test_no_section_without_a_teacher_or_a_training(tmp_path: Path, baseline: Any) -> None:
    table = figures(tmp_path, "sentence-transformers/all-MiniLM-L6-v2", "MiniLM", baseline)
    assert {row.trained for row in table.rows} == {None} and not retention_finding(table.rows)


def test_reports_have_the_section(tmp_path: Path, student: str) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps(figures(tmp_path, student).to_json()))
    for form in ("md", "html", "tex"):
        out = tmp_path / f"report.{form}"
        ird.report(results, out=out)
        assert "50.0" in out.read_text() and "unseen" in out.read_text(), form
