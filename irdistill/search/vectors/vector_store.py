"""The vectors of a corpus on disk, by kind of student: dense rows, sparse rows, or a vector for
each token.

They belong to the document tower alone: students that share a frozen one share its store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from irdistill.collections import Corpus
from irdistill.console.progress import ProgressCallback, ProgressRelay
from irdistill.errors import IrdistillError
from irdistill.modeling.batching import TokenBudget
from irdistill.modeling.hardware import Precision, choose_dtype
from irdistill.modeling.truncation import Truncation, changes, snapshot
from irdistill.search.array_shards import TRUNCATION, Arrays, Layout, write_arrays
from irdistill.search.retrieve_options import Storage
from irdistill.storage.checksums import CheckedArray
from irdistill.storage.files import cache_folder, digest
from irdistill.students.base import Student

logger = logging.getLogger(__name__)

FORMAT = 2

EncodeShards = Callable[
    [Mapping[str, Any], Precision, str, int | None, Iterable[tuple[int, int]]],
    Iterator[Mapping[str, np.ndarray]],
]
"""Encodes ranges of documents outside this process, for example on a Ray cluster.

Called with the document identity, precision, storage type, token budget, and (start, end) ranges.
Yields the arrays of each range in order.
"""


class VectorBatch(NamedTuple):
    """The vectors of some documents, in float32 on the CPU.

    Attributes:
        values: (n, D) of a dense or sparse store; of tokens (all tokens, D).
        lengths: of each document the number of its tokens.
    """

    values: Tensor
    lengths: list[int] | None = None

    def on(self, device: torch.device) -> Any:
        """As a student's ``scores`` takes documents: (n, D), or a list of (tokens, D)."""
        values = self.values.to(device, non_blocking=True)
        return values if self.lengths is None else list(values.split(self.lengths))


class Store(Arrays):
    """The vectors of all documents of a corpus, row for row; unit length where the student says
    cosine.

    So inner products, or MaxSim, are the student's similarity.
    """

    kind: ClassVar[str]
    format: ClassVar[int] = FORMAT
    shard_rows: ClassVar[int] = 8192

    def __init__(self, folder: str | Path) -> None:
        """Open a finished store.

        Raises:
            IrdistillError: it does not exist, is unfinished, is damaged, or of another kind.
        """
        super().__init__(folder)
        if self.identity.get("kind", self.kind) != self.kind:
            raise IrdistillError(
                f"{folder} holds {self.identity['kind']} vectors, and {self.kind} ones were"
                " expected."
            )
        self.dimension = int(self.identity["dimension"])

    @classmethod
    def layout(cls, dimension: int, storage: str) -> Layout:
        """The arrays of the store."""
        raise NotImplementedError

    @classmethod
    def arrays(cls, vectors: Any) -> Mapping[str, np.ndarray]:
        """What is stored of a student's ``search_vectors``."""
        raise NotImplementedError

    def take(self, rows: np.ndarray) -> VectorBatch:
        """The vectors of some documents, in the order of ``rows``."""
        raise NotImplementedError

    @classmethod
    def build(
        cls,
        corpus: Corpus,
        encoder: Student,
        folder: str | Path,
        *,
        shard_rows: int | None = None,
        precision: Precision = "auto",
        storage: Storage = "float32",
        budget: int | None = None,
        overwrite: bool = False,
        encode_shards: EncodeShards | None = None,
    ) -> Self:
        """Encode a corpus, or go on where an earlier call was stopped.

        Args:
            shard_rows: documents a shard: what a kill can cost, and what is held in memory.
            storage: of the numbers; words' weights and lengths are stored as they are.
            budget: padded tokens a batch.
            encode_shards: encodes ranges of documents elsewhere (default: this process).

        Raises:
            IrdistillError: the folder holds vectors of something else (and ``overwrite`` is not
                set), another process writes there, or the disk is full.
        """
        shard_rows = shard_rows or cls.shard_rows
        identity = document_identity(corpus, encoder, precision, storage)

        relay = ProgressRelay()

        def encode(start: int, end: int) -> Mapping[str, np.ndarray]:
            return encode_rows(corpus, encoder, start, end, precision, budget, relay)

        spread = (
            None
            if encode_shards is None
            else partial(encode_shards, identity, precision, storage, budget)
        )
        layout = cls.layout(identity["dimension"], storage)
        write_arrays(
            folder,
            identity | {"shard_rows": shard_rows},
            layout,
            len(corpus),
            shard_rows,
            encode,
            overwrite,
            spread=spread,
            relay=relay,
        )
        return cls(folder)


