"""Stored vectors of a frozen document tower, in place of encoding the documents of every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.search.vectors.vector_store import STORES, Store, corpus_vectors, document_identity
from irdistill.storage.files import digest
from irdistill.students.base import Student

Vectors = Store | np.ndarray | Literal["stored"] | None
"""Those given to a training; ``stored`` makes them on first use, where the student's document tower
is frozen.
"""


def open_vectors(
    collection: Collection, student: Student, vectors: Vectors, work: str | Path | None
) -> Store | np.ndarray | None:
    """The vectors to train on; of ``stored``, all documents are encoded unless that was done
    before.

    Searching with the trained student reads the same ones.

    Args:
        work: where they are kept; the cache folder where None.
    """
    if isinstance(vectors, str):
        found: Store | None = (
            corpus_vectors(collection.corpus, student, work) if _frozen(student) else None
        )
        return found
    return vectors


def _frozen(student: Student) -> bool:
    return student.kind in STORES and not student.learns("document")


def check_vectors(collection: Collection, student: Student, vectors: Vectors) -> None:
    """Whether vectors are those of the student and the collection.

    Raises:
        IrdistillError: they are not, or would be out of date after the first step.
    """
    if vectors is None or isinstance(vectors, str):
        return
    if isinstance(vectors, Store):
        if (
            vectors.kind != student.kind
            or vectors.identity["corpus"] != collection.corpus.fingerprint
        ):
            raise IrdistillError(
                f"{vectors.folder} holds {vectors.kind} vectors of the corpus"
                f" {vectors.identity['corpus']}; those of a {student.kind} student over"
                f" {collection.corpus.fingerprint} were expected."
            )
        own = student.document_identity()
        different = [key for key, value in own.items() if vectors.identity.get(key) != value]
        if different:
            raise IrdistillError(
                f"{vectors.folder} was made by another document tower than the student's"
                f" ({', '.join(different)} differ); make the vectors with the student itself."
            )
    else:
        if student.kind != "dense":
            raise IrdistillError(
                f"an array of vectors was given for a {student.kind} student; give it a store of"
                " its vectors."
            )
        expected = (len(collection.corpus), student.dimension)
        if tuple(vectors.shape) != expected:
            raise IrdistillError(
                f"the document vectors have shape {tuple(vectors.shape)}; expected {expected}."
            )
    if student.learns("document"):
        raise IrdistillError(
            "document vectors were given, but the student's document tower learns, so they would be"
            " out of date after the first step. Freeze it (freeze_documents) or leave the vectors"
            " out."
        )


def vectors_identity(
    collection: Collection, student: Student, vectors: Vectors
) -> dict[str, Any] | None:
    """What decides the vectors; None where there are none, and of an array."""
    if isinstance(vectors, str):
        return (
            document_identity(collection.corpus, student, "auto", "float32")
            if _frozen(student)
            else None
        )
    return (
        {key: value for key, value in vectors.identity.items() if key != "shard_rows"}
        if isinstance(vectors, Store)
        else None
    )


def vectors_digest(collection: Collection, student: Student, vectors: Vectors) -> str | None:
    """A fingerprint: of what decides the vectors; of an array, which may be larger than memory, of
    rows spread over it.
    """
    if vectors is None or isinstance(vectors, str | Store):
        identity = vectors_identity(collection, student, vectors)
        return None if identity is None else digest(identity)
    rows = np.unique(np.linspace(0, len(vectors) - 1, num=min(len(vectors), 256)).astype(np.int64))
    return digest(
        [list(vectors.shape), np.asarray(vectors[rows], dtype=np.float32).tobytes().hex()]
    )
