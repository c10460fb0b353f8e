"""Masked-language-model training of a backbone: it learns, goes on to the same bytes, and is a
backbone.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from irdistill.cli.entry_point import cli
from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.recipes import read_recipe, run_recipe
from irdistill.students import build_student
from irdistill.training import pretraining as module
from irdistill.training.pretraining import pretrain
from irdistill.training.pretraining_options import PretrainOptions
from tests.recipes.tiny import beir_folder
from tests.students.tiny import tiny_backbone
from tests.training.support import digests
from tests.training.tiny import make_backbone, make_collection

OPTIONS = PretrainOptions(
    steps=8,
    batch_size=8,
    learning_rate=5e-3,
    max_length=24,
    precision="float32",
    checkpoint_every=3,
    log_every=1,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    make_backbone(folder / "backbone")
    pretrain(make_collection(), str(folder / "backbone"), folder / "out", OPTIONS, layers=1)
    return folder


@pytest.mark.slow
def test_it_learns_to_guess_and_is_logged(tmp_path: Path) -> None:
    """Documents are of four words, so that a guess of nothing but their frequency costs log 4."""
    texts = {f"d{i}": f"w{i % 4} " * 8 for i in range(60)}
    collection = Collection.from_dicts("four", texts, {"q": "w1"}, {"q": {"d1": 1}})
    out = pretrain(
        collection,
        str(make_backbone(tmp_path / "backbone")),
        tmp_path / "out",
        replace(OPTIONS, steps=50, learning_rate=1e-2, batch_size=16),
    )
    rows = [json.loads(line) for line in (out.parent / "train_log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 51))
    assert rows[0]["loss"] == pytest.approx(
        np.log(45), rel=0.1
    )  # forty words and five marks, all as likely
    assert np.mean([row["loss"] for row in rows[-10:]]) < 2.5


def test_every_epoch_has_every_document_once_and_masks_anew(place: Path) -> None:
    student = build_student("dense", str(place / "backbone"), device="cpu")
    batches = module._Masking(
        make_collection().corpus, student.model.tokenizer, replace(OPTIONS, batch_size=30)
    )
    rows = [row for step in range(4) for row in batches.rows(step)]
    assert len(rows) == 120 and all(
        sorted(rows[at : at + 40]) == list(range(40)) for at in (0, 40, 80)
    )
    assert rows[:40] != rows[40:80]
    one, same, other = batches(0), batches(0), batches(1)
    assert torch.equal(one["labels"], same["labels"]) and torch.equal(
        one["input_ids"], same["input_ids"]
    )
    guessed = [
        float((batch["labels"] >= 0).sum() / (batch["attention_mask"].sum() - 2 * 30))
        for batch in (one, other)
    ]
    assert all(0.05 < share < 0.25 for share in guessed) and guessed[0] != guessed[1]


def test_a_killed_one_goes_on_to_the_same_bytes(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = module.PretrainingLoop.train_step

    def stop(self: Any, step: int, batch: Any) -> None:
        if step == 5:
            raise KeyboardInterrupt
        inner(self, step, batch)

    monkeypatch.setattr(module.PretrainingLoop, "train_step", stop)
    arguments = (make_collection(), str(place / "backbone"), tmp_path / "out", OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        pretrain(*arguments, layers=1)
    monkeypatch.setattr(module.PretrainingLoop, "train_step", inner)
    assert (tmp_path / "out" / "checkpoints" / "checkpoint-3" / "complete.json").exists()
    weights = tmp_path / "out" / "checkpoints" / "checkpoint-3" / "weights.pt"
    pretrain(*arguments, layers=1)
    assert not weights.exists()
    assert digests(tmp_path / "out") == digests(place / "out")
    with pytest.raises(IrdistillError, match="layers: 1 there, not set here"):
        pretrain(*arguments)


def test_checkpoints_by_time_and_what_is_said_of_them(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inner = module.PretrainingLoop.train_step

    def stop(self: Any, step: int, batch: Any) -> None:
        if step == 5:
            raise KeyboardInterrupt
        inner(self, step, batch)

    monkeypatch.setattr(module.PretrainingLoop, "train_step", stop)
    monkeypatch.setattr(module.checkpoints, "_SHARE", 0)
    options = replace(OPTIONS, checkpoint_every=500, checkpoint_seconds=1e-9)
    arguments = (make_collection(), str(place / "backbone"), tmp_path / "out", options)
    with pytest.raises(KeyboardInterrupt) as stopped:
        pretrain(*arguments, layers=1)
    assert stopped.value.__notes__ == [
        f"the checkpoint of step 5 of {OPTIONS.steps} in {tmp_path / 'out' / 'checkpoints'}"
    ]
    monkeypatch.setattr(module.PretrainingLoop, "train_step", inner)
    with caplog.at_level("INFO", logger="irdistill"):
        pretrain(*arguments, layers=1)
    assert f"resumed at step 5 of {OPTIONS.steps}" in caplog.text and digests(
        tmp_path / "out"
    ) == digests(place / "out")


def test_students_of_all_kinds_begin_with_it(place: Path) -> None:
    trained = AutoModelForMaskedLM.from_pretrained(place / "out" / "model")
    assert trained.config.num_hidden_layers == 1
    for kind in ("dense", "sparse", "late-interaction", "cross-encoder"):
        student = build_student(kind, str(place / "out" / "model"), device="cpu")
        first = student._transformers(student.sides[0])[0].model
        assert torch.equal(
            first.base_model.embeddings.word_embeddings.weight,
            trained.base_model.embeddings.word_embeddings.weight,
        )
    head = (
        build_student("sparse", str(place / "out" / "model"), device="cpu")
        ._transformers("query")[0]
        .model.cls
    )
    assert torch.equal(
        head.predictions.transform.dense.weight, trained.cls.predictions.transform.dense.weight
    )


def test_random_weights_of_another_size(place: Path, tmp_path: Path) -> None:
    made = [
        pretrain(
            make_collection(),
            str(place / "backbone"),
            tmp_path / name,
            PretrainOptions(steps=0, seed=seed, max_length=24),
            random_init=True,
            config=config,
        )
        for name, seed, config in (
            ("one", 1, {"hidden_size": 8}),
            ("same", 1, {"hidden_size": 8}),
            ("other", 2, {"hidden_size": 8}),
            ("plain", 1, None),
        )
    ]
    weights = [AutoModel.from_pretrained(model).embeddings.word_embeddings.weight for model in made]
    assert weights[0].shape == (45, 8) and weights[3].shape == (45, 16)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not torch.equal(
        weights[3], AutoModel.from_pretrained(place / "backbone").embeddings.word_embeddings.weight
    )
    assert AutoConfig.from_pretrained(made[0]).hidden_size == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"config": {"width": 8}}, "has no width"),
        ({"config": {"num_attention_heads": 5}}, "no BertForMaskedLM can be made"),
        ({"layers": 9}, "layers=9"),
    ],
)
def test_what_is_refused(
    settings: dict[str, Any], message: str, place: Path, tmp_path: Path
) -> None:
    with pytest.raises(IrdistillError, match=message):
        pretrain(make_collection(), str(place / "backbone"), tmp_path / "no", OPTIONS, **settings)
    assert not (tmp_path / "no").exists()
    for wrong in ({"steps": -1}, {"masked": 1.0}, {"warmup": 2}, {"learning_rate": 0}):
        with pytest.raises(IrdistillError, match=r"expected|at least"):
            PretrainOptions(**wrong)  # type: ignore[arg-type]


def test_the_command(tmp_path: Path) -> None:
    """Changes of the config are words after one option, as in a recipe."""
    data, model = beir_folder(tmp_path / "data"), tiny_backbone(tmp_path / "model", layers=2)
    command = [
        "pretrain",
        f"{data}#train",
        "--backbone",
        str(model),
        "--config",
        "hidden_size=16",
        "num_attention_heads=4",
        "--layers",
        "1",
        "--steps",
        "0",
        "--max-length",
        "24",
        "--out",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert result.exit_code == 0 and str(tmp_path / "out" / "model") in result.output
    config = AutoConfig.from_pretrained(tmp_path / "out" / "model")
    assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (16, 4, 1)


@pytest.mark.slow
def test_the_recipe_runs_on_a_small_collection(tmp_path: Path) -> None:
    """Every stage of recipes/pretrained-distillation.yaml, on random words."""
    data, model = beir_folder(tmp_path / "data"), tiny_backbone(tmp_path / "model", layers=2)
    changes = [
        f"train={data}#train",
        f"test={data}#test",
        f"encoder={model}",
        "k=10",
        "max_length=24",
        "pretrain_steps=4",
        "steps=3",
        "batch_size=4",
        "list_size=4",
        (
            "config={hidden_size: 16, intermediate_size: 32, num_attention_heads: 2,"
            " num_hidden_layers: 1}"
        ),
    ]
    out = run_recipe(read_recipe("pretrained-distillation", changes), tmp_path / "out")
    rows = {row["system"]: row for row in json.loads((out / "results.json").read_text())["rows"]}
    assert {
        "read-distilled-labels",
        "unread-distilled-labels",
        "read-labels",
        "read-distilled",
    } <= set(rows)
    assert AutoConfig.from_pretrained(out / "read" / "model").hidden_size == 16
    start = [
        AutoModel.from_pretrained(out / name / "model").embeddings.word_embeddings.weight
        for name in ("read", "unread")
    ]
    assert not torch.equal(*start)
