"""The page Judge, by keyboard alone: what is on the disk, undo, a second judge, agreement."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from irdistill.cli.entry_point import cli
from irdistill.collections import Collection, Corpus, Document, Qrels
from irdistill.collections.judging import JudgmentLog, read_judges
from irdistill.collections.passage_corpus import Passages
from irdistill.evaluation.judging import compare_judges
from irdistill.view.pages import judge
from tests.view.conftest import accessibility_problems
from tests.view.judged_folder import write_judged_folder

QUEUE = "/judge?source=suspects&at=teacher"


def lines(folder: Path, judge: str) -> list[tuple[str, str, str, int | None]]:
    text = (folder / f"{judge}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [(row["query_id"], row["doc_id"], row["action"], row["grade"]) for row in rows]


def test_five_pairs_by_keyboard_and_a_second_judge(
    open_page: Callable[..., Any], tmp_path: Path
) -> None:
    out, folder = write_judged_folder(tmp_path), tmp_path / "judged"
    page = open_page(out, path="/judge", judgments=folder, judge="anna")
    assert accessibility_problems(page) == []
    start = page.get_by_role("button", name="Start")
    for _ in range(20):  # the form, without a mouse
        focused = page.evaluate("document.activeElement.name || document.activeElement.textContent")
        if focused == "at":
            page.keyboard.type("teacher")
        if focused == "Start":
            break
        page.keyboard.press("Tab")
    assert start.evaluate("button => button === document.activeElement")
    page.keyboard.press("Enter")
    query = page.locator("#query-text")
    query.get_by_text("Which pets sleep 5 hours?").wait_for()  # the largest margin first
    assert page.locator("#document-text").inner_text() == "The 0th pet <b>sleeps</b> & eats fish."
    assert page.locator("#document-text mark").all_inner_texts() == ["pet", "sleeps"]
    assert page.locator("#reason").inner_text().startswith("Not judged, and 16 above the best")
    assert page.locator("#facts dd").all_inner_texts() == ["1 of 11", "13.5000"]
    assert page.locator("#known-label").text_content() == (
        "Document d11 · rank 11 of 11 · score -2.5000"
    )
    assert accessibility_problems(page) == []
    progress = page.locator("#progress")
    for number, key in enumerate("yyns", 1):
        page.keyboard.press(key)
        progress.get_by_text(f"{number} of 6 pairs judged").wait_for()
    page.keyboard.press("u")
    progress.get_by_text("3 of 6 pairs judged").wait_for()
    query.get_by_text("Which pets sleep 2 hours?").wait_for()  # the skipped one is back
    for key in "nyn":
        page.keyboard.press(key)
    page.get_by_text("Done: all 6 pairs are judged.").wait_for()
    expected = [
        ("q5", "d0", "judged", 1),
        ("q4", "d0", "judged", 1),
        ("q3", "d0", "judged", 0),
        ("q2", "d0", "skipped", None),
        ("q2", "d0", "withdrawn", None),
        ("q2", "d0", "judged", 0),
        ("q1", "d0", "judged", 1),
        ("q0", "d0", "judged", 0),
    ]
    assert lines(folder, "anna") == expected

    other = open_page(out, path=QUEUE, judgments=folder, judge="ben", width=390, dark=True)
    other.locator("#query-text").get_by_text("Which pets sleep 5 hours?").wait_for()
    assert other.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert accessibility_problems(other) == []
    for key in "ynn":
        other.keyboard.press(key)
    other.locator("#progress").get_by_text("3 of 6 pairs judged").wait_for()
    other.get_by_role("link", name="Agreement of judges").click()
    verdict = other.locator("p.verdict").inner_text()
    comparison = compare_judges(read_judges(folder))
    assert verdict == comparison.headline
    assert "agree on 2 of 3 pairs (66.7%); Cohen's kappa is 0.400" in verdict
    cells = other.locator("#agreement td").all_inner_texts()
    printed = CliRunner().invoke(cli, ["judgments", "agreement", str(folder)])
    assert f"| {' | '.join(cells)} |" in " ".join(printed.output.split())
    assert accessibility_problems(other) == []


def test_grades_and_disagreements_with_the_mouse(
    open_page: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "PATIENCE", 0.0)  # as with a collection that takes long to load
    out, folder = write_judged_folder(tmp_path), tmp_path / "judged"
    path = "/judge?source=disagreements&at=teacher&other=second&each=2&scale=graded"
    page = open_page(out, path=path, judgments=folder, judge="anna")
    page.locator("#facts").get_by_text("rank in second").wait_for()
    page.keyboard.press("y")  # no answer here
    page.get_by_role("button", name="answers it").click()
    page.keyboard.press("2")
    page.locator("#progress").get_by_text("2 of 12 pairs judged").wait_for()
    assert [line[2:] for line in lines(folder, "anna")] == [("judged", 3), ("judged", 2)]
    page.reload()
    page.locator("#progress").get_by_text("2 of 12 pairs judged").wait_for()


def test_problems_are_shown(open_page: Callable[..., Any], tmp_path: Path) -> None:
    out, folder = write_judged_folder(tmp_path), tmp_path / "judged"
    with JudgmentLog(folder, "anna", {"id": "cows", "corpus": "c", "queries": "q"}) as log:
        log.add("q", "d", 1)
    page = open_page(out, path="/judge/agreement", judgments=folder, judge="anna")
    assert "anna judged 1 pair of cows" in page.locator("p.verdict").inner_text()
    response = page.request.get(page.url.replace("/judge/agreement", "/api/judge/pairs?at=teacher"))
    assert response.status == 400
    assert "holds judgments for 'cows'" in response.json()["error"]


def test_nothing_is_written_into_a_run(open_page: Callable[..., Any], tmp_path: Path) -> None:
    out = write_judged_folder(tmp_path)
    page = open_page(out, judgments=out / "teacher" / "more", judge="anna")
    origin = page.url.rpartition("/")[0]
    response = page.request.get(f"{origin}/api/judge/pairs?at=teacher")
    assert response.status == 400 and "is inside of" in response.json()["error"]
    assert not (out / "teacher" / "more").exists()


def test_wrong_requests(open_page: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "judged"
    page = open_page(write_judged_folder(tmp_path), judgments=folder, judge="anna")
    origin = page.url.rpartition("/")[0]
    whole = {"at": "teacher", "source": "suspects", "query_id": "q0", "doc_id": "d0", "grade": 1}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"grade": 9}, "the grade 9 is not known"),
        ({"grade": True}, "the grade True is not known"),
        ({"doc_id": "d3"}, "not in the queue"),
        ({"source": "x"}, "there are no pairs 'x'"),
        ({"each": -1}, "per_query=-1"),
        ({"k": "many"}, "must be whole numbers"),
        ({"at": "../pets"}, "there is no run"),
        ({"source": "disagreements"}, "choose two different runs"),
    ]
    for change, problem in wrong:
        response = page.request.post(
            f"{origin}/api/judge/judgment", data=whole | change, headers={"Origin": origin}
        )
        assert response.status in (400, 404), change
        assert problem in response.json()["error"]
    assert lines(folder, "anna") == []
    response = page.request.post(
        f"{origin}/api/judge/judgment", data=whole, headers={"Origin": origin}
    )
    assert response.status == 200 and lines(folder, "anna") == [("q0", "d0", "judged", 1)]


def test_a_passage_is_shown_without_its_title() -> None:
    passages = Passages(
        Corpus.in_memory(
            [Document("d#0", "", "Pets One cat."), Document("d#1", "", "Pets Two dogs sleep.")]
        ),
        np.array([0, 2]),
        {},
    )
    corpus = Corpus.in_memory([Document("d", "Pets", "One cat. Two dogs sleep.")])
    collection = Collection("pets", corpus.with_passages(passages), {}, Qrels({}))
    passage = judge._document(collection, "sleeping pets", "d", 1)
    assert (passage["title"], passage["text"], passage["spans"]) == (
        "Pets",
        "Two dogs sleep.",
        [(9, 14)],
    )
    assert judge._document(collection, "cat", "d")["text"] == "One cat. Two dogs sleep."
