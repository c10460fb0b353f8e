"""Searching and reranking with saved models of every kind, from the command line and from
recipes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irdistill.recipes.recipe import Stage
from irdistill.recipes.stages import RecipeContext, check_stage, run_stage
from irdistill.runs import open_run
from irdistill.storage.files import read_json
from tests.cli.test_commands import run
from tests.students.tiny import WORDS, tiny_backbone
from tests.teachers.tiny import tiny_colbert, tiny_splade
from tests.training.tiny import make_collection, make_run

KINDS = ("dense", "sparse", "late-interaction")


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set" / "qrels").mkdir(parents=True)
    lines = [
        json.dumps({"_id": f"d{i}", "title": "", "text": " ".join(WORDS[i : i + 6])})
        for i in range(30)
    ]
    (tmp_path / "set" / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "set" / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "small dog"}\n{"_id": "q2", "text": "heat wave"}\n'
    )
    (tmp_path / "set" / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\td4\t1\nq2\td9\t1\n"
    )
    return tmp_path


def model(kind: str, folder: Path) -> str:
    if kind == "dense":
        return str(tiny_backbone(folder / "dense", layers=2))
    return str(tiny_splade(folder / "s") if kind == "sparse" else tiny_colbert(folder / "l"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_searches_reranks_and_is_measured(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = model(kind, folder)
    assert run("retrieve", "set", "--model", name, "--k", "6", "--out", "first") == 0
    assert (
        run(
            "retrieve",
            "set",
            "--model",
            name,
            "--precision",
            "float32",
            "--k",
            "6",
            "--out",
            "found",
        )
        == 0
    )
    assert open_run(folder / "found").identity.settings["precision"] == "float32"
    assert (
        run(
            "score",
            "set",
            "--candidates",
            "found",
            "--teacher",
            name,
            "--kind",
            "retriever",
            "--precision",
            "float32",
            "--out",
            "again",
        )
        == 0
    )
    for one, other in zip(open_run(folder / "found"), open_run(folder / "again"), strict=True):
        assert len(one.doc_ids) == 6
        reranked = dict(zip(other.doc_ids, other.scores.tolist(), strict=True))
        assert [reranked[doc_id] for doc_id in one.doc_ids] == pytest.approx(
            one.scores.tolist(), abs=1e-4
        )
    capsys.readouterr()
    assert (
        run(
            "search",
            "set",
            "small dog",
            "--model",
            name,
            "--k",
            "2",
            "--json",
            "hits.json",
        )
        == 0
    )
    hits = json.loads((folder / "hits.json").read_text())["hits"]
    assert [hit["rank"] for hit in hits] == [1, 2] and hits[0]["doc_id"] in capsys.readouterr().out
    for index in {"dense": ("hnsw",), "late-interaction": ("hnsw", "plaid")}.get(kind, ()):
        assert (
            run(
                "retrieve",
                "set",
                "--model",
                name,
                "--index",
                index,
                "--k",
                "3",
                "--out",
                index,
                "--json",
                "found.json",
            )
            == 0
        )
        assert json.loads((folder / "found.json").read_text())["recall of exact search"] >= 0.9
        assert "recall of exact search  " in capsys.readouterr().out
    assert run("retrieve", "set", "--model", name, "--k", "0", "--out", "nothing") == 1
    assert "--k is '0'" in capsys.readouterr().err

    context = RecipeContext()
    collection = str(folder / "set")
    retrieve = Stage("retrieve", "retrieve", {"collection": collection, "model": name})
    assert len(run_stage(retrieve, retrieve.arguments, folder / "retrieve", context)) == 16
    models = {kind: name, "bm25": "bm25"}
    measure = Stage("measure", "measure", {"collection": collection, "models": models, "k": 5})
    run_stage(measure, measure.arguments, folder / "measure", context)
    rows = {row["system"]: row for row in read_json(folder / "measure" / "result.json")["systems"]}
    assert (
        rows[kind]["index_bytes"] > 0 and rows[kind]["layers"] == 2 and rows["bm25"]["layers"] == 0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_trains_a_small_query_encoder_beside_a_frozen_document_tower(
    kind: str, folder: Path
) -> None:
    large, small = (
        str(tiny_backbone(folder / "large", layers=2)),
        str(tiny_backbone(folder / "small", layers=1)),
    )
    collection = make_collection()
    make_run(folder / "scores", collection)
    context = RecipeContext()
    context._collections["tiny"] = collection
    train = Stage(
        "train",
        "train",
        {
            "collection": "tiny",
            "scores": str(folder / "scores"),
            "loss": "KL(teacher_tau=2)",
            "student": kind,
            "backbone": large,
            "query_backbone": small,
            "steps": 2,
            "batch_size": 2,
            "list_size": 3,
        },
    )
    check_stage(train)
    run_stage(train, train.arguments, folder / "out", context)
    model = str(folder / "out" / "model")
    retrieve = Stage("retrieve", "retrieve", {"collection": "tiny", "model": model, "k": 3})
    assert run_stage(retrieve, retrieve.arguments, folder / "run", context)
    assert len(list((folder / "cache" / "vectors").iterdir())) == 1, (
        "training and retrieval share the document vectors"
    )
    assert read_json(folder / "out" / "training.json")["identity"]["document_vectors"] is not None
