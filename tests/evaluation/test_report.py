"""Reports: tables, the page in a browser, the model card and MTEB's layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from irdistill import IrdistillError
from irdistill.collections import Collection
from irdistill.evaluation import evaluate
from irdistill.evaluation.costs import (
    CostPoint,
    Efficiency,
    cost_points,
    costs_table,
    draw_costs,
    mark_best,
)
from irdistill.evaluation.figures import Evaluation
from irdistill.evaluation.reporting import Table
from irdistill.evaluation.reporting.model_card import write_card
from irdistill.evaluation.reporting.mteb import metric_name, task_of, write_results
from irdistill.evaluation.reporting.publishing import evaluate_runs, publish, read_results
from irdistill.evaluation.reporting.report_page import render_report
from irdistill.runs import MemoryRun, RankedList, RunIdentity
from tests.browser import accessibility_problems
from tests.students.tiny import tiny_backbone

NASTY = "</script><script>document.title='broken'</script> & <b>\u2028"


@pytest.fixture()
def collection() -> Collection:
    docs = {"d0": f"answer {NASTY}", "d1": "first other", "d2": "second other", "<d3>": "third"}
    queries = {"q0": f"why {NASTY}", "q1": "how", "q2": "where", "q3": "when"}
    return Collection.from_dicts(
        "small/set_1", docs, queries, {q: {"d0": 2, "d1": 0} for q in queries}
    )


def run(collection: Collection, ranks: list[int]) -> MemoryRun:
    lists = []
    for query, rank in zip(collection.queries, ranks, strict=True):
        docs = ["d1", "d2", "<d3>"]
        docs.insert(rank - 1, "d0")
        lists.append(RankedList(query, docs, np.array([4, 3, 2, 1], np.float32)))
    return MemoryRun(RunIdentity("imported", {}, collection.describe()), lists)


@pytest.fixture()
def runs(collection: Collection) -> dict[str, MemoryRun]:
    return {"base_line": run(collection, [4, 2, 2, 1]), "student": run(collection, [1, 1, 2, 2])}


@pytest.fixture()
def outcome(collection: Collection, runs: dict[str, MemoryRun]) -> Evaluation:
    return evaluate(collection, runs, "nDCG@10 RR@10 R@2", "base_line")


COSTS = (
    Efficiency("base_line", 0, 0, 0, 1000, 900.0, 0.5, 0.9, 1.0),
    Efficiency("student", 11_000_000, 2, 44_000_000, 5000, 100.0, 5.0, 9.0, 11.0, 80.0, 2.5e9),
)


def test_tables(outcome: Evaluation) -> None:
    text = outcome.to_markdown()
    lines = text.splitlines()
    assert lines[0] == "### small/set_1 (4 queries)"
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "system",
        "nDCG@10",
        "RR@10",
        "R@2",
        "Judged@10",
        "holes@2",
    ]
    # four documents, d0 and d1 judged; among the first two of base_line: d1 d2, d1 d0, d1 d0, d0 d1
    row = [cell.strip() for cell in lines[4].split("|")[1:-1]]
    assert row[0] == "base_line" and row[2].startswith("0.5625 [") and row[3].startswith("0.7500 [")
    assert row[4:] == ["50.0%", "12.5%"]
    assert "Only 4 queries" in text and "detectable" in text and "2/1/1" in text


def test_latex(outcome: Evaluation) -> None:
    text = outcome.to_latex()
    assert (
        "\\toprule" in text
        and "base\\_line & 0." in text
        and "\\caption{small/set\\_1, 4 queries" in text
    )
    assert "50.0\\%" in text and text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 2
    assert (
        Table(["a"], [["\\ & $ # { } ~ ^ < %"]]).latex().splitlines()[7]
        == r"\textbackslash{} \& \$ \# \{ \} \textasciitilde{} \textasciicircum{} \textless{} \% \\"
    )


def test_markdown_cells_are_escaped() -> None:
    assert Table(["a", "b"], [["x|y\nz", "1"]]).markdown().splitlines()[2] == "| x\\|y z |   1 |"


def test_costs_and_frontier(outcome: Evaluation, tmp_path: Path) -> None:
    cells = [
        cell.strip()
        for cell in costs_table(COSTS, {"student": 0.9}).markdown().splitlines()[3].split("|")[1:-1]
    ]
    assert cells == [
        "student",
        "11.0M",
        "2",
        "44.0",
        "0.0",
        "2.5",
        "80",
        "100",
        "5.0",
        "9.0",
        "11.0",
        "90.0%",
    ]
    points = cost_points(outcome, COSTS)
    assert [(point.system, point.cost) for point in points] == [
        ("base_line", 0.5),
        ("student", 5.0),
    ]
    assert points[1].value == outcome.row("student", "small/set_1", "nDCG@10").value
    pairs = [(1, 2), (2, 2), (3, 3), (1, 2)]
    marked = mark_best([CostPoint("s", cost, value, "AP") for cost, value in pairs])
    assert [point.best for point in marked] == [True, False, True, True]
    pytest.importorskip("matplotlib")
    draw_costs(points, tmp_path / "p.svg")
    drawn = (tmp_path / "p.svg").read_text()
    assert "base_line" in drawn and drawn.count("<use") >= 2
    with pytest.raises(IrdistillError, match="no system"):
        draw_costs([], tmp_path / "q.svg")


def page(
    outcome: Evaluation, collection: Collection, runs: dict[str, MemoryRun], path: Path
) -> str:
    text = render_report(outcome, collection, runs, points=cost_points(outcome, COSTS))
    path.write_text(text, encoding="utf-8")
    return text


def page_queries(text: str) -> dict[str, Any]:
    """What the page's script knows of the queries."""
    start = text.index('id="data">') + len('id="data">')
    data: dict[str, Any] = json.loads(text[start : text.index("</script>", start)])["queries"]
    return data


