"""The training loop: draw, encode, loss, backward, average, clip, step, log, validate, checkpoint.

All randomness is a function of (seed, step). A checkpoint therefore has the weights, the state of
the optimizer, and the state of controllers and of the validation, but no state of a generator.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from irdistill.console.progress_bars import progress
from irdistill.losses import Loss, ScoreBatch
from irdistill.modeling.hardware import choose_dtype
from irdistill.storage.files import read_json, write_json
from irdistill.students.student_base import Student
from irdistill.training import checkpoints
from irdistill.training.data.collate import TrainBatch
from irdistill.training.data.mining import Miner
from irdistill.training.log_rows import LOG
from irdistill.training.objectives.batch_scores import (
    bank_divergence,
    encode_batch,
    score_batch,
)
from irdistill.training.objectives.encode import Encoder
from irdistill.training.objectives.sparsity import Sparsity
from irdistill.training.optimizer import make_optimizer, set_learning_rate, step_seed
from irdistill.training.options import TrainOptions
from irdistill.training.processes import Processes
from irdistill.training.tracking import finish_trackers, start_accelerator
from irdistill.training.training_log import StepRecord, TrainingLog
from irdistill.training.validation import Validation

logger = logging.getLogger(__name__)
Batch = TypeVar("Batch")
_WEIGHTS, _OPTIMIZER, _STATE = "weights.pt", "optimizer.pt", "state.json"


class BatchMaker(Protocol):
    """Makes the batches of a step."""

    def micro_batches(self, step: int, count: int) -> list[TrainBatch]:
        """The texts of a step in ``count`` batches; a pure function of the step."""
        ...


class TrainingLoop:
    """Trains a student in place.

    Every process computes the loss of the whole batch and encodes a share of its texts, see
    `Processes`.

    Args:
        loss: the loss expression.
        collator: makes the batches of a step, such as a `Collator`.
        folder: of the training; checkpoints go to ``checkpoints`` in it.
        loss_parameters: the modules that the loss learns, by its expression.
        miner: searches for hard negatives, if there are any.
        validation: measures the student during training, if anything does.
    """

    def __init__(
        self,
        student: Student,
        loss: Loss,
        collator: BatchMaker,
        options: TrainOptions,
        folder: Path,
        *,
        loss_parameters: Mapping[str, nn.Module] | None = None,
        miner: Miner | None = None,
        validation: Validation | None = None,
    ) -> None:
        self.student, self.loss, self.collator, self.options = student, loss, collator, options
        self.folder, self.miner, self.validation = folder / "checkpoints", miner, validation
        self.loss_parameters = dict(loss_parameters or {})
        self.processes = Processes.join()
        # Parameters of the loss are trained, clipped and saved with the student, and are no part of
        # the saved model.
        self.model: nn.Module = student.model
        if self.loss_parameters:
            self.model = nn.ModuleList([student.model, *self.loss_parameters.values()])
        dtype = choose_dtype(options.precision, student.device)
        self.encoder = Encoder(
            student, dtype, options.token_budget, options.grad_cache, self.processes
        )
        self.encoder.codes = options.codes
        self.sparsity = Sparsity(options) if student.kind == "sparse" else None
        self.encoder.watch = self.sparsity
        loss_modules = nn.ModuleList(self.loss_parameters.values())
        self.optimizer = make_optimizer(
            self.model,
            options.learning_rate,
            options.weight_decay,
            [
                (student.head, options.head_learning_rate, True),
                (loss_modules.parameters(), options.loss_learning_rate, False),
            ],
        )
        self.accelerator = start_accelerator(options.track, folder, asdict(options))
        self.log = TrainingLog(folder / LOG, self.processes.first, self.accelerator.log)
        self.timer = checkpoints.CheckpointTimer(options.checkpoint_seconds)

    def run(self, checkpoint: Path | None = None) -> int:
        """Train from a checkpoint or from the start, to the last step or an early stop.

        With a validation, the student of the first process ends with the best weights.

        Returns:
            The number of steps done.
        """
        done, validation = self.load(checkpoint) if checkpoint else 0, self.validation
        with progress(self.options.steps, "steps", "train", initial=done) as bar:
            bar.disable = bar.disable or not self.processes.first
            if validation is not None and checkpoint is None:
                bar.set_postfix_str(self.validate(0, validation))
            for step, batches in self.batches(done):  # draw
                self.train_step(step, batches)
                done = step + 1
                bar.update(1)
                if done % self.options.log_every == 0 or self.log.due():
                    self.log.write()
                if validation is not None and validation.due(done):
                    bar.set_postfix_str(self.validate(done, validation))
                if self.checkpoint_is_due(done):
                    self.save(done)
                if validation is not None and validation.stopped:
                    break
        self.log.write()
        finish_trackers(self.accelerator)
        if validation is not None and self.processes.first:  # which saves the model
            self.set_weights(validation.load_best())
        return done

    def batches(self, start: int) -> Iterator[tuple[int, list[TrainBatch]]]:
        """The micro-batches of each step from ``start`` on; none if training stopped early."""
        options, miner, validation = self.options, self.miner, self.validation
        if validation is not None and validation.stopped:
            return iter(())

        def waits(step: int) -> bool:  # a validation uses the tokenizers, too
            return (miner is not None and miner.due(step)) or (
                validation is not None and validation.due(step)
            )

        return prefetch(
            lambda step: self.collator.micro_batches(step, options.gradient_accumulation),
            start,
            options.steps,
            waits,
            miner.prepare if miner is not None else lambda step: None,
        )

    def train_step(self, step: int, batches: list[TrainBatch]) -> None:
        """One step of the optimizer (from 0)."""
        options, processes = self.options, self.processes
        torch.manual_seed(step_seed(options.seed, step * processes.world + processes.rank))
        self.set_train_mode()
        rate = set_learning_rate(self.optimizer, options.rate(step))
        lists = sum(len(batch.mask) for batch in batches)
        total: Tensor | None = None
        for batch in batches:
            names, terms = self.loss_terms(step, batch)  # encode, loss
            terms = terms * (len(batch.mask) / lists)
            self.accelerator.backward(terms.sum())
            total = terms.detach() if total is None else total + terms.detach()
        processes.average(self.model.parameters())
        if options.max_grad_norm > 0:
            self.accelerator.clip_grad_norm_(self.model.parameters(), options.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        assert total is not None
        self.log.add(StepRecord(step + 1, rate, names, total, self.sparsity_row(step + 1)))

    def loss_terms(self, step: int, batch: TrainBatch) -> tuple[list[str], Tensor]:
        """The names (n,) and weighted values (n,) of the terms of the loss and of the penalties."""
        names: list[str] = []
        terms: list[Tensor] = []
        encoded = encode_batch(self.encoder, batch)
        for dimension, share in self.options.matryoshka:
            scores = score_batch(
                self.encoder,
                batch,
                self.loss.uses_in_batch,
                self.loss_parameters,
                encoded,
                dimension,
            )
            for weight, term in self.loss.terms:
                names.append(str(term) if dimension is None else f"{term} [:{dimension}]")
                terms.append(share * weight * term(scores))
        if batch.bank is not None:
            names.append("bank")
            divergence = bank_divergence(
                self.encoder, encoded[0], batch.bank, self.options.bank_tau
            )
            terms.append(self.options.bank_weight * divergence)
        if self.sparsity is not None:
            penalties = self.sparsity.penalties(step)
            names += penalties
            terms += penalties.values()
            self.sparsity.end_batch()
        return names, torch.stack(terms)

    def sparsity_row(self, step: int) -> Callable[[], dict[str, Any]]:
        """What the log says of the sparsity of a step; the controllers of penalties are updated."""
        sparsity = self.sparsity
        if sparsity is None:
            return dict
        counts = sparsity.end_step()
        return lambda: {"sparsity": sparsity.log(step, counts)}

    def set_train_mode(self) -> None:
        """Dropout as the options say, and none in a frozen tower."""
        self.model.train()
        if not self.options.dropout:
            self.student.model.eval()
        for module in self.student.tower(self.student.sides[-1]):
            if not any(parameter.requires_grad for parameter in module.parameters()):
                module.eval()

    # -- validation

    def validate(self, step: int, validation: Validation) -> str:
        """Measure the student, and store its weights if it is the best; returns the figures."""
        figures = validation.measure(self.score_without_dropout, self.processes)
        if validation.update(step, figures) and self.processes.first:
            validation.save_best(self.weights())
        row = {"step": step, "validation": figures, "best_step": validation.best_step}
        self.log.write_row(row)
        shown = validation.describe(figures)
        if self.processes.first:
            logger.info("step %d: %s", step, shown)
        return shown

    @torch.no_grad()
    def score_without_dropout(self, batch: TrainBatch) -> ScoreBatch:
        """The input of the loss for a batch, without dropout and penalties."""
        training, watch = self.student.model.training, self.encoder.watch
        self.student.model.eval()
        self.encoder.watch = None
        try:
            return score_batch(self.encoder, batch, self.loss.uses_in_batch, self.loss_parameters)
        finally:
            self.student.model.train(training)
            self.encoder.watch = watch

    # -- checkpoints

    def checkpoint_is_due(self, step: int) -> bool:
        """Whether a checkpoint is written after this many steps; the same in all processes.

        One before each search for hard negatives saves the steps before it if the search is killed.
        """
        options = self.options
        if not options.checkpoint_every:
            return False
        return (
            step % options.checkpoint_every == 0
            or step == options.steps
            or (options.mine_every > 0 and step % options.mine_every == 0)
            or self.processes.agree(self.timer.due)
        )

    def save(self, step: int) -> None:
        """Write the checkpoint of a step."""
        start = time.monotonic()
        self.log.write()
        if not self.processes.first:
            return
        checkpoints.write_checkpoint(
            self.folder, step, self._write_files, self.options.keep_checkpoints
        )
        if self.validation is not None:
            self.validation.remove_others()
        self.timer.record(time.monotonic() - start)

    def _write_files(self, folder: Path) -> None:
        torch.save(self.weights(), folder / _WEIGHTS)
        torch.save(self.optimizer.state_dict(), folder / _OPTIMIZER)
        if state := {name: part.state() for name, part in self._stateful().items()}:
            write_json(folder / _STATE, state)

    def load(self, checkpoint: Path) -> int:
        """Continue from a checkpoint; returns the number of steps done."""
        device = self.student.device
        self.set_weights(torch.load(checkpoint / _WEIGHTS, map_location="cpu", weights_only=True))
        self.optimizer.load_state_dict(
            torch.load(checkpoint / _OPTIMIZER, map_location=device, weights_only=True)
        )
        for name, part in self._stateful().items():
            part.restore(read_json(checkpoint / _STATE)[name])
        return checkpoints.step_of(checkpoint)

    def _stateful(self) -> dict[str, Sparsity | Validation]:
        """What a checkpoint records besides weights, optimizer and step."""
        parts: dict[str, Sparsity | Validation] = {}
        if self.sparsity is not None and self.sparsity.controllers:
            parts["sparsity"] = self.sparsity
        if self.validation is not None:
            parts["validation"] = self.validation
        return parts

    def weights(self) -> dict[str, Tensor]:
        """The weights that are trained, and buffers; a frozen tower is not saved."""
        trained = {
            name: value.detach()
            for name, value in self.model.named_parameters()
            if value.requires_grad
        }
        return trained | dict(self.model.named_buffers())

    @torch.no_grad()
    def set_weights(self, saved: Mapping[str, Tensor]) -> None:
        """Set what `weights` gave."""
        for name, value in self.weights().items():
            value.copy_(saved[name])


def prefetch(
    make: Callable[[int], Batch],
    start: int,
    stop: int,
    waits: Callable[[int], bool] = lambda step: False,
    prepare: Callable[[int], None] = lambda step: None,
) -> Iterator[tuple[int, Batch]]:
    """Steps with their batches; a thread makes the next batch during each step.

    Args:
        waits: whether the batch of a step may only be made after the step before it.
        prepare: called before a batch that was not made ahead.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="collate") as pool:
        ahead: Future[Batch] | None = None
        for step in range(start, stop):
            if ahead is None:
                prepare(step)
                ahead = pool.submit(make, step)
            batch = ahead.result()
            last = step + 1 == stop or waits(step + 1)
            ahead = None if last else pool.submit(make, step + 1)
            yield step, batch
