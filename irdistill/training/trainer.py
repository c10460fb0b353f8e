"""The verb: collection, scores and loss in, a trained student out."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback

from irdistill.console.progress import note_on_interrupt, progress
from irdistill.errors import IrdistillError
from irdistill.losses import Loss, parse_loss
from irdistill.modeling.hardware import choose_dtype
from irdistill.modeling.model_files import quiet_libraries
from irdistill.modeling.truncation import Truncation, changes, snapshot
from irdistill.runs import Run, compile_run, open_run
from irdistill.runs.stored_representations import Representations
from irdistill.storage.files import (
    differences,
    make_folder,
    read_json_object,
    staging_path,
    write_json,
)
from irdistill.storage.locking import lock_folder
from irdistill.students.saving import check_saving
from irdistill.training import checkpoints
from irdistill.training.checks import (
    check_dimensions,
    check_head,
    check_needs,
    check_order,
    check_penalties,
    check_scales,
    check_student,
    check_teacher,
    check_teachers,
)
from irdistill.training.data.collate import Collator, TextKeys, Tokenizer
from irdistill.training.data.list_sampler import Lists, ListSampler
from irdistill.training.data.mining import Miner, check_mining
from irdistill.training.data.mixed_run import MixedRun
from irdistill.training.data.sampler_setup import (
    cluster_identity,
    in_steps,
    make_samplers,
    order_of,
)
from irdistill.training.data.stored_vectors import (
    Vectors,
    check_vectors,
    open_vectors,
    vectors_digest,
    vectors_identity,
)
from irdistill.training.data.teacher_states import TeacherStates, check_states, find_representations
from irdistill.training.loop import DistillTrainer
from irdistill.training.objectives.loss_parameters import make_learnt, save_learnt
from irdistill.training.options import TrainOptions
from irdistill.training.processes import Processes
from irdistill.training.training_files import (
    check_training_folder,
    place_model,
    recorded_model,
    remove_checkpoints,
)
from irdistill.training.training_log import cut_log, journal
from irdistill.training.validation import HeldOut

if TYPE_CHECKING:
    from irdistill.collections import Collection
    from irdistill.search.vectors.vector_store import Store
    from irdistill.students.base import Student

logger = logging.getLogger(__name__)
_TEACHER = frozenset({"order", "score", "margin"})
_CHECKED_STEPS = 8


class _Watch(TrainerCallback):
    """The progress bar, the regular writing of the log, and checkpoints by time."""

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        self.write: Callable[[], None] = lambda: None
        self.is_due: Callable[[], bool] = lambda: False
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar = progress(state.max_steps, "steps", "train", initial=state.global_step)
        self.bar.disable = self.bar.disable or not state.is_world_process_zero

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update(1)
        if state.global_step % self.options.log_every == 0:
            self.write()
        if not self.options.checkpoint_every:
            return
        if self.options.mine_every and state.global_step % self.options.mine_every == 0:
            control.should_save = (
                True  # a search that is stopped goes on, and not the steps before it once more
            )
        if self.is_due():
            control.should_save = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.close()


def train(
    collection: Collection,
    scores: Run | str | Path | Sequence[Run | str | Path],
    student: Student,
    loss: str | Loss,
    out: str | Path,
    options: TrainOptions | None = None,
    document_vectors: Vectors = None,
    work: str | Path | None = None,
    representations: str | Path | None = None,
) -> Path:
    """Train a student on the teacher scores of a run, or of several runs of the same candidates.

    Killed at any moment and started again with the same arguments it goes on from the last whole
    checkpoint and ends with the same bytes. A finished training is recognised and not done again.
    Started by ``torchrun`` in several processes, these train together: each step has ``batch_size``
    lists of each, and the first process writes.

    Args:
        collection: gives texts and, through its qrels, the labels.
        scores: run or runs with the teachers' scores; the first gives candidates and ranks.
        student: is trained in place.
        loss: an expression such as ``KL(tau=0.05) + 0.1*InfoNCE``.
        out: folder for ``model/``, ``training.json``, ``train_log.jsonl`` and the checkpoints.
        document_vectors: what the student's own frozen document tower made of the corpus: a store,
            or of a dense student an array (corpus size, D); then no document is encoded while
            training. ``stored`` makes the store on first use, where the tower is frozen.
        work: where that store is kept; the cache folder where None.
        representations: the run beside which the teacher's representations lie, for losses that
            read them; the first of ``scores`` that has any where None.

    Returns:
        The folder of the saved model, which plain sentence-transformers loads.

    Raises:
        IrdistillError: the data do not hold what the loss needs, teacher scores that cannot teach,
            ``out`` holds a different training, or the loss is no longer finite.
    """
    options = options or TrainOptions()
    expression = parse_loss(loss)
    check_student(expression, student)
    check_penalties(options, student)
    check_head(options.head_learning_rate, student)
    check_dimensions(options.matryoshka_dims, student)
    check_order(options, expression, student)
    processes = Processes.join()
    given = [scores] if isinstance(scores, str | Path | Run) else list(scores)
    check_states(expression, student)
    with processes.in_turn():
        runs = [open_run(run, collection) for run in given]
        kept = find_representations(expression, runs, representations, collection)
    check_teachers(len(runs), options)
    check_vectors(collection, student, document_vectors)
    check_mining(options, student, len(runs))
    check_training_folder(Path(out))
    folder = make_folder(out)
    identity = {
        "collection": collection.describe() | {"qrels": collection.qrels.fingerprint},
        "scores": [run.fingerprint for run in runs],
        "student": student.identity(),
        "loss": str(expression),
        "options": options.identity() | cluster_identity(options),
        "document_vectors": vectors_digest(collection, student, document_vectors),
    } | ({"processes": processes.world} if processes.world > 1 else {})
    if kept is not None:
        identity["representations"] = kept.fingerprint
    identity = json.loads(json.dumps(identity, default=str))
    others = differences(processes.agree(lambda: identity), identity)
    if others:
        raise IrdistillError(
            f"the processes were given different trainings: {'; '.join(others)} in process"
            f" {processes.rank}."
        )
    model = folder / "model"
    with ExitStack() as held:
        processes.agree(lambda: held.enter_context(lock_folder(folder)))
        about = json.loads(
            json.dumps(_about(collection, runs, student, document_vectors), default=str)
        )
        if processes.agree(lambda: continues(folder, identity, about)):
            logger.info("%s is finished already", model)
            return model
        _train(
            folder,
            collection,
            runs,
            student,
            expression,
            options,
            document_vectors,
            work,
            identity,
            processes,
            kept,
            about,
        )
    return model


def _train(
    folder: Path,
    collection: Collection,
    runs: list[Run],
    student: Student,
    loss: Loss,
    options: TrainOptions,
    vectors: Vectors,
    work: str | Path | None,
    identity: dict[str, Any],
    processes: Processes,
    kept: Representations | None = None,
    about: dict[str, Any] | None = None,
) -> None:
    corpus = collection.corpus
    relevant = {
        qid: {corpus.row(doc_id): grade for doc_id, grade in judged.items() if corpus.has(doc_id)}
        for qid, judged in collection.qrels.items()
    }
    with processes.in_turn():
        compiled = [compile_run(run, corpus) for run in runs]
    lists: list[Lists] = (
        [MixedRun(compiled, options.mixing(), corpus)] if options.mix != "none" else list(compiled)
    )
    sampler, held = make_samplers(
        lists,
        relevant,
        list(collection.queries),
        options,
        world=processes.world,
        needs_teacher=options.only_scored or bool(loss.needs & _TEACHER),
        needs_labels="label" in loss.needs and not options.only_scored,
    )
    options = in_steps(options, sampler)
    with processes.in_turn():
        sampler.order = order_of(sampler, collection, student, folder, options)
    if sampler.unusable:
        logger.info(
            "%d queries have fewer than two usable documents and are left out", sampler.unusable
        )
    if sampler.flagged_documents:
        logger.info(
            "%d of %d candidates are flagged and are %s",
            sampler.flagged_documents,
            sampler.documents,
            "masked as negatives" if options.flagged == "mask" else "dropped",
        )
    counts = {
        "queries": len(sampler.query_ids),
        "unusable_queries": sampler.unusable,
        "documents": sampler.documents,
        "flagged": sampler.flagged_documents,
        **({"held_out_queries": len(held.query_ids)} if held else {}),
    }
    first = [sampler(step) for step in range(min(_CHECKED_STEPS, options.steps))]
    check_needs(
        loss,
        sum(int((batch.labels > 0).any(axis=1).sum()) for batch in first),
        sum(int((~np.isnan(batch.teacher)).sum()) for batch in first),
    )
    warnings = check_teacher(loss, first, student.similarity, options.mix)
    if options.mix == "mean":
        warnings += check_scales(compiled)

    with processes.in_turn():
        stored = open_vectors(collection, student, vectors, work)
    student.keep_representations = kept is not None

    def collator_of(drawn: ListSampler) -> Collator:
        made = _collator(collection, drawn, student, stored, processes)
        made.states = (
            None if kept is None else TeacherStates(kept, loss.representations, drawn.query_ids)
        )
        return made

    collator = collator_of(sampler)
    if isinstance(collator.states, TeacherStates):
        collator.states.check(first)
    learnt = make_learnt(loss, student, collator, sampler, options)

    def begin() -> Path | None:
        begun = (folder / "training.json").exists()
        found = checkpoints.latest_whole(folder / "checkpoints")
        start = checkpoints.step_of(found) if found else 0
        shutil.rmtree(staging_path(folder / "checkpoints" / "checkpoint"), ignore_errors=True)
        shutil.rmtree(staging_path(folder / "checking"), ignore_errors=True)
        if not start:
            check_saving(student, folder)
        cut_log(folder / "train_log.jsonl", start)
        record = {"identity": identity, "about": about, "finished": False, "lists": counts}
        write_json(folder / "training.json", record | recorded_model(folder))
        journal(folder, event="start", step=start, device=str(student.device), warnings=warnings)
        if found:
            logger.info("%s: resumed at step %d of %d", folder, start, options.steps)
        elif begun:
            logger.info(
                "%s: it was stopped before its first checkpoint, so it starts at step 0 of %d",
                folder,
                options.steps,
            )
        return found

    found = processes.agree(begin)
    before = snapshot(student)
    began = time.monotonic()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(options.deterministic or deterministic, warn_only=True)
    try:
        watch = _Watch(options)
        place = make_folder(folder / "checkpoints")
        trainer = DistillTrainer(
            student,
            loss,
            collator,
            options,
            place,
            folder / "train_log.jsonl",
            choose_dtype(options.precision, student.device),
            callbacks=[watch],
            miner=(
                Miner(collection, student, sampler, folder, options, work, processes.in_turn)
                if options.mine_every
                else None
            ),
            held_out=HeldOut(collator_of(held), place, options) if held else None,
            processes=processes,
            learnt=learnt,
        )
        watch.write = trainer.write_log
        watch.is_due = lambda: processes.agree(trainer.timer.due)
        with note_on_interrupt(lambda: checkpoints.describe_newest(place, options.steps)):
            trainer.resume(found)
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        student.keep_representations = False
    student.model.eval()
    read = changes(snapshot(student), before)
    for kind in student.sides:
        read.get(kind, Truncation()).report(kind, student.source, logger, student.max_length(kind))

    def finish() -> None:
        staged = staging_path(folder / "model")
        shutil.rmtree(staged, ignore_errors=True)
        _forget_padding(student)
        with quiet_libraries():
            student.save(staged)
        files = place_model(folder, staged, {"identity": identity, "lists": counts})
        own = {"loss": save_learnt(folder, learnt)} if learnt else {}
        write_json(
            folder / "training.json",
            {
                "identity": identity,
                "about": about,
                "finished": True,
                "lists": counts,
                "model": files,
            }
            | own,
        )
        seconds, start = time.monotonic() - began, checkpoints.step_of(found) if found else 0
        ended = max(start, trainer.state.global_step)
        journal(
            folder,
            event="finish",
            step=ended,
            seconds=round(seconds, 3),
            truncation={kind: asdict(counts) for kind, counts in read.items()},
            lists_per_second=round((ended - start) * sampler.batch_size / max(seconds, 1e-9), 3),
        )
        remove_checkpoints(folder)

    processes.agree(finish)


def _collator(
    collection: Collection,
    sampler: ListSampler,
    student: Student,
    vectors: Store | np.ndarray | None,
    processes: Processes | None = None,
) -> Collator:
    """What makes the batches: tokenisers of the student's sides, or vectors in place of the
    documents' one.
    """

    def asked(numbers: Sequence[int]) -> list[str]:
        return [collection.queries[sampler.query_ids[number]].text for number in numbers]

    def read(rows: Sequence[int]) -> list[str]:
        return list(collection.corpus.texts(np.asarray(rows, dtype=np.int64)))

    if "pair" in student.sides:
        return Collator(
            sampler,
            None,
            None,
            Tokenizer(
                student,
                "pair",
                lambda pairs: list(
                    zip(
                        asked([query for query, _ in pairs]),
                        read([row for _, row in pairs]),
                        strict=True,
                    )
                ),
                processes=processes,
            ),
            keys=TextKeys(read),
        )
    documents = (
        vectors
        if vectors is not None
        else Tokenizer(student, "document", read, processes=processes)
    )
    return Collator(
        sampler,
        Tokenizer(student, "query", asked, processes=processes),
        documents,
        keys=TextKeys(read),
    )


def _about(
    collection: Collection, runs: Sequence[Run], student: Student, vectors: Vectors
) -> dict[str, Any]:
    """What the fingerprints of an identity stand for, so that an error can name the setting that
    differs.
    """
    return {
        "scores": [asdict(run.identity) for run in runs],
        "document_vectors": vectors_identity(collection, student, vectors),
    }


def continues(
    folder: Path, identity: dict[str, Any], about: Mapping[str, Any] | None = None
) -> bool:
    """Whether the training is finished; False when it is to be begun or continued.

    Args:
        about: by keys of the identity, what their fingerprints stand for.

    Raises:
        IrdistillError: the folder holds a training of something else; the message shows the
            difference.
    """
    if not (folder / "training.json").exists():
        if (folder / "model").exists():
            raise IrdistillError(
                f"{folder} holds a model that no training here made; choose another --out."
            )
        return False
    known = read_json_object(folder / "training.json")
    there, here = dict(known.get("identity", {})), dict(identity)
    for key, value in (about or {}).items():
        was = (known.get("about") or {}).get(key)
        if there.get(key) != here.get(key) and differences({key: was}, {key: value}):
            there[key], here[key] = was, value
    different = differences(there, here)
    if different:
        raise IrdistillError(
            f"{folder} holds a different training: {'; '.join(different)}. "
            "Choose another --out, or remove the folder."
        )
    return bool(known.get("finished")) and checkpoints.is_whole(
        folder / "model", known.get("model", {})
    )


def _forget_padding(student: Student) -> None:
    """Undo what tokenising left in the tokenizers: they would be saved with the settings of the
    last call.
    """
    for module in student.model.modules():
        backend = getattr(getattr(module, "tokenizer", None), "backend_tokenizer", None)
        if backend is not None:
            backend.no_padding()
            backend.no_truncation()