def test_page_is_complete_and_escaped(
    outcome: Evaluation, collection: Collection, runs: dict[str, MemoryRun], tmp_path: Path
) -> None:
    text = page(outcome, collection, runs, tmp_path / "page.html")
    assert text.count("<script") == 6 and "document.title='broken'</script>" not in text
    assert (
        "http://www.w3.org/2000/svg" in text
        and "https://" not in text
        and text.count("http://") == 1
    )
    assert "default-src 'none'" in text
    data = page_queries(text)
    first = data["entries"][0]
    assert first["text"] == f"why {NASTY}" and data["systems"] == ["base_line", "student"]
    names = [document[0] for document in first["documents"]]
    assert [names[row[0]] for row in first["lists"][0]] == ["d1", "d2", "<d3>", "d0"]
    best = names.index("d0")
    assert first["lists"][1][0] == [best, "4.0000", 2, [4, 1], None]
    assert first["lists"][0][1][2] is None
    assert first["documents"][best][3] == f"answer {NASTY}".strip()
    assert first["judgments"] == [["d0", 2, [4, 1]]]
    assert [entry["values"]["RR@10"] for entry in data["entries"]] == [
        ["0.2500", "1.0000"],
        ["0.5000", "1.0000"],
        ["0.5000", "0.5000"],
        ["1.0000", "0.5000"],
    ]
    pair = data["pairs"]["0,1,RR@10"]
    assert [row[2] for row in pair["rows"]] == ["+0.7500", "+0.5000", "0.0000", "-0.5000"]
    assert pair["cells"] == [[0.25, 1.0, 1], [0.5, 0.5, 1], [0.5, 1.0, 1], [1.0, 0.5, 1]]


def test_page_limits_queries_and_documents(
    outcome: Evaluation, collection: Collection, runs: dict[str, MemoryRun]
) -> None:
    data = page_queries(render_report(outcome, collection, runs, queries=1, k=2))
    assert [entry["id"] for entry in data["entries"]] == ["q0"]
    assert [len(rows) for rows in data["entries"][0]["lists"]] == [2, 2]


