"""The arguments of a training, opened and checked, and what they decide."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irdistill.collections.passage_corpus import reading_corpus
from irdistill.losses import Loss, parse_loss
from irdistill.losses.loss_code import code_digests
from irdistill.runs import Run, open_run
from irdistill.runs.stored_representations import Representations
from irdistill.students.sparse_student import SparseStudent
from irdistill.training import checks
from irdistill.training.data.in_batch_teachers import InBatchTeachers, open_in_batch_teachers
from irdistill.training.data.mining import check_mining, mining_identity
from irdistill.training.data.passage_lists import PassageLists
from irdistill.training.data.sampler_setup import cluster_identity
from irdistill.training.data.stored_vectors import (
    Vectors,
    check_vectors,
    vectors_digest,
    vectors_identity,
)
from irdistill.training.data.teacher_representations import (
    check_representations,
    find_representations,
)
from irdistill.training.data.text_bank import BankData
from irdistill.training.guard_setup import GuardData
from irdistill.training.objectives.token_idf import TokenIdf, corpus_idf
from irdistill.training.options import TrainOptions
from irdistill.training.processes import Processes
from irdistill.training.tracking import check_trackers
from irdistill.training.validation_data import ValidationData

if TYPE_CHECKING:
    from irdistill.collections import Collection
    from irdistill.students.student_base import Student


@dataclass(frozen=True)
class TrainingInputs:
    """The arguments of `train`, opened and checked."""

    collection: Collection
    runs: list[Run]
    student: Student
    loss: Loss
    options: TrainOptions
    vectors: Vectors
    work: str | Path | None
    representations: Representations | None
    in_batch: InBatchTeachers | None
    processes: Processes
    validation: ValidationData | None = None
    guard: GuardData | None = None
    idf: TokenIdf | None = None
    passages: PassageLists | None = None
    bank: BankData | None = None

    @property
    def texts(self) -> Collection:
        """The collection whose documents the student reads: passages if they are split."""
        return self.collection if self.passages is None else self.passages.view

    @classmethod
    def read(
        cls,
        collection: Collection,
        scores: Run | str | Path | Sequence[Run | str | Path],
        student: Student,
        loss: str | Loss,
        options: TrainOptions,
        vectors: Vectors,
        work: str | Path | None,
        representations: str | Path | None,
        validation: ValidationData | None,
        guard: GuardData | None,
        bank: BankData | None,
    ) -> TrainingInputs:
        """Open the runs, and check all that can be checked before the first step."""
        expression = parse_loss(loss)
        check_trackers(options.track)
        checks.check_student(options, expression, student)
        check_representations(expression, student)
        processes = Processes.join()
        paths = [scores] if isinstance(scores, str | Path | Run) else list(scores)
        with processes.in_turn():
            runs = [open_run(run, collection) for run in paths]
            split = collection.corpus.passages is not None
            passages = PassageLists(collection, runs) if split else None
            texts = collection if passages is None else passages.view
            stored = find_representations(expression, runs, representations, texts)
            in_batch = open_in_batch_teachers(expression, runs, representations, texts, options.mix)
        checks.check_teachers(len(runs), options)
        check_vectors(texts, student, vectors)
        check_mining(options, student, len(runs))
        with processes.in_turn():
            idf = _prepare_idf(collection, student, options)
        return cls(
            collection,
            runs,
            student,
            expression,
            options,
            vectors,
            work,
            stored,
            in_batch,
            processes,
            validation,
            guard,
            idf,
            passages,
            bank,
        )

    def identity(self) -> dict[str, Any]:
        """What decides the trained weights, as JSON values."""
        identity: dict[str, Any] = {
            "collection": self.collection.describe() | {"qrels": self.collection.qrels.fingerprint},
            "scores": [run.fingerprint for run in self.runs],
            "student": self.student.identity(),
            "loss": str(self.loss),
            "options": self.options.identity()
            | cluster_identity(self.options)
            | mining_identity(self.options),
            "document_vectors": vectors_digest(self.texts, self.student, self.vectors),
        }
        if own_losses := code_digests(self.loss):
            identity["own_losses"] = own_losses
        if self.processes.world > 1:
            identity["processes"] = self.processes.world
        if self.representations is not None:
            identity["representations"] = self.representations.fingerprint
        if self.in_batch is not None:
            identity["in_batch"] = self.in_batch.fingerprints
        if self.validation is not None:
            identity["validation"] = self.validation.identity(self.options)
        if self.guard is not None:
            identity["keep"] = self.guard.identity()
        if self.bank is not None:
            identity["bank"] = self.bank.identity(self.options)
        return _as_json(identity)

    def details(self) -> dict[str, Any]:
        """What the fingerprints in the identity stand for, for a message about what differs."""
        return _as_json(
            {
                "scores": [asdict(run.identity) for run in self.runs],
                "document_vectors": vectors_identity(self.texts, self.student, self.vectors),
            }
        )


def _prepare_idf(
    collection: Collection, student: Student, options: TrainOptions
) -> TokenIdf | None:
    """The IDF of the corpus if an option needs it; the student's query weights are set to it."""
    if not (options.idf_start or options.idf_penalty):
        return None
    tokenizer: Any = student.tower("query")[0].tokenizer
    idf = corpus_idf(reading_corpus(collection.corpus), tokenizer, student.dimension)
    if options.idf_start:
        assert isinstance(student, SparseStudent)
        student.set_query_weights(idf.weights)
    return idf


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(value, default=str))
    return plain
