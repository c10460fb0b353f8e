"""The page `Watch`: a live training, the stages of a recipe, and the figures of trackers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from starlette.testclient import TestClient

from irdistill.recipes import read_recipe, run_recipe, runner
from irdistill.training.loop import TrainingLoop
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from irdistill.view.application import build_application
from irdistill.view.job_board import JobBoard
from irdistill.view.view_options import ViewOptions
from irdistill.view.workspace import Workspace
from tests.recipes.tiny import beir_folder
from tests.training.support import stopped_before
from tests.training.tiny import make_backbone, make_collection, make_run, make_student
from tests.view.conftest import TOKEN, accessibility_problems

LOSS = "KL(tau=0.2, teacher_tau=2) + 0.1*InfoNCE(tau=0.2)"
OPTIONS = TrainOptions(
    steps=8, batch_size=2, list_size=4, precision="float32", log_every=1, validate_every=4
)


def train_tiny(place: Path, options: TrainOptions = OPTIONS) -> None:
    collection = make_collection()
    make_run(place / "scores", collection)
    student = make_student(make_backbone(place.with_name("backbone")))
    train(collection, place / "scores", student, LOSS, place / "student", options, validate=0.3)


def points_of(page: Any, title: str) -> int:
    """Points of the first curve of a chart."""
    path = page.get_by_role("figure").filter(has_text=title).locator("path.curve").first
    return len(str(path.get_attribute("d")).replace("M", "L").split("L")) - 1


def test_a_training_is_watched_live_to_its_end(
    open_page: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By keyboard, from the list to the job; the training waits for the page twice."""
    gates = {3: Event(), 7: Event()}
    step_of_loop = TrainingLoop.train_step

    def gated(self: TrainingLoop, step: int, batches: Any) -> None:
        if step in gates:
            assert gates[step].wait(60)
        step_of_loop(self, step, batches)

    monkeypatch.setattr(TrainingLoop, "train_step", gated)
    place = tmp_path / "out"
    place.mkdir()
    job = Thread(target=train_tiny, args=(place,))
    job.start()
    try:
        page = open_page(place)
        link = page.get_by_role("region", name="Running").get_by_role("link", name="student")
        link.wait_for()
        assert page.get_by_text("1 running, 1 done.").is_visible()
        assert accessibility_problems(page) == []
        link.focus()
        page.keyboard.press("Enter")
        page.get_by_text("Running: 3 of 8 steps").wait_for()
        assert points_of(page, "Loss") == 3
        assert page.get_by_role("progressbar").get_attribute("value") == "0.375"
        gates[3].set()
        page.get_by_text("Running: 7 of 8 steps").wait_for()
        assert points_of(page, "Loss") == 7 and points_of(page, "Held-out nDCG@10") == 2
        chart = page.get_by_role("application", name="Loss by step")
        chart.focus()
        page.keyboard.press("Home")
        row = json.loads((place / "student" / "train_log.jsonl").read_text().splitlines()[1])
        first = page.get_by_role("figure").filter(has_text="Loss").first.locator(".legend")
        assert f"loss {row['loss']:.4f}" in first.inner_text()
        gates[7].set()
        page.get_by_text("Done: 8 steps").wait_for()
        assert points_of(page, "Loss") == 8 and points_of(page, "Held-out nDCG@10") == 3
    finally:
        for gate in gates.values():
            gate.set()
        job.join(60)
    page.get_by_text("Last values as a table").focus()
    page.keyboard.press("Enter")
    last = json.loads((place / "student" / "train_log.jsonl").read_text().splitlines()[-1])
    figure = f"{last['validation']['nDCG@10']:.6g}"
    assert page.get_by_role("row", name=f"validation/nDCG@10 8 {figure}").is_visible()
    assert accessibility_problems(page) == []
    page.set_viewport_size({"width": 390, "height": 800})
    # the plots are drawn again after the resize
    page.wait_for_function("document.documentElement.scrollWidth === 390")


