"""Retrievers as teachers: self-distillation, and strong retrievers for compact students."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections import Corpus
from irdistill.errors import IrdistillError
from irdistill.modeling.hardware import Precision, choose_dtype
from irdistill.modeling.truncation import Truncation
from irdistill.search.vectors.vector_store import VectorStore, corpus_vectors
from irdistill.students.dense_student import DenseStudent
from irdistill.students.model_kinds import RETRIEVER_TYPES, model_kind
from irdistill.teachers.protocol import NO_TOKENS, Teacher, TeacherScores, TextPair


def load_retriever(
    model: str,
    corpus: Corpus,
    work: Path | None = None,
    *,
    type: str = "auto",
    revision: str | None = None,
    precision: Precision = "auto",
    similarity: str | None = None,
    trust_remote_code: bool = False,
    device: str | None = None,
) -> Teacher:
    """A retriever of any type as a teacher.

    Args:
        model: folder, ``package:`` path or hub id.
        corpus, work: what is scored, and where dense vectors of it are kept; the cache folder where
            None.
        type: ``dense``, ``sparse`` or ``late-interaction``; ``auto`` is told from the model's
            files.
        similarity: in place of what the model states: ``dot`` or ``cosine``, or ``maxsim`` or
            ``meanmaxsim``.

    Raises:
        IrdistillError: the model cannot be loaded, or the type or similarity is unknown.
    """
    if type not in ("auto", *RETRIEVER_TYPES):
        raise IrdistillError(
            f"a retriever of type {type!r} was asked for; give auto, {', '.join(RETRIEVER_TYPES)}."
        )
    found = model_kind(model, None if type == "auto" else type, revision)
    given: dict[str, Any] = {
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "device": device,
    }
    if found == "sparse":
        from irdistill.teachers.sparse_retriever_teacher import SparseRetrieverTeacher

        return SparseRetrieverTeacher(model, precision=precision, similarity=similarity, **given)
    if found == "late-interaction":
        from irdistill.teachers.late_interaction_teacher import LateInteractionTeacher

        return LateInteractionTeacher(model, precision=precision, similarity=similarity, **given)
    if found != "dense":
        raise IrdistillError(
            f"the model {model!r} is a {found}, which has no vectors; leave out the kind."
        )
    student = DenseStudent.load(model, **given)
    if similarity is not None:
        if similarity not in ("dot", "cosine"):
            raise IrdistillError(
                f"the similarity {similarity!r} was asked of the dense model {model!r}; give dot or"
                " cosine."
            )
        student.model.similarity_fn_name = similarity
    return RetrieverTeacher(student, corpus, work, precision)


class RetrieverTeacher:
    """Scores by the similarity of dense vectors.

    The corpus is encoded once, into the store that ``retrieve`` uses, so a teacher that gave the
    candidates too encodes nothing again.

    Args:
        model: any dense model.
        work: where vectors are kept; the cache folder where None.
    """

    def __init__(
        self,
        model: DenseStudent,
        corpus: Corpus,
        work: Path | None = None,
        precision: Precision = "auto",
    ) -> None:
        self.model, self.precision = model, precision
        self.store: VectorStore = corpus_vectors(corpus, model, work, precision)

    @property
    def truncation(self) -> dict[str, Truncation]:
        """What the model did not read so far of the queries; of the documents see their store."""
        return {kind: counts for kind, counts in self.model.truncation.items() if kind == "query"}

    @property
    def identity(self) -> dict[str, Any]:
        """Weights, lengths, prompts and precision."""
        dtype = str(choose_dtype(self.precision, self.model.device)).removeprefix("torch.")
        return {**self.model.identity(), "kind": "retriever", "type": "dense", "precision": dtype}

    states = "vectors"

    def query_states(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The vector of each query, (1, D) float32."""
        found = self.model.encode(
            texts, "query", self.precision, normalize=self.model.similarity == "cosine"
        )
        return list(found[:, None])

    def document_states(self, rows: Sequence[int], texts: Sequence[str]) -> list[np.ndarray]:
        """The vector of each document, (1, D), out of the store."""
        return list(np.asarray(self.store.matrix[np.asarray(rows, np.int64)])[:, None])

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        """Cosine or inner product of each pair, as the model states, summed in float32."""
        texts = list(dict.fromkeys(pair.query.text for pair in pairs))
        vectors = self.model.encode(
            texts, "query", self.precision, normalize=self.model.similarity == "cosine"
        )
        place = {text: number for number, text in enumerate(texts)}
        asked = np.array([place[pair.query.text] for pair in pairs], dtype=np.int64)
        rows = np.array([pair.row for pair in pairs], dtype=np.int64)
        values = np.empty(len(pairs), dtype=np.float32)
        for number in range(len(texts)):
            own = np.flatnonzero(asked == number)
            values[own] = (
                np.asarray(self.store.matrix[rows[own]], dtype=np.float32) @ vectors[number]
            )
        empty = ~np.asarray(vectors.any(axis=1))[asked] | np.isin(rows, self.store.absent_rows)
        if not empty.any():
            return TeacherScores(values)
        values[empty] = np.nan
        return TeacherScores(values, [NO_TOKENS if none else None for none in empty.tolist()])
