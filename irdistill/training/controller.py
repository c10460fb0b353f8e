"""Aiming at a number of active dimensions instead of guessing the weight of a penalty."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

#: The running mean keeps this share of what it was, the rest is the step's value.
_KEEP = 0.9
#: The logarithm of the largest factor, and of its inverse.
_BOUND = 14.0
#: Over the ramp the integral moves by at most so much.
_REACH = 10.0


class Controller:
    """The factor of a side's penalties that brings its active dimensions to a target.

    Proportional-integral control of the logarithm: the error is ``log(running mean / target)``, cut to [-1, 1], and the factor
    ``exp(integral + error)``. The integral grows by ``rate * error`` a step, and the running mean is brought up to date, after
    the factor of the step was used. All of it stays on the device of the vectors.

    Args:
        target: active dimensions of a text, on average.
        ramp_steps: in so many steps the integral can move by 10; at least 20.
    """

    def __init__(self, target: float, ramp_steps: int) -> None:
        self.target, self.rate = target, _REACH / max(ramp_steps, 20)
        self.mean: Tensor | None = None
        self.integral: Tensor | None = None

    def factor(self, like: Tensor) -> Tensor:
        """The factor of this step, a scalar; 1 before anything was seen."""
        if self.mean is None or self.integral is None:
            return like.new_ones(())
        return (self.integral + self._error(self.mean)).exp().to(like)

    def _error(self, mean: Tensor) -> Tensor:
        return (mean.clamp_min(1e-3) / self.target).log().clamp(-1, 1)

    def see(self, active: Tensor) -> None:
        """Take in the mean of active dimensions of a step, a scalar."""
        active = active.detach().float()
        self.mean = active if self.mean is None else _KEEP * self.mean.to(active) + (1 - _KEEP) * active
        integral = torch.zeros_like(active) if self.integral is None else self.integral.to(active)
        self.integral = (integral + self.rate * self._error(self.mean)).clamp(-_BOUND, _BOUND)

    def state(self) -> dict[str, float | None]:
        """What a checkpoint holds; float32 numbers survive JSON exactly."""
        return {name: None if value is None else float(value)
                for name, value in (("mean", self.mean), ("integral", self.integral))}

    def restore(self, state: dict[str, Any]) -> None:
        self.mean, self.integral = (
            None if state[name] is None else torch.tensor(state[name], dtype=torch.float32) for name in ("mean", "integral")
        )


def at_its_bound(factor: float) -> bool:
    """Whether a factor is as large or small as it can be: the target is out of reach."""
    return abs(math.log(factor)) >= _BOUND
