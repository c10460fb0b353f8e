"""Suites: cards, averages, policies, running and resuming, and published figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill.card_files import card_folder
from irdistill.cli.entry_point import main
from irdistill.collections import Collection, Query
from irdistill.errors import IrdistillError
from irdistill.evaluation.figures import Evaluation, Row
from irdistill.evaluation.ranking_policies import PolicyRun, with_rewrites
from irdistill.evaluation.reproduction import checks_table, reproduce
from irdistill.evaluation.suite_runs import BenchmarkSystem, average, choose, run_suite
from irdistill.evaluation.suites import Dataset, Suite, read_suite
from irdistill.runs import MemoryRun, RankedList, RunIdentity
from tests.search.lucene_support import needs_lucene

CARDS = sorted(path.stem for path in card_folder("eval").glob("*.yaml"))


@pytest.mark.parametrize("name", CARDS)
def test_cards_name_datasets_of_ir_datasets(name: str) -> None:
    ir_datasets = pytest.importorskip("ir_datasets")
    suite = read_suite(name)
    assert suite.needs and (suite.source or name == "local")
    for dataset in suite.datasets.values():
        if dataset.id:
            loaded = ir_datasets.load(dataset.id)
            assert loaded.has_docs() and loaded.has_queries() and loaded.has_qrels(), dataset.id
    for row in suite.published:
        assert 0 < row.value < 1 and row.measure in suite.measures
        assert row.command(name).startswith(f"irdistill benchmark {name} --")


def test_all_suites_exist() -> None:
    assert CARDS == [
        "beir",
        "cast",
        "conversations",
        "ikat",
        "local",
        "lotte",
        "msmarco",
        "nanobeir",
        "robust04",
        "trec-dl",
    ]


def test_beir_has_the_datasets_of_the_paper() -> None:
    suite = read_suite("beir")
    assert {name: len(parts) for name, parts in suite.averages.items()} == {
        "BEIR-13": 13,
        "BEIR-14": 14,
        "BEIR-15": 15,
        "BEIR-18": 18,
    }
    assert len(suite.members("cqadupstack")) == 12 and len(suite.members("BEIR-18")) == 29
    assert {dataset.self_match for dataset in suite.datasets.values()} == {"drop"}
    assert suite.datasets["webis-touche2020"].id == "beir/webis-touche2020/v2"
    for model in dict.fromkeys(row.model for row in suite.published):
        figures = {
            row.where: row.value
            for row in suite.published
            if (row.model, row.measure) == (model, "nDCG@10")
        }
        parts = [figures[dataset.name] for dataset in suite.members("BEIR-13")]
        assert np.mean(parts) == pytest.approx(figures["BEIR-13"], abs=5e-5)


def _row(dataset: str, measure: str, value: float) -> Row:
    return Row("s", dataset, measure, 1, value, value, value)


def test_averages_count_a_group_once() -> None:
    groups = {"a": "", "g/1": "g", "g/2": "g", "b": ""}
    suite = Suite(
        "s",
        {name: Dataset(name, id="x", group=group) for name, group in groups.items()},
        ("RR",),
        averages={"all": ("a", "g"), "more": ("g", "b")},
    )
    values = {"a": 0.6, "g/1": 0.1, "g/2": 0.3}
    averages, refused = average(
        suite, Evaluation(tuple(_row(name, "RR", value) for name, value in values.items()))
    )
    assert averages == {"all": {"RR": pytest.approx((0.6 + 0.2) / 2)}}
    assert refused == {"more": ["b"]}
    assert choose(suite, ["b", "g", "a=there"]) == {"a": "there", "g/1": "", "g/2": "", "b": ""}
    for wrong in ("nothing", "g=one", "a="):
        with pytest.raises(IrdistillError):
            choose(suite, [wrong])


def test_policies() -> None:
    documents = {
        "q": "the query itself",
        "a": "same  words",
        "b": "same words",
        "c": "the query itself",
        "d": "other",
    }
    collection = Collection.from_dicts("c", documents, {"q": "the query itself"}, {"q": {"a": 1}})
    identity = RunIdentity("imported", {"model": "x"}, collection.describe(), None, {})
    scores = np.arange(5, 0, -1).astype(np.float32)
    run = MemoryRun(identity, [RankedList("q", ["q", "a", "b", "c", "d"], scores, None)])

    def left(
        self_match: bool, duplicates: bool, depth: int = 9
    ) -> tuple[list[str], list[float], int, int]:
        counted = PolicyRun(run, collection, self_match, duplicates, depth)
        (outcome,) = list(counted)
        assert len(list(counted)) == 1
        return (
            outcome.doc_ids,
            outcome.scores.tolist(),
            counted.left_out.self_matches,
            counted.left_out.duplicates,
        )

    assert left(False, False) == (["q", "a", "b", "c", "d"], [5, 4, 3, 2, 1], 0, 0)
    assert left(True, False, 3) == (["a", "b", "c"], [4, 3, 2], 1, 0)
    assert left(False, True) == (["q", "a", "d"], [5, 4, 1], 0, 2)
    assert left(True, True) == (["a", "d"], [4, 1], 1, 2)
    thinned = PolicyRun(run, collection, True, True, 9)
    assert thinned.fingerprint == run.fingerprint and thinned.query_ids == ["q"] and "q" in thinned
    assert thinned["q"].doc_ids == ["a", "d"]
    assert [(ids, table.column("doc_id").to_pylist()) for ids, table in thinned.parts()] == [
        (["q"], ["a", "d"])
    ]


def test_rewrites_replace_the_turn() -> None:
    texts = {"q": Query("q", "and its tail?", rewrite="the tail of a cat")}
    collection = Collection.from_dicts("c", {"a": "x"}, texts, {"q": {"a": 1}})
    rewritten = with_rewrites(collection)
    assert (
        rewritten.queries["q"].text == "the tail of a cat"
        and collection.queries["q"].text == "and its tail?"
    )
    assert rewritten.queries_fingerprint != collection.queries_fingerprint
    with pytest.raises(IrdistillError, match="no rewrite, such as 'q'"):
        with_rewrites(Collection.from_dicts("c", {"a": "x"}, {"q": "x"}, {"q": {"a": 1}}))


@pytest.fixture()
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two collections, one with a query that is a document, and a suite of them."""
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name, docs in (
        ("pets", {"cats": "cats purr", "dogs": "dogs bark at cats"}),
        ("self", {"q": "cats", "cats": "cats purr"}),
    ):
        (tmp_path / name / "qrels").mkdir(parents=True)
        lines = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in docs.items()]
        (tmp_path / name / "corpus.jsonl").write_text("\n".join(lines) + "\n")
        (tmp_path / name / "queries.jsonl").write_text('{"_id": "q", "text": "cats"}\n')
        (tmp_path / name / "qrels" / "test.tsv").write_text(
            "query-id\tcorpus-id\tscore\nq\tcats\t1\n"
        )
    (tmp_path / "suite.yaml").write_text("""
description: two small ones
measures: RR@10 nDCG@10
k: 1
datasets:
  pets: {folder: pets}
  self: {folder: self, self_match: drop}
  third: {folder: third}
averages: {both: [pets, self], three: [pets, self, third]}
published:
  - {model: bm25, source: by hand, tolerance: 0.01, values: {RR@10: {pets: 1.0, both: 1.0}, nDCG@10: {self: 0.5}}}
  - {run: own.trec, k: 2, source: by hand, values: {RR@10: {pets: 0.5}}}
""")
    (tmp_path / "pets" / "own.trec").write_text("q Q0 dogs 1 2.0 x\nq Q0 cats 2 1.0 x\n")
    return tmp_path


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def test_a_suite_runs_and_resumes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "benchmark",
        "suite.yaml",
        "--model",
        "bm25",
        "--datasets",
        "pets",
        "self",
        "--out",
        "out",
        "--json",
        "out.json",
    )
    assert _run(*words) == 0
    said = capsys.readouterr().out
    outcome = json.loads((place / "out.json").read_text())
    assert {(row["dataset"], row["measure"]): row["value"] for row in outcome["rows"]} == {
        ("pets", "RR@10"): 1.0,
        ("pets", "nDCG@10"): 1.0,
        ("self", "RR@10"): 1.0,
        ("self", "nDCG@10"): 1.0,
    }
    assert outcome["averages"] == {"both": {"RR@10": 1.0, "nDCG@10": 1.0}} and outcome[
        "refused"
    ] == {"three": ["third"]}
    assert outcome["left_out"]["self"] == {"excluded": 0, "self_matches": 1, "duplicates": 0}
    assert "self: left out 1 self matches." in said and "three: no average without third." in said
    assert {
        row["where"]: row["verdict"] for row in outcome["published"] if row["measure"] == "nDCG@10"
    } == {"self": "off by +0.5000"}
    before = {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.parquet")}
    assert before
    assert _run(*words) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.parquet")}
    assert json.loads((place / "out.json").read_text()) == outcome
    assert _run(*words, "--k", "2") == 1
    assert "--overwrite" in capsys.readouterr().err


def test_reranking_and_existing_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = read_suite("suite.yaml")
    reranked = run_suite(
        suite, BenchmarkSystem("bm25", rerank="bm25", k=2), "reranked", ["pets", "self"]
    )
    assert (reranked.value("both", "RR@10"), reranked.value("three", "RR@10")) == (1.0, None)
    existing = run_suite(suite, BenchmarkSystem(runs="pets/own.trec", k=2), "existing", ["pets"])
    assert existing.value("pets", "RR@10") == 0.5
    assert "| pets" in repr(existing) and "no average without" in existing._repr_html_()
    assert existing.to_rows() == existing.to_json()["rows"]
    over = run_suite(suite, BenchmarkSystem("bm25", rerank="pets/own.trec", k=2), "over", ["pets"])
    assert over.value("pets", "RR@10") == 1.0
    (place / "runs").mkdir()
    (place / "runs" / "pets.trec").write_text("q Q0 dogs 1 2.0 x\nq Q0 cats 2 1.0 x\n")
    with pytest.raises(
        IrdistillError, match=r"no run for the dataset 'self' in runs; name it runs/self"
    ):
        run_suite(suite, BenchmarkSystem(runs="runs"), "several", ["pets", "self"])
    assert not (place / "several").exists()
    with pytest.raises(IrdistillError, match="there is no folder third"):
        run_suite(suite, BenchmarkSystem("bm25"), "all")
    for wrong in ({}, {"model": "a", "runs": "b"}, {"rerank": "a", "runs": "b"}):
        with pytest.raises(IrdistillError, match="give either a model"):
            BenchmarkSystem(**wrong)


def test_published_figures_are_checked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("benchmark", "suite.yaml", "--check", "--out", "out", "--json", "checks.json") == 1
    rows = json.loads((place / "checks.json").read_text())["published"]
    assert {
        (row["model"] or row["run"], row["where"], row["measure"]): row["verdict"] for row in rows
    } == {
        ("bm25", "pets", "RR@10"): "ok",
        ("bm25", "both", "RR@10"): "ok",
        ("bm25", "self", "nDCG@10"): "off by +0.5000",
        ("own.trec", "pets", "RR@10"): "ok",
    }
    assert "off by +0.5000" in capsys.readouterr().out
    assert (
        _run(
            "benchmark",
            "suite.yaml",
            "--check",
            "--model",
            "bm25",
            "--datasets",
            "pets=pets",
            "--out",
            "again",
        )
        == 0
    )
    assert _run("benchmark", "suite.yaml", "--check", "--model", "lucene", "--out", "out") == 1
    assert "no published figure" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("unheard: 1", "a key 'unheard', which is not known"),
        ("datasets: {}", r"\['datasets'\] is {}; expected at least 1 item"),
        ("measures: Loudness@3", "not one of ir-measures"),
        (
            "datasets: {a: {folder: x, self_match: maybe}}",
            r"\['self_match'\] is 'maybe'; expected 'keep' or 'drop'",
        ),
        ("datasets: {a: {note: x}}", "either an id"),
        (
            "datasets: {a: {folder: x, color: red}}",
            r"\['a'\] has a key 'color', which is not known",
        ),
        ("averages: {x: [b]}", "no dataset 'b'"),
        ("published: [{model: m, values: {RR: {a: 1}}}]", "the key 'source' is missing"),
        ("measures: [", "not readable"),
        ("", "no dataset"),
    ],
)
def test_faults_in_a_card_are_errors(change: str, said: str, tmp_path: Path) -> None:
    card: dict[str, str] = {"datasets": "datasets: {a: {folder: x}}", "measures": "measures: RR"}
    card[change.partition(":")[0]] = change if change else "averages: {x: [zzz]}"
    (tmp_path / "card.yaml").write_text("\n".join(card.values()))
    with pytest.raises(IrdistillError, match=said):
        read_suite(tmp_path / "card.yaml")


