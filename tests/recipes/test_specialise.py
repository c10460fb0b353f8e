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
from irdistill.recipes import specialise_budget as budget_module
from irdistill.recipes import specialising as module
from irdistill.recipes.specialise_budget import (
    TimeBudget,
    TrainingBudget,
    measure_budget,
    plan_training,
)
from irdistill.recipes.specialise_options import SpecialiseOptions, parse_minutes
from irdistill.recipes.specialise_stages import SpecialiseStages
from irdistill.recipes.specialise_verdict import (
    COPIED,
    Choice,
    ReportQueries,
    choose_system,
    verdict_lines,
)
from irdistill.recipes.specialising import specialise_model
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
    monkeypatch.setattr(budget_module, "_rate", lambda *_: 50.0)
    planned = TrainingBudget(3, 10.0, 1.0, 1.0, 10.0)
    monkeypatch.setattr(module, "_plan_training", lambda *_: planned)
    model = str(tmp_path / "model")
    options = small_options(time=1.0, refine=True, control=True, rules=("first=3",))
    folder = specialise_model(str(collection), model, tmp_path / "out", options).folder
    kept = json.loads((folder / "plan.json").read_text())
    assert kept["training"]["steps"] == 3 and kept["budget"]["queries_per_second"] == 50.0
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert {row["dataset"] for row in rows} == {str(collection), str(folder / "queries") + "#dev"}
    assert [row["system"] for row in rows[::2]][:9] == [
        "before",
        "BM25",
        "teacher",
        "term vectors",
        "merged",
        "trained",
        "after",
        "KL alone",
        "InfoNCE alone",
    ]
    by_system = {row["system"]: row["value"] for row in rows if row["dataset"] == str(collection)}
    assert by_system["after"] == by_system[kept["choice"]["system"]]
    report = (folder / "report.md").read_text()
    place = {"before": model, "term vectors": folder / "terms" / "model"} | {
        name: folder / name / "model" for name in ("merged", "trained")
    }
    kept_model = place[kept["choice"]["system"]]
    assert report.endswith(
        f'search "{collection}" "a question of your own" --model {kept_model}\n```\n'
    )
    assert "## In words" in report and "judged queries of" in report and COPIED in report
    assert (
        len(read_recipe(folder / "recipe.yaml").stages) == 1 + 1 + 3 * 6 + 1 + 2 + 3 + 3 + 2 * 3 + 1
    )
    before = {
        path: path.read_bytes()
        for path in [
            folder / "plan.json",
            *folder.glob("stages/*"),
            *folder.glob("*/manifest.json"),
        ]
    }
    for name in ("measure_budget", "_plan_training", "_choose"):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("the plan is kept"))
    specialise_model(str(collection), model, tmp_path / "out", options)
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(
        IrdistillError, match=r"started with other settings \(time: 1.0 there, 2.0 here"
    ):
        specialise_model(str(collection), model, tmp_path / "out", replace(options, time=2.0))


def test_a_plan_that_was_cut_ends_the_same(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_module, "_rate", lambda *_: 50.0)
    planned = TrainingBudget(2, 10.0, 1.0, 1.0, 10.0)
    monkeypatch.setattr(module, "_plan_training", lambda *_: planned)
    model, options = str(tmp_path / "model"), small_options(refine=True, keep=(str(collection),))
    whole = specialise_model(str(collection), model, tmp_path / "whole", options)
    choose = module._choose

    def stop(*_: Any) -> Choice:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_choose", stop)
    with pytest.raises(KeyboardInterrupt):
        specialise_model(str(collection), model, tmp_path / "cut", options)
    monkeypatch.setattr(module, "_choose", choose)
    monkeypatch.setattr(module, "_plan_training", lambda *_: pytest.fail("the plan is kept"))
    cut = specialise_model(str(collection), model, tmp_path / "cut", options)
    for stage in ("terms", "trained", "merged"):
        weights = [
            sorted((result.folder / stage / "model").rglob("*.safetensors"))
            for result in (whole, cut)
        ]
        assert [path.read_bytes() for path in weights[0]] == [
            path.read_bytes() for path in weights[1]
        ]
    assert cut.model.name == "model" and cut.model.is_dir()


