"""Masked-language-model training on a collection's texts: what comes before distillation in
Well-Read Students.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import (
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from irdistill.console.progress import note_on_interrupt, progress
from irdistill.errors import IrdistillError
from irdistill.modeling.hardware import best_device, choose_dtype
from irdistill.modeling.model_files import model_revision, quiet_libraries
from irdistill.modeling.truncation import Truncation
from irdistill.storage.files import (
    make_folder,
    move_into_place,
    staging_path,
    write_json,
    write_text,
)
from irdistill.storage.locking import lock_folder
from irdistill.students.layers import keep_layers
from irdistill.students.saving import save_tokenizer
from irdistill.students.student_loading import load_transformer, random_weights
from irdistill.students.towers import set_lengths
from irdistill.training import checkpoints
from irdistill.training.loop import Steps, step_seed
from irdistill.training.options import PretrainOptions
from irdistill.training.processes import Processes
from irdistill.training.trainer import continues
from irdistill.training.training_files import (
    check_training_folder,
    place_model,
    recorded_model,
    remove_checkpoints,
)

if TYPE_CHECKING:
    from irdistill.collections import Collection, Corpus

logger = logging.getLogger(__name__)


class _Masking:
    """The documents of a step and what is masked of them, as a function of (seed, step)."""

    def __init__(self, corpus: Corpus, tokenizer: Any, options: PretrainOptions) -> None:
        self.corpus, self.tokenizer, self.options = corpus, tokenizer, options
        self.truncation = Truncation()
        self._special = tokenizer.num_special_tokens_to_add()
        self._order: tuple[int, np.ndarray] | None = None

    def rows(self, step: int) -> list[int]:
        """Every epoch goes through all documents in a new order."""
        size, found = len(self.corpus), list[int]()
        places = range(step * self.options.batch_size, (step + 1) * self.options.batch_size)
        for epoch in range(places[0] // size, places[-1] // size + 1):
            if self._order is None or self._order[0] != epoch:
                self._order = (
                    epoch,
                    np.random.default_rng([self.options.seed, epoch]).permutation(size),
                )
            found += self._order[1][
                [place % size for place in places if place // size == epoch]
            ].tolist()
        return found

    def __call__(self, step: int) -> dict[str, Any]:
        texts = self.corpus.texts(np.array(self.rows(step)))
        tokens = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.options.max_length,
            return_special_tokens_mask=True,
        )
        self.truncation.count(tokens, self.options.max_length, self._special)
        seed = step_seed(self.options.seed, step)
        mask = DataCollatorForLanguageModeling(
            self.tokenizer, mlm_probability=self.options.masked, seed=seed
        )
        return dict(
            mask([{key: values[i] for key, values in tokens.items()} for i in range(len(texts))])
        )


class _Bar(TrainerCallback):
    """The progress bar, and checkpoints by time."""

    def __init__(self, timer: checkpoints.Timer) -> None:
        self.timer = timer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar = progress(state.max_steps, "steps", "pretrain", initial=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update(1)
        if self.timer.due():
            control.should_save = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.close()


class _MaskedTrainer(Trainer):
    """transformers' Trainer with all randomness a function of the step, and checkpoints that are
    whole or not trusted.
    """

    def __init__(
        self, batches: _Masking, first: int, timer: checkpoints.Timer, **given: Any
    ) -> None:
        self.timer = timer
        self.steps = Steps(batches, first, given["args"].max_steps)
        super().__init__(train_dataset=self.steps, **given)
        self.model_accepts_loss_kwargs = False

    def get_train_dataloader(self) -> Any:
        return self.steps

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        torch.manual_seed(step_seed(self.args.seed, self.state.global_step))
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        return super().compute_loss(model, inputs["batch"], return_outputs, num_items_in_batch)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing: randomness is a function of the step."""

    def _save_rng_state(self, output_dir: str) -> None:
        """Nothing: as above."""

    def _get_output_dir(self, trial: Any = None) -> str:
        return str(staging_path(Path(self.args.output_dir) / "checkpoint"))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        shutil.rmtree(self._get_output_dir(), ignore_errors=True)
        began = time.monotonic()
        super()._save_checkpoint(model, trial)
        folder = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        written = Path(self._get_output_dir()) / name
        checkpoints.complete(written)
        move_into_place(written, folder / name, checkpoints.checkpoint_files(folder / name))
        checkpoints.keep_newest(folder, 2)
        self.timer.wrote(time.monotonic() - began)