def test_the_page_has_the_numbers_of_the_trackers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import Accelerator

    tracked: dict[str, list[list[float]]] = {}

    def log(self: Accelerator, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            tracked.setdefault(name, []).append([step, value])

    monkeypatch.setattr(Accelerator, "log", log)
    place = tmp_path / "out"
    place.mkdir()
    train_tiny(place)
    application = build_application(Workspace([place]), TOKEN, ViewOptions())
    client = TestClient(application, base_url="http://127.0.0.1:8620")
    client.get(f"/?token={TOKEN}")
    answer = client.get("/api/job", params={"at": "student"}).json()
    series = [entry for chart in answer["charts"] for entry in chart["series"]]
    shown = {entry["number"]: [point[:2] for point in entry["points"]] for entry in series}
    assert answer["best_step"] == tracked.pop("best_step")[-1][1]
    assert shown == tracked
    assert {"loss", "learning_rate", "terms/InfoNCE(tau=0.2)", "validation/R@100"} <= set(shown)
    assert [point[0] for point in shown["loss"]] == list(range(1, 9))


def test_a_training_that_is_interrupted_and_resumed(tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.mkdir()
    options = replace(OPTIONS, checkpoint_every=2)
    board = JobBoard(Workspace([place]))
    with stopped_before(5):
        train_tiny(place, options)
    stopped = board.job(board.workspace.artifact("student"))
    assert stopped.state == "stopped" and stopped.problem == ""
    assert stopped.sentence.startswith("Stopped at 5 of 8 steps.")  # the checkpoint is of step 4
    train_tiny(place, options)
    done = board.job(board.workspace.artifact("student"))
    assert (done.state, done.done, done.total) == ("done", 8, 8)
    assert done.resumed == "resumed once, at step 4"


def test_the_stages_of_a_recipe_change_their_state(
    open_page: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    beir_folder(data, 20, 12)
    path = tmp_path / "three.yaml"
    retrieve = {"verb": "retrieve", "collection": f"{data}#train", "model": "bm25"}
    fuse = {"verb": "fuse", "runs": ["${first}", "${second}"], "method": "rrf"}
    stages = [{"name": "first", "k": 5} | retrieve, {"name": "second", "k": 8} | retrieve]
    path.write_text(json.dumps({"stages": [*stages, {"name": "both"} | fuse]}))
    gate, run_stage = Event(), runner.run_stage

    def gated(stage: Any, *others: Any) -> str:
        assert stage.name != "second" or gate.wait(60)
        return run_stage(stage, *others)

    monkeypatch.setattr(runner, "run_stage", gated)
    out = tmp_path / "out" / "three"
    job = Thread(target=run_recipe, args=(read_recipe(path), out))
    job.start()
    try:
        while not (out / "first" / "manifest.json").exists():
            assert job.is_alive()
        page = open_page(out.parent)
        page.get_by_role("link", name="three", exact=True).click()
        rows = page.get_by_role("table").first.locator("tbody tr")
        page.get_by_role("row", name="second retrieve running").wait_for()
        assert page.get_by_text("Running: 1 of 3 stages").is_visible()
        assert rows.nth(0).inner_text().split()[:3] == ["first", "retrieve", "done"]
        assert rows.nth(2).inner_text().split()[:3] == ["both", "fuse", "waiting"]
        assert accessibility_problems(page) == []
        gate.set()
        page.get_by_text("Done: 3 stages").wait_for()
        assert page.locator("#stages .state.done").count() == 3
    finally:
        gate.set()
        job.join(60)
    page.get_by_role("link", name="both").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="three/both").wait_for()


def test_the_filter_by_keyboard_on_a_phone(open_page: Callable[..., Any], tmp_path: Path) -> None:
    make_run(tmp_path / "<b>scores", make_collection())
    make_run(tmp_path / "other", make_collection())
    page = open_page(tmp_path, width=390, dark=True)
    page.get_by_label("Filter by name or verb").focus()
    page.keyboard.type("b>sc")
    page.get_by_role("link", name="other").wait_for(state="detached")
    assert page.get_by_role("link", name="<b>scores").is_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("f")  # the state: failed
    page.get_by_text("No job matches the filter.").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert accessibility_problems(page) == []


def test_an_unknown_job_and_a_wrong_number(tmp_path: Path) -> None:
    application = build_application(Workspace([tmp_path]), TOKEN, ViewOptions())
    client = TestClient(application, base_url="http://127.0.0.1:8620")
    client.get(f"/?token={TOKEN}")
    assert client.get("/watch/job?at=../x").status_code == 404
    answer = client.get("/api/jobs?limit=-1")
    assert answer.status_code == 400 and "whole number" in answer.json()["error"]
