"""A target number of active dimensions instead of a penalty weight."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_KEEP = 0.85
"""Running means keep this share of their value; the rest is the value of the step."""
_BOUND = 14.0
"""Logarithm of the largest factor, and of its inverse."""
_REACH = 10.0
"""The integral moves by at most this over the ramp."""


class Controller:
    """The factor of a side's penalties that brings its active dimensions to a target.

    The error is ``log(mean / target)``, predicted a quarter of the ramp ahead by the running slope
    of ``log(mean)`` and clipped to [-1, 1]. The prediction is needed because dimensions that were
    switched off by late pressure seldom come back. The factor is ``exp(integral + min(error, 0))``:
    it releases at once and presses slowly. The integral grows by ``rate * error`` per step. The
    dimensions of a step are taken in after its factor was used. The state stays on the device of
    the vectors.

    Args:
        target: active dimensions of a text, on average.
        ramp_steps: steps in which the integral can move by 10; at least 20.

    Attributes:
        state: (3,) running mean, its slope, and the integral; None before the first step.
    """

    def __init__(self, target: float, ramp_steps: int) -> None:
        steps = max(ramp_steps, 20)
        self.target, self.rate, self.ahead = target, _REACH / steps, steps / 4
        self.state: Tensor | None = None

    def factor(self, like: Tensor) -> Tensor:
        """The factor of this step, a scalar; 1 before the first step."""
        if self.state is None:
            return like.new_ones(())
        mean, slope, integral = self.state.to(like)
        return (integral + self._error(mean, slope).clamp_max(0)).exp()

    def _error(self, mean: Tensor, slope: Tensor) -> Tensor:
        return ((mean / self.target).log() + self.ahead * slope).clamp(-1, 1)

    def update(self, active: Tensor) -> None:
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
        """The state for a checkpoint; float32 numbers survive JSON exactly."""
        return None if self.state is None else self.state.tolist()

    def restore(self, saved: list[float] | None) -> None:
        """Continue from the state of a checkpoint."""
        self.state = None if saved is None else torch.tensor(saved, dtype=torch.float32)


def at_its_bound(factor: float) -> bool:
    """Whether a factor is at its bound, so that the target is out of reach."""
    return abs(math.log(factor)) >= _BOUND - 1e-3