def test_page_in_a_browser(
    outcome: Evaluation,
    collection: Collection,
    runs: dict[str, MemoryRun],
    tmp_path: Path,
    open_address: Callable[..., Any],
) -> None:
    """Tables sort both ways; a query opens with both rankings, marks and rank changes.

    The chosen measure decides what is relevant: of the grades 0 and 2 the 2, and with rel=3 none.
    """
    outcome = evaluate(collection, runs, "nDCG@10 RR@10 RR(rel=3)@10", "base_line")
    page(outcome, collection, runs, tmp_path / "page.html")
    shown = open_address((tmp_path / "page.html").as_uri())
    assert shown.title() == "student against base_line"
    assert shown.locator(".verdict").inner_text().startswith("student is not shown to differ")

    table = shown.locator("section table").first
    head = table.locator("th").nth(2)
    for expected in ("student", "base_line"):
        head.press("Enter")
        assert table.locator("tbody td").first.inner_text() == expected
    assert shown.locator("#scatter .cell").count() == 4
    assert shown.locator("#pareto circle:not(.key)").count() == 2

    sides = shown.locator("#query ol")
    assert sides.nth(0).locator(".head b").all_inner_texts() == ["d1", "d2", "<d3>", "d0"]
    assert sides.nth(1).locator(".head b").all_inner_texts() == ["d0", "d1", "d2", "<d3>"]
    assert [sides.nth(side).locator(".relevant").count() for side in (0, 1)] == [1, 1]
    assert [sides.nth(side).locator(".judged").count() for side in (0, 1)] == [1, 1]
    assert sides.nth(0).locator(".relevant .moved").inner_text() == "↓3, rank 1 there"
    assert "</script>" in shown.locator("#query h3").inner_text()

    shown.locator("#queries").press("ArrowDown")
    shown.locator("#queries").press("Enter")
    shown.get_by_role("heading", name="how").wait_for()
    shown.locator('#scatter [data-cell="3"]').click()
    assert shown.locator("#queries [role=option]").count() == 1
    shown.get_by_role("button", name="show all").press("Enter")
    shown.locator("#order").select_option("losses")
    rows = shown.locator("#queries .id")
    assert rows.all_inner_texts() == ["q3", "q2", "q1", "q0"]

    shown.locator("#measure").select_option("RR(rel=3)@10")
    shown.get_by_text("RR(rel=3)@10 0.0000").first.wait_for()
    assert shown.locator("#query .relevant").count() == 0
    assert shown.locator("#query .judged").count() == 4
    assert accessibility_problems(shown) == []


