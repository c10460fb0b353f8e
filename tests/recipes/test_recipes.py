"""Recipes: reading, running, skipping, refusing, and being killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from irdistill import IrdistillError
from irdistill.card_files import card_folder
from irdistill.recipes import read_recipe, run_recipe
from tests.forked import Child
from tests.recipes.tiny import small_recipe


def start(recipe: Path, where: Path) -> Child:
    """Start a process that runs a recipe into ``out``."""
    return Child(run_in, recipe, where)


def run_in(recipe: Path, where: Path) -> None:
    os.chdir(where)
    run_recipe(read_recipe(recipe), "out")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The small recipe, and the folder of a whole run of it."""
    folder = tmp_path_factory.mktemp("recipe")
    path = small_recipe(folder)
    start(path, folder).finish()
    return path, folder / "out"


def artifacts(folder: Path) -> dict[str, bytes]:
    """All files that a repeated run must make again, byte for byte: not the measured times."""
    timed = {"journal.jsonl", ".lock", "results.json", "report.md"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in timed
        and "costs" not in path.parts
        and path.name != "costs.json"
    }


@pytest.mark.slow
def test_every_stage_leaves_its_artifact(made: tuple[Path, Path]) -> None:
    path, out = made
    recipe = read_recipe(path)
    assert len(recipe.stages) == 19
    for stage in recipe.stages:
        assert (out / stage.name).is_dir() and (out / "stages" / f"{stage.name}.json").is_file()
    results = json.loads((out / "results.json").read_text())
    row = next(
        row
        for row in results["rows"]
        if row["system"] == "distilled" and row["measure"] == "nDCG@10"
    )
    assert row["against"] == "labels" and 0 <= row["p"] <= row["p_holm"] <= 1 and row["n"] == 8
    assert {"system", "dataset", "measure", "n", "value", "low", "high", "p"} <= set(row)
    assert set(results["seconds"]) == {stage.name for stage in recipe.stages}
    assert results["retention"]["teacher"] == 1.0
    assert {cost["system"] for cost in results["efficiency"]} == {"BM25", "teacher", "distilled"}
    layers = {cost["system"]: cost["layers"] for cost in results["efficiency"]}
    assert layers == {"BM25": 0, "teacher": 2, "distilled": 1}
    report = (out / "report.md").read_text()
    assert "## Figures" in report and "irdistill search" in report and "Kendall tau" in report


@pytest.mark.slow
def test_a_second_run_does_nothing_again(made: tuple[Path, Path]) -> None:
    path, out = made
    before, journal = artifacts(out), (out / "journal.jsonl").read_bytes()
    run_recipe(read_recipe(path), out)
    assert artifacts(out) == before
    assert (out / "journal.jsonl").read_bytes() == journal


@pytest.mark.slow
def test_other_settings_are_refused_and_nothing_is_touched(made: tuple[Path, Path]) -> None:
    path, out = made
    before = artifacts(out)
    with pytest.raises(IrdistillError, match=r"'labels'.*steps: 24 there, 7 here"):
        run_recipe(read_recipe(path, ["steps=7"]), out)
    assert artifacts(out) == before


