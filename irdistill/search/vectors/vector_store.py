"""The vectors of a corpus on disk: dense rows, sparse rows, or one vector per token.

They depend on the document tower only, so students that share a frozen one share the store.
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
from irdistill.console.progress_bars import ProgressCallback, ProgressRelay
from irdistill.errors import DamagedError, InputError, ModelError, NotFoundError
from irdistill.modeling.batching import TokenBudget
from irdistill.modeling.hardware import Precision, choose_dtype
from irdistill.modeling.truncation import Truncation, changes, snapshot
from irdistill.search.array_shards import (
    TRUNCATION,
    Arrays,
    Layout,
    ShardOptions,
    read_part,
    write_arrays,
)
from irdistill.search.retrieve_options import Storage
from irdistill.search.vectors.text_encoder import TextEncoder
from irdistill.storage.checksums import CheckedArray
from irdistill.storage.files import cache_folder, digest
from irdistill.students.tower_model import TextKind

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
    """Vectors of some documents, float32 on the CPU.

    Attributes:
        values: (n, D) of a dense or sparse store, (all tokens, D) of a token store.
        lengths: number of tokens of each document, of a token store.
    """

    values: Tensor
    lengths: list[int] | None = None

    def on(self, device: torch.device) -> Any:
        """The argument of a student's ``scores``: (n, D), or a list of (tokens, D)."""
        values = self.values.to(device, non_blocking=True)
        return values if self.lengths is None else list(values.split(self.lengths))


class Store(Arrays):
    """The vectors of all documents of a corpus, in corpus order.

    They have unit length when the student's similarity is cosine, so inner products (or MaxSim) are
    the student's similarity.
    """

    kind: ClassVar[str]
    format: ClassVar[int] = FORMAT
    shard_rows: ClassVar[int] = 8192

    def __init__(self, folder: str | Path) -> None:
        """Open a finished store."""
        super().__init__(folder)
        if self.identity.get("kind", self.kind) != self.kind:
            raise InputError(
                f"{folder} contains {self.identity['kind']} vectors; expected {self.kind} ones."
            )
        self.dimension = int(self.identity["dimension"])

    @classmethod
    def layout(cls, dimension: int, storage: str) -> Layout:
        """The arrays of the store."""
        raise NotImplementedError

    @classmethod
    def arrays(cls, vectors: Any) -> Mapping[str, np.ndarray]:
        """The stored arrays of the result of a student's ``search_vectors``."""
        raise NotImplementedError

    def take(self, rows: np.ndarray) -> VectorBatch:
        """The vectors of some documents, in the order of ``rows``."""
        raise NotImplementedError

    @classmethod
    def build(
        cls,
        corpus: Corpus,
        encoder: TextEncoder,
        folder: str | Path,
        *,
        shard_rows: int | None = None,
        precision: Precision = "auto",
        storage: Storage = "float32",
        encode_shards: EncodeShards | None = None,
        kind: TextKind = "document",
    ) -> Self:
        """Encode a corpus. An interrupted job resumes.

        Args:
            shard_rows: documents per shard (the most work a crash can lose, and held in memory).
            storage: number type on disk; term ids and lengths are integers.
            encode_shards: encodes ranges of documents elsewhere (default: this process).
            kind: the tower that encodes the texts.
        """
        shard_rows = shard_rows or cls.shard_rows
        identity = store_identity(corpus, encoder, precision, storage, kind)
        relay = ProgressRelay()

        def encode(start: int, end: int) -> Mapping[str, np.ndarray]:
            return encode_rows(corpus, encoder, start, end, precision, done=relay, kind=kind)

        make_ranges = None
        if encode_shards is not None:
            make_ranges = partial(encode_shards, identity, precision, storage, None)
        write_arrays(
            folder,
            identity | {"shard_rows": shard_rows},
            cls.layout(identity["dimension"], storage),
            len(corpus),
            shard_rows,
            encode,
            ShardOptions(make_ranges=make_ranges, relay=relay),
        )
        return cls(folder)


