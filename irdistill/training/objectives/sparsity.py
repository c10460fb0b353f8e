"""Penalties that keep a sparse student sparse, and warnings about useless vectors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from irdistill.losses.regularizers import anti_zero, flops, l1, longer_than, ramp
from irdistill.training.objectives.controller import Controller, at_its_bound
from irdistill.training.objectives.token_idf import TokenIdf
from irdistill.training.options import TrainOptions

if TYPE_CHECKING:
    from irdistill.students.tower_model import TextKind

logger = logging.getLogger(__name__)
_ALL_ACTIVE = 0.9
_PENALTIES = {"FLOPS": flops, "L1": l1}
_SIDES: tuple[TextKind, TextKind] = ("query", "document")


class Sparsity:
    """The penalties of sparse vectors, and what the log says about them.

    It is called with the vectors of each side as they are encoded. The ramp is a function of the
    optimizer step; checkpoints have the state of the controllers.

    Attributes:
        idf: of the corpus; ``idf_penalty`` needs it.
    """

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        self.idf: TokenIdf | None = None
        self.controllers: dict[str, Controller] = {
            kind: Controller(target, options.ramp_steps)
            for kind in _SIDES
            if (target := getattr(options, f"{kind}_active"))
        }
        self._vectors: dict[TextKind, Tensor] = {}
        self._counts: dict[TextKind, list[Tensor]] = {}
        self._warned: set[str] = set()

    def __call__(self, kind: TextKind, vectors: Tensor) -> None:
        """Keep the vectors of a side until the end of the batch."""
        self._vectors[kind] = vectors

    def penalties(self, step: int) -> dict[str, Tensor]:
        """The weighted penalties in optimizer step ``step`` (from 0), by name."""
        terms: dict[str, Tensor] = {}
        for name, penalty in _PENALTIES.items():
            for kind in _SIDES:
                weight = self.options.penalty_weights(kind).get(name)
                if weight and kind in self._vectors:
                    vectors = self._penalized(kind)
                    terms[f"{name}({kind})"] = weight * self._share(kind, step) * penalty(vectors)
        if self.options.anti_zero and len(self._vectors) == len(_SIDES):
            terms["AntiZero"] = self.options.anti_zero * anti_zero(
                *(self._vectors[kind] for kind in _SIDES)
            )
        return terms

    def _penalized(self, kind: TextKind) -> Tensor:
        """The vectors of a side (n, V) as penalties see them."""
        vectors = self._vectors[kind]
        if kind == "query":
            return vectors
        if above := self.options.document_above:
            vectors = longer_than(vectors, above)
        if self.options.idf_penalty:
            assert self.idf is not None
            vectors = vectors * torch.from_numpy(self.idf.costs).to(vectors.device)
        return vectors

    def _share(self, kind: TextKind, step: int) -> Tensor | float:
        controller = self.controllers.get(kind)
        if controller is None:
            return ramp(step, self.options.ramp_steps)
        return controller.factor(self._vectors[kind])

    def end_batch(self) -> None:
        """Count the active dimensions of a batch, and release its vectors."""
        for kind, vectors in self._vectors.items():
            active = (vectors.detach() > 0).sum(dim=1).float()
            mean = active.mean()
            row = torch.stack([mean, (active == 0).float().mean(), mean / vectors.shape[1]])
            self._counts.setdefault(kind, []).append(row)
        self._vectors.clear()

    def end_step(self) -> dict[str, Tensor]:
        """Update the controllers with the batches of a step.

        Returns:
            For each side (3,) or (4,): active dimensions on average, the share of texts that are
            all zero, the active share of all dimensions, the controller's factor.
        """
        self.end_batch()
        counts: dict[str, Tensor] = {}
        for kind, rows in self._counts.items():
            row = torch.stack(rows).mean(dim=0)
            if (controller := self.controllers.get(kind)) is not None:
                factor = controller.factor(row[0])
                controller.update(row[0])
                row = torch.cat([row, factor[None]])
            counts[kind] = row
        self._counts.clear()
        return counts

    def state(self) -> dict[str, Any]:
        """The state of the controllers for a checkpoint."""
        return {kind: controller.saved() for kind, controller in self.controllers.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of a checkpoint."""
        for kind, controller in self.controllers.items():
            controller.restore(state[kind])

    def log(self, step: int, counts: Mapping[str, Tensor]) -> dict[str, Any]:
        """What the log says about a step. Each problem that training does not recover from by
        itself is logged once as a warning.
        """
        row = {}
        for kind, values in counts.items():
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
