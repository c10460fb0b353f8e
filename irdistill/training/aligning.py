"""`align`: a student learns the vectors of a teacher from raw texts.

Embedding distillation as in LEAF (arXiv:2509.12539): no run, no labels, no candidates.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from irdistill.collections import Collection, Corpus, Qrels
from irdistill.collections.collection_ref import CollectionRef
from irdistill.console.progress_bars import note_on_interrupt
from irdistill.distributed.ray_cluster import RayCluster
from irdistill.errors import ModelError, OptionError
from irdistill.losses import Loss, parse_loss
from irdistill.losses.embedding import TowerSide
from irdistill.losses.loss_code import code_digests
from irdistill.modeling.hardware import deterministic_kernels
from irdistill.modeling.truncation import changes, snapshot
from irdistill.search.vectors.ray_encoding import RayEncoding
from irdistill.search.vectors.text_encoder import TextEncoder
from irdistill.search.vectors.vector_store import VectorStore, corpus_vectors, store_identity
from irdistill.storage.files import make_folder
from irdistill.storage.json_lines import note_failure
from irdistill.storage.locking import lock_folder
from irdistill.students.dense_student import DenseStudent
from irdistill.training.align_options import AlignOptions
from irdistill.training.alignment_loop import (
    AlignmentLoop,
    learned_sides,
    loss_of_sides,
    new_loss_parameters,
)
from irdistill.training.alignment_start import begin_student
from irdistill.training.checkpoints import describe_newest, step_of
from irdistill.training.data.text_batches import LengthOrder, TextCollator
from irdistill.training.options import TrainOptions
from irdistill.training.processes import Processes
from irdistill.training.tracking import check_trackers
from irdistill.training.training_files import check_training_folder, is_finished
from irdistill.training.training_job import (
    finish_training,
    report_truncation,
    start_training,
)

logger = logging.getLogger(__name__)
LOSS = "EmbeddingCosine"


def align(
    texts: Corpus,
    teacher: TextEncoder,
    student: DenseStudent,
    out: str | Path,
    loss: str | Loss = LOSS,
    options: AlignOptions | None = None,
    cluster: RayCluster | None = None,
) -> Path:
    """Train a student to give texts the vectors that a teacher gives them.

    The teacher encodes every text once, into a store in the cache folder that is shared by all
    trainings on the same texts. If the student's document tower is frozen and the teacher's own,
    the teacher's document vectors and indexes serve the student as well.

    A killed training resumes from its last checkpoint when it is started again with the same
    arguments, and ends with the same bytes. A finished training returns at once.

    Args:
        texts: see `irdistill.queries.raw_texts.open_texts`.
        teacher: a dense model, or an embedding model behind a server.
        student: is trained in place.
        out: folder for ``model/``, ``training.json``, ``train_log.jsonl`` and checkpoints.
        loss: an expression of losses that compare vectors, without sides.
        cluster: encodes the teacher's vectors (default: this process).

    Returns:
        The folder of the saved model, which plain sentence-transformers loads.

    Raises:
        OptionError: the loss does not compare vectors, or the tower of the side is frozen.
        ModelError: a model is not dense, or a frozen tower has vectors of another length.
        SettingsDifferError: ``out`` has a different training.
        IrdistillError: the loss is no longer finite.
    """
    options = options or AlignOptions()
    check_trackers(options.track)
    expression = loss_of_sides(parse_loss(loss), options.side)
    _check_models(teacher, student, options)
    check_training_folder(Path(out))
    folder = make_folder(out)
    processes = Processes.join()
    job = _Alignment(texts, teacher, student, expression, options, processes)
    with processes.in_turn():
        identity = job.identity()
    with ExitStack() as stack:
        processes.agree(lambda: stack.enter_context(lock_folder(folder)))
        if processes.agree(lambda: is_finished(folder, identity)):
            logger.info("%s is finished already", folder / "model")
        else:
            with processes.in_turn():
                stores = job.teacher_vectors(cluster)
            with note_failure(folder, processes.first):
                job.run(stores, folder, {"identity": identity, "texts": len(texts)})
    return folder / "model"


def _check_models(teacher: TextEncoder, student: DenseStudent, options: AlignOptions) -> None:
    """Refuse models that cannot be teacher or student, and say whose index serves the student."""
    for role, model in (("teacher", teacher), ("student", student)):
        if model.kind != "dense":
            raise ModelError(
                f"the {role} {model.source!r} is a {model.kind} model; align compares the vectors"
                " of dense models."
            )
    for side in learned_sides(options.side):
        if not student.learns(side):
            raise OptionError(
                f"side={options.side}, and the student's {side} tower is frozen; use the other"
                " side, or leave out freeze_documents, query_layers and query_backbone."
            )
    if student.learns("document"):
        return
    if student.document_identity() == teacher.document_identity():
        logger.info("the document vectors of %s serve the student", teacher.source)
    elif student.dimension != teacher.dimension:
        raise ModelError(
            f"the student's frozen document tower has vectors of {student.dimension} numbers, and"
            f" the teacher {teacher.source!r} has {teacher.dimension}; queries that learn from it"
            " would not match the documents. Take the teacher as the backbone, and another model"
            " as query_backbone."
        )
    else:
        logger.warning(
            "the student's frozen document tower differs from the teacher's; queries learn the"
            " space of %s, and documents are encoded by %s",
            teacher.source,
            student.source,
        )


@dataclass(frozen=True)
class _Alignment:
    """An alignment, checked and ready to run."""

    corpus: Corpus
    teacher: TextEncoder
    student: DenseStudent
    loss: Loss
    options: AlignOptions
    processes: Processes

    @property
    def sides(self) -> tuple[TowerSide, ...]:
        return learned_sides(self.options.side)

    def identity(self) -> dict[str, Any]:
        """What decides the trained weights, as JSON values."""
        identity: dict[str, Any] = {
            "verb": "align",
            "texts": self.corpus.fingerprint,
            "teacher": {
                side: store_identity(
                    self.corpus, self.teacher, self.options.precision, "float32", side
                )
                for side in self.sides
            },
            "student": self.student.identity(),
            "loss": str(self.loss),
            "options": self.options.identity(),
        }
        if own_losses := code_digests(self.loss):
            identity["own_losses"] = own_losses
        if self.processes.world > 1:
            identity["processes"] = self.processes.world
        self._release()
        plain: dict[str, Any] = json.loads(json.dumps(identity, default=str))
        return plain

    def _release(self) -> None:
        """Let other processes use the answers of a teacher behind a server."""
        close = getattr(self.teacher, "close", None)
        if close is not None:
            close()

    def teacher_vectors(self, cluster: RayCluster | None) -> dict[TowerSide, VectorStore]:
        """The teacher's vectors of all texts by side, encoded on first use."""
        stores: dict[TowerSide, VectorStore] = {}
        for side in self.sides:
            encode_shards = None
            if cluster is not None:
                texts = CollectionRef(Collection("texts to align", self.corpus, {}, Qrels({})))
                encode_shards = RayEncoding(cluster, texts, self.teacher.source, kind=side).shards
            stores[side] = corpus_vectors(
                self.corpus,
                self.teacher,
                precision=self.options.precision,
                encode_shards=encode_shards,
                kind=side,
            )
        self._release()
        return stores

    def run(
        self, stores: Mapping[TowerSide, VectorStore], folder: Path, record: dict[str, Any]
    ) -> None:
        """Train from the last checkpoint or from the start, and save the model."""
        student, processes = self.student, self.processes
        self._begin(stores)
        size = self.options.batch_size * processes.world
        options = self.options.for_loop(-(-len(self.corpus) // processes.world))
        collator = TextCollator(
            self.corpus,
            student,
            stores,
            LengthOrder(self.corpus, size, options.seed),
            processes,
        )
        parameters = new_loss_parameters(self.loss, student, collator, self.options, processes)
        checkpoint = processes.agree(lambda: start_training(folder, record, student, options.steps))
        tokenized, began = snapshot(student), time.monotonic()
        with deterministic_kernels(options.deterministic):
            loop = AlignmentLoop(
                student, self.loss, collator, options, folder, loss_parameters=parameters
            )
            with note_on_interrupt(lambda: describe_newest(loop.folder, options.steps)):
                loop.run(checkpoint)
        student.model.eval()
        truncation = changes(snapshot(student), tokenized)
        report_truncation(student, {side: truncation[side] for side in self.sides})
        journal = self._journal(options, time.monotonic() - began, checkpoint)
        journal["truncation"] = {kind: asdict(counts) for kind, counts in truncation.items()}
        processes.agree(lambda: finish_training(student, parameters, folder, record, journal))

    def _begin(self, stores: Mapping[TowerSide, VectorStore]) -> None:
        """Fit the last layers, and freeze the token embeddings if asked."""
        student = self.student
        for side in self.sides if student.has_two_towers else self.sides[:1]:
            begin_student(student, side, self.corpus, stores[side], self.options)
        if self.options.freeze_embeddings:
            for side in self.sides:
                freeze_embeddings(student.route(side))

    def _journal(
        self, options: TrainOptions, seconds: float, checkpoint: Path | None
    ) -> dict[str, Any]:
        first = step_of(checkpoint) if checkpoint else 0
        texts = (options.steps - first) * self.options.batch_size * self.processes.world
        return {
            "event": "finish",
            "step": options.steps,
            "seconds": round(seconds, 3),
            "texts_per_second": round(texts / max(seconds, 1e-9), 3),
        }


def freeze_embeddings(modules: Sequence[nn.Module]) -> None:
    """Keep the token embeddings of transformers as they are."""
    for module in modules:
        network = getattr(module, "model", None)
        if network is not None and hasattr(network, "get_input_embeddings"):
            network.get_input_embeddings().requires_grad_(False)
