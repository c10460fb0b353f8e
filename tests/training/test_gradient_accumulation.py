"""Steps in micro-batches: the gradients of one large batch, and exact resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file

from irdistill.errors import OptionError
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from tests.training.support import digests, stopped_after
from tests.training.tiny import make_backbone, make_collection, make_run, make_student
from tests.training.two_processes import gradient_descent

OPTIONS = TrainOptions(
    steps=3,
    batch_size=5,
    list_size=5,
    learning_rate=0.1,
    warmup=0,
    precision="float32",
    seed=7,
    dropout=False,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accumulation")
    make_run(folder / "scores", make_collection())
    make_backbone(folder / "backbone")
    return folder


def descend(place: Path, out: Path, loss: str, parts: int) -> dict[str, torch.Tensor]:
    """The weights after gradient descent; AdamW would hide the size of a gradient."""
    options = replace(OPTIONS, gradient_accumulation=parts)
    student = make_student(place / "backbone")
    with mock.patch("irdistill.training.loop.make_optimizer", gradient_descent):
        model = train(make_collection(), place / "scores", student, loss, out, options)
    return load_file(model / "model.safetensors")


@pytest.mark.parametrize("loss", ["KL(tau=0.2, teacher_tau=2)", "MarginMSE(scale=6)", "MSE"])
@pytest.mark.parametrize("parts", [2, 5])
def test_micro_batches_give_the_gradients_of_one_batch(
    loss: str, parts: int, place: Path, tmp_path: Path
) -> None:
    whole = descend(place, tmp_path / "whole", loss, 1)
    split = descend(place, tmp_path / "split", loss, parts)
    before = load_file(place / "backbone" / "model.safetensors")
    assert max(float((whole[name] - before[name]).abs().max()) for name in before) > 1e-3
    for name in whole:
        assert torch.allclose(whole[name], split[name], rtol=0, atol=1e-6), name


def test_negatives_of_an_in_batch_loss_come_from_the_micro_batch(
    place: Path, tmp_path: Path
) -> None:
    loss = "InfoNCE(tau=0.2)"
    whole = descend(place, tmp_path / "whole", loss, 1)
    split = descend(place, tmp_path / "split", loss, 2)
    assert max(float((whole[name] - split[name]).abs().max()) for name in whole) > 1e-5


def test_a_killed_training_resumes_to_the_same_bytes(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, collection = "KL(tau=0.2, teacher_tau=2) + 0.1*InfoNCE(tau=0.2)", make_collection()
    options = replace(
        OPTIONS, steps=6, gradient_accumulation=2, checkpoint_every=2, dropout=True, log_every=1
    )
    train(
        collection,
        place / "scores",
        make_student(place / "backbone"),
        loss,
        tmp_path / "a",
        options,
    )
    stopped_after(3, place, tmp_path / "b", options, monkeypatch)
    train(
        collection,
        place / "scores",
        make_student(place / "backbone"),
        loss,
        tmp_path / "b",
        options,
    )
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_a_micro_batch_has_at_least_one_list() -> None:
    with pytest.raises(OptionError, match="each micro-batch needs at least one list"):
        TrainOptions(batch_size=4, gradient_accumulation=5)
    assert "gradient_accumulation" not in TrainOptions().identity()
    assert TrainOptions(gradient_accumulation=2).identity()["gradient_accumulation"] == 2