class VectorStore(Store):
    """N vectors of dimension D; a document without tokens has zeros, and is not ``present``."""

    kind = "dense"
    format = 3

    @classmethod
    def layout(cls, dimension: int, storage: str) -> Layout:
        return {"vectors": (storage, (dimension,)), "present": ("uint8", ())}

    @classmethod
    def arrays(cls, vectors: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"vectors": vectors, "present": np.asarray(vectors.any(axis=1))}

    @property
    def matrix(self) -> CheckedArray:
        """(N, D) read-only memory map in the stored type."""
        return self.array("vectors")

    @property
    def nbytes(self) -> int:
        """The size of the vectors."""
        return int(self.manifest["arrays"]["vectors"]["bytes"])

    @cached_property
    def absent_rows(self) -> np.ndarray:
        """The documents, ascending, that have no vector and are never found."""
        return np.flatnonzero(np.asarray(self.array("present")[:]) == 0)

    def take(self, rows: np.ndarray) -> VectorBatch:
        return VectorBatch(torch.from_numpy(np.asarray(self.matrix[rows], dtype=np.float32)))


class SparseStore(Store):
    """N sparse vectors over V words: the words that weigh anything, and their weights."""

    kind = "sparse"

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        self.starts = _starts(np.asarray(self.array("lengths")))

    @classmethod
    def layout(cls, dimension: int, storage: str) -> Layout:
        return {"lengths": ("int32", ()), "words": ("int32", ()), "weights": (storage, ())}

    @classmethod
    def arrays(cls, vectors: csr_matrix) -> Mapping[str, np.ndarray]:
        vectors.sum_duplicates()  # and words in ascending order
        return {
            "lengths": np.diff(vectors.indptr),
            "words": vectors.indices,
            "weights": vectors.data,
        }

    def part(self, start: int, end: int) -> csr_matrix:
        """The rows (end - start, V) of a range of documents, in float32."""
        return self.rows_of(np.arange(start, end))

    def rows_of(self, rows: np.ndarray) -> csr_matrix:
        """The rows (n, V) of some documents, in float32."""
        places, lengths = _places(self.starts, rows)
        weights = np.asarray(self.array("weights")[places], dtype=np.float32)
        return csr_matrix(
            (weights, self.array("words")[places], _starts(lengths)),
            shape=(len(rows), self.dimension),
        )

    def take(self, rows: np.ndarray) -> VectorBatch:
        """(n, V) with the zeros: what the loss multiplies."""
        return VectorBatch(torch.from_numpy(self.rows_of(rows).toarray()))


class TokenStore(Store):
    """A vector of dimension D for each scored token of N documents."""

    kind = "late-interaction"
    shard_rows = 1024  # a document may take a hundred kilobytes

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        self.starts = _starts(np.asarray(self.array("lengths")))

    @classmethod
    def layout(cls, dimension: int, storage: str) -> Layout:
        return {"lengths": ("int32", ()), "tokens": (storage, (dimension,))}

    @classmethod
    def arrays(cls, vectors: list[np.ndarray]) -> Mapping[str, np.ndarray]:
        lengths = np.array([len(tokens) for tokens in vectors], dtype=np.int32)
        return {
            "lengths": lengths,
            "tokens": np.concatenate(vectors) if len(vectors) else np.empty(0, np.float32),
        }

    @property
    def matrix(self) -> CheckedArray:
        """(T, D) read-only memory map of all tokens, document after document, in the stored
        type.
        """
        return self.array("tokens")

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where in the matrix the tokens of some documents lie, one document after another, and how
        many each has.
        """
        return _places(self.starts, rows)

    def take(self, rows: np.ndarray) -> VectorBatch:
        places, lengths = self.places(rows)
        values = np.asarray(self.matrix[places], dtype=np.float32)
        return VectorBatch(torch.from_numpy(values), lengths.tolist())


def _starts(lengths: np.ndarray) -> np.ndarray:
    """(N + 1,) int64: where the items of each document begin, and where the last ones end."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _places(starts: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places of the items of some documents, one document after another, and how many each
    has.
    """
    rows = np.asarray(rows, dtype=np.int64)
    lengths = starts[rows + 1] - starts[rows]
    return runs(starts[rows], lengths), lengths


def runs(begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers of some runs, one run after another: of each its first number, and how many
    follow one another from there.
    """
    before = np.cumsum(lengths) - lengths
    return np.repeat(begins - before, lengths) + np.arange(lengths.sum())


