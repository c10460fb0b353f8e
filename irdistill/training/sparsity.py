"""Keeping a sparse student sparse while it trains: penalties with a ramp, and alarms for useless vectors."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from irdistill.losses.regularisers import flops, l1, ramp
from irdistill.training.collate import Kind
from irdistill.training.options import TrainOptions

logger = logging.getLogger(__name__)
_ALL_ACTIVE = 0.9


class Sparsity:
    """Sees the vectors of a step as they are encoded; gives what is added to the loss, and what is logged.

    The ramp is a function of the optimiser step, which checkpoints hold, so a training that goes on is where it was.
    """

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        self._seen: dict[Kind, Tensor] = {}
        self._warned: set[str] = set()

    def __call__(self, kind: Kind, vectors: Tensor) -> None:
        self._seen[kind] = vectors

    def penalties(self, step: int) -> dict[str, Tensor]:
        """The terms of optimiser step ``step`` (from 0), by name, lambda and ramp included."""
        options = self.options
        share = ramp(step, options.ramp_steps)
        given = (("query", "FLOPS", options.query_flops, flops), ("document", "FLOPS", options.document_flops, flops),
                 ("query", "L1", options.query_l1, l1), ("document", "L1", options.document_l1, l1))
        return {f"{name}({kind})": weight * share * of(self._seen[kind])
                for kind, name, weight, of in given if weight and kind in self._seen}

    def finish(self) -> dict[str, Tensor]:
        """Active dimensions of the step's vectors, on average, and the share that are all zero; forgets the vectors."""
        found: dict[str, Tensor] = {}
        for kind, vectors in self._seen.items():
            active = (vectors.detach() > 0).sum(dim=1).float()
            found[kind] = torch.stack([active.mean(), (active == 0).float().mean(), active.mean() / vectors.shape[1]])
        self._seen.clear()
        return found

    def log(self, step: int, found: dict[str, Tensor]) -> dict[str, Any]:
        """What the log says of a step; warns, once each, of what training does not recover from by itself."""
        row = {}
        for kind, values in found.items():
            active, zero, share = values.tolist()
            row[kind] = {"active": active, "all_zero": zero}
            if zero > 0:
                self._warn(f"{kind} zero", f"at step {step} {zero:.0%} of the {kind} vectors are all zero: they match nothing and "
                           "have no gradient. Lower the FLOPS or L1 weight, or the learning rate, or lengthen the ramp.")
            if share > _ALL_ACTIVE and step > self.options.ramp_steps:
                self._warn(f"{kind} active", f"at step {step} the {kind} vectors have {share:.0%} of all dimensions active; an "
                           "index of them is slow. Raise the FLOPS or L1 weight.")
        return row

    def _warn(self, name: str, text: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            logger.warning("%s", text)
