"""Verbs called from Python: results in the cache, objects as inputs, own losses and teachers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irdistill as ird
from irdistill.cli.entry_point import main
from irdistill.runs import open_run
from tests.recipes.tiny import beir_folder
from tests.students.tiny import tiny_backbone


@pytest.fixture()
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small collection; the cache is empty."""
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return str(beir_folder(tmp_path / "data"))


def test_the_example_of_the_documentation(data: str, tmp_path: Path) -> None:
    train = ird.load_collection(f"{data}#train")
    test = ird.load_collection(f"{data}#test")
    candidates = ird.retrieve(train, "bm25", k=20)
    scores = ird.score(train, candidates, teacher="bm25", out="out/scores")
    audit = ird.audit(train, [scores], first_stage=candidates)
    assert audit.to_markdown()
    backbone = str(tiny_backbone(tmp_path / "model", layers=2))
    student = ird.train(
        train,
        scores,
        ird.DenseStudent(backbone, freeze_documents=True),
        loss=ird.KL(tau=0.05) + ird.InfoNCE(tau=0.05),
        out="out/student",
        steps=2,
        batch_size=2,
        list_size=4,
    )
    figures = ird.evaluate(
        test,
        {"BM25": ird.retrieve(test, "bm25"), "student": ird.retrieve(test, student)},
        baseline="BM25",
    )
    assert figures.systems == ["BM25", "student"]
    assert (tmp_path / "out" / "student" / "model").is_dir()


