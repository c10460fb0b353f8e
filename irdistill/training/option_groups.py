"""Groups of training options: the rate, sparsity, the order of queries, the choice of documents,
mining, stopping early.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from irdistill.errors import IrdistillError

_PENALTIES = ("query_flops", "document_flops", "query_l1", "document_l1")
_TARGETS = ("query_active", "document_active")


def at_least(options: Any, **least: float) -> None:
    """Refuse settings that are below these values, or not finite.

    Raises:
        IrdistillError: one is.
    """
    for name, value in least.items():
        if not value <= getattr(options, name) < math.inf:
            raise IrdistillError(
                f"{name} is {getattr(options, name)}; it must be a finite number not below"
                f" {value:g}."
            )


def one_of(options: Any, name: str, *allowed: str) -> None:
    """Refuse a setting that is none of some words.

    Raises:
        IrdistillError: it is not.
    """
    if getattr(options, name) not in allowed:
        raise IrdistillError(
            f"{name} is {getattr(options, name)!r}; {', '.join(allowed[:-1])} or {allowed[-1]} was"
            " expected."
        )


def _names(group: type) -> set[str]:
    return {field.name for field in fields(group)}


@dataclass(frozen=True)
class Schedule:
    """How long is trained, and at what learning rate.

    Attributes:
        steps: optimiser steps.
        epochs: in place of ``steps``, how often each query is seen; may be a fraction.
        learning_rate: its peak.
        head_learning_rate: the peak for the layers of a split-cross-encoder or kernel student that
            no backbone brings (its ``head``); None is ``learning_rate``.
        loss_learning_rate: the peak for what the loss itself learns (the projection of
            `EmbeddingMSE`, the mask of `DACKL` …), which begins from random weights.
        schedule: how the rate falls after the warm-up: ``linear``, as half a ``cosine``, or
            ``constant``.
        floor: the share of the peak at which it ends.
        warmup: share of the steps (below 1) or number of steps over which the rate rises.
    """

    steps: int = 1000
    epochs: float = 0.0
    learning_rate: float = 2e-5
    head_learning_rate: float | None = None
    loss_learning_rate: float = 1e-3
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    floor: float = 0.0
    warmup: float = 0.1

    def check(self) -> None:
        at_least(self, steps=1, epochs=0, floor=0)
        one_of(self, "schedule", "linear", "cosine", "constant")
        if not self.learning_rate > 0 or self.warmup < 0:
            raise IrdistillError(
                f"learning_rate is {self.learning_rate} and warmup {self.warmup}; "
                "the rate must be above 0 and the warm-up not below."
            )
        if not 0 < self.loss_learning_rate < math.inf:
            raise IrdistillError(
                f"loss_learning_rate is {self.loss_learning_rate}; it must be a finite number"
                " above 0."
            )
        if self.head_learning_rate is not None and not self.head_learning_rate > 0:
            raise IrdistillError(
                f"head_learning_rate is {self.head_learning_rate}; it must be above 0."
            )
        if self.floor > 1:
            raise IrdistillError(
                f"floor is {self.floor}; it is a share of the learning rate, from 0 to 1."
            )

    def idle(self) -> set[str]:
        """Names of what changes nothing as it is set."""
        usual = {
            "schedule": "linear",
            "floor": 0,
            "epochs": 0,
            "loss_learning_rate": Schedule.loss_learning_rate,
        }
        names = {name for name, value in usual.items() if getattr(self, name) == value}
        return names | ({"steps"} if self.epochs else set())

    def in_steps(self, share: float) -> int:
        """A share of the steps (below 1), or a number of steps, in steps."""
        return int(share * self.steps) if share < 1 else int(share)

    @property
    def warmup_steps(self) -> int:
        """The warm-up in steps."""
        return self.in_steps(self.warmup)

    def rate(self, step: int) -> float:
        """The share of ``learning_rate`` in optimiser step ``step`` (from 0)."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        left = max(0.0, (self.steps - step) / max(1, self.steps - self.warmup_steps))
        shape = left if self.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)
        return self.floor + (1 - self.floor) * shape


@dataclass(frozen=True)
class EarlyStop:
    """When training ends before its last step, for lists that it does not see.

    Attributes:
        early_stop: stop after so many evaluations in a row without a lower loss on held-out lists,
            and keep the weights of the lowest; 0 trains to the last step.
        held_out: the share of the queries that are held out for this.
        evaluate_every: steps between evaluations.
    """

    early_stop: int = 0
    held_out: float = 0.1
    evaluate_every: int = 100

    def check(self) -> None:
        at_least(self, early_stop=0, evaluate_every=1)
        if not 0 < self.held_out < 1:
            raise IrdistillError(
                f"held_out is {self.held_out}; it is a share of the queries, above 0 and below 1."
            )

    def idle(self) -> set[str]:
        return set() if self.early_stop else _names(EarlyStop)


