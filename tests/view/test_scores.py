"""The page Score files shows what `runs stats` and `audit` print, to the last digit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from irdistill.cli.entry_point import cli
from irdistill.collections import load_collection
from irdistill.evaluation import AuditOptions, audit
from irdistill.evaluation.auditing import described_run
from irdistill.evaluation.auditing.described_run import describe_run
from irdistill.evaluation.reporting.findings import plain
from irdistill.runs import open_run, stats
from irdistill.view.pages import scores
from tests.view.conftest import accessibility_problems
from tests.view.judged_folder import write_judged_folder


def test_values_are_those_of_the_commands(open_page: Callable[..., Any], tmp_path: Path) -> None:
    out = write_judged_folder(tmp_path)
    page = open_page(out, path="/scores")
    page.get_by_label("Run").select_option("teacher")
    page.get_by_role("button", name="Show").press("Enter")
    page.locator("#statistics dd").first.wait_for()
    printed = CliRunner().invoke(cli, ["runs", "stats", str(out / "teacher"), "--json", "-"])
    names = page.locator("#statistics dt").all_inner_texts()
    values = page.locator("#statistics dd").all()
    exact = [json.loads(value.get_attribute("title")) for value in values]
    assert dict(zip(names, exact, strict=True)) == json.loads(printed.stdout)
    assert dict(zip(names, exact, strict=True))["null_flags"] == {"refused": 6}
    text = CliRunner().invoke(cli, ["runs", "stats", str(out / "teacher")]).output
    for name, value in zip(names, values, strict=True):
        assert f"{name} {value.inner_text()}" in " ".join(text.split())
    audited = CliRunner().invoke(cli, ["audit", str(tmp_path / "pets"), str(out / "teacher")])
    lines = {" ".join(line.split()) for line in audited.output.splitlines()}
    rows = page.locator("#scores tbody tr, #margins tbody tr").all()
    assert len(rows) == 11  # quantiles, shares, three margins, temperature, five temperatures
    for row in rows:
        assert f"| {' | '.join(row.locator('td').all_inner_texts())} |" in lines
    assert page.locator("svg.plot").count() == 3
    assert accessibility_problems(page) == []


def test_narrow_and_dark(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page(write_judged_folder(tmp_path), path="/scores?at=teacher", width=390, dark=True)
    page.locator("#statistics dd").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert accessibility_problems(page) == []


def test_a_long_run_shows_how_far_it_is(
    open_page: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "_PATIENCE", 0.0)
    page = open_page(write_judged_folder(tmp_path), path="/scores?at=teacher")
    page.locator("#statistics dd").first.wait_for()


def test_without_its_collection(
    open_page: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write_judged_folder(tmp_path)
    (tmp_path / "pets").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    page = open_page(out, path="/scores?at=teacher")
    page.get_by_text("Without judgments, so there are no margins").wait_for()
    assert "relevant - other" not in page.locator("#margins").inner_text()


def test_a_sample_is_that_of_the_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_judged_folder(tmp_path)
    collection, run = load_collection(str(tmp_path / "pets")), open_run(out / "teacher")
    monkeypatch.setattr(described_run, "SAMPLE", 4)
    read: list[int] = []
    described = describe_run(run, collection.qrels, collection.queries, "teacher", read.append)
    assert (described.sampled, described.population, sum(read)) == (4, 6, 6)
    assert described.statistics == stats(run)
    [teacher] = audit(collection, {"teacher": run}, options=AuditOptions(sample=4)).teachers
    for name in ("distribution", "scale", "margins", "matching", "advice"):
        assert plain(getattr(described.scores, name)) == plain(getattr(teacher, name))
    assert "drawn at random of 6 (seed 42)" in described.sample_words
