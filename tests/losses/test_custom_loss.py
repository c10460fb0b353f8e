"""A loss that is defined outside the package: one decorated class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
import torch
from torch import Tensor

from irdistill.errors import OptionError
from irdistill.losses import (
    KL,
    MSE,
    REGISTRY,
    AtLeast,
    Loss,
    NonNegative,
    Positive,
    ScoreBatch,
    parse_loss,
    register,
    signature,
)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    known = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(known)


def custom_loss() -> Any:
    @register("CustomLoss", needs={"score"}, in_batch=lambda loss: loss.size == 2)
    class CustomLoss(Loss):
        delta: Positive = 1.0
        floor: NonNegative = 0.0
        size: Annotated[int, AtLeast(1)] | None = None
        center: Literal["mean", "none"] = "none"
        signed: bool = False

        def compute(self, batch: ScoreBatch) -> Tensor:
            assert batch.teacher is not None
            scored = batch.scored
            return torch.nn.functional.huber_loss(
                batch.student[scored], batch.teacher[scored], delta=self.delta
            )

    return CustomLoss


def test_one_class_works_in_python_and_in_expressions() -> None:
    kind = custom_loss()
    loss = kind(delta=2) + 0.5 * KL(tau=0.05)
    assert parse_loss("CustomLoss(delta=2) + 0.5*KL(tau=0.05)") == loss
    assert repr(loss) == str(loss) == "CustomLoss(delta=2) + 0.5*KL(tau=0.05)"
    assert loss.needs == {"score"} and not loss.uses_in_batch
    assert parse_loss("CustomLoss(size=2)@3").uses_in_batch
    assert signature("CustomLoss").startswith(
        "CustomLoss(delta=1.0, floor=0.0, size=None, center='none'"
    )
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 1.0]])
    batch = ScoreBatch(student=student, teacher=teacher)
    assert kind(delta=2)(batch).item() == pytest.approx((2 * (3 - 1) + 0.5) / 2)
    two_teachers = ScoreBatch(student=student, teacher=torch.stack([teacher, teacher]))
    assert kind()(two_teachers).item() == kind()(batch).item()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"delta": 0}, "delta must be a finite number above 0"),
        ({"floor": -1}, "floor must be a finite number of at least 0"),
        ({"floor": float("inf")}, "floor must be a finite number"),
        ({"size": 0}, "size must be a whole number of at least 1"),
        ({"size": True}, "size must be a whole number"),
        ({"center": "median"}, 'center must be one of "mean", "none"'),
        ({"signed": 1}, "signed must be True or False"),
    ],
)
def test_parameters_are_checked_against_their_types(
    parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        custom_loss()(**parameters)


@pytest.mark.parametrize("kind", [KL, MSE])
def test_an_unknown_parameter_is_refused_in_python_as_in_expressions(kind: Any) -> None:
    with pytest.raises(OptionError) as python:
        kind(t=2)
    with pytest.raises(OptionError) as expression:
        parse_loss(f"{kind.name}(t=2)")
    message = f"{kind.name} has no parameter 't'. It is written {signature(kind.name)}."
    assert str(python.value) == message
    assert str(expression.value) == f"the loss '{kind.name}(t=2)': {message}"


def test_names_and_needs_that_are_refused() -> None:
    with pytest.raises(OptionError, match="cannot name a loss"):
        register("my loss")
    with pytest.raises(OptionError, match="needs scores; known needs are"):
        register("Mine", needs={"scores"})
    with pytest.raises(OptionError, match="a loss named 'KL' exists"):
        register("KL")(type("Other", (MSE,), {}))


def test_a_notebook_cell_can_be_run_again() -> None:
    first, second = custom_loss(), custom_loss()
    assert REGISTRY["CustomLoss"] is second is not first