def test_the_queries_are_planned_from_the_time(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from irdistill.collections import load_collection

    loaded = load_collection(collection)
    rates = {"document": 1.0, "query": 10.0}
    monkeypatch.setattr(budget_module, "_rate", lambda student, texts, side: rates[side])
    model = str(tmp_path / "model")
    budget = replace(measure_budget(loaded, model, small_options(time=10.0)), seconds=0.0)
    # 456 queries are more than three a passage, so each passage gives four sentences and a title;
    # more than half of the passages are never held out
    assert budget == TimeBudget(None, 4, 0.5, 1.0, 10.0)
    fitted = fit_term_vectors(loaded, model, tmp_path / "fitted", tmp_path / "work")
    with pytest.raises(
        IrdistillError, match="has a query tower already"
    ):  # before anything is made
        measure_budget(loaded, str(tmp_path / "fitted" / "model"), small_options())
    assert not fitted.learns("document")
    rates["document"] = 0.1
    with pytest.raises(IrdistillError, match="alone takes about 2 of 2 minutes"):
        measure_budget(loaded, model, small_options(time=2.0))
    fit_term_vectors(loaded, model, tmp_path / "again")  # the vectors are in the cache now
    assert measure_budget(loaded, model, small_options(time=2.0)).passages is None


@pytest.mark.parametrize(
    ("minutes", "control", "steps"),
    [
        # 360 s - 98 used - 40 piloted - (2 * 20 + 10) reserved - 3 start = 169 s; 0.75 of it, 1 s
        # each
        (6.0, False, 126),
        # two trainings more and two models more to evaluate: (360 - 98 - 40 - 90 - 9) * 0.75 / 3
        (6.0, True, 30),
        # 12 epochs of 80 queries, 4 a step
        (60.0, False, 240),
        # (210 - 191) * 0.75 = 14 steps are too few to evaluate
        (3.5, False, 0),
    ],
)
def test_training_gets_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, minutes: float, control: bool, steps: int
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(budget_module.time, "perf_counter", lambda: clock[0])

    lengths = []

    def train_for(count: int) -> None:
        clock[0] += 2.0 + count * 1.0 + (0.0 if lengths else 27.0)  # the first fills caches
        lengths.append(count)

    options = small_options(time=minutes, refine=True, control=control)
    seconds = {"queries": 10.0, "terms": 50.0, "terms-dev": 5.0, "terms-real": 15.0}
    monkeypatch.setattr(budget_module, "_FIGURES_SECONDS", 10.0)
    # the pilots take 30, 3 and 7 s; a step takes (7 - 3) / 4 = 1 s
    planned = plan_training(options, seconds, 18.0, 80, train_for)
    assert planned.step_seconds == 1.0 and planned.start_seconds == 3.0
    assert planned.seconds_used == 138.0 and lengths == [1, 1, 5]
    assert planned.steps == steps


def test_a_recipe_for_a_teacher_with_a_card_and_no_judgments(tmp_path: Path) -> None:
    options = small_options(teacher="minilm", llm="smollm2-pointwise", keep=("probe",))
    path = tmp_path / "recipe.yaml"
    stages = SpecialiseStages("set", "model", False, options, TimeBudget(100, 2, 0.1, 1, 1))
    path.write_text(yaml.safe_dump(stages.recipe(50, "trained")))
    named = {stage.name: stage for stage in read_recipe(path).stages}
    assert named["queries"].arguments["kinds"] == ["questions", "keywords", "paraphrases"]
    assert named["queries"].arguments["llm"] == "smollm2-pointwise"
    assert named["teacher-dev"].arguments["teacher"] == "minilm" and "bm25-scores-dev" not in named
    assert (
        list(named["figures"].arguments["datasets"]) == ["${queries}#dev"]
        and "before-real" not in named
    )
    trained = named["trained"].arguments
    assert (
        trained["loss"]
        == 'KL(tau=0.05, teacher_tau=0.5) + 0.1*InfoNCE(tau=0.05, positive_by="teacher")'
    )
    assert trained["backbone"] == "${terms}" and trained["positives"] is False
    assert trained["keep"] == ["probe"]
    assert named["merged"].arguments["models"] == ["${terms}", "${trained}"]


def test_the_fused_teacher_needs_term_vectors_alone(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    stages = SpecialiseStages("set", "model", True, small_options(), TimeBudget(100, 2, 0.1, 1, 1))
    path.write_text(yaml.safe_dump(stages.recipe(0, "term vectors")))
    named = {stage.name: stage for stage in read_recipe(path).stages}
    assert not {stage.verb for stage in named.values()} & {"train"} and "teacher-train" not in named
    assert named["figures"].arguments["datasets"]["set"]["after"] == "${terms-real}"
    assert small_options(refine=True).trainings == 1 and small_options(control=True).trainings == 2


TESTED = ReportQueries("queries#dev", ("title", "sentence"))
WRITTEN = ReportQueries("queries#dev", ("questions",))


def figures(dataset: str = "set", **systems: tuple[float, float]) -> list[dict[str, Any]]:
    """Rows of systems with their value and p; before has 0.5, BM25 0.45."""
    values = {"before": (0.5, 1.0), "BM25": (0.45, 0.5), "teacher": (0.6, 0.5)} | {
        name.replace("_", " "): value for name, value in systems.items()
    }
    return [
        {
            "system": name,
            "dataset": dataset,
            "measure": "nDCG@10",
            "value": value,
            "n": 30,
            "p_holm": None if name == "before" else p,
            "difference": None if name == "before" else value - 0.5,
        }
        for name, (value, p) in values.items()
    ]


@pytest.mark.parametrize(
    ("after", "p", "teacher", "words"),
    [
        (
            0.56,
            0.01,
            0.6,
            "0.5000 before, 0.5600 now (+0.0600, 60% of the teacher's lead); BM25 0.4500,"
            " teacher 0.6000. It helped (corrected p = 0.01, 30 queries).",
        ),
        (
            0.44,
            0.01,
            0.6,
            "(-0.0600, -60% of the teacher's lead); BM25 0.4500, teacher 0.6000. It did harm"
            " (corrected p = 0.01, 30 queries). BM25 alone is better on these queries.",
        ),
        (0.51, 0.2, 0.6, "Whether it helped is not significant (corrected p = 0.2, 30 queries)"),
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
    rows = figures(teacher=(teacher, 0.5), after=(after, p))
    rows.append(rows[-1] | {"value": 0.9, "measure": "R@100"})
    [line] = verdict_lines(rows, TESTED, Choice("term vectors"))
    assert words in line and "the judged queries of set" in line


def test_the_kept_model_has_one_line() -> None:
    rows = figures(term_vectors=(0.55, 0.01), trained=(0.56, 0.01), after=(0.56, 0.01))
    lines = verdict_lines(rows, TESTED, Choice("trained"))
    assert [line.partition(",")[0] for line in lines] == ["term vectors", "after (trained)"]
    rows = figures(after=(0.5, 1.0))
    refused = Choice("before", ("The term vectors were refused.",))
    assert verdict_lines(rows, TESTED, refused) == [
        "The term vectors were refused.",
        "The result is the model as it was.",
    ]


def test_copied_queries_never_show_that_it_helped() -> None:
    rows = figures("queries#dev", after=(0.9, 0.0001))
    [line] = verdict_lines(rows, TESTED, Choice("term vectors"))
    assert line.endswith(COPIED) and "helped (" not in line and "BM25 0.4500" in line
    assert "held-out synthetic queries (title, sentence)" in line
    [line] = verdict_lines(rows, WRITTEN, Choice("term vectors"))
    assert "It helped (corrected p = 0.0001, 30 queries). Queries of searchers may be" in line
    mixed = ReportQueries("queries#dev", ("questions", "keyword"))
    assert COPIED in verdict_lines(rows, mixed, Choice("term vectors"))[0]
    rows = figures(after=(0.56, 1e-5))
    assert "(corrected p < 0.0001, 30 queries)" in verdict_lines(rows, TESTED, Choice("merged"))[0]


@pytest.mark.parametrize(
    ("dataset", "systems", "kept", "words"),
    [
        ("set", {"merged": (0.57, 0.1), "trained": (0.58, 0.1)}, "trained", ["chose between 3"]),
        (
            "set",
            {"merged": (0.55, 0.01), "trained": (0.54, 0.01)},
            "term vectors",
            ["merged query tower was refused", "trained query tower was refused", "chose between"],
        ),
        (
            "set",
            {"merged": (0.57, 0.1), "trained": (0.565, 0.1)},
            "merged",
            ["trained query", "chose"],
        ),
        # synthetic queries are a weaker probe: the gain must be significant
        ("queries#dev", {"merged": (0.57, 0.1), "trained": (0.58, 0.01)}, "trained", ["merged"]),
        (
            "queries#dev",
            {"merged": (0.57, 0.1)},
            "term vectors",
            ["0.5700, and the gain over the model before is not significant"],
        ),
        # better than its term vectors, and worse than the model before
        (
            "set",
            {"term_vectors": (0.48, 0.2), "trained": (0.49, 0.01)},
            "term vectors",
            ["is 0.4900, and 0.5000 without it (before)", "chose between 2"],
        ),
        (
            "queries#dev",
            {"term_vectors": (0.48, 0.2), "trained": (0.49, 0.01)},
            "term vectors",
            ["is 0.4900, and 0.5000 without it (before)"],
        ),
        ("set", {"term_vectors": (0.45, 0.01)}, "before", ["term vectors were refused"]),
        ("set", {"term_vectors": (0.49, 0.6)}, "term vectors", []),
    ],
)
def test_what_makes_the_probe_fall_is_refused(
    dataset: str, systems: dict[str, tuple[float, float]], kept: str, words: list[str]
) -> None:
    rows = figures(dataset, **({"term_vectors": (0.56, 0.01)} | systems))
    choice = choose_system(rows, TESTED)
    assert choice.system == kept and len(choice.lines) == len(words)
    for line, part in zip(choice.lines, words, strict=True):
        assert part in line


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
