"""The training loop: ``transformers.Trainer`` with lists as data, scores as output and exact
resume.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from irdistill.errors import IrdistillError
from irdistill.losses import Loss
from irdistill.storage.files import move_into_place, read_json, staging_path, write_json
from irdistill.students.base import Student
from irdistill.training import checkpoints
from irdistill.training.data.collate import Collator, TrainBatch
from irdistill.training.data.mining import Miner
from irdistill.training.objectives.encode import Encoder
from irdistill.training.objectives.scoring import encode_batch, score_batch
from irdistill.training.objectives.sparsity import Sparsity
from irdistill.training.options import TrainOptions
from irdistill.training.processes import Processes
from irdistill.training.validation import HeldOut

logger = logging.getLogger(__name__)
_WEIGHTS = "weights.pt"
_STATE = "state.json"


class Steps(IterableDataset):
    """The batches of the steps from ``start`` on, the next one prepared while one is trained,
    unless a search is due first.
    """

    def __init__(
        self, collator: Callable[[int], Any], start: int, stop: int, miner: Miner | None = None
    ) -> None:
        self.collator, self.start, self.stop, self.miner = collator, start, stop, miner

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="collate") as pool:
            ahead: Future[TrainBatch] | None = None
            for step in range(self.start, self.stop):
                if ahead is None:
                    if self.miner is not None:
                        self.miner.prepare(step)
                    ahead = pool.submit(self.collator, step)
                batch = ahead.result()
                waits = step + 1 == self.stop or (
                    self.miner is not None and self.miner.due(step + 1)
                )
                ahead = None if waits else pool.submit(self.collator, step + 1)
                yield {"batch": batch}


def step_seed(seed: int, step: int) -> int:
    """The seed of dropout in a step, so that no state of a generator needs saving."""
    return (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + 1) % 2**63


class DistillTrainer(Trainer):
    """Trains the student of one `train` call; all randomness is a function of (seed, step)."""

    def __init__(
        self,
        student: Student,
        loss: Loss,
        collator: Collator,
        options: TrainOptions,
        folder: Path,
        log: Path,
        dtype: torch.dtype,
        callbacks: list[TrainerCallback] | None = None,
        miner: Miner | None = None,
        held_out: HeldOut | None = None,
        processes: Processes | None = None,
        learnt: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.processes = processes or Processes()
        self.miner, self.held_out, self.learnt = miner, held_out, dict(learnt or {})
        self.student, self.expression, self.collator, self.options = (
            student,
            loss,
            collator,
            options,
        )
        self.folder, self.log_path = folder, log
        self.encoder = Encoder(
            student, dtype, options.token_budget, options.grad_cache, self.processes
        )
        self.sparsity = Sparsity(options) if student.kind == "sparse" else None
        self.encoder.watch = self.sparsity
        self._first_step = 0
        self.timer = checkpoints.Timer(options.checkpoint_seconds)
        self._unwritten: list[tuple[int, float, list[str], list[Tensor], dict[str, Tensor]]] = []
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=options.steps,
            per_device_train_batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
            max_grad_norm=options.max_grad_norm,
            seed=options.seed,
            save_strategy="steps" if options.checkpoint_every else "no",
            save_steps=options.checkpoint_every or 500,
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            ignore_data_skip=True,
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            use_cpu=student.device.type == "cpu",
            log_level="error",
            log_level_replica="error",
        )
        # what the loss learns is trained, clipped and saved as a part of one model, and is no part
        # of the student
        whole = (
            nn.ModuleList([student.model, *self.learnt.values()]) if self.learnt else student.model
        )
        super().__init__(
            model=whole,
            args=arguments,
            train_dataset=Steps(collator, 0, options.steps),
            callbacks=[*(callbacks or []), *([held_out] if held_out else [])],
        )
        self.remove_callback(PrinterCallback)
        # gradients are averaged below, as the forward passes of a step are many and none is the
        # model's own
        self.accelerator.prepare_model = partial(
            self.accelerator.prepare_model, evaluation_mode=True
        )
        self.model_accepts_loss_kwargs = False
        if held_out is not None:
            held_out.measure, held_out.weights, held_out.log = (
                self.measure,
                self._learning_state,
                self._append,
            )

    # -- data and loss
    # --------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        return Steps(self.collator, self._first_step, self.options.steps, self.miner)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        self.lr_scheduler = LambdaLR(
            optimizer or self.optimizer, lambda step: self.options.rate(step)
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As the library makes it; new layers of the student, and what the loss learns, are in
        groups with rates of their own.
        """
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        learnt = [parameter for module in self.learnt.values() for parameter in module.parameters()]
        for parameters, rate in (
            (self.student.head, self.options.head_learning_rate),
            (learnt, self.options.loss_learning_rate),
        ):
            known = {id(parameter) for parameter in parameters}
            for group in list(optimizer.param_groups) if rate is not None else ():
                own = [parameter for parameter in group["params"] if id(parameter) in known]
                group["params"] = [
                    parameter for parameter in group["params"] if id(parameter) not in known
                ]
                if own:
                    decay = {} if parameters is not learnt else {"weight_decay": 0.0}
                    optimizer.add_param_group({**group, "params": own, "lr": rate, **decay})
        return optimizer

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> Tensor:
        processes = self.processes
        torch.manual_seed(
            step_seed(self.options.seed, self.state.global_step * processes.world + processes.rank)
        )
        loss = super().training_step(model, inputs, num_items_in_batch)
        processes.average(self.model.parameters())
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        if not self.options.dropout:
            self.student.model.eval()
        for module in self.student.tower(self.student.sides[-1]):
            if not any(parameter.requires_grad for parameter in module.parameters()):
                module.eval()  # a frozen tower has no dropout
        batch, names, parts = inputs["batch"], [], []
        encoded = encode_batch(self.student, self.encoder, batch)
        for dimension, share in self.options.matryoshka:
            scores = score_batch(
                self.student,
                self.encoder,
                batch,
                self.expression.uses_in_batch,
                self.learnt,
                encoded,
                dimension,
            )
            names += [
                str(term) if dimension is None else f"{term} [:{dimension}]"
                for _, term in self.expression.terms
            ]
            parts += [share * weight * term(scores) for weight, term in self.expression.terms]
        active: dict[str, Tensor] = {}
        if self.sparsity is not None:
            penalties = self.sparsity.penalties(self.state.global_step)
            names, parts = [*names, *penalties], [*parts, *penalties.values()]
            active = self.sparsity.finish()
        rate = float(self.lr_scheduler.get_last_lr()[0])
        self._unwritten.append(
            (self.state.global_step + 1, rate, names, [part.detach() for part in parts], active)
        )
        loss = torch.stack(parts).sum()
        return (loss, scores) if return_outputs else loss

    @torch.no_grad()
    def measure(self, batch: TrainBatch) -> float:
        """The loss of a batch, without dropout and without penalties."""
        training, watch = self.student.model.training, self.encoder.watch
        self.student.model.eval()
        self.encoder.watch = None
        try:
            scores = score_batch(
                self.student, self.encoder, batch, self.expression.uses_in_batch, self.learnt
            )
            return float(sum(weight * term(scores) for weight, term in self.expression.terms))
        finally:
            self.student.model.train(training)
            self.encoder.watch = watch

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing: randomness is a function of the step."""

    def _save_rng_state(self, output_dir: str) -> None:
        """Nothing: as above."""

    # -- the log
    # --------------------------------------------------------------------------------------------

    def write_log(self) -> None:
        """Append the steps since the last call.

        Raises:
            IrdistillError: a loss is not finite.
        """
        lines = []
        for step, rate, names, parts, active in self._unwritten:
            values = [float(part) for part in parts]
            if not all(math.isfinite(value) for value in values):
                raise IrdistillError(
                    f"the loss became {sum(values)} at step {step}. Lower the learning rate, use"
                    f" float32, or raise the temperature of {self.expression}; the last checkpoint"
                    " is kept."
                )
            row: dict[str, Any] = {"step": step, "loss": sum(values), "learning_rate": rate}
            if len(values) > 1:
                row["terms"] = dict(zip(names, values, strict=True))
            if self.sparsity is not None:
                row["sparsity"] = self.sparsity.log(step, active)
            lines.append(json.dumps(row) + "\n")
        self._unwritten.clear()
        self._write("".join(lines))

    def _append(self, row: dict[str, Any]) -> None:
        """A line of its own, behind those of the steps before it."""
        self.write_log()
        self._write(json.dumps(row) + "\n")

    def _write(self, text: str) -> None:
        if not self.processes.first:
            return
        with open(self.log_path, "a", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())

    # -- checkpoints
    # ----------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any = None) -> str:
        return str(staging_path(self.folder / "checkpoint"))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        began = time.monotonic()
        self.write_log()
        if self.processes.first:
            shutil.rmtree(self._get_output_dir(), ignore_errors=True)
        super()._save_checkpoint(model, trial)
        if not self.processes.first:
            return
        name = f"checkpoint-{self.state.global_step}"
        final = self.folder / name
        written = Path(self._get_output_dir()) / name
        checkpoints.complete(written)
        move_into_place(written, final, checkpoints.checkpoint_files(final))
        checkpoints.keep_newest(self.folder, self.options.keep_checkpoints)
        if self.held_out is not None:
            self.held_out.forget_others()
        self.timer.wrote(time.monotonic() - began)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Only what learns, and buffers: a frozen tower is where it came from."""
        assert output_dir is not None
        os.makedirs(output_dir, exist_ok=True)
        torch.save(self._learning_state(), os.path.join(output_dir, _WEIGHTS))
        if self._stateful():
            write_json(
                Path(output_dir) / _STATE,
                {name: part.state() for name, part in self._stateful().items()},
            )

    def _stateful(self) -> dict[str, Sparsity | HeldOut]:
        """What a training that goes on must remember besides weights, optimiser and step."""
        found: dict[str, Sparsity | HeldOut] = {}
        if self.sparsity is not None and self.sparsity.controllers:
            found["sparsity"] = self.sparsity
        if self.held_out is not None:
            found["held_out"] = self.held_out
        return found

    def _learning_state(self) -> dict[str, Tensor]:
        module = self.model
        state = {
            name: value.detach() for name, value in module.named_parameters() if value.requires_grad
        }
        return state | dict(module.named_buffers())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._set_weights(
            torch.load(
                os.path.join(resume_from_checkpoint, _WEIGHTS),
                map_location="cpu",
                weights_only=True,
            )
        )
        if self._stateful():
            state = read_json(Path(resume_from_checkpoint) / _STATE)
            for name, part in self._stateful().items():
                part.restore(state[name])

    @torch.no_grad()
    def _set_weights(self, saved: Mapping[str, Tensor]) -> None:
        for name, value in self._learning_state().items():
            value.copy_(saved[name])

    def resume(self, checkpoint: Path | None) -> None:
        """Train from a checkpoint, or from the start, to the last step or an earlier end; then the
        weights are the best.
        """
        self._first_step = checkpoints.step_of(checkpoint) if checkpoint else 0
        if checkpoint:
            self._load_from_checkpoint(str(checkpoint))
        if self._first_step < self.options.steps and not (
            self.held_out is not None and self.held_out.stopped
        ):
            level = transformers.logging.get_verbosity()
            try:
                self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            finally:
                transformers.logging.set_verbosity(level)
            self.write_log()
        if self.held_out is not None and self.processes.first:  # which saves the model
            self._set_weights(self.held_out.best_weights())