def test_card(outcome: Evaluation, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard
    from sentence_transformers import SentenceTransformer

    from irdistill.students import DenseStudent

    folder = tmp_path / "trained" / "model"
    DenseStudent(str(tiny_backbone(tmp_path / "b"))).save(folder)
    (tmp_path / "trained" / "training.json").write_text(
        json.dumps({"identity": {"loss": "KL(tau=0.05)", "options": {"steps": 7}}})
    )
    path = write_card(outcome, "student", folder)
    text = path.read_text()
    front = yaml.safe_load(text.split("---")[1])
    result = front["model-index"][0]["results"][0]
    assert (
        front["library_name"] == "sentence-transformers"
        and front["pipeline_tag"] == "sentence-similarity"
    )
    assert result["dataset"] == {"type": "small/set_1", "name": "small/set_1"}
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values == {
        name: outcome.row("student", "small/set_1", measure).value
        for name, measure in (
            ("ndcg_at_10", "nDCG@10"),
            ("mrr_at_10", "RR@10"),
            ("recall_at_2", "R@2"),
        )
    }
    loaded = ModelCard.load(path)
    assert [one.metric_value for one in loaded.data.eval_results] == [
        metric["value"] for metric in result["metrics"]
    ]
    assert "- loss: `KL(tau=0.05)`" in text and "- steps: `7`" in text
    assert SentenceTransformer(str(folder)).encode(["a"]).shape[0] == 1
    assert write_card(outcome, "student", folder) == path
    path.write_text("mine")
    with pytest.raises(IrdistillError, match="was not written by irdistill"):
        write_card(outcome, "student", folder)
    assert path.read_text() == "mine"


def test_mteb_layout(outcome: Evaluation, tmp_path: Path) -> None:
    assert task_of("beir/scifact/test") == ("SciFact", "test") and task_of("a/fiqa#dev") == (
        "FiQA2018",
        "dev",
    )
    assert task_of("beir/nq") == ("NQ", "test") and task_of("my set/x y") == ("x-y", "test")
    assert (
        metric_name("RR@10") == "mrr_at_10"
        and metric_name("R(rel=2)@5") is None
        and metric_name("AP") is None
    )
    written = write_results(outcome, "student", tmp_path)
    assert written == [tmp_path / "results" / "irdistill__student" / "irdistill" / "set_1.json"]
    answers = json.loads(written[0].read_text())
    scores = answers["scores"]["test"][0]
    assert (
        answers["task_name"] == "set_1"
        and scores["main_score"] == scores["ndcg_at_10"] == outcome.rows[3].value
    )
    mteb = pytest.importorskip("mteb")
    assert mteb.TaskResult.from_disk(written[0]).get_score() == outcome.rows[3].value


def test_publish(outcome: Evaluation, tmp_path: Path) -> None:
    rows = {
        "rows": outcome.to_rows(),
        "efficiency": [cost.to_json() for cost in COSTS],
        "retention": {"student": 1.0},
    }
    (tmp_path / "results.json").write_text(json.dumps(rows))
    content = read_results(tmp_path / "results.json")
    assert content.evaluation.rows == outcome.rows and content.costs == COSTS
    assert publish(content, out=tmp_path / "a.html") is None
    assert (
        "base_line" in (tmp_path / "a.html").read_text()
        and 'id="scatter"' not in (tmp_path / "a.html").read_text()
    )
    assert "100.0%" in str(publish(content)) and "GFLOPs" in str(publish(content, "latex"))
    for arguments, message in (
        (("html",), "--out is missing"),
        ((None, tmp_path / "a.xyz"), "cannot be derived"),
        (("card", tmp_path, 1, 1, "x"), "no system 'x'"),
    ):
        with pytest.raises(IrdistillError, match=message):
            publish(content, *arguments)
    (tmp_path / "bad.json").write_text('{"rows": [{"system": 1, "what": 2}]}')
    with pytest.raises(IrdistillError, match="not a file of figures"):
        read_results(tmp_path / "bad.json")
    (tmp_path / "r.txt").write_text("q0 Q0 d0 1 1 t\n")
    with pytest.raises(IrdistillError, match="say which one they are of with --collection"):
        evaluate_runs({"r": str(tmp_path / "r.txt")}, None, "AP", None)


def test_report_shows_the_measured_rankings(tmp_path: Path) -> None:
    docs = ("d0", "d1", "d2")
    (tmp_path / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": doc, "text": f"text of {doc}"}) + "\n" for doc in docs)
    )
    (tmp_path / "queries.jsonl").write_text(
        json.dumps({"_id": "q", "text": "a question", "excluded_ids": ["d0"]}) + "\n"
    )
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td2\t1\n")
    (tmp_path / "r.txt").write_text(
        "".join(f"q Q0 {doc} {rank} {9 - rank} t\n" for rank, doc in enumerate(docs, 1))
    )
    outcome = evaluate_runs({"r": str(tmp_path / "r.txt")}, f"{tmp_path}#test", "RR@10", None)
    assert outcome.evaluation.rows[0].value == 0.5
    assert list(outcome.runs["r"]["q"].doc_ids) == ["d1", "d2"]