@dataclass(frozen=True)
class Penalties:
    """Of a sparse student: what keeps its vectors sparse (see `irdistill.losses.regularizers`).

    Attributes:
        query_flops, document_flops, query_l1, document_l1: weights of the penalties; 0 leaves one
            out.
        ramp: share of the steps (below 1) or number of steps over which those weights rise,
            quadratically.
        query_active, document_active: the number of active dimensions to aim at; then a controller
            multiplies that side's weights as needed, in place of the ramp, from the given ones on
            (of a side with none: L1 at 0.001).
        anti_zero: weight of the term that grows without bound as all weights of a side go to zero.
    """

    query_flops: float = 0.0
    document_flops: float = 0.0
    query_l1: float = 0.0
    document_l1: float = 0.0
    ramp: float = 0.33
    query_active: int = 0
    document_active: int = 0
    anti_zero: float = 0.0

    def check(self) -> None:
        at_least(self, **dict.fromkeys((*_PENALTIES, *_TARGETS, "ramp", "anti_zero"), 0))

    def idle(self) -> set[str]:
        newer = {name for name in (*_TARGETS, "anti_zero") if not getattr(self, name)}
        return newer if self.regularised else _names(Penalties)

    @property
    def regularised(self) -> bool:
        """Whether a penalty has a weight."""
        return any(getattr(self, name) for name in (*_PENALTIES, *_TARGETS, "anti_zero"))

    def penalties(self, side: str) -> dict[str, float]:
        """The weights of the penalties of a side, ``query`` or ``document``, before ramp or
        controller.
        """
        given = {"FLOPS": getattr(self, f"{side}_flops"), "L1": getattr(self, f"{side}_l1")}
        found = {name: weight for name, weight in given.items() if weight}
        return found or ({"L1": 1e-3} if getattr(self, f"{side}_active") else {})


@dataclass(frozen=True)
class SamplingOptions:
    """Which queries make a step, and which documents make a list.

    Attributes:
        curriculum: begin with the queries whose lists are easy by the teacher: those of the largest
            ``gap`` between its first and its second document, or of the lowest ``entropy``;
            ``none`` takes all from the start.
        pacing: how the share of the queries that are drawn from grows, by the step: ``linear``, or
            as a ``root``, so that the hard ones come earlier.
        pacing_start: that share in the first step.
        pacing_end: share of the steps (below 1) or number of steps after which all queries are
            drawn from.
        clusters: make each step of queries of one of so many clusters; 0 mixes all.
        cluster_model: the dense model whose vectors of the queries are clustered; the student
            itself where empty.
        margin_bins: draw the documents of a list evenly from so many ranges of the teacher's
            margin; 0 draws from ranks alone.
    """

    curriculum: Literal["none", "gap", "entropy"] = "none"
    pacing: Literal["linear", "root"] = "linear"
    pacing_start: float = 0.2
    pacing_end: float = 0.5
    clusters: int = 0
    cluster_model: str = ""
    margin_bins: int = 0

    def check(self) -> None:
        one_of(self, "curriculum", "none", "gap", "entropy")
        one_of(self, "pacing", "linear", "root")
        at_least(self, pacing_end=0, clusters=0, margin_bins=0)
        if not 0 < self.pacing_start <= 1:
            raise IrdistillError(
                f"pacing_start is {self.pacing_start}; it is a share of the queries, above 0 and at"
                " most 1."
            )
        if self.curriculum != "none" and self.clusters:
            raise IrdistillError(
                "a curriculum and clusters were both given; each says which queries make a step."
                " Give one."
            )
        if self.cluster_model and not self.clusters:
            raise IrdistillError(
                "cluster_model was given without clusters; say how many, as clusters=200."
            )

    def idle(self) -> set[str]:
        idle = set() if self.margin_bins else {"margin_bins"}
        if self.curriculum == "none":
            idle |= {"curriculum", "pacing", "pacing_start", "pacing_end"}
        return idle if self.clusters else idle | {"clusters", "cluster_model"}


@dataclass(frozen=True)
class Mining:
    """Negatives that the student itself ranks high, mined anew as it learns.

    Attributes:
        mine_every: steps between searches of the corpus with the student as it is then; 0 mines
            nothing.
        mine_depth: documents kept a query.
        mine_take: documents of each list that are drawn from these, from the first search on; half
            a list where 0.
        mine_teacher: scores those that the run does not hold; without one they have no teacher
            score, and only losses that need none, such as InfoNCE, see them.
    """

    mine_every: int = 0
    mine_depth: int = 100
    mine_take: int = 0
    mine_teacher: str = ""

    def check(self) -> None:
        at_least(self, mine_every=0, mine_depth=1, mine_take=0)
        if (self.mine_teacher or self.mine_take) and not self.mine_every:
            raise IrdistillError(
                "mine_teacher or mine_take was given without mine_every; say how often, as"
                " mine_every=500."
            )

    def idle(self) -> set[str]:
        return set() if self.mine_every else _names(Mining)


#: `TrainOptions` holds them all; ``check`` refuses what cannot be, ``idle`` names what changes
#: nothing as things are set.
GROUPS = (Schedule, EarlyStop, Penalties, SamplingOptions, Mining)
