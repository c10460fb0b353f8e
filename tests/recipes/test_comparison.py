"""A comparison of losses as a recipe: grids, learning rates chosen on dev, the same lists for
all.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from irdistill import IrdistillError
from irdistill.card_files import card_folder
from irdistill.recipes import read_recipe, run_recipe
from irdistill.runs import open_run
from tests.recipes.tiny import beir_folder
from tests.students.tiny import tiny_backbone

RECIPE = """
name: small-comparison
settings: {model: MODEL, train: "DATA#train[:60%]", dev: "DATA#train[60%:]", test: "DATA#test", losses: [infonce, kl],
           rates: [1.0e-3, 1.0e-2], seeds: [1, 2], infonce: 'InfoNCE(tau=0.1, negatives="list")', kl: KL(tau=0.1)}
stages:
  - {name: "bm25-${split}", verb: retrieve, for: {split: [train, dev, test]}, collection: "${${split}}", k: 12}
  - {name: teacher, verb: score, collection: "${train}", candidates: "${bm25-train}", teacher: bm25}
  - &cell
    name: "${loss}.r${rate}"
    verb: train
    for: {loss: "${losses}", rate: "${rates}"}
    collection: "${train}"
    scores: "${teacher}"
    loss: "${${loss}}"
    backbone: "${model}"
    query_layers: 1
    steps: 2
    batch_size: 4
    list_size: 4
    learning_rate: "${rate}"
    seed: 0
    only_scored: true
    checkpoint_every: 0
  - {name: "${loss}.r${rate}.dev", verb: retrieve, for: {loss: "${losses}", rate: "${rates}"}, collection: "${dev}",
     model: "${${loss}.r${rate}}", k: 10}
  - {name: "${loss}.chosen", verb: choose, for: {loss: "${losses}"}, collection: "${dev}",
     candidates: {for: {rate: "${rates}"}, each: {settings: {learning_rate: "${rate}"}, run: "${${loss}.r${rate}.dev}"}}}
  - {<<: *cell, name: "${loss}.s${seed}", for: {loss: "${losses}", seed: "${seeds}"}, seed: "${seed}", learning_rate: 5.0e-4,
     chosen: "${${loss}.chosen}"}
  - {name: "${loss}.s${seed}.test", verb: retrieve, for: {loss: "${losses}", seed: "${seeds}"}, collection: "${test}",
     model: "${${loss}.s${seed}}", k: 10}
  - {name: comparison, verb: compare, runs: {for: {loss: "${losses}", seed: "${seeds}"}, each: {loss: "${loss}", student: dense,
     seed: "${seed}", collection: "${test}", run: "${${loss}.s${seed}.test}"}}}
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """One thread: more threads do not help here, and cost much on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The recipe, and the folder of a whole run of it."""
    folder = tmp_path_factory.mktemp("comparison")
    model, data = tiny_backbone(folder / "model", layers=2), beir_folder(folder / "data")
    path = folder / "small-comparison.yaml"
    path.write_text(RECIPE.replace("MODEL", str(model)).replace("DATA", str(data)))
    return path, run_recipe(read_recipe(path), folder / "out")


def training(folder: Path) -> dict[str, object]:
    return json.loads((folder / "training.json").read_text())


def test_a_rate_is_chosen_on_dev_and_used_for_every_seed(made: tuple[Path, Path]) -> None:
    _, out = made
    for loss in ("infonce", "kl"):
        chosen = json.loads((out / f"{loss}.chosen" / "result.json").read_text())
        figures = [one["value"] for one in chosen["candidates"]]
        best = chosen["candidates"][figures.index(max(figures))]["settings"]
        assert (
            chosen["settings"] == best
            and best["learning_rate"] in (1e-3, 1e-2)
            and len(figures) == 2
        )
        for seed in (1, 2):
            options = training(out / f"{loss}.s{seed}")["identity"]["options"]  # type: ignore[index]
            assert (options["learning_rate"], options["seed"]) == (best["learning_rate"], seed)
    assert open_run(out / "kl.r0.01.dev").identity.collection["id"].endswith("#train[60%:]")


def test_all_losses_drew_from_the_same_lists(made: tuple[Path, Path]) -> None:
    _, out = made
    assert training(out / "infonce.s1")["lists"] == training(out / "kl.s1")["lists"]


def test_the_table_comes_out(made: tuple[Path, Path]) -> None:
    _, out = made
    result = json.loads((out / "results.json").read_text())["comparisons"][0]
    assert {figure["loss"] for figure in result["figures"]} == {"infonce", "kl"} and result[
        "over_blocks"
    ]["blocks"] == 2
    assert (out / "comparison" / "comparison.md").read_text() in (out / "report.md").read_text()


def test_without_a_grid_the_rate_of_the_stage_is_used(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    path, _ = made
    recipe = read_recipe(path, ["rates=[]", "losses=[infonce, kl]", "seeds=[1]"])
    assert [stage.name for stage in recipe.stages if stage.verb == "train"] == [
        "infonce.s1",
        "kl.s1",
    ]
    out = run_recipe(recipe, tmp_path / "out")
    assert training(out / "kl.s1")["identity"]["options"]["learning_rate"] == 5e-4  # type: ignore[index]
    assert json.loads((out / "kl.chosen" / "result.json").read_text())["settings"] == {}


@pytest.mark.parametrize(
    ("stage", "fault"),
    [
        ("{name: a, verb: compare, runs: [{loss: kl}]}", "the key 'student' is missing"),
        ("{name: a, verb: compare, runs: {for: {x: [1]}, each: 3}}", r"runs\[0\] is 3"),
        (
            "{name: a, verb: choose, collection: x, candidates: [{run: y}]}",
            "the key 'settings' is missing",
        ),
        (
            (
                "{name: a, verb: choose, collection: x, candidates: [{run: y, settings:"
                " {learning_rate: 1e-4}}]}"
            ),
            "1.0e-04",
        ),
        (
            "{name: a, verb: choose, collection: x, candidates: [{run: y, settings: {loss: LK}}]}",
            "LK",
        ),
        ("{name: a, verb: compare, measure: nDGC, runs: []}", "nDGC"),
        ("{name: a, verb: compare, level: 2, runs: []}", "level is 2"),
    ],
)
def test_a_faulty_stage_stops_before_anything_runs(tmp_path: Path, stage: str, fault: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"stages: [{stage}]")
    with pytest.raises(IrdistillError, match=fault):
        run_recipe(read_recipe(path), tmp_path / "out")


def test_the_published_recipe_writes_its_losses_for_both_students() -> None:
    from irdistill.losses import parse_loss

    recipe = read_recipe(card_folder("recipes") / "loss-comparison.yaml", ["rates=[1.0e-4]"])
    for student in ("dense", "cross-encoder"):
        written = [
            value
            for key, value in recipe.settings.items()
            if key.startswith(f"{student}-") and isinstance(value, str)
        ]
        assert len(written) >= 8 and not any(parse_loss(loss).uses_in_batch for loss in written)
    compared = recipe.stages[-1].arguments["runs"]
    trained = [stage for stage in recipe.stages if stage.verb == "train"]
    assert len(compared) == 8 * 2 * 2 * 3 and all(
        stage.arguments["only_scored"] for stage in trained
    )
