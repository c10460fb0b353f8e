"""Experiment trackers receive what the log has."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from irdistill.errors import MissingExtraError
from irdistill.training import tracking
from irdistill.training.options import TrainOptions
from irdistill.training.pretraining import pretrain
from irdistill.training.pretraining_options import PretrainOptions
from irdistill.training.trainer import train
from tests.training.tiny import make_backbone, make_collection, make_run, make_student

LOSS = "KL(tau=0.2, teacher_tau=2) + 0.1*InfoNCE(tau=0.2)"
OPTIONS = TrainOptions(
    steps=5,
    batch_size=2,
    list_size=4,
    precision="float32",
    log_every=2,
    early_stop=9,
    validate_every=2,
    track=("tensorboard",),
)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: (step, value) by name."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(folder))
    accumulator.Reload()
    return {
        name: [(event.step, event.value) for event in accumulator.Scalars(name)]
        for name in accumulator.Tags()["scalars"]
    }


def test_tensorboard_shows_the_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    collection = make_collection()
    make_run(tmp_path / "scores", collection)
    student = make_student(tmp_path / "backbone")
    train(collection, tmp_path / "scores", student, LOSS, tmp_path / "out", OPTIONS, validate=0.3)
    log = (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in log]
    shown = scalars(tmp_path / "out" / "trackers" / "irdistill")
    for name in ("loss", "learning_rate"):
        expected = [(row["step"], pytest.approx(row[name])) for row in rows if name in row]
        assert shown[name] == expected
    measured = [row for row in rows if "validation" in row]
    assert shown["validation/nDCG@10"] == [
        (row["step"], pytest.approx(row["validation"]["nDCG@10"])) for row in measured
    ]
    assert len(shown["loss"]) == 5 and [row["step"] for row in measured] == [0, 2, 4, 5]
    assert {name for name in shown if name.startswith("terms/")} == {
        "terms/KL(tau=0.2, teacher_tau=2)",
        "terms/InfoNCE(tau=0.2)",
    }
    assert "track" not in OPTIONS.identity()


def test_tensorboard_shows_a_pretraining(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    options = PretrainOptions(
        steps=4, batch_size=4, max_length=16, log_every=2, track=("tensorboard",)
    )
    backbone = make_backbone(tmp_path / "backbone")
    pretrain(make_collection(), str(backbone), tmp_path / "out", options)
    shown = scalars(tmp_path / "out" / "trackers" / "irdistill")
    assert [step for step, _ in shown["loss"]] == [2, 4]


def test_a_missing_tracker_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    student = make_student(tmp_path / "backbone")
    for tracker, package in (("wandb", "wandb"), ("comet_ml", "comet-ml")):
        with pytest.raises(MissingExtraError, match=f"track={tracker} .*pip install {package}"):
            train(
                make_collection(),
                tmp_path / "scores",
                student,
                LOSS,
                tmp_path / "out",
                replace(OPTIONS, track=(tracker,)),
                validate=0.3,
            )
    assert not (tmp_path / "out").exists()
