"""`train`: a collection, scores and a loss in, a trained student out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from irdistill.console.progress_bars import note_on_interrupt
from irdistill.errors import SettingsDifferError
from irdistill.losses import TEACHER_NEEDS, Loss
from irdistill.modeling.hardware import deterministic_kernels
from irdistill.modeling.truncation import changes, snapshot
from irdistill.runs import Run, compile_run
from irdistill.storage.files import differences, make_folder
from irdistill.storage.json_lines import note_failure
from irdistill.storage.locking import lock_folder
from irdistill.training import checks
from irdistill.training.checkpoints import (
    describe_newest,
    step_of,
)
from irdistill.training.data.collate import Collator, make_collator
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.data.list_source import ListSource
from irdistill.training.data.mining import Miner
from irdistill.training.data.mixed_run import MixedRun
from irdistill.training.data.sampler_setup import (
    cached_counts,
    epochs_to_steps,
    judgments_by_row,
    make_samplers,
    query_order,
    sampler_options,
)
from irdistill.training.data.span_pooling import SpanPooling
from irdistill.training.data.stored_vectors import (
    Vectors,
    open_vectors,
)
from irdistill.training.data.teacher_representations import (
    TeacherRepresentations,
    compared_fields,
)
from irdistill.training.data.text_bank import BankData
from irdistill.training.guard_setup import HELD_OUT_SHARE, GuardData, make_guard
from irdistill.training.guarding import Guard
from irdistill.training.loop import TrainingLoop
from irdistill.training.objectives.loss_parameters import fit_loss_parameters
from irdistill.training.options import TrainOptions
from irdistill.training.training_files import (
    check_training_folder,
    is_finished,
)
from irdistill.training.training_inputs import TrainingInputs
from irdistill.training.training_job import (
    finish_training,
    report_truncation,
    start_training,
)
from irdistill.training.validation import Validation
from irdistill.training.validation_data import ValidationData
from irdistill.training.validation_options import LOSS
from irdistill.training.validation_sets import HeldOutLists
from irdistill.training.validation_setup import make_validation, texts_per_list

if TYPE_CHECKING:
    from irdistill.collections import Collection, Corpus
    from irdistill.students.dense_student import DenseStudent
    from irdistill.students.student_base import Student

logger = logging.getLogger(__name__)
_CHECKED_STEPS = 8


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
    validate: float | Collection | Sequence[Collection] | None = None,
    validate_candidates: Sequence[Run | str | Path] = (),
    keep: Collection | Sequence[Collection] = (),
    bank: Corpus | None = None,
    bank_teacher: DenseStudent | None = None,
) -> Path:
    """Train a student on the teacher scores of one run, or of several runs of the same candidates.

    A killed training resumes from its last checkpoint when it is started again with the same
    arguments, and ends with the same bytes. A finished training returns at once. Processes that
    ``torchrun`` started train together: a step has ``batch_size`` lists of each process, and the
    first process writes.

    Args:
        collection: gives texts and, through its qrels, labels.
        scores: one or more runs with teacher scores; the first gives candidates and ranks.
        student: is trained in place.
        loss: a loss or an expression such as ``KL(tau=0.05) + 0.1*InfoNCE``.
        out: folder for ``model/``, ``training.json``, ``train_log.jsonl`` and checkpoints.
        document_vectors: stored vectors of the student's frozen document tower: a store, or an
            array (corpus size, D) for a dense student. ``stored`` computes the store on first use.
        work: folder of that store; the cache folder by default.
        representations: run with the teacher's vectors, for losses that compare them or read
            in-batch teacher scores; by default the first of ``scores`` that has any, and for
            in-batch scores all of them.
        validate: what the student is measured on during training: collections with judgments, or a
            share of the judged queries, which are then held out. The best weights are kept.
        validate_candidates: for each of these collections a run, whose documents are reranked;
            BM25 searches by default.
        keep: general probes, collections with judgments. If training lowers the measure on one, a
            merged model that lowers none is saved, or the student as it was at the start; see
            `irdistill.training.guarding`. Without ``validate`` a tenth of the queries chooses.
        bank: texts of other domains. The training queries keep the distribution over them that
            ``bank_teacher`` has, see `irdistill.training.data.text_bank`.
        bank_teacher: a dense model; by default the student before its first step.

    Returns:
        The folder of the saved model, which plain sentence-transformers loads.

    Raises:
        InputError: the data do not have what the loss needs, or the teacher's scores cannot teach.
        SettingsDifferError: ``out`` has a different training.
        IrdistillError: the loss is no longer finite.
    """
    options = options or TrainOptions()
    if validate is None and keep:
        validate = HELD_OUT_SHARE
    data = ValidationData.read(validate, validate_candidates, options, student)
    inputs = TrainingInputs.read(
        collection,
        scores,
        student,
        loss,
        options,
        document_vectors,
        work,
        representations,
        data,
        GuardData.read(keep, data, options, student),
        BankData.read(bank, bank_teacher, options, student),
    )
    check_training_folder(Path(out))
    folder = make_folder(out)
    processes = inputs.processes
    identity, details = inputs.identity(), inputs.details()
    if different := differences(processes.agree(lambda: identity), identity):
        raise SettingsDifferError(
            f"the processes were given different trainings: {'; '.join(different)} in process"
            f" {processes.rank}."
        )
    model = folder / "model"
    with ExitStack() as stack:
        processes.agree(lambda: stack.enter_context(lock_folder(folder)))
        if processes.agree(lambda: is_finished(folder, identity, details)):
            logger.info("%s is finished already", model)
        else:
            with note_failure(folder, processes.first):
                _train(inputs, folder, {"identity": identity, "about": details})
    return model


def _train(inputs: TrainingInputs, folder: Path, record: dict[str, Any]) -> None:
    """Prepare, train and finish; ``record`` is for ``training.json``."""
    student, processes = inputs.student, inputs.processes
    prepared = _prepare(inputs, folder)
    options, place = prepared.options, make_folder(folder / "checkpoints")
    record["lists"] = prepared.counts
    checkpoint = processes.agree(
        lambda: start_training(folder, record, student, options.steps, prepared.warnings)
    )
    guard = _guard(inputs, prepared, folder, record["identity"])
    tokenized, began = snapshot(student), time.monotonic()
    with deterministic_kernels(options.deterministic), _representations(student, inputs.loss):
        loop = TrainingLoop(
            student,
            inputs.loss,
            prepared.collator,
            options,
            folder,
            loss_parameters=prepared.loss_parameters,
            miner=prepared.miner,
            validation=prepared.validation,
        )
        if loop.sparsity is not None:
            loop.sparsity.idf = inputs.idf
        with note_on_interrupt(lambda: describe_newest(place, options.steps)):
            steps = loop.run(checkpoint)
    if prepared.validation is not None and processes.first:
        prepared.validation.report(steps)
        record["validation"] = prepared.validation.summary()
    student.model.eval()
    truncation = changes(snapshot(student), tokenized)
    report_truncation(student, truncation)
    first = step_of(checkpoint) if checkpoint else 0
    seconds = time.monotonic() - began
    lists = (steps - first) * prepared.collator.sampler.options.batch_size
    journal = {
        "event": "finish",
        "step": steps,
        "seconds": round(seconds, 3),
        "truncation": {kind: asdict(counts) for kind, counts in truncation.items()},
        "lists_per_second": round(lists / max(seconds, 1e-9), 3),
    }
    processes.agree(
        lambda: _finish(student, guard, prepared.loss_parameters, folder, record, journal)
    )


def _guard(
    inputs: TrainingInputs, prepared: _Prepared, folder: Path, identity: dict[str, Any]
) -> Guard | None:
    """The guard of the first process, if there are probes; it has measured the start."""
    data, validation = inputs.guard, prepared.validation
    if data is None or validation is None:
        return None
    guards: list[Guard] = []

    def measure() -> None:
        guards.append(
            make_guard(
                data,
                validation.sets,
                inputs.options,
                inputs.student,
                folder,
                inputs.work,
                identity,
            )
        )
        guards[0].choice.measure_start()

    inputs.processes.agree(measure)
    return next(iter(guards), None)


@dataclass(frozen=True)
class _Prepared:
    """What the loop works on.

    Attributes:
        options: with the number of steps.
        collator: of the lists to train on.
        validation: measures the student during training, if anything does.
        counts: of queries and documents, for the record.
        warnings: about the teacher's scores, for the journal.
    """

    options: TrainOptions
    collator: Collator
    validation: Validation | None
    miner: Miner | None
    loss_parameters: dict[str, nn.Module]
    counts: dict[str, int]
    warnings: list[str]


def _prepare(inputs: TrainingInputs, folder: Path) -> _Prepared:
    """Make the samplers, check the lists of the first steps, and fit the loss if it learns."""
    collection, student, loss, processes = (
        inputs.collection,
        inputs.student,
        inputs.loss,
        inputs.processes,
    )
    sampler, held_out_sampler, warnings = _samplers(inputs)
    options = epochs_to_steps(inputs.options, sampler)
    with processes.in_turn():
        sampler.order = query_order(sampler, collection, student, folder, options)
    first = [sampler(step) for step in range(min(_CHECKED_STEPS, options.steps))]
    in_batch = None if inputs.in_batch is None else inputs.in_batch.of_lists(sampler)
    tables = in_batch.check(first) if in_batch is not None else []
    warnings = checks.check_lists(loss, first, student, options, tables) + warnings
    with processes.in_turn():
        vectors = open_vectors(inputs.texts, student, inputs.vectors, inputs.work)

    def collator_of(sampler: ListSampler) -> Collator:
        collator = make_collator(inputs.texts, sampler, student, vectors, processes)
        if inputs.representations is not None:
            collator.representations = TeacherRepresentations(
                inputs.representations,
                compared_fields(loss),
                sampler.query_ids,
                SpanPooling(inputs.texts, sampler.query_ids, student),
            )
        if inputs.in_batch is not None:
            collator.in_batch = inputs.in_batch.of_lists(sampler)
        return collator

    collator = collator_of(sampler)
    if inputs.bank is not None:
        with processes.in_turn():
            collator.bank = inputs.bank.open(
                collection, sampler.query_ids, student, options, processes, inputs.work
            )
    if isinstance(collator.representations, TeacherRepresentations):
        collator.representations.check(first)
    with _representations(student, loss):
        parameters = fit_loss_parameters(loss, student, collator, options)
    miner = None
    if options.mine_every:
        miner = Miner(
            collection,
            student,
            sampler,
            folder,
            options,
            inputs.work,
            processes.in_turn,
            inputs.passages,
        )
    counts = {
        "queries": len(sampler.query_ids),
        "unusable_queries": sampler.unusable,
        "documents": sampler.documents,
        "flagged": sampler.flagged_documents,
    }
    if held_out_sampler:
        counts["held_out_queries"] = len(held_out_sampler.query_ids)
    return _Prepared(
        options,
        collator,
        _validation(inputs, held_out_sampler, collator_of, options, folder),
        miner,
        parameters,
        counts,
        warnings,
    )


def _validation(
    inputs: TrainingInputs,
    held_out: ListSampler | None,
    collator_of: Callable[[ListSampler], Collator],
    options: TrainOptions,
    folder: Path,
) -> Validation | None:
    """What measures the student during training, if anything does."""
    data, student = inputs.validation, inputs.student
    if data is None:
        return None
    lists = None
    if held_out is not None and LOSS in data.measures:
        texts = len(held_out.query_ids) * texts_per_list(student, options.list_size)
        lists = HeldOutLists(collator_of(held_out), inputs.loss, options.batch_size, texts)
    with inputs.processes.in_turn():
        return make_validation(
            data, options, inputs.collection, student, held_out, lists, folder, inputs.work
        )


def _samplers(inputs: TrainingInputs) -> tuple[ListSampler, ListSampler | None, list[str]]:
    """The samplers of the lists to train on and of the held-out lists, and warnings."""
    options, passages, processes = inputs.options, inputs.passages, inputs.processes
    corpus = inputs.texts.corpus
    with processes.in_turn():
        relevant = judgments_by_row(inputs.collection) if passages is None else passages.judgments()
    identity: dict[str, Any] = {
        "runs": [run.fingerprint for run in inputs.runs],
        "qrels": inputs.collection.qrels.fingerprint,
    }
    if passages is not None:
        identity["passages"] = passages.choice.passages.fingerprint
    with processes.in_turn():
        compiled = [
            compile_run(run, corpus) if passages is None else passages.compile(run)
            for run in inputs.runs
        ]
    runs: list[ListSource] = list(compiled)
    if options.mix != "none":
        mixing = options.mixing()
        runs = [MixedRun(compiled, mixing, corpus)]
        identity["mixing"] = mixing.for_teachers(len(compiled)).identity()
    drawing = sampler_options(
        options,
        needs_teacher=bool(inputs.loss.needs & TEACHER_NEEDS),
        needs_labels="label" in inputs.loss.needs,
        processes=processes.world,
    )
    with processes.in_turn():
        counts = cached_counts(runs, relevant, drawing, compiled[0], identity)
    sampler, held_out = make_samplers(
        runs,
        relevant,
        list(inputs.collection.queries),
        drawing,
        options,
        inputs.validation,
        counts,
        None if passages is None else passages.siblings,
    )
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
    return sampler, held_out, checks.check_scales(compiled) if options.mix == "mean" else []


def _finish(
    student: Student,
    guard: Guard | None,
    loss_parameters: dict[str, nn.Module],
    folder: Path,
    record: dict[str, Any],
    journal: dict[str, Any],
) -> None:
    """Choose the weights if there is a guard, and finish the training."""
    if guard is not None:
        record["keep"] = guard.finish().to_json()
    finish_training(student, loss_parameters, folder, record, journal)


@contextmanager
def _representations(student: Student, loss: Loss) -> Iterator[None]:
    """Let the student keep the representations that the loss reads."""
    student.keep_representations = bool(loss.representations)
    try:
        yield
    finally:
        student.keep_representations = False
