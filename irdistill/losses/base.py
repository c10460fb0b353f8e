"""Losses as values: they can be called, printed, added, weighted and cut to the top of a list."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from irdistill.errors import IrdistillError
from irdistill.losses.batch import ScoreBatch
from irdistill.losses.representations import FittingSample

#: What a loss may need: the teacher's ``order``, its ``score`` or ``margin``; the qrels' ``label``.
NEEDS = frozenset({"order", "score", "margin", "label", "representation"})

#: Every named loss; the expression language knows exactly these.
REGISTRY: dict[str, type[Loss]] = {}

L = TypeVar("L", bound="type[Loss]")


def register(name: str) -> Callable[[L], L]:
    """Class decorator: make a frozen dataclass deriving from `Loss` known under ``name``."""

    def add(kind: L) -> L:
        if name in REGISTRY:
            raise ValueError(f"a loss named {name!r} is registered already")
        kind.name = name
        REGISTRY[name] = kind
        return kind

    return add


def number(value: float) -> str:
    """A number as written in an expression: ``0.05``, ``2``."""
    text = repr(float(value))
    return text.removesuffix(".0")


class Loss(ABC):
    """A function of a `ScoreBatch`. Subclasses are frozen dataclasses whose fields are the
    parameters.
    """

    name: ClassVar[str] = ""
    #: Whether it may learn something beside the student, and whether that is first fitted to a
    #: sample of the teacher's states.
    has_parameters: ClassVar[bool] = False
    fits_to_sample: ClassVar[bool] = False

    @property
    @abstractmethod
    def needs(self) -> frozenset[str]:
        """What the batch must hold, a subset of `NEEDS`."""

    @property
    def uses_in_batch(self) -> bool:
        """Whether the (B, U) scores against the other lists' documents are read."""
        return False

    @property
    def representations(self) -> frozenset[str]:
        """Which representations of student and teacher are read, a subset of
        `irdistill.losses.representations.REPRESENTATIONS`.
        """
        return frozenset()

    def make_parameters(
        self, example: ScoreBatch, sample: FittingSample | None
    ) -> nn.Module | None:
        """A new module of what the loss learns beside the student, or None where it learns nothing.

        Args:
            example: a batch of the shapes that the loss will see.
            sample: where ``fits_to_sample``, scored pairs of the whole training set.
        """
        return None

    def parameters_in(self, batch: ScoreBatch) -> nn.Module:
        """What the loss has learnt so far."""
        if str(self) not in batch.parameters:
            raise ValueError(
                f"{self} has parameters: make them with make_loss_parameters and give them as"
                " ScoreBatch(parameters=…)"
            )
        return batch.parameters[str(self)]

    @property
    def basic_losses(self) -> tuple[Loss, ...]:
        """The losses of the expression without weights and cuts."""
        return (self,)

    @property
    def terms(self) -> tuple[tuple[float, Loss], ...]:
        """The weighted summands; a plain loss is one of weight 1."""
        return ((1.0, self),)

    @abstractmethod
    def compute(self, batch: ScoreBatch) -> Tensor:
        """The loss with at most one teacher, ``batch.teacher`` (B, N) or None."""

    def __call__(self, batch: ScoreBatch) -> Tensor:
        """The loss, a scalar. With several teachers (T, B, N) it is the mean of the T losses.

        Weights of the teachers make it a weighted mean. Where they differ from list to list, (T,
        B), each list is taken as a batch of its own, and the mean over the lists is given.
        """
        if batch.teacher is None or batch.teacher.dim() == 2:
            return self.compute(batch)
        teachers, lists = batch.teacher.shape[:2]
        weights = batch.teacher_weights
        if weights is not None and weights.dim() == 2:
            return torch.stack([self(batch.one_list(place)) for place in range(lists)]).mean()
        losses = torch.stack([self.compute(batch.for_teacher(index)) for index in range(teachers)])
        return losses.mean() if weights is None else (losses * weights).sum() / weights.sum()

    def __str__(self) -> str:
        given = []
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value != field.default:
                given.append(f"{field.name}={_written(value)}")
        return f"{self.name}({', '.join(given)})" if given else self.name

    def __add__(self, other: Loss) -> Loss:
        return weighted_sum(self.terms + other.terms)

    def __mul__(self, weight: float) -> Loss:
        return weighted_sum(tuple((float(weight) * inner, loss) for inner, loss in self.terms))

    __rmul__ = __mul__

    def __matmul__(self, depth: int) -> Loss:
        return Cut(self, depth)

    def check_positive(self, *names: str) -> None:
        """Check parameters that must be finite numbers above 0, and make them floats.

        Raises:
            IrdistillError: one is not.
        """
        for name in names:
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not 0 < value < math.inf
            ):
                raise IrdistillError(
                    f"{self.name}({name}={value!r}): {name} must be a finite number above 0."
                )
            object.__setattr__(self, name, float(value))

    def check_whole(self, name: str, least: int, optional: bool = False) -> None:
        """Check a parameter that must be a whole number of at least ``least``, or None where
        ``optional``.

        Raises:
            IrdistillError: it is not.
        """
        value = getattr(self, name)
        if (value is not None or not optional) and (
            isinstance(value, bool) or not isinstance(value, int) or value < least
        ):
            raise IrdistillError(
                f"{self.name}({name}={value!r}): {name} must be a whole number of at least {least}."
            )

    def check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        """Check a parameter that must be one of some words.

        Raises:
            IrdistillError: it is not.
        """
        if getattr(self, name) not in allowed:
            words = ", ".join(f'"{word}"' for word in allowed)
            raise IrdistillError(
                f"{self.name}({name}={getattr(self, name)!r}): {name} must be one of {words}."
            )