STORES: Mapping[str, type[Store]] = {
    store.kind: store for store in (VectorStore, SparseStore, TokenStore)
}


def encode_rows(
    corpus: Corpus,
    encoder: Student,
    start: int,
    end: int,
    precision: Precision,
    budget: int | None = None,
    done: ProgressCallback | None = None,
) -> Mapping[str, np.ndarray]:
    """What a store holds of the documents from ``start`` up to ``end``, and how much of them the
    encoder did not read.

    Nothing is remembered from one call to the next, so the numbers depend on neither order nor
    place.

    Args:
        budget: padded tokens a batch.
        done: is told how many documents were encoded, batch by batch.

    Raises:
        IrdistillError: the vectors have not the dimension that the encoder states.
    """
    limit = TokenBudget(budget) if budget is not None else None
    before = snapshot(encoder)
    found = encoder.search_vectors(
        corpus.texts(range(start, end)), "document", precision, limit, done
    )
    counts = changes(snapshot(encoder), before).get("document", Truncation())
    width = (
        found.shape[1]
        if not isinstance(found, list)
        else found[0].shape[1]
        if found
        else encoder.dimension
    )
    if width != encoder.dimension:
        raise IrdistillError(
            f"{encoder.source!r} states {encoder.dimension} dimensions and gives {width}."
        )
    return {**STORES[encoder.kind].arrays(found), TRUNCATION: counts.to_array()}


def document_identity(
    corpus: Corpus, encoder: Student, precision: Precision, storage: str
) -> dict[str, Any]:
    """What decides the vectors of a corpus: its texts and the document tower, not the query tower.

    Raises:
        IrdistillError: the student reads pairs and has no vectors.
    """
    if encoder.kind not in STORES:
        encoder.search_vectors([], "document")
    return {
        "format": STORES[encoder.kind].format,
        "kind": encoder.kind,
        "corpus": corpus.fingerprint,
        "storage": storage,
        "precision": str(choose_dtype(precision, encoder.device)).removeprefix("torch."),
        **encoder.document_identity(),
    }


def corpus_vectors(
    corpus: Corpus,
    encoder: Student,
    work: str | Path | None = None,
    precision: Precision = "auto",
    storage: Storage = "float32",
    encode_shards: EncodeShards | None = None,
) -> Any:
    """The vectors of a corpus, built on first use, in a folder named by all that decides them.

    Args:
        work: the folder of such folders; the cache folder where None.
        encode_shards: encodes ranges of documents elsewhere (default: this process).

    Returns:
        The store of the student's kind.
    """
    identity = document_identity(corpus, encoder, precision, storage)
    key = digest(identity | {"shard_rows": STORES[encoder.kind].shard_rows})
    base = Path(work) if work is not None else cache_folder() / "vectors"
    store = STORES[encoder.kind].build(
        corpus,
        encoder,
        base / key,
        precision=precision,
        storage=storage,
        encode_shards=encode_shards,
    )
    report_cut_documents(store, encoder)
    return store


_reported: set[Path] = set()


def report_cut_documents(store: Arrays, encoder: Student) -> None:
    """Say, once a process for each store, how much of the documents the encoder does not read."""
    folder = store.folder.resolve()
    if folder not in _reported:
        _reported.add(folder)
        store.truncation.report("document", encoder.source, logger, encoder.max_length("document"))