def pretrain(
    collection: Collection,
    backbone: str,
    out: str | Path,
    options: PretrainOptions | None = None,
    *,
    layers: int | Sequence[int] | None = None,
    random_init: bool = False,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Train a backbone to guess masked words of a collection's documents, as a start for students
    of any kind.

    Turc et al. (arXiv 1908.08962) found a compact model that was pre-trained, then distilled on
    unlabelled text, then trained on labels better than any shorter way. Killed and started again
    with the same arguments it goes on from the last checkpoint.

    Args:
        backbone: model folder, ``package:`` path or hub id; gives tokenizer, config and, unless
            random, the weights. Where it was saved without a masked-language-model head, the head
            begins at random.
        out: folder for ``model/``, ``training.json`` and ``train_log.jsonl``.
        layers: keep this many encoder layers, evenly spaced, or exactly those of a list.
        random_init: begin with random weights, as the ablation does.
        config: changes of the backbone's config, as ``{"hidden_size": 128}``; the weights are
            random then.

    Returns:
        The folder of the trained model, which any student takes as its backbone.

    Raises:
        IrdistillError: the backbone is no masked language model or cannot be shortened so, the
            config knows no such key, or ``out`` holds a different training.
    """
    options = options or PretrainOptions()
    if Processes.join().world > 1:
        raise IrdistillError("pretrain runs in one process; start it without torchrun.")
    first = load_transformer(backbone, task="fill-mask", new_head=True, seed=options.seed)
    if first.tokenizer.mask_token_id is None:
        raise IrdistillError(
            f"the tokenizer of {backbone!r} has no mask token; give a masked language model, such"
            " as BERT."
        )
    if layers is not None:
        keep_layers(first.model, layers)
    if random_init or config:
        random_weights(first, config or {}, options.seed)
    set_lengths((), (first,), options.max_length, None)
    check_training_folder(Path(out))
    folder = make_folder(out)
    identity = json.loads(
        json.dumps(
            {
                "collection": collection.describe(),
                "backbone": backbone,
                "revision": model_revision(backbone),
                "layers": layers,
                "random": bool(random_init or config),
                "config": dict(config or {}),
                "options": options.identity(),
            }
        )
    )
    with lock_folder(folder):
        if continues(folder, identity):
            logger.info("%s is finished already", folder / "model")
            return folder / "model"
        write_json(
            folder / "training.json",
            {"identity": identity, "finished": False} | recorded_model(folder),
        )
        shutil.rmtree(staging_path(folder / "checkpoints" / "checkpoint"), ignore_errors=True)
        log = (
            _train(folder / "checkpoints", collection.corpus, first, options)
            if options.steps
            else []
        )
        write_text(folder / "train_log.jsonl", "".join(json.dumps(row) + "\n" for row in log))
        staged = staging_path(folder / "model")
        shutil.rmtree(staged, ignore_errors=True)
        first.tokenizer.backend_tokenizer.no_padding()
        first.tokenizer.backend_tokenizer.no_truncation()
        with quiet_libraries():
            first.model.save_pretrained(staged)
            save_tokenizer(first.tokenizer, staged)
        files = place_model(folder, staged, {"identity": identity})
        write_json(
            folder / "training.json", {"identity": identity, "finished": True, "model": files}
        )
        remove_checkpoints(folder)
    return folder / "model"


def _train(
    folder: Path, corpus: Corpus, first: Any, options: PretrainOptions
) -> list[dict[str, Any]]:
    """Train in place from the last whole checkpoint on; gives the rows of the log."""
    device = best_device()
    half = str(choose_dtype(options.precision, device)).removeprefix("torch.")
    found = checkpoints.latest_whole(make_folder(folder))
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=int(options.warmup * options.steps),
        seed=options.seed,
        bf16=half == "bfloat16",
        fp16=half == "float16",
        save_steps=options.checkpoint_every,
        logging_steps=options.log_every,
        report_to="none",
        disable_tqdm=True,
        use_cpu=device.type == "cpu",
        log_level="error",
        ignore_data_skip=True,
    )
    batches, start = (
        _Masking(corpus, first.tokenizer, options),
        checkpoints.step_of(found) if found else 0,
    )
    if found:
        logger.info("%s: resumed at step %d of %d", folder.parent, start, options.steps)
    timer = checkpoints.Timer(options.checkpoint_seconds)
    with (
        quiet_libraries(),
        note_on_interrupt(lambda: checkpoints.describe_newest(folder, options.steps)),
    ):
        trainer = _MaskedTrainer(
            batches, start, timer, model=first.model, args=arguments, callbacks=[_Bar(timer)]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(found) if found else None)
    rows = [
        {key: row[key] for key in ("step", "loss", "learning_rate")}
        for row in trainer.state.log_history
        if "loss" in row
    ]
    bad = next((row["step"] for row in rows if not math.isfinite(row["loss"])), None)
    if bad is not None:
        raise IrdistillError(
            f"the loss was no longer finite at step {bad}; lower the learning rate, or use"
            " precision float32."
        )
    batches.truncation.report("document", "the training", logger, options.max_length)
    first.model.to("cpu").eval()
    return rows
