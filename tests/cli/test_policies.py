"""The flags of the policies reach the options of the training, and what cannot be is refused before
anything is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import irdistill.collections
import irdistill.runs
import irdistill.students
import irdistill.training
from irdistill.cli.train import train
from irdistill.errors import IrdistillError
from irdistill.training.options import TrainOptions

COMMAND = ["made-up", "--backbone", "model", "--loss", "KL", "--out", "out", "--scores", "run"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[TrainOptions]:
    """The options that trainings would have been given."""
    found: list[TrainOptions] = []

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
        found.append(options)
        return out / "model"

    monkeypatch.setattr(irdistill.collections, "load_collection", lambda name: name)
    monkeypatch.setattr(irdistill.runs, "open_run", lambda run, collection: run)
    monkeypatch.setattr(
        irdistill.students, "build_student", lambda *given, **settings: given, raising=False
    )
    monkeypatch.setattr(irdistill.training, "train", record, raising=False)
    return found


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ("", {}),
        (
            "--epochs 1.5 --schedule cosine --floor 0.1 --warmup 20",
            {"epochs": 1.5, "schedule": "cosine", "floor": 0.1, "warmup": 20},
        ),
        (
            "--early-stop 3 --held-out 0.2 --evaluate-every 50",
            {"early_stop": 3, "held_out": 0.2, "evaluate_every": 50},
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
    ],
)
def test_flags_are_options(flags: str, options: dict[str, Any], asked: list[TrainOptions]) -> None:
    result = CliRunner().invoke(train, [*COMMAND, *flags.split()], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert asked == [TrainOptions(**options)]


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ("--steps 5 --epochs 2", "--steps and --epochs were both given"),
        ("--curriculum gap --clusters 3", "curriculum and clusters were both given"),
    ],
)
def test_what_does_not_go_together_is_refused(
    flags: str, match: str, asked: list[TrainOptions]
) -> None:
    with pytest.raises(IrdistillError, match=match):
        CliRunner().invoke(train, [*COMMAND, *flags.split()], catch_exceptions=False)
    assert asked == []
