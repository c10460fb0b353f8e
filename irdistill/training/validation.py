"""Measuring a student during training, and the weights of the step where it was best."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irdistill.errors import IrdistillError
from irdistill.losses import ScoreBatch
from irdistill.storage.files import atomic_path, read_json, write_json
from irdistill.storage.ownership import is_manifest
from irdistill.training.data.collate import TrainBatch
from irdistill.training.options import TrainOptions
from irdistill.training.processes import Processes
from irdistill.training.validation_options import LOSS
from irdistill.training.validation_sets import HeldOutLists, ValidationSet

logger = logging.getLogger(__name__)
_PREFIX, _FILES = "best-", "best.json"
_SHARE, _PASSES = 0.05, 3
"""A validation may take this share of the training; a step with gradients takes as long as this
many passes over its texts without."""


class Validation:
    """Measures a student before the first step, every some steps and after the last.

    The first measure decides which step is the best. The weights of that step are stored next to
    the checkpoints under its number. Those of a step after the last checkpoint are not used after a
    restart.

    Args:
        sets: what is searched or reranked; the first process does it.
        lists: held-out lists for the loss, if it is measured; all processes compute it.
        measures: names; the figure of several sets is the mean.
        folder: of the checkpoints.
        step_texts: number of texts that a step encodes, per process.

    Attributes:
        every: steps between validations.
        first, best, best_step: the deciding figure before training, its best value, and its step.
        since: number of validations since then.
    """

    def __init__(
        self,
        sets: Sequence[ValidationSet],
        lists: HeldOutLists | None,
        measures: Sequence[str],
        folder: Path,
        options: TrainOptions,
        step_texts: int,
    ) -> None:
        self.sets, self.lists, self.measures = sets, lists, tuple(measures)
        self.folder, self.options = folder, options
        self.first, self.best, self.best_step, self.since = math.nan, math.nan, -1, 0
        self.texts = sum(entry.texts for entry in sets) + (lists.texts if lists else 0)
        self.every = steps_between(options, self.texts, step_texts)

    @property
    def stopped(self) -> bool:
        """Whether the deciding figure has not improved for ``early_stop`` validations."""
        return 0 < self.options.early_stop <= self.since

    def due(self, step: int) -> bool:
        """Whether the student is measured after this many steps."""
        return step % self.every == 0 or step == self.options.steps

    def measure(
        self, score: Callable[[TrainBatch], ScoreBatch], processes: Processes
    ) -> dict[str, Any]:
        """The figures by measure; of several sets the means, and the figures of each by its name.

        Args:
            score: the scores of a batch without dropout.
        """
        figures = processes.agree(lambda: [entry.measure() for entry in self.sets])
        values: dict[str, Any] = {}
        for name in self.measures:
            if name == LOSS:
                assert self.lists is not None
                values[name] = self.lists.loss(score)
            else:
                values[name] = float(np.mean([row[name] for row in figures]))
        if len(self.sets) > 1:
            values |= {entry.name: row for entry, row in zip(self.sets, figures, strict=True)}
        return values

    def update(self, step: int, figures: Mapping[str, Any]) -> bool:
        """Take in the figures after a step; returns whether the first is the best so far."""
        value = figures[self.measures[0]]
        if step == 0:
            self.first = value
        self.since += 1
        sign = -1 if self.measures[0] == LOSS else 1
        if not (sign * value > sign * self.best or (self.best_step < 0 and value == value)):
            return False
        self.best, self.best_step, self.since = value, step, 0
        return True

    def describe(self, figures: Mapping[str, Any]) -> str:
        """The figures as a text, and the best one.

        Examples: ``nDCG@10 0.5412, R@100 0.8130 (best 0.5447 at step 150)``.
        """
        shown = ", ".join(f"{name} {figures[name]:.4f}" for name in self.measures)
        return f"{shown} (best {self.best:.4f} at step {self.best_step})"

    def summary(self) -> dict[str, Any]:
        """The deciding measure before training and at the best step, for ``training.json``."""
        return {
            "measure": self.measures[0],
            "before": None if math.isnan(self.first) else self.first,
            "best": self.best,
            "best_step": self.best_step,
            "every": self.every,
        }

    def report(self, steps: int) -> None:
        """Log which weights are kept."""
        measure = self.measures[0]
        if self.best_step == 0:
            logger.warning(
                "no step was better than the student before training (%s %.4f), so its weights are"
                " unchanged; lower the learning rate, or train on other scores",
                measure,
                self.best,
            )
            return
        logger.info(
            "the weights of step %d of %d are kept: %s %.4f on the validation queries, %.4f before"
            " training",
            self.best_step,
            steps,
            measure,
            self.best,
            self.first,
        )

    def save_best(self, weights: Mapping[str, Tensor]) -> None:
        """Store the weights of the best step."""
        path = self._path(self.best_step)
        names = weight_files(self.folder) - {_FILES} | {path.name}
        write_json(self.folder / _FILES, {"files": sorted(names)})
        with atomic_path(path) as temporary:
            torch.save({name: tensor.clone() for name, tensor in weights.items()}, temporary)
        if not self.options.checkpoint_every:
            self.remove_others()

    def load_best(self) -> Mapping[str, Tensor]:
        """The weights of the best step.

        Raises:
            IrdistillError: the first measure was never a number.
        """
        if self.best_step < 0:
            raise IrdistillError(f"{self.measures[0]} was never a number, so no step is the best.")
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
            "first": None if math.isnan(self.first) else self.first,
            "best": None if math.isnan(self.best) else self.best,
            "best_step": self.best_step,
            "since": self.since,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of a checkpoint."""
        self.first, self.best = (
            math.nan if state[name] is None else state[name] for name in ("first", "best")
        )
        self.best_step, self.since = state["best_step"], state["since"]


def steps_between(options: TrainOptions, texts: int, step_texts: int) -> int:
    """Steps between validations: ``validate_every``, or as few as take a twentieth of the training.

    The first and the last validation count, and there are at least these two.

    Args:
        texts: number of texts that a validation encodes.
        step_texts: number of texts that a step encodes.

    Examples:
        >>> steps_between(TrainOptions(steps=300), texts=300, step_texts=32)  # 4 validations
        100
    """
    if options.validate_every:
        return options.validate_every
    count = int(_SHARE * _PASSES * step_texts * options.steps / max(1, texts))
    if count < 3:
        logger.info(
            "a validation encodes %d texts and a step %d, so the student is measured only before"
            " and after training; lower validate_queries or validate_documents, or set"
            " validate_every",
            texts,
            step_texts,
        )
    return math.ceil(options.steps / max(1, count - 1))


def weight_files(folder: Path) -> set[str]:
    """The files of best weights that a folder of checkpoints records, and the record itself."""
    if not is_manifest(folder / _FILES, ("files",)):
        return set()
    names = {str(name) for name in read_json(folder / _FILES)["files"]}
    return {_FILES, *(name for name in names if re.fullmatch(rf"{_PREFIX}\d+\.pt", name))}
