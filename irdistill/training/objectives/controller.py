"""Aiming at a number of active dimensions instead of guessing the weight of a penalty."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

#: Running means keep this share of what they were, the rest is the step's value.
_KEEP = 0.85
#: The logarithm of the largest factor, and of its inverse.
_BOUND = 14.0
#: Over the ramp the integral moves by at most so much.
_REACH = 10.0


class Controller:
    """The factor of a side's penalties that brings its active dimensions to a target.

    The error is ``log(mean / target)``, looked ahead a quarter of the ramp by the running slope of
    ``log(mean)`` and cut to [-1, 1]. Looking ahead is needed because dimensions that the pressure
    of too late a moment put out seldom come back. The factor is ``exp(integral + min(error, 0))``:
    it lets go at once and presses slowly. The integral grows by ``rate * error`` a step. A step's
    own dimensions are taken in after its factor was used. All of it stays on the device of the
    vectors.

    Args:
        target: active dimensions of a text, on average.
        ramp_steps: in so many steps the integral can move by 10; at least 20.

    Attributes:
        state: running mean, its slope, and the integral, (3,); None before anything was seen.
    """

    def __init__(self, target: float, ramp_steps: int) -> None:
        self.target, self.rate, self.ahead = (
            target,
            _REACH / max(ramp_steps, 20),
            max(ramp_steps, 20) / 4,
        )
        self.state: Tensor | None = None

    def factor(self, like: Tensor) -> Tensor:
        """The factor of this step, a scalar; 1 before anything was seen."""
        if self.state is None:
            return like.new_ones(())
        mean, slope, integral = self.state.to(like)
        return (integral + self._error(mean, slope).clamp_max(0)).exp()

    def _error(self, mean: Tensor, slope: Tensor) -> Tensor:
        return ((mean / self.target).log() + self.ahead * slope).clamp(-1, 1)

    def see(self, active: Tensor) -> None:
        """Take in the mean of active dimensions of a step, a scalar."""
        active = active.detach().float().clamp_min(1e-3)
        if self.state is None:
            self.state = torch.stack([active, torch.zeros_like(active), torch.zeros_like(active)])
        before, slope, integral = self.state.to(active)
        mean = _KEEP * before + (1 - _KEEP) * active
        slope = _KEEP * slope + (1 - _KEEP) * (mean / before).log()
        integral = (integral + self.rate * self._error(mean, slope)).clamp(-_BOUND, _BOUND)
        self.state = torch.stack([mean, slope, integral])

    def saved(self) -> list[float] | None:
        """What a checkpoint holds; float32 numbers survive JSON exactly."""
        return None if self.state is None else self.state.tolist()

    def restore(self, saved: Any) -> None:
        self.state = None if saved is None else torch.tensor(saved, dtype=torch.float32)


def at_its_bound(factor: float) -> bool:
    """Whether a factor is about as large or small as it can be: the target is out of reach."""
    return abs(math.log(factor)) >= _BOUND - 1e-3
