"""The training loop: ``transformers.Trainer`` with lists as data, scores as output and exact resume."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from irdistill.errors import IrdistillError
from irdistill.losses import Loss, ScoreBatch, States
from irdistill.search.vectors import Taken
from irdistill.students.base import Student
from irdistill.training import checkpoints
from irdistill.training.collate import Collator, TrainBatch
from irdistill.training.encode import Encoder
from irdistill.training.options import TrainOptions
from irdistill.training.sparsity import Sparsity

logger = logging.getLogger(__name__)
_WEIGHTS = "weights.pt"
_STAGING = ".staging"


class Steps(IterableDataset):
    """The batches of the steps from ``start`` on, the next one prepared while one is trained."""

    def __init__(self, collator: Collator, start: int, stop: int) -> None:
        self.collator, self.start, self.stop = collator, start, stop

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="collate") as pool:
            ahead = pool.submit(self.collator, self.start)
            for step in range(self.start, self.stop):
                batch = ahead.result()
                if step + 1 < self.stop:
                    ahead = pool.submit(self.collator, step + 1)
                yield {"batch": batch}


def score_batch(student: Student, encoder: Encoder, batch: TrainBatch, in_batch: bool,
                learnt: Mapping[str, nn.Module] | None = None) -> ScoreBatch:
    """Encode the queries and the unique documents once each, or each pair, and lay out the scores a loss sees.

    Where the batch holds the teacher's representations, the student's of the same forward pass are laid out too.

    Args:
        learnt: what the loss learns beside the student.
    """
    device = student.device
    index, mask = batch.index.to(device), batch.mask.to(device)
    lists: Tensor
    every: Tensor | None = None
    states: States | None = None
    if batch.pairs is not None:
        found = encoder(batch.pairs, "pair")
        if found.dim() == 2:
            table = found.new_zeros(*mask.shape, found.shape[1] - 1)
            states = States(pairs=table.masked_scatter(mask[:, :, None], found[:, 1:]))
        scores = found if states is None else found[:, 0]
        lists = scores.new_zeros(mask.shape).masked_scatter(mask, scores)
    else:
        queries = encoder(batch.queries, "query")
        documents = batch.documents.on(device) if isinstance(batch.documents, Taken) else encoder(
            batch.documents, "document"
        )
        lists, every = student.scores(queries, documents, index, in_batch)
        states = student.represent(queries, documents) if batch.states is not None else None
    weights = batch.teacher_weights if len(batch.teacher) > 1 else None
    return ScoreBatch(
        student=lists, teacher=batch.teacher.to(device).squeeze(0), mask=mask,
        labels=batch.labels.to(device), columns=index, in_batch=every if in_batch else None,
        positives=batch.positives.to(device), teacher_weights=None if weights is None else weights.to(device),
        student_states=states, teacher_states=None if batch.states is None else batch.states.to(device), learnt=learnt or {},
    )


def step_seed(seed: int, step: int) -> int:
    """The seed of dropout in a step, so that no state of a generator needs saving."""
    return (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + 1) % 2**63


class DistillTrainer(Trainer):
    """Trains the student of one `train` call; all randomness is a function of (seed, step)."""

    def __init__(self, student: Student, loss: Loss, collator: Collator, options: TrainOptions,
                 folder: Path, log: Path, dtype: torch.dtype,
                 callbacks: list[TrainerCallback] | None = None, learnt: Mapping[str, nn.Module] | None = None) -> None:
        self.learnt = dict(learnt or {})
        self.student, self.expression, self.collator, self.options = student, loss, collator, options
        self.folder, self.log_path = folder, log
        self.encoder = Encoder(student, dtype, options.token_budget)
        self.sparsity = Sparsity(options) if student.kind == "sparse" else None
        self.encoder.watch = self.sparsity
        self._first_step = 0
        self._unwritten: list[tuple[int, float, list[str], list[Tensor], dict[str, Tensor]]] = []
        arguments = TrainingArguments(
            output_dir=str(folder), max_steps=options.steps, per_device_train_batch_size=options.batch_size,
            learning_rate=options.learning_rate, lr_scheduler_type="linear",
            warmup_steps=options.warmup_steps, weight_decay=options.weight_decay,
            max_grad_norm=options.max_grad_norm, seed=options.seed,
            save_strategy="steps" if options.checkpoint_every else "no",
            save_steps=options.checkpoint_every or 500,
            logging_strategy="no", report_to="none", disable_tqdm=True, ignore_data_skip=True,
            logging_nan_inf_filter=False, remove_unused_columns=False, dataloader_pin_memory=False,
            use_cpu=student.device.type == "cpu", log_level="error", log_level_replica="error",
        )
        # what the loss learns is trained, clipped and saved as a part of one model, and is no part of the student
        whole = nn.ModuleList([student.model, *self.learnt.values()]) if self.learnt else student.model
        super().__init__(
            model=whole, args=arguments, train_dataset=Steps(collator, 0, options.steps),
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        if self.args.world_size > 1:
            raise IrdistillError(
                "training in several processes is not supported yet; start one process on one device."
            )
        self.model_accepts_loss_kwargs = False

    # -- data and loss --------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> Any:
        return Steps(self.collator, self._first_step, self.options.steps)

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        torch.manual_seed(step_seed(self.options.seed, self.state.global_step))
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False,
                     num_items_in_batch: Any = None) -> Any:
        if not self.options.dropout:
            self.student.model.eval()
        for module in self.student.tower(self.student.sides[-1]):
            if not any(parameter.requires_grad for parameter in module.parameters()):
                module.eval()  # a frozen tower has no dropout
        scores = score_batch(self.student, self.encoder, inputs["batch"], self.expression.uses_in_batch, self.learnt)
        names = [str(term) for _, term in self.expression.terms]
        parts = [weight * term(scores) for weight, term in self.expression.terms]
        active: dict[str, Tensor] = {}
        if self.sparsity is not None:
            penalties = self.sparsity.penalties(self.state.global_step)
            names, parts = [*names, *penalties], [*parts, *penalties.values()]
            active = self.sparsity.finish()
        rate = float(self.lr_scheduler.get_last_lr()[0])
        self._unwritten.append((self.state.global_step + 1, rate, names, [part.detach() for part in parts], active))
        loss = torch.stack(parts).sum()
        return (loss, scores) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The student's parameters as ever; those of the loss, which begin from nothing, at a rate of their own."""
        optimizer = super().create_optimizer(model)
        own = [p for module in self.learnt.values() for p in module.parameters()]
        if own:
            known = set(map(id, own))
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if id(p) not in known]
            optimizer.add_param_group({"params": own, "lr": self.options.loss_learning_rate, "weight_decay": 0.0})
        return optimizer

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing: randomness is a function of the step."""

    def _save_rng_state(self, output_dir: str) -> None:
        os.makedirs(output_dir, exist_ok=True)

    # -- the log --------------------------------------------------------------------------------------------

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
                    f"the loss became {sum(values)} at step {step}. Lower the learning rate, use float32, or "
                    f"raise the temperature of {self.expression}; the last checkpoint is kept."
                )
            row: dict[str, Any] = {"step": step, "loss": sum(values), "learning_rate": rate}
            if len(values) > 1:
                row["terms"] = dict(zip(names, values, strict=True))
            if self.sparsity is not None:
                row["sparsity"] = self.sparsity.log(step, active)
            lines.append(json.dumps(row) + "\n")
        self._unwritten.clear()
        with open(self.log_path, "a", encoding="utf-8") as stream:
            stream.write("".join(lines))
            stream.flush()
            os.fsync(stream.fileno())

    # -- checkpoints ----------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any = None) -> str:
        return str(self.folder / _STAGING)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.write_log()
        shutil.rmtree(self.folder / _STAGING, ignore_errors=True)
        super()._save_checkpoint(model, trial)
        name = f"checkpoint-{self.state.global_step}"
        final = self.folder / name
        digests = checkpoints.move_into_place(self.folder / _STAGING / name, final)
        checkpoints.complete(final, digests)
        checkpoints.keep_newest(self.folder, self.options.keep_checkpoints)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Only what learns, and buffers: a frozen tower is where it came from."""
        assert output_dir is not None
        os.makedirs(output_dir, exist_ok=True)
        torch.save(self._learning_state(), os.path.join(output_dir, _WEIGHTS))

    def _learning_state(self) -> dict[str, Tensor]:
        module = self.model
        state = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}
        return state | dict(module.named_buffers())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        path = os.path.join(resume_from_checkpoint, _WEIGHTS)
        saved = torch.load(path, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for name, value in self._learning_state().items():
                value.copy_(saved[name])

    def resume(self, checkpoint: Path | None) -> None:
        """Train from a checkpoint, or from the start, to the last step."""
        self._first_step = checkpoints.step_of(checkpoint) if checkpoint else 0
        if checkpoint and self._first_step >= self.options.steps:
            self._load_from_checkpoint(str(checkpoint))
            return
        level = transformers.logging.get_verbosity()
        try:
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            transformers.logging.set_verbosity(level)
        self.write_log()
