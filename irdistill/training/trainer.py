"""The verb: collection, scores and loss in, a trained student out."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback

from irdistill.errors import IrdistillError
from irdistill.files import digest, exclusive, make_folder, read_json, write_json, write_text
from irdistill.hardware import choose_dtype
from irdistill.losses import Loss, parse_loss
from irdistill.models import quiet_libraries
from irdistill.progress import progress
from irdistill.runs import Run, compile_run, open_run
from irdistill.runs.mixing import checked_weights
from irdistill.training import checkpoints
from irdistill.training.checks import check_needs, check_penalties, check_scales, check_student, check_teacher
from irdistill.training.collate import Collator, Tokenizer
from irdistill.training.lists import ListSampler
from irdistill.training.loop import DistillTrainer
from irdistill.training.mixed import MixedRun
from irdistill.training.options import TrainOptions

if TYPE_CHECKING:
    from irdistill.collections import Collection
    from irdistill.students.base import Student

logger = logging.getLogger(__name__)
_TEACHER = frozenset({"order", "score", "margin"})
_CHECKED_STEPS = 8


class _Watch(TrainerCallback):
    """The progress bar and the regular writing of the log."""

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        self.write: Callable[[], None] = lambda: None
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar = progress(state.max_steps, "steps", "train", initial=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update(1)
        if state.global_step % self.options.log_every == 0:
            self.write()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.close()


def train(
    collection: Collection, scores: Run | str | Path | Sequence[Run | str | Path], student: Student,
    loss: str | Loss, out: str | Path, options: TrainOptions | None = None,
    document_vectors: np.ndarray | None = None,
) -> Path:
    """Train a student on the teacher scores of a run, or of several runs of the same candidates.

    Killed at any moment and started again with the same arguments it goes on from the last whole checkpoint
    and ends with the same bytes. A finished training is recognised and not done again.

    Args:
        collection: gives texts and, through its qrels, the labels.
        scores: run or runs with the teachers' scores; the first gives candidates and ranks.
        student: is trained in place.
        loss: an expression such as ``KL(tau=0.05) + 0.1*InfoNCE``.
        out: folder for ``model/``, ``training.json``, ``train_log.jsonl`` and the checkpoints.
        document_vectors: (corpus size, D) vectors made by the student's own frozen document tower; then no
            document is encoded while training.

    Returns:
        The folder of the saved model, which plain sentence-transformers loads.

    Raises:
        IrdistillError: the data do not hold what the loss needs, teacher scores that cannot teach, ``out``
            holds a different training, or the loss is no longer finite.
    """
    options = options or TrainOptions()
    expression = parse_loss(loss)
    check_student(expression, student)
    check_penalties(options.regularised, student)
    given = [scores] if isinstance(scores, str | Path | Run) else list(scores)
    runs = [open_run(run, collection) for run in given]
    _check_teachers(len(runs), options)
    _check_vectors(collection, student, document_vectors)
    folder = make_folder(out)
    identity = {
        "collection": collection.describe() | {"qrels": collection.qrels.fingerprint},
        "scores": [run.fingerprint for run in runs], "student": student.identity(), "loss": str(expression),
        "options": options.identity(), "document_vectors": _vectors_digest(document_vectors),
    }
    identity = json.loads(json.dumps(identity, default=str))
    model = folder / "model"
    with exclusive(folder):
        if _continues(folder, identity):
            logger.info("%s is finished already", model)
            return model
        _train(folder, collection, runs, student, expression, options, document_vectors, identity)
    return model


def _train(folder: Path, collection: Collection, runs: list[Run], student: Student, loss: Loss,
           options: TrainOptions, vectors: np.ndarray | None, identity: dict[str, Any]) -> None:
    corpus = collection.corpus
    relevant = {
        qid: {corpus.row(doc_id): grade for doc_id, grade in judged.items() if corpus.has(doc_id)}
        for qid, judged in collection.qrels.items()
    }
    scored = options.only_scored or bool(loss.needs & _TEACHER)
    compiled = [compile_run(run, corpus) for run in runs]
    mixed = options.mix != "none"
    sampler = ListSampler(
        [MixedRun(compiled, options.mixing(), corpus)] if mixed else compiled, relevant, batch_size=options.batch_size,
        list_size=options.list_size, seed=options.seed, sources=options.sources, positives=options.positives,
        max_positives=options.max_positives, scored=scored, unscored_positives="label" in loss.needs and not options.only_scored,
        query_ids=list(collection.queries), flagged=options.flagged,
        teacher_weights=None if mixed else options.teacher_weights, gate=None if mixed else options.gate,
    )
    if sampler.unusable:
        logger.info("%d queries have fewer than two usable documents and are left out", sampler.unusable)
    if sampler.flagged_documents:
        logger.info("%d of %d candidates are flagged and are %s", sampler.flagged_documents, sampler.documents,
                    "masked as negatives" if options.flagged == "mask" else "dropped")
    counts = {"queries": len(sampler.query_ids), "unusable_queries": sampler.unusable, "documents": sampler.documents,
              "flagged": sampler.flagged_documents}
    first = [sampler(step) for step in range(min(_CHECKED_STEPS, options.steps))]
    check_needs(loss, sum(int((batch.labels > 0).any(axis=1).sum()) for batch in first),
                sum(int((~np.isnan(batch.teacher)).sum()) for batch in first))
    warnings = check_teacher(loss, first, student.similarity, options.mix)
    if options.mix == "mean":
        warnings += check_scales(compiled)

    collator = _collator(collection, sampler, student, vectors)
    found = checkpoints.latest_whole(folder / "checkpoints")
    start = checkpoints.step_of(found) if found else 0
    shutil.rmtree(folder / "checkpoints" / ".staging", ignore_errors=True)
    _cut_log(folder / "train_log.jsonl", start)
    write_json(folder / "training.json", {"identity": identity, "finished": False, "lists": counts})
    _journal(folder, event="start", step=start, device=str(student.device), warnings=warnings)

    began = time.monotonic()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(options.deterministic or deterministic, warn_only=True)
    try:
        watch = _Watch(options)
        trainer = DistillTrainer(
            student, loss, collator, options,
            make_folder(folder / "checkpoints"), folder / "train_log.jsonl",
            choose_dtype(options.precision, student.device), callbacks=[watch],
        )
        watch.write = trainer.write_log
        trainer.resume(found)
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
    student.model.eval()
    staged = folder / ".model.staging"
    shutil.rmtree(staged, ignore_errors=True)
    _forget_padding(student)
    with quiet_libraries():
        student.save(staged)
    files = checkpoints.move_into_place(staged, folder / "model")
    write_json(folder / "training.json", {"identity": identity, "finished": True, "lists": counts, "model": files})
    seconds = time.monotonic() - began
    _journal(folder, event="finish", step=options.steps, seconds=round(seconds, 3),
             lists_per_second=round((options.steps - start) * options.batch_size / max(seconds, 1e-9), 3))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _collator(collection: Collection, sampler: ListSampler, student: Student, vectors: np.ndarray | None) -> Collator:
    """What makes the batches: tokenisers of the student's sides, or vectors in place of the documents' one."""
    def asked(numbers: Sequence[int]) -> list[str]:
        return [collection.queries[sampler.query_ids[number]].text for number in numbers]

    def read(rows: Sequence[int]) -> list[str]:
        return list(collection.corpus.texts(np.asarray(rows, dtype=np.int64)))

    if "pair" in student.sides:
        return Collator(sampler, None, None, Tokenizer(student, "pair", lambda pairs: list(
            zip(asked([query for query, _ in pairs]), read([row for _, row in pairs]), strict=True)
        )))
    documents = vectors if vectors is not None else Tokenizer(student, "document", read)
    return Collator(sampler, Tokenizer(student, "query", asked), documents)


def _continues(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether the training is finished; False when it is to be begun or continued.

    Raises:
        IrdistillError: the folder holds a training of something else; the message shows the difference.
    """
    if not (folder / "training.json").exists():
        if (folder / "model").exists():
            raise IrdistillError(f"{folder} holds a model that no training here made; choose another --out.")
        return False
    known = read_json(folder / "training.json")
    different = differences(known.get("identity", {}), identity)
    if different:
        raise IrdistillError(
            f"{folder} holds a different training: {'; '.join(different)}. "
            "Choose another --out, or remove the folder."
        )
    return bool(known.get("finished")) and checkpoints.is_whole(folder / "model", known.get("model", {}))


