"""Stored vectors of a frozen document tower, instead of encoding the documents of every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from irdistill.collections import Collection
from irdistill.errors import OptionError, WrongCollectionError
from irdistill.search.vectors.vector_store import STORES, Store, corpus_vectors, store_identity
from irdistill.storage.files import digest
from irdistill.students.student_base import Student

Vectors = Store | np.ndarray | Literal["stored"] | None
"""``stored`` encodes the corpus on first use, if the student's document tower is frozen."""
_SAMPLED_ROWS = 256


def open_vectors(
    collection: Collection, student: Student, vectors: Vectors, work: str | Path | None
) -> Store | np.ndarray | None:
    """The vectors to train on; ``stored`` encodes the corpus unless that was done before.

    Searching with the trained student uses the same vectors.

    Args:
        work: where they are stored; the cache folder by default.
    """
    if not isinstance(vectors, str):
        return vectors
    if not _is_frozen(student):
        return None
    store: Store = corpus_vectors(collection.corpus, student, work)
    return store


def _is_frozen(student: Student) -> bool:
    return student.kind in STORES and not student.learns("document")


def check_vectors(collection: Collection, student: Student, vectors: Vectors) -> None:
    """Check that vectors are of the student and of the collection.

    Raises:
        WrongCollectionError: they are of another corpus, or of another kind of student.
        OptionError: they have another shape, are of another document tower, or would be out of date
            after the first step.
    """
    if vectors is None or isinstance(vectors, str):
        return
    if isinstance(vectors, Store):
        _check_store(collection, student, vectors)
    else:
        _check_array(collection, student, vectors)
    if student.learns("document"):
        raise OptionError(
            "document vectors were given, but the student's document tower learns, so they would be"
            " out of date after the first step. Freeze it (freeze_documents) or leave the vectors"
            " out."
        )


def _check_store(collection: Collection, student: Student, store: Store) -> None:
    fingerprint = collection.corpus.fingerprint
    if store.kind != student.kind or store.identity["corpus"] != fingerprint:
        raise WrongCollectionError(
            f"{store.folder} has {store.kind} vectors of the corpus {store.identity['corpus']};"
            f" those of a {student.kind} student of {fingerprint} were expected."
        )
    identity = student.document_identity()
    different = [key for key, value in identity.items() if store.identity.get(key) != value]
    if different:
        raise OptionError(
            f"{store.folder} was made by another document tower than the student's"
            f" ({', '.join(different)} differ); make the vectors with the student itself."
        )


def _check_array(collection: Collection, student: Student, vectors: np.ndarray) -> None:
    if student.kind != "dense":
        raise OptionError(
            f"an array of vectors was given for a {student.kind} student; give a store of its"
            " vectors."
        )
    expected = (len(collection.corpus), student.dimension)
    if tuple(vectors.shape) != expected:
        raise OptionError(
            f"the document vectors have shape {tuple(vectors.shape)}; expected {expected}."
        )


def vectors_identity(
    collection: Collection, student: Student, vectors: Vectors
) -> dict[str, Any] | None:
    """What decides the vectors; None for an array, or if there are none."""
    if isinstance(vectors, Store):
        return {key: value for key, value in vectors.identity.items() if key != "shard_rows"}
    if isinstance(vectors, str) and _is_frozen(student):
        return store_identity(collection.corpus, student, "auto", "float32")
    return None


def vectors_digest(collection: Collection, student: Student, vectors: Vectors) -> str | None:
    """A fingerprint of what decides the vectors; for an array, which may be larger than memory, of
    rows spread over it.
    """
    if vectors is None or isinstance(vectors, str | Store):
        identity = vectors_identity(collection, student, vectors)
        return None if identity is None else digest(identity)
    sample = np.linspace(0, len(vectors) - 1, num=min(len(vectors), _SAMPLED_ROWS))
    rows = np.unique(sample.astype(np.int64))
    contents = np.asarray(vectors[rows], dtype=np.float32).tobytes().hex()
    return digest([list(vectors.shape), contents])
