"""Keeping a sparse student sparse while it trains: penalties with a ramp, and alarms for useless
vectors.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from irdistill.losses.regularizers import anti_zero, flops, l1, ramp
from irdistill.training.data.collate import Kind
from irdistill.training.objectives.controller import Controller, at_its_bound
from irdistill.training.options import TrainOptions

logger = logging.getLogger(__name__)
_ALL_ACTIVE = 0.9
_PENALTIES = {"FLOPS": flops, "L1": l1}
_SIDES: tuple[Kind, Kind] = ("query", "document")


class Sparsity:
    """Sees the vectors of a step as they are encoded; gives what is added to the loss, and what is
    logged.

    The ramp is a function of the optimiser step, which checkpoints hold, so a training that goes on
    is where it was; of the controllers they hold ``state``.
    """

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        self.controllers: dict[str, Controller] = {
            kind: Controller(target, options.ramp_steps)
            for kind in _SIDES
            if (target := getattr(options, f"{kind}_active"))
        }
        self._seen: dict[Kind, Tensor] = {}
        self._warned: set[str] = set()

    def __call__(self, kind: Kind, vectors: Tensor) -> None:
        self._seen[kind] = vectors

    def penalties(self, step: int) -> dict[str, Tensor]:
        """The terms of optimiser step ``step`` (from 0), by name, with their weights, times the
        ramp or the controller's factor.
        """
        found: dict[str, Tensor] = {}
        for name, penalty in _PENALTIES.items():
            for kind in _SIDES:
                weight = self.options.penalty_weights(kind).get(name)
                if weight and kind in self._seen:
                    found[f"{name}({kind})"] = (
                        weight * self._share(kind, step) * penalty(self._seen[kind])
                    )
        if self.options.anti_zero and len(self._seen) == len(_SIDES):
            found["AntiZero"] = self.options.anti_zero * anti_zero(
                *(self._seen[kind] for kind in _SIDES)
            )
        return found

    def _share(self, kind: Kind, step: int) -> Tensor | float:
        controller = self.controllers.get(kind)
        return (
            ramp(step, self.options.ramp_steps)
            if controller is None
            else controller.factor(self._seen[kind])
        )

    def finish(self) -> dict[str, Tensor]:
        """(3,) or (4,) of each side: active dimensions on average, the share of texts that are all
        zero, the active share of all dimensions, the controller's factor. The controllers go on,
        and the vectors are forgotten.
        """
        found: dict[str, Tensor] = {}
        for kind, vectors in self._seen.items():
            active = (vectors.detach() > 0).sum(dim=1).float()
            mean = active.mean()
            row = [mean, (active == 0).float().mean(), mean / vectors.shape[1]]
            if (controller := self.controllers.get(kind)) is not None:
                row.append(controller.factor(mean))
                controller.see(mean)
            found[kind] = torch.stack(row)
        self._seen.clear()
        return found

    def state(self) -> dict[str, Any]:
        """Of the controllers, for a checkpoint."""
        return {kind: controller.saved() for kind, controller in self.controllers.items()}

    def restore(self, state: dict[str, Any]) -> None:
        for kind, controller in self.controllers.items():
            controller.restore(state[kind])

    def log(self, step: int, found: dict[str, Tensor]) -> dict[str, Any]:
        """What the log says of a step; warns, once each, of what training does not recover from by
        itself.
        """
        row = {}
        for kind, values in found.items():
            active, zero, share, *factor = values.tolist()
            row[kind] = {
                "active": active,
                "all_zero": zero,
                **({"factor": factor[0]} if factor else {}),
            }
            if factor and at_its_bound(factor[0]):
                self._warn(
                    f"{kind} bound",
                    f"at step {step} the {kind} vectors have {active:.0f} active dimensions, and"
                    f" their penalties are at the bound, {factor[0]:.3g} times:"
                    f" {self.controllers[kind].target} are out of reach.",
                )
            if zero > 0:
                self._warn(
                    f"{kind} zero",
                    f"at step {step} {zero:.0%} of the {kind} vectors are all zero: they match"
                    " nothing and have no gradient. Lower the FLOPS or L1 weight, or the learning"
                    " rate, or lengthen the ramp.",
                )
            if share > _ALL_ACTIVE and step > self.options.ramp_steps:
                self._warn(
                    f"{kind} active",
                    f"at step {step} the {kind} vectors have {share:.0%} of all dimensions active;"
                    " an index of them is slow. Raise the FLOPS or L1 weight.",
                )
        return row

    def _warn(self, name: str, text: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            logger.warning("%s", text)