class VectorStore(Store):
    """One vector of dimension D per document; zeros for a document without tokens."""

    kind = "dense"
    format = 3

    @classmethod
    def layout(cls, dimension: int, storage: str) -> Layout:
        """Vectors, and which documents have one."""
        return {"vectors": (storage, (dimension,)), "present": ("uint8", ())}

    @classmethod
    def arrays(cls, vectors: np.ndarray) -> Mapping[str, np.ndarray]:
        """The stored arrays of vectors (n, D)."""
        return {"vectors": vectors, "present": np.asarray(vectors.any(axis=1))}

    @property
    def matrix(self) -> CheckedArray:
        """(N, D) read-only memory map in the stored type."""
        return self.array("vectors")

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors."""
        return int(self.manifest["arrays"]["vectors"]["bytes"])

    @cached_property
    def absent_rows(self) -> np.ndarray:
        """Rows of the documents without a vector, ascending; they are never retrieved."""
        return np.flatnonzero(np.asarray(self.array("present")[:]) == 0)

    def take(self, rows: np.ndarray) -> VectorBatch:
        """Vectors (n, D) of some documents."""
        return VectorBatch(torch.from_numpy(np.asarray(self.matrix[rows], dtype=np.float32)))


class SparseStore(Store):
    """One sparse vector over V terms per document: term ids and weights."""

    kind = "sparse"

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        self.starts = _starts(np.asarray(self.array("lengths")))

    @classmethod
    def layout(cls, dimension: int, storage: str) -> Layout:
        """Number of terms per document, then the terms and weights of all documents."""
        return {"lengths": ("int32", ()), "words": ("int32", ()), "weights": (storage, ())}

    @classmethod
    def arrays(cls, vectors: csr_matrix) -> Mapping[str, np.ndarray]:
        """The stored arrays of vectors (n, V)."""
        vectors.sum_duplicates()  # sorts the terms, too
        return {
            "lengths": np.diff(vectors.indptr),
            "words": vectors.indices,
            "weights": vectors.data,
        }

    def part(self, start: int, end: int) -> csr_matrix:
        """Float32 rows (end - start, V) of a range of documents."""
        return self.rows_of(np.arange(start, end))

    def rows_of(self, rows: np.ndarray) -> csr_matrix:
        """Float32 rows (n, V) of some documents."""
        places, lengths = _places(self.starts, rows)
        weights = np.asarray(self.array("weights")[places], dtype=np.float32)
        content = (weights, self.array("words")[places], _starts(lengths))
        return csr_matrix(content, shape=(len(rows), self.dimension))

    def take(self, rows: np.ndarray) -> VectorBatch:
        """Vectors (n, V) of some documents, with their zeros."""
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
        """Number of tokens per document, then the vectors of all tokens."""
        return {"lengths": ("int32", ()), "tokens": (storage, (dimension,))}

    @classmethod
    def arrays(cls, vectors: list[np.ndarray]) -> Mapping[str, np.ndarray]:
        """The stored arrays of token vectors, (tokens, D) per document."""
        lengths = np.array([len(tokens) for tokens in vectors], dtype=np.int32)
        tokens = np.concatenate(vectors) if vectors else np.empty(0, np.float32)
        return {"lengths": lengths, "tokens": tokens}

    @property
    def matrix(self) -> CheckedArray:
        """(T, D) read-only memory map of all tokens in corpus order, in the stored type."""
        return self.array("tokens")

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of `matrix` with the tokens of some documents, and the number of tokens of each."""
        return _places(self.starts, rows)

    def take(self, rows: np.ndarray) -> VectorBatch:
        """Token vectors of some documents."""
        places, lengths = self.places(rows)
        values = np.asarray(self.matrix[places], dtype=np.float32)
        return VectorBatch(torch.from_numpy(values), lengths.tolist())


def _starts(lengths: np.ndarray) -> np.ndarray:
    """(N + 1,) int64: where the items of each document start, and where the last ones end."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _places(starts: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the items of some documents, and the number of items of each."""
    rows = np.asarray(rows, dtype=np.int64)
    lengths = starts[rows + 1] - starts[rows]
    return concatenated_ranges(starts[rows], lengths), lengths


