"""Specialising: the plan is made once and kept, the recipe can be read and run again, and the
verdict is what the figures say.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from irdistill.errors import IrdistillError
from irdistill.recipes import read_recipe
from irdistill.recipes import specialising as module
from irdistill.recipes.specialise_options import SpecialiseOptions, parse_minutes
from irdistill.recipes.specialising import (
    TimeBudget,
    measure_budget,
    specialise_model,
    specialise_recipe,
    verdict_lines,
)
from irdistill.training.term_vector_fitting import fit_term_vectors
from tests.training.tiny import make_backbone


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "source"
    (folder / "qrels").mkdir(parents=True)
    lines = [
        {
            "_id": f"d{i}",
            "title": f"w{i} w{i + 1}",
            "text": f"w{i} w{i + 2} w{i + 1} w{i + 3} w{i}. W{i} w{i} w1 w2 w{i}.",
        }
        for i in range(12)
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{i}", "text": f"w{i}"}) + "\n" for i in range(3))
    )
    (folder / "qrels" / "test.tsv").write_text(
        "q\td\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in range(3))
    )
    make_backbone(tmp_path / "model")
    return folder


def small_options(**settings: Any) -> SpecialiseOptions:
    return SpecialiseOptions(k=5, batch_size=4, list_size=4, **settings)


def test_it_ends_with_a_table_and_goes_on_with_the_same_plan(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LEAST_STEPS", 3)
    monkeypatch.setattr(module, "_rate", lambda *_: 0.5)
    model = str(tmp_path / "model")
    options = small_options(time=1.0, control=True, rules=("first=3",))
    folder = specialise_model(str(collection), model, tmp_path / "out", options).folder
    kept = json.loads((folder / "plan.json").read_text())
    assert kept["budget"]["steps"] == 3 and kept["budget"]["queries_per_second"] == 0.5
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert {row["dataset"] for row in rows} == {str(collection), str(folder / "queries") + "#dev"}
    assert [row["system"] for row in rows[::2]][:6] == [
        "before",
        "BM25",
        "teacher",
        "after",
        "KL alone",
        "InfoNCE alone",
    ]
    report = (folder / "report.md").read_text()
    assert (
        "## In words" in report
        and "judged queries of" in report
        and "held-out synthetic queries" in report
    )
    assert len(read_recipe(folder / "recipe.yaml").stages) == 30
    before = {
        path: path.read_bytes()
        for path in [
            folder / "plan.json",
            *folder.glob("stages/*"),
            *folder.glob("*/manifest.json"),
        ]
    }
    monkeypatch.setattr(module, "measure_budget", lambda *_: pytest.fail("the budget is kept"))
    specialise_model(str(collection), model, tmp_path / "out", options)
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(
        IrdistillError, match=r"started with other settings \(time: 1.0 there, 2.0 here"
    ):
        specialise_model(str(collection), model, tmp_path / "out", replace(options, time=2.0))


def test_the_plan_shares_out_the_time(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from irdistill.collections import load_collection

    loaded = load_collection(collection)
    rates = {"document": 1.0, "query": 10.0}
    monkeypatch.setattr(module, "_rate", lambda student, texts, side: rates[side])
    model = str(tmp_path / "model")
    budget = measure_budget(loaded, model, small_options(time=10.0))
    # 588 s are left; 15% of them make 882 queries, more than the passages have; 60% allow 294
    # steps, 12 epochs 180
    assert budget == TimeBudget(None, 4, 180, 1.0, 10.0)
    assert (
        measure_budget(loaded, model, small_options(time=10.0, control=True)).steps == 147
    )  # half of 294
    fitted = fit_term_vectors(loaded, model, tmp_path / "fitted", tmp_path / "work")
    with pytest.raises(
        IrdistillError, match="has a query tower already"
    ):  # before anything is made
        measure_budget(loaded, str(tmp_path / "fitted" / "model"), small_options())
    assert not fitted.learns("document")
    rates["document"] = 0.1
    with pytest.raises(IrdistillError, match="alone takes about 2 of 2 minutes"):
        measure_budget(loaded, model, small_options(time=2.0))


def test_a_recipe_for_a_teacher_with_a_card_and_no_judgments(tmp_path: Path) -> None:
    options = small_options(teacher="minilm", llm="smollm2-pointwise")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        yaml.safe_dump(
            specialise_recipe("set", "model", False, options, TimeBudget(100, 2, 50, 1, 1))
        )
    )
    stages = {stage.name: stage for stage in read_recipe(path).stages}
    assert stages["queries"].arguments["kinds"] == ["title", "sentence", "questions", "keywords"]
    assert stages["queries"].arguments["llm"] == "smollm2-pointwise"
    assert (
        stages["teacher-dev"].arguments["teacher"] == "minilm" and "bm25-scores-dev" not in stages
    )
    assert (
        list(stages["figures"].arguments["datasets"]) == ["${queries}#dev"]
        and "before-real" not in stages
    )
    trained = stages["specialised"].arguments
    assert (
        trained["loss"]
        == 'KL(tau=0.05, teacher_tau=0.5) + 0.1*InfoNCE(tau=0.05, positive_by="teacher")'
    )
    assert (
        trained["backbone"] == "${terms}"
        and trained["positives"] is False
        and trained["early_stop"] == 3
    )


def test_the_fused_teacher_needs_term_vectors_alone(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        yaml.safe_dump(
            specialise_recipe("set", "model", True, small_options(), TimeBudget(100, 2, 50, 1, 1))
        )
    )
    stages = {stage.name: stage for stage in read_recipe(path).stages}
    assert (
        not {stage.verb for stage in stages.values()} & {"train"} and "teacher-train" not in stages
    )
    assert stages["figures"].arguments["datasets"]["set"]["after"] == "${terms-real}"
    assert small_options(refine=True).trainings == 1 and small_options(control=True).trainings == 2


@pytest.mark.parametrize(
    ("after", "p", "teacher", "words"),
    [
        (
            0.56,
            0.01,
            0.6,
            "0.5000 before, 0.5600 now (+0.0600, 60% of the teacher's lead). It helped",
        ),
        (0.44, 0.01, 0.6, "(-0.0600, -60% of the teacher's lead). It did harm"),
        (0.51, 0.2, 0.6, "Whether it helped is not significant (corrected p = 0.2000, 30 queries)"),
        (
            0.51,
            0.2,
            0.5,
            "(+0.0100; the teacher is not ahead of the model here, so there was nothing to learn)",
        ),
    ],
)
def test_the_verdict_is_what_the_figures_say(
    after: float, p: float, teacher: float, words: str
) -> None:
    def row(system: str, value: float, **more: Any) -> dict[str, Any]:
        return {
            "system": system,
            "dataset": "set",
            "measure": "nDCG@10",
            "value": value,
            "n": 30,
            "p_holm": None,
            "difference": None,
        } | more

    rows = [
        row("before", 0.5),
        row("teacher", teacher, p_holm=0.5, difference=teacher - 0.5),
        row("after", after, p_holm=p, difference=after - 0.5),
        row("after", 0.9, measure="R@100"),
    ]
    [line] = verdict_lines(rows)
    assert words in line and "the judged queries of set" in line


def test_durations() -> None:
    assert [parse_minutes(text) for text in ("90s", "20m", "2h", "5", "1.5 h")] == [
        1.5,
        20,
        120,
        5,
        90,
    ]
    for text in ("", "soon", "-3m", "3d"):
        with pytest.raises(IrdistillError, match="cannot be read"):
            parse_minutes(text)