def test_id_of_ir_datasets_is_opened_through_its_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.collections.test_ir_datasets import Dataset as Held
    from tests.collections.test_ir_datasets import (
        Docs,
        GenericQuery,
        Qrels,
        Queries,
        TitledDoc,
        TrecQrel,
        ir_datasets,
    )

    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ir_datasets.registry, "_registered", dict(ir_datasets.registry._registered))
    docs: list[Any] = [TitledDoc("d1", "One", "first"), TitledDoc("d2", "Two", "second first")]
    ir_datasets.registry.register(
        "irdistill-suite/test",
        Held(
            Docs(docs),
            Queries([GenericQuery("q", "second first")]),
            Qrels([TrecQrel("q", "d1", 1, "0")]),
        ),
    )
    suite = Suite("s", {"one": Dataset("one", id="irdistill-suite/test")}, ("RR@10", "R@1"))
    result = run_suite(suite, BenchmarkSystem("bm25"), tmp_path / "out")
    assert (result.value("one", "RR@10"), result.value("one", "R@1")) == (0.5, 0.0)


@pytest.mark.slow
@needs_lucene
def test_published_figures_are_reproduced(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    names = ["scifact", "cranfield", "cystic-fibrosis", "trec-dl19-top100"]
    checks = reproduce(read_suite("local"), tmp_path / "out", names, shared_data)
    assert len(checks) == 8
    assert all(check.ok for check in checks), checks_table(checks)
