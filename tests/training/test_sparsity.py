"""The controller of active dimensions by hand, on a simple plant and in a training; other penalties
of sparse students.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from irdistill.students.sparse_student import SparseStudent
from irdistill.training.objectives.controller import Controller
from irdistill.training.objectives.sparsity import Sparsity
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from tests.training.support import digests, log, stopped_before
from tests.training.tiny import make_backbone, make_collection, make_run

OPTIONS = TrainOptions(
    steps=8,
    batch_size=4,
    list_size=5,
    learning_rate=5e-3,
    precision="float32",
    seed=7,
    checkpoint_every=3,
    log_every=2,
    dropout=False,
)


def test_a_controller_by_hand() -> None:
    control = Controller(
        100, ramp_steps=40
    )  # so the integral moves by at most a quarter a step, and ten steps are looked ahead
    one = torch.tensor(1.0)
    assert float(control.factor(one)) == 1
    control.update(torch.tensor(200.0))
    first = 0.25 * np.log(2)
    assert float(control.factor(one)) == pytest.approx(np.exp(first), rel=1e-6)
    control.update(torch.tensor(120.0))  # the running mean is 0.85 * 200 + 0.15 * 120 = 188
    error = np.log(1.88) + 10 * 0.15 * np.log(188 / 200)
    assert float(control.factor(one)) == pytest.approx(np.exp(first + 0.25 * error), rel=1e-5)
    control.update(torch.tensor(1e9))  # an error is cut at 1
    assert control.state is not None and float(control.state[2]) == pytest.approx(
        first + 0.25 * error + 0.25, rel=1e-5
    )
    below = Controller(100, ramp_steps=40)
    below.update(torch.tensor(80.0))
    assert float(below.factor(one)) == pytest.approx(
        0.8**0.25 * 0.8, rel=1e-5
    )  # it lets go at once


def test_its_state_goes_through_json_exactly() -> None:
    control, other = Controller(30, 20), Controller(30, 20)
    for active in (99.7, 31.3, 12.1):
        control.update(torch.tensor(active))
    other.restore(json.loads(json.dumps(control.saved())))
    for active in (41.7, 29.9):
        control.update(torch.tensor(active))
        other.update(torch.tensor(active))
        assert torch.equal(control.factor(torch.tensor(1.0)), other.factor(torch.tensor(1.0)))
    other.restore(Controller(30, 20).saved())
    assert float(other.factor(torch.tensor(1.0))) == 1


def test_it_brings_a_slow_plant_to_the_target() -> None:
    """Active dimensions follow the pressure with a lag of twenty steps, over three orders of
    magnitude of the weight needed.
    """
    for needed in (0.01, 1.0, 50.0):
        control, active = Controller(120, ramp_steps=200), 20_000.0
        seen = []
        for _ in range(600):
            factor = float(control.factor(torch.tensor(1.0)))
            active += (120 * (needed / factor) ** 0.7 - active) / 20
            control.update(torch.tensor(active))
            seen.append(active)
        assert np.abs(np.log(np.array(seen[-100:]) / 120)).max() < 0.1, needed


def test_penalties_are_the_given_ones_times_the_factor() -> None:
    sparsity = Sparsity(
        replace(OPTIONS, document_flops=0.1, document_active=2, query_active=4, ramp=10)
    )
    for step in range(3):
        sparsity("query", torch.ones(2, 8))
        sparsity("document", torch.ones(3, 4))
        penalties = sparsity.penalties(step)
        factors = {
            kind: sparsity.controllers[kind].factor(torch.tensor(1.0))
            for kind in ("query", "document")
        }
        assert set(penalties) == {"FLOPS(document)", "L1(query)"}
        assert float(penalties["L1(query)"]) == pytest.approx(1e-3 * 8 * float(factors["query"]))
        assert float(penalties["FLOPS(document)"]) == pytest.approx(
            0.1 * 4 * float(factors["document"])
        )
        logged = sparsity.log(step, sparsity.end_step())
        assert (
            logged["query"]["factor"] == pytest.approx(float(factors["query"]))
            and logged["query"]["active"] == 8
        )
    assert float(factors["query"]) > 1


def test_anti_zero_is_a_term_of_both_sides() -> None:
    sparsity = Sparsity(replace(OPTIONS, anti_zero=0.5))
    sparsity("query", torch.ones(2, 2))
    assert sparsity.penalties(3) == {}  # documents were not seen
    sparsity("document", torch.ones(3, 4))
    assert float(sparsity.penalties(3)["AntiZero"]) == pytest.approx(
        0.5 * (1 / 4 + 1 / 16), rel=1e-5
    )


def test_a_target_out_of_reach_raises_an_alarm(caplog: pytest.LogCaptureFixture) -> None:
    sparsity = Sparsity(replace(OPTIONS, query_active=2, ramp=1))
    for step in range(60):
        sparsity("query", torch.ones(2, 10))
        sparsity.penalties(step)
        sparsity.log(step, sparsity.end_step())
    assert sum("2 are out of reach" in record.message for record in caplog.records) == 1


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sparsity")
    make_run(folder / "scores", make_collection())
    make_backbone(folder / "backbone")
    return folder


def learn(place: Path, out: Path, options: TrainOptions) -> None:
    student = SparseStudent(str(place / "backbone"), device="cpu")
    train(make_collection(), place / "scores", student, "KL(teacher_tau=2)", out, options)


@pytest.mark.slow
def test_a_tiny_model_ends_near_the_number_that_was_asked_for(place: Path, tmp_path: Path) -> None:
    """From about 40 active dimensions of 45."""
    options = replace(
        OPTIONS,
        steps=240,
        learning_rate=1e-2,
        schedule="constant",
        warmup=0,
        checkpoint_every=0,
        document_active=6,
    )
    learn(place, tmp_path / "out", options)
    active = [row["sparsity"]["document"]["active"] for row in log(tmp_path / "out")]
    assert active[0] > 30 and np.mean(active[-60:]) == pytest.approx(6, rel=0.25)


def test_a_controlled_training_that_stops_ends_with_the_same_bytes(
    place: Path, tmp_path: Path
) -> None:
    options = replace(
        OPTIONS, query_active=8, document_active=16, document_flops=0.01, anti_zero=0.1
    )
    learn(place, tmp_path / "whole", options)
    with stopped_before(5):
        learn(place, tmp_path / "out", options)
    learn(place, tmp_path / "out", options)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert set(log(tmp_path / "out")[0]["terms"]) == {
        "KL(teacher_tau=2)",
        "FLOPS(document)",
        "L1(query)",
        "AntiZero",
    }
