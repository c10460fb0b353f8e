"""`pretrain`: masked-language-model training on the documents of a collection.

The first stage of Well-Read Students (Turc et al. 2019, arXiv:1908.08962); or the states of a
teacher's middle layer instead of masked words, see `irdistill.training.middle_layers`.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DataCollatorForLanguageModeling

from irdistill.collections.passage_corpus import reading_corpus
from irdistill.console.progress_bars import note_on_interrupt, progress
from irdistill.errors import IrdistillError, ModelError, OptionError
from irdistill.modeling.hardware import best_device, choose_dtype
from irdistill.modeling.library_output import quiet_libraries
from irdistill.modeling.model_revisions import model_revision
from irdistill.modeling.truncation import Truncation
from irdistill.storage.files import make_folder, read_json, staging_path, write_json, write_text
from irdistill.storage.json_lines import note_failure, write_event
from irdistill.storage.locking import lock_folder
from irdistill.students.layers import keep_layers
from irdistill.students.saving import save_tokenizer
from irdistill.students.student_loading import load_transformer, random_weights
from irdistill.students.towers import set_lengths
from irdistill.training import checkpoints
from irdistill.training.log_rows import LOG, row_numbers
from irdistill.training.loop import prefetch
from irdistill.training.middle_layers import (
    MiddleLayerLoss,
    check_positions,
    leave_out,
    load_lower_layers,
)
from irdistill.training.optimizer import make_optimizer, set_learning_rate, step_seed
from irdistill.training.pretraining_options import PretrainOptions
from irdistill.training.processes import Processes
from irdistill.training.tracking import check_trackers, finish_trackers, start_accelerator
from irdistill.training.training_files import (
    check_training_folder,
    is_finished,
    place_model,
    recorded_model,
    remove_checkpoints,
)

if TYPE_CHECKING:
    from irdistill.collections import Collection, Corpus

logger = logging.getLogger(__name__)
_KEPT_CHECKPOINTS = 2
_MAX_GRAD_NORM = 1.0


def pretrain(
    collection: Collection,
    backbone: str,
    out: str | Path,
    options: PretrainOptions | None = None,
    *,
    layers: int | Sequence[int] | None = None,
    random_init: bool = False,
    config: Mapping[str, Any] | None = None,
    teacher: str | None = None,
) -> Path:
    """Train a backbone to predict masked words of a collection's documents.

    With a teacher it learns the states of the teacher's middle layer, by their mean squared error,
    on documents of which a share of the tokens (``masked``) is left out for both models.

    The result is a backbone for students of any kind. Turc et al. (arXiv:1908.08962) found this
    better than a shortened model, before distillation on unlabeled text and training on labels. A
    killed training resumes from its last checkpoint when it is started again with the same
    arguments.

    Args:
        backbone: model folder, ``package:`` path or hub id; gives the tokenizer, the config and,
            unless random, the weights. A missing masked-language-model head is initialized at
            random.
        out: folder for ``model/``, ``training.json`` and ``train_log.jsonl``.
        layers: keep this many encoder layers, evenly spaced, or the layers of a list.
        random_init: start with random weights.
        config: changes of the backbone's config, such as ``{"hidden_size": 128}``; the weights are
            random then.
        teacher: an encoder with the backbone's vocabulary.

    Returns:
        The folder of the trained model.

    Raises:
        ModelError: the backbone is no masked language model, or cannot be changed as given; or the
            teacher has another vocabulary.
        SettingsDifferError: ``out`` has a different training.
        IrdistillError: the loss is no longer finite.
    """
    options = options or PretrainOptions()
    check_trackers(options.track)
    if Processes.join().world > 1:
        raise OptionError("pretrain runs in one process; start it without torchrun.")
    transformer = load_transformer(backbone, task="fill-mask", new_head=True, seed=options.seed)
    if transformer.tokenizer.mask_token_id is None:
        raise ModelError(
            f"the tokenizer of {backbone!r} has no mask token; give a masked language model, such"
            " as BERT."
        )
    lower = _teacher(teacher, backbone, transformer, options)
    if layers is not None:
        keep_layers(transformer.model, layers)
    if random_init or config:
        random_weights(transformer, config or {}, options.seed)
    set_lengths((), (transformer,), options.max_length, None)
    check_training_folder(Path(out))
    folder = make_folder(out)
    identity = {
        "collection": collection.describe(),
        "backbone": backbone,
        "revision": model_revision(backbone),
        "layers": layers,
        "random": bool(random_init or config),
        "config": dict(config or {}),
        "options": options.identity(),
    }
    if lower is not None:
        identity["teacher"] = {
            "model": teacher,
            "revision": model_revision(str(teacher)),
            "layer": lower.config.num_hidden_layers,
        }
    record = {"identity": json.loads(json.dumps(identity))}
    with lock_folder(folder):
        if is_finished(folder, record["identity"]):
            logger.info("%s is finished already", folder / "model")
            return folder / "model"
        write_json(folder / "training.json", record | {"finished": False} | recorded_model(folder))
        corpus = reading_corpus(collection.corpus)
        with note_failure(folder):
            rows = _train(folder, corpus, transformer, options, lower) if options.steps else []
            write_text(folder / LOG, _lines(rows))
            _finish(folder, transformer, record)
    return folder / "model"


def _teacher(
    teacher: str | None, backbone: str, transformer: Any, options: PretrainOptions
) -> Any | None:
    """The lower layers of the teacher; None for masked words."""
    if teacher is None:
        if options.teacher_layer is not None:
            raise OptionError(
                f"teacher_layer={options.teacher_layer} was given without teacher; name the"
                " teacher, or leave it out."
            )
        return None
    check_positions(transformer.model.base_model, backbone)
    return load_lower_layers(teacher, options.teacher_layer, transformer.tokenizer)


def _finish(folder: Path, transformer: Any, record: dict[str, Any]) -> None:
    """Save the model, complete the record and delete the checkpoints."""
    staged = staging_path(folder / "model")
    shutil.rmtree(staged, ignore_errors=True)
    transformer.tokenizer.backend_tokenizer.no_padding()
    transformer.tokenizer.backend_tokenizer.no_truncation()
    with quiet_libraries():
        transformer.model.save_pretrained(staged)
        save_tokenizer(transformer.tokenizer, staged)
    files = place_model(folder, staged, record)
    write_json(folder / "training.json", record | {"finished": True, "model": files})
    write_event(folder, event="finish", step=record["identity"]["options"]["steps"])
    remove_checkpoints(folder)


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _train(
    folder: Path, corpus: Corpus, transformer: Any, options: PretrainOptions, teacher: Any | None
) -> list[dict[str, Any]]:
    """Train in place from the last complete checkpoint; returns the rows of the log."""
    inputs, trained = _Masking, transformer.model
    if teacher is not None:
        inputs = _LeavingOut
        trained = MiddleLayerLoss(trained, teacher, best_device(), options.seed)
    masking = inputs(corpus, transformer.tokenizer, options)
    loop = PretrainingLoop(folder, trained, options)
    start = loop.resume()
    write_text(folder / LOG, _lines(loop.rows))
    write_event(folder, event="start", step=start, steps=options.steps, device=str(loop.device))
    if start:
        logger.info("%s: resumed at step %d of %d", folder, start, options.steps)
    with (
        quiet_libraries(),
        note_on_interrupt(lambda: checkpoints.describe_newest(loop.place, options.steps)),
        progress(options.steps, "steps", "pretrain", initial=start) as bar,
    ):
        for step, batch in prefetch(masking, start, options.steps):
            loop.train_step(step, batch)
            bar.update(1)
    finish_trackers(loop.accelerator)
    masking.truncation.report("document", "the training", logger, options.max_length)
    transformer.model.to("cpu").eval()
    return loop.rows


class PretrainingLoop:
    """The state of a training: model, optimizer and log.

    Attributes:
        rows: of the log.
        place: the folder of the checkpoints.
    """

    def __init__(self, folder: Path, model: Any, options: PretrainOptions) -> None:
        self.options, self.place = options, make_folder(folder / "checkpoints")
        self.log = folder / LOG
        self.device = best_device()
        self.dtype = choose_dtype(options.precision, self.device)
        self.model = model.to(self.device).train()
        self.optimizer = make_optimizer(model, options.learning_rate)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self.accelerator = start_accelerator(options.track, folder, asdict(options))
        self.timer = checkpoints.CheckpointTimer(options.checkpoint_seconds)
        self.rows: list[dict[str, Any]] = []
        self._loss, self._losses = torch.zeros((), device=self.device), 0

    def train_step(self, step: int, batch: Mapping[str, torch.Tensor]) -> None:
        """One step of the optimizer (from 0)."""
        options = self.options
        torch.manual_seed(step_seed(options.seed, step))
        rate = set_learning_rate(self.optimizer, _rate(options, step))
        with torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32
        ):
            inputs = {name: value.to(self.device) for name, value in batch.items()}
            loss = self.model(**inputs).loss.float()
        self.accelerator.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimizer)
        self.accelerator.clip_grad_norm_(self.model.parameters(), _MAX_GRAD_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self._loss, self._losses = self._loss + loss.detach(), self._losses + 1
        done = step + 1
        if done % options.log_every == 0:
            self._log(done, rate)
        if done % options.checkpoint_every == 0 or done == options.steps or self.timer.due():
            self._save(done)

    def _log(self, step: int, rate: float) -> None:
        loss = float(self._loss) / self._losses
        if not math.isfinite(loss):
            raise IrdistillError(
                f"the loss was no longer finite at step {step}; lower the learning rate, or use"
                " precision float32."
            )
        self.rows.append({"step": step, "loss": loss, "learning_rate": rate})
        with open(self.log, "a", encoding="utf-8") as stream:
            stream.write(_lines(self.rows[-1:]))
        self.accelerator.log(row_numbers(self.rows[-1]), step)
        self._loss, self._losses = torch.zeros_like(self._loss), 0

    def _save(self, step: int) -> None:
        start = time.monotonic()

        def write(folder: Path) -> None:
            torch.save(self.model.state_dict(), folder / "weights.pt")
            torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")
            torch.save(self.scaler.state_dict(), folder / "scaler.pt")
            write_json(
                folder / "state.json",
                {"rows": self.rows, "loss": float(self._loss), "losses": self._losses},
            )

        checkpoints.write_checkpoint(self.place, step, write, _KEPT_CHECKPOINTS)
        self.timer.record(time.monotonic() - start)

    def resume(self) -> int:
        """Continue from the last complete checkpoint; returns the number of steps done."""
        checkpoints.remove_unfinished(self.place)
        checkpoint = checkpoints.latest_checkpoint(self.place)
        if checkpoint is None:
            return 0
        for part, name in (
            (self.model, "weights.pt"),
            (self.optimizer, "optimizer.pt"),
            (self.scaler, "scaler.pt"),
        ):
            state = torch.load(checkpoint / name, map_location=self.device, weights_only=True)
            part.load_state_dict(state)
        state = read_json(checkpoint / "state.json")
        self.rows, self._losses = state["rows"], state["losses"]
        self._loss = torch.tensor(state["loss"], device=self.device)
        return checkpoints.step_of(checkpoint)


def _rate(options: PretrainOptions, step: int) -> float:
    """Learning rate in a step (from 0), as a share of the peak: a linear warmup and decay."""
    warmup = int(options.warmup * options.steps)
    if step < warmup:
        return step / warmup
    return (options.steps - step) / (options.steps - warmup)


class _Masking:
    """The documents of a step with masked tokens, as a function of (seed, step)."""

    def __init__(self, corpus: Corpus, tokenizer: Any, options: PretrainOptions) -> None:
        self.corpus, self.tokenizer, self.options = corpus, tokenizer, options
        self.truncation = Truncation()
        self._special = tokenizer.num_special_tokens_to_add()
        self._order: tuple[int, np.ndarray] | None = None

    def rows(self, step: int) -> list[int]:
        """The documents of a step; every epoch goes through all of them in a new order."""
        size, rows = len(self.corpus), list[int]()
        places = range(step * self.options.batch_size, (step + 1) * self.options.batch_size)
        for epoch in range(places[0] // size, places[-1] // size + 1):
            if self._order is None or self._order[0] != epoch:
                random = np.random.default_rng([self.options.seed, epoch])
                self._order = epoch, random.permutation(size)
            rows += self._order[1][
                [place % size for place in places if place // size == epoch]
            ].tolist()
        return rows

    def __call__(self, step: int) -> dict[str, Any]:
        texts = self.corpus.texts(np.array(self.rows(step)))
        tokens = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.options.max_length,
            return_special_tokens_mask=True,
        )
        self.truncation.count(tokens, self.options.max_length, self._special)
        rows = [{key: values[i] for key, values in tokens.items()} for i in range(len(texts))]
        return self.mask(rows, step)

    def mask(self, rows: list[dict[str, Any]], step: int) -> dict[str, Any]:
        """The inputs of the model, from the tokens of each text."""
        mask = DataCollatorForLanguageModeling(
            self.tokenizer,
            mlm_probability=self.options.masked,
            seed=step_seed(self.options.seed, step),
        )
        return dict(mask(rows))


class _LeavingOut(_Masking):
    """The documents of a step without a share of their tokens."""

    def mask(self, rows: list[dict[str, Any]], step: int) -> dict[str, Any]:
        """As `_Masking.mask`, with positions."""
        random = np.random.default_rng(step_seed(self.options.seed, step))
        return leave_out(rows, self.options.masked, random, self.tokenizer.pad_token_id)
