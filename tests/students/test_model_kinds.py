"""How a trained model is read: as its files say, as the user says, and never silently as another
kind.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from irdistill.cli.entry_point import cli
from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.evaluation.efficiency import EfficiencyOptions, measure_efficiency
from irdistill.evaluation.suite_runs import BenchmarkSystem
from irdistill.recipes.recipe import Stage
from irdistill.recipes.stages import RecipeContext, check_stage, run_stage
from irdistill.runs import open_run
from irdistill.search import RetrieveOptions, retrieve
from irdistill.students import CrossEncoderStudent, SparseStudent, build_student, load_student
from irdistill.students.model_kinds import model_kind
from irdistill.teachers import load_teacher
from irdistill.teachers.teacher_card import read_card
from irdistill.teachers.teacher_kinds import kind_of
from tests.students.real_sparse import MODEL, needs_splade, splade_folder
from tests.students.tiny import tiny_backbone
from tests.teachers.tiny import tiny_cross_encoder

DOCUMENTS = {
    "d1": "what causes rain and snow",
    "d2": "the heart pumps blood through the body",
    "d3": "fish live in water",
}
QUERIES = {"q1": "why does it rain", "q2": "heart and blood"}


@pytest.fixture
def collection() -> Collection:
    return Collection.from_dicts("kinds", DOCUMENTS, QUERIES, {"q1": {"d1": 1}, "q2": {"d2": 1}})


@pytest.fixture
def beir(tmp_path: Path) -> str:
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(
        "".join(
            json.dumps({"_id": name, "title": "", "text": text}) + "\n"
            for name, text in DOCUMENTS.items()
        )
    )
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in QUERIES.items())
    )
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\n")
    return f"{folder}#test"


@needs_splade
def test_a_splade_model_without_modules_is_sparse_where_asked_and_warned_of_elsewhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_as_sparse = load_student(MODEL, kind="sparse", device="cpu")
    saved = load_student(splade_folder(tmp_path / "splade"), device="cpu")
    assert isinstance(read_as_sparse, SparseStudent) and isinstance(saved, SparseStudent)
    texts = list(DOCUMENTS.values())
    vectors = read_as_sparse.encode(texts, show_progress=False, precision="float32")
    assert (
        np.abs(vectors - saved.encode(texts, show_progress=False, precision="float32")).max() == 0
    )
    assert vectors.shape == (3, 30522) and 5 < vectors.nnz / 3 < 300
    rain = read_as_sparse._first("document").tokenizer.convert_tokens_to_ids("rain")
    assert vectors[0, rain] > 1 and vectors[1, rain] == 0
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert load_student(MODEL, device="cpu").kind == "dense"
    assert "BertForMaskedLM without modules.json" in caplog.text and "--kind sparse" in caplog.text
    caplog.clear()
    assert load_student(MODEL, kind="dense", device="cpu").kind == "dense" and not caplog.records


@needs_splade
def test_the_kind_reaches_search_teachers_cards_recipes_and_timing(
    collection: Collection, tmp_path: Path
) -> None:
    run = retrieve(
        collection,
        MODEL,
        tmp_path / "run",
        3,
        RetrieveOptions(kind="sparse", precision="float32"),
        work=tmp_path / "work",
    )
    assert run.identity.producer["kind"] == "sparse" and run["q1"].doc_ids[0] == "d1"
    dense = retrieve(
        collection,
        MODEL,
        tmp_path / "dense",
        3,
        RetrieveOptions(kind="dense", precision="float32"),
        work=tmp_path / "work",
    )
    assert dense.identity.producer["kind"] == "dense" and dense.fingerprint != run.fingerprint
    teacher: Any = load_teacher(MODEL, collection.corpus, kind="sparse", work=tmp_path / "work")
    assert teacher.identity["type"] == "sparse"
    (tmp_path / "splade.yaml").write_text(f"kind: sparse\nmodel: {MODEL}\n")
    assert read_card(str(tmp_path / "splade.yaml")).kind == "sparse"
    assert (
        load_teacher(str(tmp_path / "splade.yaml"), collection.corpus).identity == teacher.identity
    )
    with pytest.raises(IrdistillError, match="kind sparse and type dense"):
        load_teacher(MODEL, collection.corpus, kind="sparse", type="dense")
    outcome = measure_efficiency(
        collection,
        "splade",
        MODEL,
        EfficiencyOptions(k=3, kind={MODEL: "sparse"}),
        work=tmp_path / "work",
    )
    assert outcome.parameters > 4_000_000
    assert BenchmarkSystem(MODEL, kind="sparse").name == f"{MODEL} (sparse)"


@needs_splade
def test_the_kind_of_a_recipe_stage(beir: str, tmp_path: Path) -> None:
    arguments = {"collection": beir, "model": MODEL, "k": 3, "kind": "sparse"}
    stage = Stage("found", "retrieve", arguments)
    check_stage(stage)
    with pytest.raises(IrdistillError, match="kind is 'splade'"):
        check_stage(Stage("found", "retrieve", {**arguments, "kind": "splade"}))
    run_stage(stage, arguments, tmp_path / "found", RecipeContext())
    assert open_run(tmp_path / "found").identity.producer["kind"] == "sparse"


@needs_splade
@pytest.mark.parametrize(
    "words",
    [
        ["retrieve", "BEIR", "--model", MODEL, "--k", "2", "--kind", "sparse", "--out", "OUT"],
        [
            "score",
            "BEIR",
            "--candidates",
            "RUN",
            "--teacher",
            MODEL,
            "--kind",
            "sparse",
            "--out",
            "OUT",
        ],
    ],
)
def test_the_option_of_the_command_line(
    words: list[str], beir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    inputs = {"BEIR": beir, "OUT": str(tmp_path / "out"), "RUN": str(tmp_path / "run")}
    if "RUN" in words:
        bm25 = CliRunner().invoke(
            cli, ["retrieve", beir, "--out", inputs["RUN"]], catch_exceptions=False
        )
        assert bm25.exit_code == 0
    result = CliRunner().invoke(
        cli, [inputs.get(word, word) for word in words], catch_exceptions=False
    )
    assert result.exit_code == 0
    producer = open_run(tmp_path / "out").identity.producer
    assert "sparse" in (producer["kind"], producer.get("type"))


@pytest.mark.parametrize(
    "command",
    [
        "retrieve",
        "search",
        "score",
        "terms",
        "benchmark",
        "export",
        "specialise",
        "measure",
        "audit",
    ],
)
def test_every_command_that_takes_a_model_has_the_option(command: str) -> None:
    text = CliRunner().invoke(cli, [command, "--help"]).output
    assert "--kind" in text and "--trust-remote-code" in text


def test_what_is_refused(tmp_path: Path, collection: Collection) -> None:
    encoder, reranker = (
        str(tiny_backbone(tmp_path / "encoder")),
        str(tiny_cross_encoder(tmp_path / "reranker")),
    )
    assert model_kind(encoder) == "dense" and model_kind(reranker) == "cross-encoder"
    for kind, message in (
        ("sparse", "no masked-language-model head"),
        ("late-interaction", "no trained projection"),
        ("splade", "is unknown"),
    ):
        with pytest.raises(IrdistillError, match=message):
            load_student(encoder, kind=kind)
    with pytest.raises(
        IrdistillError, match="was saved as a cross-encoder model, but kind 'dense'"
    ):
        load_student(reranker, kind="dense")
    with pytest.raises(IrdistillError, match="irdistill score"):
        load_student(reranker)
    with pytest.raises(IrdistillError, match="needs a model given by folder"):
        retrieve(collection, "bm25", tmp_path / "run", options=RetrieveOptions(kind="sparse"))


@pytest.mark.parametrize("labels", [2, 3])
def test_a_backbone_with_several_outputs_is_no_start_for_a_cross_encoder(
    labels: int, tmp_path: Path
) -> None:
    folder = str(tiny_cross_encoder(tmp_path / "reranker", labels=labels))
    for make in (
        lambda: build_student("cross-encoder", folder, device="cpu"),
        lambda: CrossEncoderStudent.load(folder),
    ):
        with pytest.raises(
            IrdistillError, match=f"has {labels} outputs; a cross-encoder student needs one"
        ):
            make()
    assert (
        build_student("cross-encoder", str(tiny_cross_encoder(tmp_path / "one")), device="cpu").kind
        == "cross-encoder"
    )


@needs_splade
def test_a_saved_sparse_model_is_not_read_as_another_kind(tmp_path: Path) -> None:
    folder = str(splade_folder(tmp_path / "splade"))
    assert model_kind(folder) == "sparse" and kind_of(folder) == "retriever"
    with pytest.raises(IrdistillError, match="was saved as a sparse model, but kind 'dense'"):
        load_student(folder, kind="dense")


def test_a_model_with_code_of_its_own_is_recognised_without_running_it(tmp_path: Path) -> None:
    folder = tiny_cross_encoder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "made-up",
        "auto_map": {"AutoConfig": "code.Config"},
        "architectures": ["MadeUpForSequenceClassification"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise RuntimeError('code of the model was run')")
    assert kind_of(str(folder)) == "cross-encoder" and model_kind(str(folder)) == "cross-encoder"