def concatenated_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenation of ``range(start, start + length)`` for each start and length.

    Examples:
        >>> concatenated_ranges(np.array([5, 0]), np.array([2, 3])).tolist()
        [5, 6, 0, 1, 2]
    """
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


STORES: Mapping[str, type[Store]] = {
    store.kind: store for store in (VectorStore, SparseStore, TokenStore)
}


def encode_rows(
    corpus: Corpus,
    encoder: TextEncoder,
    start: int,
    end: int,
    precision: Precision,
    budget: int | None = None,
    done: ProgressCallback | None = None,
    kind: TextKind = "document",
) -> Mapping[str, np.ndarray]:
    """The stored arrays of the documents from ``start`` up to ``end``, with truncation counts.

    The result does not depend on other calls.

    Args:
        done: called with the number of encoded documents after each batch.
        kind: the tower that encodes the texts.
    """
    limit = TokenBudget(budget) if budget is not None else None
    before = snapshot(encoder)
    texts = corpus.texts(range(start, end))
    vectors = encoder.search_vectors(texts, kind, precision, limit, done)
    truncation = changes(snapshot(encoder), before).get(kind, Truncation())
    first = vectors[0] if isinstance(vectors, list) and vectors else vectors
    width = encoder.dimension if isinstance(first, list) else first.shape[1]
    if width != encoder.dimension:
        raise ModelError(
            f"{encoder.source!r} states {encoder.dimension} dimensions, but returned {width}."
        )
    return {**STORES[encoder.kind].arrays(vectors), TRUNCATION: truncation.to_array()}


def store_identity(
    corpus: Corpus,
    encoder: TextEncoder,
    precision: Precision,
    storage: str,
    kind: TextKind = "document",
) -> dict[str, Any]:
    """Everything that determines the vectors of a corpus: its texts and the tower."""
    if encoder.kind not in STORES:
        encoder.search_vectors([], "document")  # raises
    return {
        "format": STORES[encoder.kind].format,
        "kind": encoder.kind,
        "corpus": corpus.fingerprint,
        "storage": storage,
        "precision": str(choose_dtype(precision, encoder.device)).removeprefix("torch."),
        **encoder.tower_identity(kind),
    }


def corpus_vectors(
    corpus: Corpus,
    encoder: TextEncoder,
    work: str | Path | None = None,
    precision: Precision = "auto",
    storage: Storage = "float32",
    encode_shards: EncodeShards | None = None,
    kind: TextKind = "document",
) -> Any:
    """The vectors of a corpus, built on first use, in a folder named by their identity.

    Vectors that a model makes of those of a longer model (`Student.longer_model`) are computed from
    the store of that model, in this process.

    Args:
        encode_shards: encodes ranges of documents elsewhere (default: this process).
        kind: the tower that encodes the texts.

    Returns:
        The store of the student's kind.
    """
    store = _build(corpus, encoder, work, precision, storage, encode_shards, kind)
    report_cut_texts(store, encoder, kind)
    return store


def _build(
    corpus: Corpus,
    encoder: TextEncoder,
    work: str | Path | None,
    precision: Precision,
    storage: Storage,
    encode_shards: EncodeShards | None,
    kind: TextKind,
) -> Store:
    identity = store_identity(corpus, encoder, precision, storage, kind)
    longer = encoder.longer_model(kind) if encode_shards is None else None

    def shortened(*arguments: Any) -> Iterator[Mapping[str, np.ndarray]]:
        assert longer is not None
        store = _build(corpus, longer.model, work, precision, storage, None, kind)
        assert isinstance(store, VectorStore)
        for start, end in arguments[-1]:
            counts = store.truncation if start == 0 else Truncation()
            vectors = longer.shorten(read_part(store.matrix, start, end))
            yield {**VectorStore.arrays(vectors), TRUNCATION: counts.to_array()}

    return STORES[encoder.kind].build(
        corpus,
        encoder,
        _vectors_folder(encoder, identity, work),
        precision=precision,
        storage=storage,
        encode_shards=encode_shards if longer is None else shortened,
        kind=kind,
    )


def has_corpus_vectors(corpus: Corpus, encoder: TextEncoder) -> bool:
    """Whether `corpus_vectors` finds finished vectors in the cache folder, and encodes nothing."""
    return finished_vectors(corpus, encoder) is not None


def finished_vectors(
    corpus: Corpus,
    encoder: TextEncoder,
    precision: Precision = "auto",
    storage: Storage = "float32",
) -> Any:
    """The vectors that `corpus_vectors` keeps in the cache folder; None if they are not finished.

    Damaged shards are encoded again by `corpus_vectors`, so they are not finished.
    """
    identity = store_identity(corpus, encoder, precision, storage)
    try:
        return STORES[encoder.kind](_vectors_folder(encoder, identity, None))
    except (NotFoundError, DamagedError):
        return None


def _vectors_folder(
    encoder: TextEncoder, identity: Mapping[str, Any], work: str | Path | None
) -> Path:
    """The folder of a corpus's vectors, named by their identity."""
    base = Path(work) if work is not None else cache_folder() / "vectors"
    return base / digest(dict(identity) | {"shard_rows": STORES[encoder.kind].shard_rows})


_reported: set[Path] = set()


def report_cut_texts(store: Arrays, encoder: TextEncoder, kind: TextKind = "document") -> None:
    """Log, once per process and store, how much of the texts the encoder does not read."""
    folder = store.folder.resolve()
    if folder not in _reported:
        _reported.add(folder)
        store.truncation.report(kind, encoder.source, logger, encoder.max_length(kind))
