"""Retrievers as teachers: self-distillation, and strong retrievers for compact students."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections import Corpus
from irdistill.errors import ModelError, OptionError
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
    """Load a retriever of any type as a teacher.

    Args:
        type: ``dense``, ``sparse`` or ``late-interaction``; ``auto`` detects it from the model's
            files.
    """
    if type not in ("auto", *RETRIEVER_TYPES):
        raise OptionError(
            f"the type of retriever {type!r} is unknown; expected auto,"
            f" {', '.join(RETRIEVER_TYPES)}."
        )
    kind = model_kind(model, None if type == "auto" else type, revision)
    loading: dict[str, Any] = {
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "device": device,
    }
    if kind == "sparse":
        from irdistill.teachers.sparse_retriever_teacher import SparseRetrieverTeacher

        return SparseRetrieverTeacher(model, precision=precision, similarity=similarity, **loading)
    if kind == "late-interaction":
        from irdistill.teachers.late_interaction_teacher import LateInteractionTeacher

        return LateInteractionTeacher(model, precision=precision, similarity=similarity, **loading)
    if kind != "dense":
        raise ModelError(
            f"the model {model!r} is a {kind}, which has no vectors. Leave out the kind."
        )
    student = DenseStudent.load(model, **loading)
    if similarity is not None:
        if similarity not in ("dot", "cosine"):
            raise OptionError(
                f"the similarity {similarity!r} does not fit the dense model {model!r}; expected"
                " dot or cosine."
            )
        student.model.similarity_fn_name = similarity
    return RetrieverTeacher(student, corpus, work, precision)


class RetrieverTeacher:
    """Scores by the similarity of dense vectors.

    The corpus is encoded once, into the store that ``retrieve`` uses. So a teacher that retrieved
    the candidates encodes nothing again.

    Args:
        model: a dense model.
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
        """What the model did not read of the queries so far; for documents see their store."""
        return {kind: counts for kind, counts in self.model.truncation.items() if kind == "query"}

    @property
    def identity(self) -> dict[str, Any]:
        """Weights, lengths, prompts and precision."""
        dtype = str(choose_dtype(self.precision, self.model.device)).removeprefix("torch.")
        return {**self.model.identity(), "kind": "retriever", "type": "dense", "precision": dtype}

    states = "vectors"

    def query_states(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The vector of each query, (1, D) float32."""
        vectors = self.model.encode(
            texts, "query", self.precision, normalize=self.model.similarity == "cosine"
        )
        return list(vectors[:, None])

    def document_states(self, rows: Sequence[int], texts: Sequence[str]) -> list[np.ndarray]:
        """The vector of each document, (1, D), from the store."""
        return list(np.asarray(self.store.matrix[np.asarray(rows, np.int64)])[:, None])

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        """Cosine or inner product of each pair, as the model states, summed in float32."""
        texts = list(dict.fromkeys(pair.query.text for pair in pairs))
        vectors = self.model.encode(
            texts, "query", self.precision, normalize=self.model.similarity == "cosine"
        )
        place = {text: number for number, text in enumerate(texts)}
        query_places = np.array([place[pair.query.text] for pair in pairs], dtype=np.int64)
        rows = np.array([pair.row for pair in pairs], dtype=np.int64)
        values = np.empty(len(pairs), dtype=np.float32)
        for number in range(len(texts)):
            selected = np.flatnonzero(query_places == number)
            values[selected] = (
                np.asarray(self.store.matrix[rows[selected]], dtype=np.float32) @ vectors[number]
            )
        empty = ~np.asarray(vectors.any(axis=1))[query_places] | np.isin(
            rows, self.store.absent_rows
        )
        if not empty.any():
            return TeacherScores(values)
        values[empty] = np.nan
        return TeacherScores(values, [NO_TOKENS if none else None for none in empty.tolist()])