def test_results_without_out_are_kept_in_the_cache(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ird.retrieve(f"{data}#train", "bm25", k=5)
    assert first.path is not None and (tmp_path / "cache" / "results") in first.path.parents

    def fail(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr("irdistill.search.retrieval.retrieve", fail)
        began = time.perf_counter()
        second = ird.retrieve(ird.load_collection(f"{data}#train"), "bm25", k=5)
        assert time.perf_counter() - began < 2
        assert second.fingerprint == first.fingerprint and second.path == first.path
        with pytest.raises(AssertionError, match="computed again"):
            ird.retrieve(f"{data}#train", "bm25", k=6)
    split = ird.split(f"{data}#train", 2)
    assert ird.split(f"{data}#train", 2).id == split.id and split.id.endswith("#0-train")
    scored = ird.score(f"{data}#train", first, "bm25")
    assert ird.score(f"{data}#train", first.path, "bm25").path == scored.path


def test_a_trained_student_comes_from_the_cache(data: str, tmp_path: Path) -> None:
    backbone = str(tiny_backbone(tmp_path / "model", layers=1))
    run = ird.retrieve(f"{data}#train", "bm25", k=10)
    options: dict[str, Any] = {"loss": "KL", "steps": 2, "batch_size": 2, "list_size": 3}
    student = ird.train(f"{data}#train", run, backbone=backbone, **options)
    again = ird.train(f"{data}#train", [run], backbone=backbone, **options)
    assert again.weights_digest() == student.weights_digest()
    other = ird.train(f"{data}#train", run, backbone=backbone, **{**options, "loss": "MarginMSE"})
    assert other.weights_digest() != student.weights_digest()


def test_runs_of_other_libraries(data: str, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    run = ird.retrieve(f"{data}#test", "bm25", k=10)
    lists = run.to_dict()
    rows = [
        {"qid": query, "docno": doc, "score": score}
        for query, scores in lists.items()
        for doc, score in scores.items()
    ]
    frame = pandas.DataFrame(rows)
    (tmp_path / "run.trec").write_text(
        "".join(
            f"{query} Q0 {doc} {rank} {score!r} x\n"
            for query, scores in lists.items()
            for rank, (doc, score) in enumerate(scores.items(), 1)
        )
    )
    runs = {"run": run, "dict": lists, "frame": frame, "file": str(tmp_path / "run.trec")}
    for judged in (f"{data}#test", {"q016": {"d000": 1}} | judgments(data)):
        figures = ird.evaluate(judged, runs, baseline="run")
        values = dict.fromkeys(figures.systems, figures.rows[0].value)
        first = {row.system: row.value for row in figures.rows if row.measure == "nDCG@10"}
        assert len(set(first.values())) == 1 and set(values) == set(runs)
    assert ird.fuse([run, run], method="rrf").fingerprint
    assert ird.run_stats(lists)["queries"] == len(lists)
    single = ird.evaluate(f"{data}#test", lists)
    assert len(single.systems) == 1


def judgments(data: str) -> dict[str, dict[str, int]]:
    qrels = ird.load_collection(f"{data}#test").qrels
    return {query: dict(grades) for query, grades in qrels.items()}


OWN = """
import irdistill as ird
from irdistill.losses import register


@register("HalfKL", needs={"score"})
class HalfKL(ird.Loss):
    def compute(self, batch):
        return 0.5 * ird.KL().compute(batch)


def lengths(queries, documents):
    return [float(len(document)) for document in documents]
"""


def test_report_and_benchmark_take_objects(data: str, tmp_path: Path) -> None:
    test = ird.load_collection(f"{data}#test")
    run = ird.retrieve(test, "bm25", k=5)
    evaluation = ird.evaluate(test, {"BM25": run}, measures="RR@10")
    value = evaluation.rows[0].value
    assert evaluation.findings()[0].values == {"BM25": {"RR@10": value}}
    for report in (
        ird.report(evaluation),
        ird.report({"BM25": run}, measures=["RR@10"]),
        ird.report({"BM25": run}, collection=test, measures="RR@10"),
    ):
        assert report is not None and "| BM25" in report and f"{value:.4f}" in report
    (tmp_path / "suite.yaml").write_text(
        f"datasets: {{pets: {{folder: '{data}#test'}}}}\nmeasures: RR@10"
    )
    measured = ird.benchmark("suite.yaml", tmp_path / "out", runs=run, data=tmp_path)
    assert measured.figures.rows[0].value == value


def test_measures_without_quotation_marks(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["evaluate", f"{data}#test"], ["report"]):
        with pytest.raises(SystemExit) as stop:
            main([*verb, "run.txt", "--measures", "nDCG@10", "RR@10"])
        assert stop.value.code == 1
        assert 'quotes: --measures "nDCG@10 RR@10"' in capsys.readouterr().err


def test_own_losses_and_teachers_work_on_every_surface(data: str, tmp_path: Path) -> None:
    (tmp_path / "own_parts.py").write_text(OWN)
    backbone = str(tiny_backbone(tmp_path / "model", layers=1))
    train = f"train {data}#train --import own_parts.py --scores out/scores --backbone {backbone}"
    train += " --loss HalfKL --steps 2 --batch-size 2 --list-size 3 --out out/student"
    score = f"score {data}#train --candidates out/bm25 --teacher own_parts.py:lengths"
    for words in (
        f"retrieve {data}#train --k 10 --out out/bm25",
        f"{score} --trust-remote-code --out out/scores",
        train,
    ):
        with pytest.raises(SystemExit) as stop:
            main(words.split())
        assert not stop.value.code, words
    (tmp_path / "own.yaml").write_text(
        "imports: [own_parts.py]\nstages:\n"
        f"- {{name: bm25, verb: retrieve, collection: '{data}#train', k: 10}}\n"
        f"- {{name: scores, verb: score, collection: '{data}#train', candidates: '${{bm25}}',"
        " teacher: 'own_parts.py:lengths', trust_remote_code: true}\n"
        f"- {{name: student, verb: train, collection: '{data}#train', scores: '${{scores}}',"
        f" backbone: '{backbone}', loss: HalfKL, steps: 2, batch_size: 2, list_size: 3}}\n"
    )
    ird.run_recipe("own.yaml", out="out/recipe")
    digests = [
        json.loads((tmp_path / "out" / name / "training.json").read_text())["model"]
        for name in ("student", "recipe/student")
    ]
    assert digests[0] == digests[1]

    def lengths(queries: list[str], documents: list[str]) -> np.ndarray:
        return np.array([len(document) for document in documents], dtype=np.float32)

    scored = ird.score(f"{data}#train", "out/bm25", lengths)
    assert scored["q000"].scores.tolist() == open_run("out/scores")["q000"].scores.tolist()
    assert ird.score(f"{data}#train", "out/bm25", lengths).path == scored.path


def test_a_module_that_does_not_exist(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name, message in (("no_such_module", "no module"), ("nothing.py", "no file")):
        with pytest.raises(SystemExit) as stop:
            main(["retrieve", data, "--out", "x", "--import", name])
        assert stop.value.code == 1 and message in capsys.readouterr().err


def test_search_for_one_question(data: str) -> None:
    hits = ird.search_text(data, "dog cat", k=3)
    assert [hit.rank for hit in hits] == [1, 2, 3] and hits[0].text