@pytest.mark.slow
def test_overwrite_repeats_what_depends_on_it_and_no_more(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    path, _ = made
    out = tmp_path / "out"
    run_recipe(read_recipe(path), out)
    scores = (out / "teacher-train" / "manifest.json").stat().st_mtime_ns
    figures = (out / "figures" / "result.json").read_bytes()
    run_recipe(read_recipe(path, ["steps=12"]), out, overwrite=True)
    assert (out / "teacher-train" / "manifest.json").stat().st_mtime_ns == scores
    assert (
        json.loads((out / "labels" / "training.json").read_text())["identity"]["options"]["steps"]
        == 12
    )
    assert (out / "figures" / "result.json").read_bytes() != figures


@pytest.mark.slow
def test_a_stage_that_was_killed_is_of_the_settings_it_began_with(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    path, whole = made
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    record = out / "stages" / "labels.json"
    begun = json.loads(record.read_text()) | {"fingerprint": None}
    record.write_text(json.dumps(begun))
    with pytest.raises(
        IrdistillError, match=r"'labels'.*run with other settings: steps: 24 there, 12 here"
    ):
        run_recipe(read_recipe(path, ["steps=12"]), out)
    run_recipe(read_recipe(path, ["steps=12"]), out, overwrite=True)
    assert (
        json.loads((out / "labels" / "training.json").read_text())["identity"]["options"]["steps"]
        == 12
    )
    # one that left nothing behind, as a setting was wrong, needs no --overwrite
    shutil.rmtree(out / "labels")
    record.write_text(json.dumps(begun))
    run_recipe(read_recipe(path, ["steps=12"]), out)
    assert json.loads(record.read_text())["fingerprint"] is not None


@pytest.mark.slow
def test_killed_at_ten_moments_it_ends_with_the_same_bytes(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    """SIGKILL at moments drawn anew each time; a run that ends before its moment is compared, and
    begun again.
    """
    path, whole = made
    began = time.monotonic()
    finish(start(path, tmp_path), tmp_path, whole)
    duration = time.monotonic() - began
    shutil.rmtree(tmp_path / "out")
    draw, kills = random.Random(), 0
    while kills < 10:
        child = start(path, tmp_path)
        if not child.ends_within(draw.uniform(0.05, 1.0) * duration):
            child.kill()
            kills += 1
            continue
        finish(child, tmp_path, whole)
        shutil.rmtree(tmp_path / "out")
    finish(start(path, tmp_path), tmp_path, whole)


def finish(child: Child, where: Path, whole: Path) -> None:
    """Wait for a run to end well, and hold its artifacts against those of the undisturbed one."""
    child.finish()
    again, before = artifacts(where / "out"), artifacts(whole)
    assert again.keys() == before.keys()
    assert [name for name in before if again[name] != before[name]] == []


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: x", "has no stages"),
        ("stages: [", "not readable as YAML"),
        ("stages: [{name: a}]", "no verb"),
        ("stages: [{name: A/b, verb: fuse}]", "cannot be a folder"),
        ("stages: [{name: a, verb: fuse, runs: ['${b}']}]", "refers to 'b'"),
        ("stages: [{name: a, verb: fuse}, {name: a, verb: fuse}]", "defined twice"),
        ("stages: [{name: a, verb: fuse, for: [x]}]", "for: must be"),
        ("recipes: {}\nstages: []", "no setting 'recipes'"),
    ],
)
def test_a_faulty_recipe_stops(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(IrdistillError, match=fault):
        read_recipe(write(tmp_path / "r.yaml", text))


@pytest.mark.parametrize(
    ("stage", "fault"),
    [
        ("{name: a, verb: bake}", "verb 'bake'"),
        ("{name: a, verb: fuse, runs: [x], heat: 3}", "heat"),
        ("{name: a, verb: fuse}", "runs"),
        (
            (
                "{name: a, verb: train, collection: pydocs/train, scores: x, backbone: ./absent,"
                " loss: KL}"
            ),
            "no model folder",
        ),
        (
            "{name: a, verb: train, collection: pydocs/train, scores: x, backbone: m, loss: LK}",
            "LK",
        ),
        (
            (
                "{name: a, verb: train, collection: pydocs/train, scores: x, backbone: m, loss: KL,"
                " step: 3}"
            ),
            "step",
        ),
        ("{name: a, verb: evaluate, datasets: {}, measures: nDGC}", "nDGC"),
        ("{name: a, verb: retrieve, collection: ./absent}", "absent"),
        ("{name: a, verb: fuse, runs: [x]}", "1 run to fuse; at least two"),
        ("{name: a, verb: fuse, runs: [x, y], method: average}", "method is 'average'"),
        ("{name: a, verb: fuse, runs: [x, y], missing: zero}", "missing is 'zero'"),
        ("{name: a, verb: fuse, runs: [x, y], weights: [1]}", "weights"),
        ("{name: a, verb: fuse, runs: [x, y], tau: 0}", "the temperature 0"),
        ("{name: a, verb: evaluate, datasets: {}}", "names no run to measure"),
        ("{name: a, verb: evaluate, runs: {a: r}}", "give a collection and runs, or datasets"),
        (
            "{name: a, verb: evaluate, datasets: {x: {a: r, b: s}}, baseline: {a: c}}",
            "'a' cannot be compared with 'c'",
        ),
    ],
)
def test_a_faulty_stage_stops_before_anything_runs(tmp_path: Path, stage: str, fault: str) -> None:
    recipe = read_recipe(write(tmp_path / "r.yaml", f"stages: [{stage}]"))
    with pytest.raises(IrdistillError, match=fault):
        run_recipe(recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "stages").exists()


def test_settings_are_changed_by_name_only(tmp_path: Path) -> None:
    path = write(
        tmp_path / "r.yaml",
        "settings: {steps: 3, which: [a, b]}\nstages: [{name: 's-${x}', verb: fuse, "
        "for: {x: '${which}'}, runs: ['n${steps}', '${steps}']}]".replace("'${which}'", "[a, b]"),
    )
    recipe = read_recipe(path, ["steps=50"])
    assert [stage.name for stage in recipe.stages] == ["s-a", "s-b"]
    assert recipe.stages[0].arguments["runs"] == ["n50", 50]
    for change in ("step=5", "steps"):
        with pytest.raises(IrdistillError, match="changes no setting"):
            read_recipe(path, [change])
    with pytest.raises(IrdistillError, match="no recipe 'absent'"):
        read_recipe("absent")


def test_a_setting_may_refer_to_another(tmp_path: Path) -> None:
    recipe = read_recipe(
        write(
            tmp_path / "r.yaml",
            "settings: {k: 3, half: '${k}'}\n"
            "stages: [{name: s, verb: retrieve, collection: c, k: '${half}'}]",
        )
    )
    assert recipe.stages[0].arguments["k"] == 3


def test_every_recipe_that_comes_with_the_package_can_be_read() -> None:
    for path in card_folder("recipes").glob("*.yaml"):
        recipe = read_recipe(path)
        assert recipe.name == path.stem and recipe.description and recipe.stages


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('settings: {a: "x${a}"}\nstages: [{name: s, verb: fuse, runs: ["-${a}"]}]', "have no end"),
        ('settings: {a: "${a}"}\nstages: [{name: s, verb: fuse, runs: ["${a}"]}]', "have no end"),
        (
            'settings: {a: "${b}", b: "${a}"}\nstages: [{name: s, verb: fuse, runs: ["${a}"]}]',
            "have no end",
        ),
        (
            'settings: {a: "${b} ", b: "${a} "}\nstages: [{name: s, verb: fuse, runs: ["-${a}"]}]',
            "have no end",
        ),
        (
            "settings: {"
            + ", ".join(f'a{i}: "${{a{i + 1}}}${{a{i + 1}}}"' for i in range(40))
            + ', a40: xx}\nstages: [{name: s, verb: fuse, runs: ["-${a0}"]}]',
            "have no end",
        ),
        (
            "stages: [{name: s, verb: fuse, runs: {for: {"
            + ", ".join(f"a{i}: [1, 2, 3, 4, 5, 6, 7, 8, 9]" for i in range(9))
            + '}, each: "${a0}"}}]',
            "combinations",
        ),
        (
            "stages: [{name: s, verb: fuse, runs: "
            + "{for: {a: [1, 2, 3, 4, 5, 6, 7, 8, 9]}, each: " * 9
            + "x"
            + "}" * 9
            + "}]",
            "values",
        ),
        (
            "stages: [{name: 's${a}-${b}-${c}', verb: fuse, for: {"
            + ", ".join(f"{x}: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]" for x in "abc")
            + "}, runs: []}]",
            "more than 2000 stages",
        ),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "\n".join(
                f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else '*a'] * 9)}]" for i in range(9)
            ),
            "aliases multiply",
        ),
        ("stages: &s [*s]", "refers to itself"),
        ("name: [x]\nstages: []", "name is ['x']"),
        ("settings: [x]\nstages: []", "settings is ['x']"),
        ("stages: [{name: s, verb: fuse, runs: x}]", "runs is 'x'"),
        ("stages: [{name: s, verb: [fuse]}]", "the name of a verb"),
        ("stages: [{name: s, verb: fuse, runs: [1]}]", "runs[0] is 1"),
        ("stages: [{name: s, verb: retrieve, collection: [x]}]", "collection is ['x']"),
        ("stages: [{name: s, verb: retrieve, collection: pydocs/test, k: 0}]", "k is 0"),
        ("stages: [{name: s, verb: evaluate, datasets: [x]}]", "datasets is ['x']"),
        ("stages: [x]", "stages[0] is 'x'"),
    ],
)
def test_a_recipe_without_end_or_with_wrong_types_stops(
    tmp_path: Path, text: str, fault: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    begun = time.monotonic()
    with pytest.raises(IrdistillError) as raised:
        run_recipe(read_recipe(path), tmp_path / "out")
    assert fault in str(raised.value)
    assert time.monotonic() - begun < 20
    assert not list((tmp_path / "out").glob("s*")) if (tmp_path / "out").exists() else True


@pytest.mark.parametrize("name", ["../../../x", "/x", "..", ".", "a/b", "", "a\nb", "stages/../x"])
def test_a_recipe_name_is_one_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(json.dumps({"name": name, "stages": []}))
    with pytest.raises(IrdistillError):
        read_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize("name", ["report.md", "results.json", "stages", "journal.jsonl"])
def test_a_stage_is_not_named_as_a_file_of_the_recipe(name: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        json.dumps({"name": "r", "stages": [{"name": name, "verb": "audit"}]})
    )
    with pytest.raises(IrdistillError, match="cannot be a folder's"):
        read_recipe(tmp_path / "r.yaml")


SPLITS = """
name: two
settings: {count: 2}
stages:
  - {name: folds, verb: split, collection: DATA, folds: "${count}"}
"""


def test_a_recipe_touches_no_files_of_others(tmp_path: Path) -> None:
    from tests.recipes.tiny import beir_folder

    (tmp_path / "two.yaml").write_text(SPLITS.replace("DATA", str(beir_folder(tmp_path / "data"))))
    for number, name in enumerate(
        ("report.md", "results.json", "folds/thesis.txt", "thesis.txt", "stages/folds.json")
    ):
        path = tmp_path / f"out{number}" / name
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        with pytest.raises(
            IrdistillError, match=f"holds {name}, which irdistill did not write there"
        ):
            run_recipe(
                read_recipe(tmp_path / "two.yaml"), tmp_path / f"out{number}", overwrite=True
            )
        assert [
            file.read_text() for file in (tmp_path / f"out{number}").rglob("*") if file.is_file()
        ] == ["mine"]
    out = run_recipe(read_recipe(tmp_path / "two.yaml"), tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    (out / "folds" / "thesis.txt").write_text("mine")
    with pytest.raises(IrdistillError, match=r"holds thesis.txt, which"):
        run_recipe(read_recipe(tmp_path / "two.yaml", ["count=3"]), out, overwrite=True)
    (out / "folds" / "thesis.txt").unlink()
    run_recipe(read_recipe(tmp_path / "two.yaml", ["count=3"]), out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine" and (
        out / "folds" / "qrels" / "2-test.tsv"
    ).exists()