def _written(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool) or value is None:
        return str(value)
    return number(value)


@dataclass(frozen=True)
class Sum(Loss):
    """A weighted sum: ``KL + 0.1*InfoNCE``."""

    parts: tuple[tuple[float, Loss], ...]

    def __post_init__(self) -> None:
        for weight, loss in self.parts:
            if not 0 < weight < math.inf:
                raise IrdistillError(
                    f"the weight of {loss} is {weight}; it must be a finite number above 0."
                )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(loss.needs for _, loss in self.parts))

    @property
    def uses_in_batch(self) -> bool:
        return any(loss.uses_in_batch for _, loss in self.parts)

    @property
    def representations(self) -> frozenset[str]:
        return frozenset().union(*(loss.representations for _, loss in self.parts))

    @property
    def basic_losses(self) -> tuple[Loss, ...]:
        return tuple(inner for _, loss in self.parts for inner in loss.basic_losses)

    @property
    def terms(self) -> tuple[tuple[float, Loss], ...]:
        return self.parts

    def compute(self, batch: ScoreBatch) -> Tensor:
        return torch.stack([weight * loss(batch) for weight, loss in self.parts]).sum()

    def __matmul__(self, depth: int) -> Loss:
        return weighted_sum(tuple((weight, loss @ depth) for weight, loss in self.parts))

    def __str__(self) -> str:
        return " + ".join(
            str(loss) if weight == 1 else f"{number(weight)}*{loss}" for weight, loss in self.parts
        )


def weighted_sum(parts: tuple[tuple[float, Loss], ...]) -> Loss:
    """A `Sum`, or the loss itself where there is one of weight 1."""
    return parts[0][1] if len(parts) == 1 and parts[0][0] == 1 else Sum(parts)


@dataclass(frozen=True)
class Cut(Loss):
    """A loss on the top of each list only: ``KL@20`` (see `ScoreBatch.top` for the order)."""

    inner: Loss
    depth: int

    def __post_init__(self) -> None:
        if isinstance(self.depth, bool) or not isinstance(self.depth, int) or self.depth < 1:
            raise IrdistillError(
                f"{self.inner}@{self.depth}: what follows @ must be a whole number of at least 1."
            )

    @property
    def needs(self) -> frozenset[str]:
        return self.inner.needs

    @property
    def uses_in_batch(self) -> bool:
        return self.inner.uses_in_batch

    @property
    def representations(self) -> frozenset[str]:
        return self.inner.representations

    @property
    def basic_losses(self) -> tuple[Loss, ...]:
        return self.inner.basic_losses

    def compute(self, batch: ScoreBatch) -> Tensor:
        return self.inner.compute(batch.top(self.depth))

    def __str__(self) -> str:
        return f"{self.inner}@{self.depth}"


def make_loss_parameters(
    loss: Loss, example: ScoreBatch, sample: FittingSample | None = None, seed: int = 0
) -> dict[str, nn.Module]:
    """New modules of all that an expression learns beside the student, by the loss that learns it,
    as it is written.

    The weights depend on ``seed`` alone. The modules are trained by the optimiser that trains the
    student.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = {str(one): one.make_parameters(example, sample) for one in loss.basic_losses}
    return {
        name: module.to(example.student.device, example.student.dtype)
        for name, module in made.items()
        if module is not None
    }


def needs_of_order(by: str) -> frozenset[str]:
    """What a loss needs that follows the order of the ``"teacher"`` or of the ``"label"``s."""
    return frozenset({"order"} if by == "teacher" else {"label"})
