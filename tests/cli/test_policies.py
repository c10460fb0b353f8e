"""Options of the command line reach the options of the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import irdistill.students
import irdistill.training.trainer
import irdistill.verbs.training_verbs as training_verbs
from irdistill.cli.entry_point import main
from irdistill.training.options import TrainOptions

COMMAND = ["train", "set", "--backbone", "model", "--loss", "KL", "--out", "out", "--scores", "run"]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainOptions]:
    """The options that trainings were called with."""
    calls: list[TrainOptions] = []

    def record(
        collection: Any,
        runs: Any,
        student: Any,
        loss: str,
        out: Path,
        options: TrainOptions,
        *_: Any,
        **__: Any,
    ) -> Path:
        calls.append(options)
        return out / "model"

    monkeypatch.setattr(training_verbs, "open_collection", lambda name: name)
    monkeypatch.setattr(training_verbs, "open_student", lambda model: model)
    monkeypatch.setattr("irdistill.runs.as_run", lambda run, collection: run)
    monkeypatch.setattr(
        irdistill.students, "build_student", lambda *kind, **options: kind, raising=False
    )
    monkeypatch.setattr(irdistill.training.trainer, "train", record)
    return calls


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ("", {}),
        (
            "--epochs 1.5 --schedule cosine --floor 0.1 --warmup 20",
            {"epochs": 1.5, "schedule": "cosine", "floor": 0.1, "warmup": 20},
        ),
        (
            "--early-stop 3 --validate-every 50 --validate-documents 0",
            {"early_stop": 3, "validate_every": 50, "validate_documents": 0},
        ),
        ("--grad-cache --token-budget 512", {"grad_cache": True, "token_budget": 512}),
        (
            "--curriculum entropy --pacing root --pacing-start 0.3 --pacing-end 100",
            {"curriculum": "entropy", "pacing": "root", "pacing_start": 0.3, "pacing_end": 100},
        ),
        (
            "--clusters 20 --cluster-model m --margin-bins 5",
            {"clusters": 20, "cluster_model": "m", "margin_bins": 5},
        ),
        (
            "--mine-every 50 --mine-depth 30 --mine-take 4 --mine-teacher t",
            {"mine_every": 50, "mine_depth": 30, "mine_take": 4, "mine_teacher": "t"},
        ),
        (
            "--query-l1 .1 --document-l1 .2 --query-flops .3 --document-flops .4 --ramp 9",
            {
                "query_l1": 0.1,
                "document_l1": 0.2,
                "query_flops": 0.3,
                "document_flops": 0.4,
                "ramp": 9,
            },
        ),
        (
            "--anti-zero 1 --query-active 8 --document-active 9",
            {"anti_zero": 1, "query_active": 8, "document_active": 9},
        ),
        (
            "--precision float32 --weight-decay .01 --gradient-accumulation 2 --no-dropout",
            {
                "precision": "float32",
                "weight_decay": 0.01,
                "gradient_accumulation": 2,
                "dropout": False,
            },
        ),
    ],
)
def test_flags_are_options(
    flags: str, options: dict[str, Any], trained: list[TrainOptions]
) -> None:
    assert run(*COMMAND, *flags.split()) == 0
    assert trained == [TrainOptions(**options)]


def test_options_that_contradict_are_refused(
    trained: list[TrainOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*COMMAND, "--curriculum", "gap", "--clusters", "3") == 1
    assert "clusters" in capsys.readouterr().err and trained == []
