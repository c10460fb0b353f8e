"""Model cards, figures on synthetic queries, and short names of datasets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from irdistill.collections import Collection, Query, load_collection
from irdistill.collections.derived import write_derived
from irdistill.evaluation.figures import Evaluation, Row
from irdistill.evaluation.reporting.dataset_names import is_synthetic, short_names
from irdistill.evaluation.reporting.model_card import write_card
from irdistill.evaluation.reporting.publishing import publish, read_results
from irdistill.students import build_student
from irdistill.students.dense_student import DenseStudent
from irdistill.students.term_vectors import TermVectors
from irdistill.students.towers import copy_tower, two_towers
from irdistill.training.pretraining import pretrain
from irdistill.training.pretraining_options import PretrainOptions
from tests.recipes.tiny import beir_folder
from tests.students.tiny import tiny_backbone


def figures(*datasets: str) -> Evaluation:
    return Evaluation(
        tuple(Row("student", dataset, "nDCG@10", 3, 0.5, 0.4, 0.6) for dataset in datasets)
    )


def code_of(card: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return str(code)


def save_term_vectors(folder: Path, backbone: str) -> None:
    student = DenseStudent(backbone, device="cpu")
    tower = copy_tower(student.model, None)
    words = TermVectors(
        tower[0].tokenizer, ["dictionari", "merg"], torch.ones(2, student.dimension)
    )
    DenseStudent.from_model(two_towers(student.model, [*tower, words])).save(folder)


@pytest.mark.parametrize(
    "kind",
    [
        "dense",
        "frozen documents",
        "sparse",
        "late-interaction",
        "cross-encoder",
        "split-cross-encoder",
        "kernel",
        "term vectors",
        "similarity",
        "pretrained",
    ],
)
def test_code_of_a_model_card_runs(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone, folder = (
        str(tiny_backbone(tmp_path / "backbone", layers=2)),
        tmp_path / "out" / "model",
    )
    if kind == "term vectors":
        save_term_vectors(folder, backbone)
    elif kind == "pretrained":
        collection = Collection.from_dicts("c", {"d1": "the cat sat", "d2": "a dog"}, {})
        pretrain(
            collection,
            backbone,
            tmp_path / "out",
            PretrainOptions(steps=0, max_length=16),
            random_init=True,
        )
    else:
        frozen = {"freeze_documents": True} if kind == "frozen documents" else {}
        head = {"head": "similarity"} if kind == "similarity" else {}
        kind = {"frozen documents": "dense", "similarity": "cross-encoder"}.get(kind, kind)
        build_student(kind, backbone, device="cpu", **frozen, **head).save(folder)
    monkeypatch.chdir(tmp_path)
    card = write_card(figures("small/set"), "student", Path("out/model")).read_text()
    capsys.readouterr()
    exec(code_of(card), {})
    printed = capsys.readouterr().out
    assert "out/model" in code_of(card) and re.search(r"tensor|\[|Size", printed)
    has_code = (folder / "pair_similarity.py").is_file()
    assert ("trust_remote_code=True" in code_of(card)) == (has_code or kind == "term vectors")
    assert ("irdistill must be installed" in card) == (kind == "term vectors")
    assert (
        yaml.safe_load(card.split("---")[1])["model-index"][0]["results"][0]["dataset"]["name"]
        == "small/set"
    )


def made_of(source: Collection, folder: Path, verb: str, same: bool) -> str:
    queries = list(source.queries.values()) if same else [Query("s1", "a sentence")]
    judged = {query.id: {"d1": 1} for query in queries}
    write_derived(
        folder,
        source,
        queries,
        {"dev": judged, "train": judged},
        {"verb": verb},
        same_questions=same,
    )
    return f"{folder}#dev"


def test_figures_on_synthetic_queries_are_separate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    source = load_collection(f"{beir_folder(tmp_path / 'mydocs')}#train")
    real = source.id
    synthetic = made_of(source, tmp_path / "out" / "queries", "generate", False)
    filtered = made_of(load_collection(synthetic), tmp_path / "out" / "good", "filter", True)
    rewritten = made_of(source, tmp_path / "out" / "rewritten", "rewrite", True)
    kinds = {
        name: is_synthetic(name)
        for name in (synthetic, f"{synthetic}[:10]", filtered, rewritten, real, "beir/nq", "")
    }
    assert list(kinds.values()) == [True, True, True, False, False, False, False]
    model = tmp_path / "out" / "terms" / "model"
    DenseStudent(str(tiny_backbone(tmp_path / "b", layers=1)), device="cpu").save(model)
    rows = figures(synthetic, real).to_rows()
    rows += [rows[-1] | {"against": "teacher"}]  # compared with a second baseline
    (tmp_path / "out" / "results.json").write_text(json.dumps({"rows": rows}))
    publish(read_results(tmp_path / "out" / "results.json"), "card", model)
    card = (model / "README.md").read_text()
    index: Any = yaml.safe_load(card.split("---")[1])["model-index"][0]["results"]
    assert [one["dataset"]["name"] for one in index] == ["mydocs#train"]
    assert (
        card.index("## Figures\n")
        < card.index("#### mydocs#train")
        < card.index("## Figures on synthetic queries")
    )
    assert "#### queries#dev (3 synthetic queries)" in card and "are no benchmark" in card
    assert str(tmp_path) not in card.split("## Use")[0]
    (tmp_path / "out").rename(tmp_path / "moved")  # the figures still say so
    moved = tmp_path / "moved" / "terms" / "model"
    publish(read_results(tmp_path / "moved" / "results.json"), "card", moved)
    assert "#### queries#dev (3 synthetic" in (moved / "README.md").read_text()
    alone = write_card(figures(f"{tmp_path}/moved/queries#dev"), "student", moved).read_text()
    assert "model-index" not in alone and "## Figures\n" not in alone


def test_short_names_of_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "queries").mkdir(parents=True)
    ids = [
        "/data/scifact#test",
        "beir/nq/test",
        "out/queries#dev",
        "./mydocs[:300]",
        "~/sets/fiqa",
        "pydocs/test[:80%]",
        "set",
    ]
    assert list(short_names(ids).values()) == [
        "scifact#test",
        "beir/nq/test",
        "queries#dev",
        "mydocs[:300]",
        "fiqa",
        "pydocs/test[:80%]",
        "set",
    ]
    assert list(short_names(["/a/x/set", "/a/y/set", "/b/set#test"]).values()) == [
        "x/set",
        "y/set",
        "set#test",
    ]
    assert list(short_names(["/a/set", "set"]).values()) == ["a/set", "set"]
    assert list(short_names(["/a#1/x/set#test[:10]", "/a#1/c"]).values()) == ["set#test[:10]", "c"]
    result = figures("/a/x/set", "/a/y/set")
    assert "### x/set (3 queries)" in result.to_markdown() and "/a/x" not in result.to_markdown()
    assert "/a/x" not in result.to_latex() and result.datasets == ["/a/x/set", "/a/y/set"]
