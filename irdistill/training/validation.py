"""Stopping early: the loss on lists that the training does not see, and the weights of the step
where it is lowest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback

from irdistill.errors import IrdistillError
from irdistill.storage.files import atomic_path, read_json, write_json
from irdistill.storage.ownership import is_manifest
from irdistill.training.data.collate import Collator, TrainBatch
from irdistill.training.data.query_order import InOrder
from irdistill.training.options import TrainOptions

_PREFIX, _FILES = "best-", "best.json"


def split_queries(query_ids: list[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """The queries to train on and those to hold out, at least one of each, both in the order given.

    Raises:
        IrdistillError: there is only one.
    """
    if len(query_ids) < 2:
        raise IrdistillError(
            "there is one query to train on, so none can be held out to stop early; leave"
            " early_stop out."
        )
    count = min(len(query_ids) - 1, max(1, round(share * len(query_ids))))
    held = set(np.random.default_rng([seed, 3]).permutation(len(query_ids))[:count].tolist())
    return (
        [query for place, query in enumerate(query_ids) if place not in held],
        [query for place, query in enumerate(query_ids) if place in held],
    )


class HeldOut(TrainerCallback):
    """Measures the loss every ``evaluate_every`` steps and after the last, and ends the training
    when it no longer falls.

    The lists are the same each time, and there is no dropout. The best weights stand beside the
    checkpoints under the number of their step; those of steps that no checkpoint knows are never
    used.

    Args:
        collator: of the held-out lists; their sampler's order is set here.
        folder: of the checkpoints.

    Attributes:
        measure: the loss of a batch.
        weights: what learns, to be kept; and ``log`` writes a line. The loop sets all three.
    """

    def __init__(self, collator: Collator, folder: Path, options: TrainOptions) -> None:
        self.collator, self.folder, self.options = collator, folder, options
        self.order = InOrder(len(collator.sampler.query_ids), options.batch_size)
        collator.sampler.order = self.order
        self.best, self.best_step, self.since = math.inf, 0, 0
        self.measure: Callable[[TrainBatch], float] = lambda batch: math.nan
        self.weights: Callable[[], Mapping[str, Tensor]] = dict
        self.log: Callable[[dict[str, Any]], None] = lambda row: None

    @property
    def stopped(self) -> bool:
        """Whether the loss has not fallen for long enough."""
        return self.since >= self.options.early_stop

    def loss(self) -> float:
        """The mean over the held-out lists."""
        found = [
            (len(batch.mask), self.measure(batch))
            for batch in map(self.collator, range(self.order.steps))
        ]
        return sum(size * value for size, value in found) / sum(size for size, _ in found)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        if step % self.options.evaluate_every and step != state.max_steps:
            return
        value = self.loss()
        self.since += 1
        if value < self.best:
            self.best, self.best_step, self.since = value, step, 0
            if state.is_world_process_zero:
                write_json(
                    self.folder / _FILES,
                    {
                        "files": sorted(
                            {*weight_files(self.folder), self._path(step).name} - {_FILES}
                        )
                    },
                )
                with atomic_path(self._path(step)) as temporary:
                    torch.save(
                        {name: tensor.clone() for name, tensor in self.weights().items()}, temporary
                    )
        self.log({"step": step, "held_out": value, "best_step": self.best_step})
        control.should_training_stop = control.should_training_stop or self.stopped

    def _path(self, step: int) -> Path:
        return self.folder / f"{_PREFIX}{step}.pt"

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "best": None if math.isinf(self.best) else self.best,
            "best_step": self.best_step,
            "since": self.since,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.best = math.inf if state["best"] is None else state["best"]
        self.best_step, self.since = state["best_step"], state["since"]

    def forget_others(self) -> None:
        """Remove the weights of all steps but the best; only after a checkpoint knows which that
        is.
        """
        for name in weight_files(self.folder) - {_FILES, self._path(self.best_step).name}:
            (self.folder / name).unlink(missing_ok=True)

    def best_weights(self) -> Mapping[str, Tensor]:
        """Those of the best step.

        Raises:
            IrdistillError: the loss was never a number.
        """
        if not self.best_step:
            raise IrdistillError("the held-out loss was never a number, so no step is the best.")
        found: Mapping[str, Tensor] = torch.load(
            self._path(self.best_step), map_location="cpu", weights_only=True
        )
        return found


def weight_files(folder: Path) -> set[str]:
    """The files with the best weights that a folder of checkpoints says it has, and the list of
    them.
    """
    if not is_manifest(folder / _FILES, ("files",)):
        return set()
    names = {str(name) for name in read_json(folder / _FILES)["files"]}
    return {_FILES, *(name for name in names if re.fullmatch(rf"{_PREFIX}\d+\.pt", name))}