def differences(there: Any, asked: Any, path: str = "") -> list[str]:
    """What differs between two JSON values, as ``options.seed is 1, now 2``."""
    if isinstance(there, dict) and isinstance(asked, dict):
        found = []
        for key in sorted({*there, *asked}):
            found += differences(there.get(key), asked.get(key), f"{path}.{key}" if path else str(key))
        return found
    return [] if there == asked else [f"{path} is {there!r}, now {asked!r}"]


def _check_teachers(count: int, options: TrainOptions) -> None:
    """Refuse weights or a gate that do not fit the number of runs."""
    if count == 1 and (options.mix != "none" or options.teacher_weights is not None or options.gate is not None):
        raise IrdistillError(
            "one run was given, and a mix, teacher weights or a gate are for several; give more runs, or leave these out."
        )
    if options.mix != "none":
        options.mixing().for_teachers(count)
        return
    checked_weights(options.teacher_weights, count)
    if options.gate is not None and len(options.gate) != count:
        raise IrdistillError(f"the gate is for {len(options.gate)} teachers, and {count} runs were given.")


def _check_vectors(collection: Collection, student: Student, vectors: np.ndarray | None) -> None:
    if vectors is None:
        return
    if student.kind != "dense":
        raise IrdistillError(f"document vectors were given for a {student.kind} student; only a dense one takes them.")
    expected = (len(collection.corpus), student.dimension)  # type: ignore[attr-defined]
    if tuple(vectors.shape) != expected:
        raise IrdistillError(f"the document vectors have shape {tuple(vectors.shape)}; expected {expected}.")
    if any(p.requires_grad for module in student.tower("document") for p in module.parameters()):
        raise IrdistillError(
            "document vectors were given, but the student's document tower learns, so they would be out of "
            "date after the first step. Freeze it (freeze_documents) or leave the vectors out."
        )


def _vectors_digest(vectors: np.ndarray | None) -> str | None:
    """A fingerprint of some rows spread over the matrix, which may be larger than memory."""
    if vectors is None:
        return None
    rows = np.unique(np.linspace(0, len(vectors) - 1, num=min(len(vectors), 256)).astype(np.int64))
    return digest([list(vectors.shape), np.asarray(vectors[rows], dtype=np.float32).tobytes().hex()])


def _forget_padding(student: Student) -> None:
    """Undo what tokenising left in the tokenizers: they would be saved with the settings of the last call."""
    for module in student.model.modules():
        backend = getattr(getattr(module, "tokenizer", None), "backend_tokenizer", None)
        if backend is not None:
            backend.no_padding()
            backend.no_truncation()


def _cut_log(log: Path, step: int) -> None:
    """Forget what was logged after the checkpoint; a half-written last line goes too."""
    kept = []
    if log.exists():
        for line in log.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except ValueError:
                break
    write_text(log, "".join(kept))


def _journal(folder: Path, **entry: Any) -> None:
    """Add a line with the time of day; nothing reads it, so it may differ between equal trainings."""
    with open(folder / "journal.jsonl", "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **entry}) + "\n")
