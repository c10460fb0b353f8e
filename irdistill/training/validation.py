"""Early stopping by the loss on held-out lists."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irdistill.errors import InputError, IrdistillError
from irdistill.storage.files import atomic_path, read_json, write_json
from irdistill.storage.ownership import is_manifest
from irdistill.training.data.collate import Collator, TrainBatch
from irdistill.training.data.query_order import InOrder
from irdistill.training.options import TrainOptions

_PREFIX, _FILES = "best-", "best.json"


def split_queries(query_ids: list[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """The queries to train on and the held-out ones, at least one of each, in the given order.

    Raises:
        InputError: there is only one query.
    """
    if len(query_ids) < 2:
        raise InputError(
            "early_stop needs at least two queries, one of them held out, and there is one; leave"
            " early_stop out."
        )
    count = min(len(query_ids) - 1, max(1, round(share * len(query_ids))))
    places = np.random.default_rng([seed, 3]).permutation(len(query_ids))[:count]
    held_out = {query_ids[place] for place in places.tolist()}
    return (
        [query_id for query_id in query_ids if query_id not in held_out],
        [query_id for query_id in query_ids if query_id in held_out],
    )


class HeldOut:
    """The loss on held-out lists, and the weights of the step where it was lowest.

    The lists are the same each time, and there is no dropout. The best weights are stored next to
    the checkpoints under the number of their step. Those of a step after the last checkpoint are
    not used after a restart.

    Args:
        collator: of the held-out lists.
        folder: of the checkpoints.

    Attributes:
        best, best_step: the lowest loss so far, and its step.
        since: number of evaluations since then.
    """

    def __init__(self, collator: Collator, folder: Path, options: TrainOptions) -> None:
        self.collator, self.folder, self.options = collator, folder, options
        self.order = InOrder(len(collator.sampler.query_ids), options.batch_size)
        collator.sampler.order = self.order
        self.best, self.best_step, self.since = math.inf, 0, 0

    @property
    def stopped(self) -> bool:
        """Whether the loss has not fallen for ``early_stop`` evaluations."""
        return self.since >= self.options.early_stop

    def due(self, step: int) -> bool:
        """Whether the loss is measured after this many steps."""
        return step % self.options.evaluate_every == 0 or step == self.options.steps

    def loss(self, measure: Callable[[TrainBatch], float]) -> float:
        """The mean loss over the held-out lists.

        Args:
            measure: the loss of a batch.
        """
        batches = map(self.collator, range(self.order.steps))
        losses = [(len(batch.mask), measure(batch)) for batch in batches]
        return sum(size * loss for size, loss in losses) / sum(size for size, _ in losses)

    def update(self, step: int, loss: float) -> bool:
        """Take in the loss after a step; returns whether it is the lowest so far."""
        self.since += 1
        if not loss < self.best:
            return False
        self.best, self.best_step, self.since = loss, step, 0
        return True

    def save_best(self, weights: Mapping[str, Tensor]) -> None:
        """Store the weights of the best step."""
        path = self._path(self.best_step)
        names = weight_files(self.folder) - {_FILES} | {path.name}
        write_json(self.folder / _FILES, {"files": sorted(names)})
        with atomic_path(path) as temporary:
            torch.save({name: tensor.clone() for name, tensor in weights.items()}, temporary)

    def load_best(self) -> Mapping[str, Tensor]:
        """The weights of the best step.

        Raises:
            IrdistillError: the loss was never a number.
        """
        if not self.best_step:
            raise IrdistillError("the held-out loss was never a number, so no step is the best.")
        weights: Mapping[str, Tensor] = torch.load(
            self._path(self.best_step), map_location="cpu", weights_only=True
        )
        return weights

    def remove_others(self) -> None:
        """Delete the weights of all steps but the best, once a checkpoint records which that is."""
        for name in weight_files(self.folder) - {_FILES, self._path(self.best_step).name}:
            (self.folder / name).unlink(missing_ok=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"{_PREFIX}{step}.pt"

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {
            "best": None if math.isinf(self.best) else self.best,
            "best_step": self.best_step,
            "since": self.since,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of a checkpoint."""
        self.best = math.inf if state["best"] is None else state["best"]
        self.best_step, self.since = state["best_step"], state["since"]


def weight_files(folder: Path) -> set[str]:
    """The files of best weights that a folder of checkpoints records, and the record itself."""
    if not is_manifest(folder / _FILES, ("files",)):
        return set()
    names = {str(name) for name in read_json(folder / _FILES)["files"]}
    return {_FILES, *(name for name in names if re.fullmatch(rf"{_PREFIX}\d+\.pt", name))}
