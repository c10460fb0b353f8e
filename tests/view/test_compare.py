"""The pages `Compare`, a run, and `Frontier`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from irdistill.cli.entry_point import cli
from irdistill.evaluation.costs import Efficiency
from irdistill.evaluation.figures import Row
from irdistill.evaluation.reporting.publishing import read_results
from irdistill.runs import store
from irdistill.view.application import build_application
from irdistill.view.pages import compare
from irdistill.view.view_options import ViewOptions
from irdistill.view.workspace import Workspace
from tests.view.compared_runs import write_compared_runs
from tests.view.conftest import TOKEN, accessibility_problems

CHOSEN = "baseline=first&at=student&at=other"


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    write_compared_runs(tmp_path)
    application = build_application(Workspace([tmp_path / "out"]), TOKEN, ViewOptions())
    opened = TestClient(application, base_url="http://127.0.0.1:8620")
    opened.get(f"/?token={TOKEN}")
    return opened


def ready(client: TestClient, chosen: str = CHOSEN) -> None:
    while not client.get(f"/api/compare/state?{chosen}").json()["done"]:
        pass


def test_rows_are_sorted_and_filtered(client: TestClient) -> None:
    ready(client)
    address = f"/api/compare/rows?{CHOSEN}&left=0&right=1&measure=RR@10"
    page = client.get(f"{address}&order=gains&count=2").json()
    assert page["total"] == 30
    assert page["rows"][0] == ["q2", "Tell of talking parrots", "0.3333", "1.0000", "+0.6667"]
    scatter = client.get(f"/api/compare/scatter?{CHOSEN}&left=0&right=1&measure=RR@10").json()
    # ranks 1 2 3 4 of the first, 1 2 1 2 of the student
    assert scatter["cells"] == [[0.25, 0.5, 7], [0.333333, 1.0, 7], [0.5, 0.5, 8], [1.0, 1.0, 8]]
    assert client.get(f"{address}&cell=1").json()["total"] == 7
    assert client.get(f"{address}&text=DOGS").json()["total"] == 10
    assert client.get(f"{address}&text=q29").json()["rows"][0][0] == "q29"
    assert client.get(f"{address}&start=28").json()["rows"][-1][0] == "q29"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("rows?{}&left=0&right=9&measure=RR@10", "not among the 3 compared ones"),
        ("rows?{}&left=0&right=x&measure=RR@10", "a whole number was expected"),
        ("rows?{}&left=0&right=1&measure=AP", "no values of"),
        ("rows?{}&left=0&right=1&measure=RR@10&order=up", "is none of"),
        ("query?{}&query_id=q99", "not among the judged queries"),
        ("state?baseline=first&at=../set", "there is no run"),
        ("state?baseline=first", "no run is chosen"),
    ],
)
def test_wrong_addresses(client: TestClient, path: str, message: str) -> None:
    answer = client.get(f"/api/compare/{path.format(CHOSEN)}")
    assert answer.status_code in (400, 404) and message in answer.json()["error"]


def test_problems_are_shown_on_the_page(client: TestClient) -> None:
    answer = client.get("/compare?at=first&measures=nothing")
    assert answer.status_code == 400 and "nothing" in answer.text


def test_two_runs_by_keyboard(open_page: Callable[..., Any], tmp_path: Path) -> None:
    """The page has the figures of `evaluate --json`, and leads to both rankings of a query."""
    write_compared_runs(tmp_path)
    page = open_page(tmp_path / "out", path="/compare")
    assert accessibility_problems(page) == []
    page.get_by_label("compare student").press("Space")
    page.get_by_label("compare other").press("Space")
    page.get_by_role("button", name="Compare").press("Enter")
    page.get_by_role("heading", name="other against first").wait_for()
    assert "equal on 30" in page.locator(".verdict").inner_text()
    page.locator(".chooser summary").press("Enter")
    page.get_by_label("compare other").press("Space")
    page.get_by_label("compare student").press("Space")
    page.get_by_role("button", name="Compare").press("Enter")
    page.get_by_role("heading", name="student against first").wait_for()

    figures = tmp_path / "figures.json"
    runs = [str(tmp_path / "out" / name) for name in ("first", "student")]
    command = ["evaluate", str(tmp_path / "set"), *runs, "--baseline", runs[0]]
    assert CliRunner().invoke(cli, [*command, "--json", str(figures)]).exit_code == 0
    outcome = read_results(figures).evaluation
    row = outcome.row("student", str(tmp_path / "set"), "nDCG@10")
    assert row.difference_low is not None
    verdict = page.locator(".verdict").inner_text()
    assert f"{row.value:.4f} against {outcome.rows[0].value:.4f}, {row.difference:+.4f}" in verdict
    assert f"better on {row.wins} queries, worse on {row.losses}, equal on {row.ties}" in verdict
    cells = page.locator("#differences tbody tr").first.locator("td").all_inner_texts()
    low, high = row.difference_low, row.difference_high
    assert f"{row.difference:+.4f} [{low:+.4f}, {high:+.4f}]" in cells
    table = outcome.findings()[0].tables[0]
    shown = page.locator("section table").first.locator("tbody tr")
    assert [line.locator("td").all_inner_texts() for line in shown.all()] == table.rows

    queries = page.locator("#queries")
    queries.focus()
    assert queries.locator(".change").first.inner_text() == "+0.5000"
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    last = queries.locator("[aria-selected=true]")
    last.wait_for()
    query_id = last.locator(".id").inner_text()
    page.get_by_label("Rankings of the opened query").get_by_text(query_id, exact=True).wait_for()
    sides = page.locator("#query ol.ranking")
    assert sides.count() == 2 and sides.nth(0).locator("li").count() == 8
    assert sides.nth(1).locator(".relevant b").inner_text() == f"d{query_id[1:]}"
    assert sides.nth(0).locator("mark").count() > 0
    assert "<b>part</b>" in sides.nth(0).locator(".excerpt").first.inner_text()
    assert "/why?at=student" in str(sides.nth(1).get_by_role("link").first.get_attribute("href"))
    page.reload()
    page.get_by_label("Rankings of the opened query").get_by_text(query_id, exact=True).wait_for()
    page.locator("#find").fill("q7")
    page.get_by_text("1 query", exact=True).wait_for()
    assert accessibility_problems(page) == []


def test_a_narrow_page(open_page: Callable[..., Any], tmp_path: Path) -> None:
    write_compared_runs(tmp_path)
    page = open_page(
        tmp_path / "out", path="/compare?baseline=first&at=student", width=390, dark=True
    )
    page.locator("#query h3").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert accessibility_problems(page) == []


def test_a_run(open_page: Callable[..., Any], tmp_path: Path) -> None:
    write_compared_runs(tmp_path)
    page = open_page(tmp_path / "out", path="/run?at=student")
    page.get_by_text("A student run of student").wait_for()
    page.locator("#query h3", has_text="Tell of sleeping cats").wait_for()
    page.locator("#queries").press("ArrowDown")
    page.locator("#queries").press("Enter")
    page.locator("#query h3", has_text="Tell of swimming dogs").wait_for()
    assert page.locator("#query ol.ranking li").nth(1).get_attribute("data-doc") == "d1"
    page.reload()
    page.locator("#query h3", has_text="Tell of swimming dogs").wait_for()
    assert accessibility_problems(page) == []


def test_two_runs_without_judgments(open_page: Callable[..., Any], tmp_path: Path) -> None:
    write_compared_runs(tmp_path)
    for path in (tmp_path / "set" / "qrels").iterdir():
        path.unlink()
    page = open_page(tmp_path / "out")
    origin = page.url.rpartition("/")[0]
    answer = page.request.get(f"{origin}/compare?baseline=first&at=student")
    assert answer.status == 400 and "has no judgments" in answer.text()
    assert "/run?at=first&amp;beside=student" in answer.text()
    page.goto(f"{origin}/run?at=first&beside=student#query=q1")
    page.locator("#query h3", has_text="swimming dogs").wait_for()
    sides = page.locator("#query ol.ranking")
    assert [sides.nth(side).locator("b").nth(1).inner_text() for side in (0, 1)] == ["d1", "d1"]
    assert sides.count() == 2 and "No document is judged" in page.locator("#query").inner_text()


def test_a_run_without_its_collection(open_page: Callable[..., Any], tmp_path: Path) -> None:
    write_compared_runs(tmp_path)
    (tmp_path / "set").rename(tmp_path / "moved")
    page = open_page(tmp_path / "out", path="/run?at=student")
    page.locator("#problem", has_text="--collection").wait_for()
    assert page.locator("#query ol.ranking b").first.inner_text() == "d0"


def test_the_frontier(open_page: Callable[..., Any], tmp_path: Path) -> None:
    figures = {"slow": 0.6, "fast": 0.4, "beaten": 0.3}
    rows = [Row(system, "set", "nDCG@10", 9, value, 0.1, 0.9) for system, value in figures.items()]
    costs = {"slow": 9.0, "fast": 1.0, "beaten": 2.0}
    systems = [
        Efficiency(system, 1, 1, 1, 2_000_000, 1.0, cost, cost, cost)
        for system, cost in costs.items()
    ]
    (tmp_path / "figures.json").write_text(json.dumps({"rows": [vars(row) for row in rows]}))
    (tmp_path / "costs.json").write_text(json.dumps({"systems": [vars(s) for s in systems]}))
    (tmp_path / "broken.json").write_text('{"rows": [{"system": 1}, 2], "systems": "x"}')
    page = open_page(tmp_path, path="/frontier")
    assert page.locator(".verdict").inner_text() == (
        "No system is both better and faster than fast or slow."
        " Better and faster than beaten: fast."
    )
    assert page.locator("#plot circle:not(.key)").count() == 3
    first = page.locator("table tbody tr").first.locator("td").all_inner_texts()
    assert first == ["slow", "0.6000", "9.0 ms", "2.0 MB", "yes", "yes"]
    assert accessibility_problems(page) == []


def test_pages_of_a_long_run_read_single_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_compared_runs(tmp_path, queries=3000)
    application = build_application(Workspace([tmp_path / "out"]), TOKEN, ViewOptions())
    opened = TestClient(application, base_url="http://127.0.0.1:8620")
    parts: list[Path] = []
    read = store.read_part
    monkeypatch.setattr(
        store, "read_part", lambda path, **options: parts.append(path) or read(path, **options)
    )
    opened.get(f"/run?at=student&token={TOKEN}")
    rows = opened.get("/api/run/rows?at=student&start=2990&count=100").json()
    assert rows["total"] == 3000 and [row[0] for row in rows["rows"]][-1] == "q2999"
    assert parts == []
    opened.get("/api/run/query?at=student&query_id=q2999")
    assert [path.name for path in parts] == ["part-00046.parquet"]  # 64 queries each


def test_queries_are_compared_while_the_tests_run(
    open_page: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_compared_runs(tmp_path)
    released, evaluate = threading.Event(), compare.evaluate_values

    def wait_and_evaluate(*values: Any, **options: Any) -> Any:
        assert released.wait(60)
        return evaluate(*values, **options)

    monkeypatch.setattr(compare, "evaluate_values", wait_and_evaluate)
    page = open_page(tmp_path / "out", path="/compare?baseline=first&at=student")
    page.get_by_text("single queries can be compared now").wait_for()
    page.locator("#query h3").wait_for()
    assert page.locator("#differences").count() == 0
    assert accessibility_problems(page) == []
    released.set()
    page.get_by_role("heading", name="student against first").wait_for()
    page.locator("#differences").wait_for()
