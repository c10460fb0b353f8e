"""From lists of row numbers to tensors: each text is tokenized once, each document encoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import xxhash
from torch import Tensor

from irdistill.losses import BatchRepresentations
from irdistill.search.vectors.vector_store import Store, VectorBatch
from irdistill.training.data.list_sampler import ListBatch, ListSampler
from irdistill.training.processes import Processes

if TYPE_CHECKING:
    from irdistill.collections import Collection
    from irdistill.students.student_base import Student
    from irdistill.students.tower_model import TextKind

_CACHE_BYTES = 64 << 20
_CACHED_KEYS = 1 << 18


@dataclass
class TokenRows:
    """Tokenized texts of one tower, truncated and not padded.

    Attributes:
        rows: for each text its arrays by name (``input_ids``, …), without attention mask.
        total: number of texts in all processes; ``rows`` has this process's share.
    """

    rows: list[dict[str, np.ndarray]]
    total: int = 0

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each text."""
        return np.array([len(row["input_ids"]) for row in self.rows], dtype=np.int64)


class CachedTokenizer:
    """Tokenizes texts by their numbers, with a cache of the latest texts.

    Args:
        student: tokenizes, with its prompts and lengths.
        kind: the side of the student that the texts go to.
        texts: gives the texts, or pairs of texts, for a list of numbers.
        limit: size of the cache in bytes.
        processes: only this process's share of the texts is tokenized.
    """

    def __init__(
        self,
        student: Student,
        kind: TextKind,
        texts: Callable[[Sequence[Any]], Sequence[Any]],
        limit: int = _CACHE_BYTES,
        processes: Processes | None = None,
    ) -> None:
        self.student, self.kind, self.texts, self.limit = student, kind, texts, limit
        self.processes = processes or Processes()
        self._cache: dict[Any, dict[str, np.ndarray]] = {}
        self._bytes = 0

    def __call__(self, numbers: Sequence[Any]) -> TokenRows:
        """The tokens of this process's share of the texts with these numbers."""
        total = len(numbers)
        numbers = [numbers[place] for place in self.processes.share(total).tolist()]
        missing = [number for number in dict.fromkeys(numbers) if number not in self._cache]
        new = dict(zip(missing, self._tokenize(missing), strict=True)) if missing else {}
        rows = [new.get(number) or self._cache[number] for number in numbers]
        self._cache |= new
        self._bytes += sum(map(_size, new.values()))
        while self._bytes > self.limit:
            self._bytes -= _size(self._cache.pop(next(iter(self._cache))))
        return TokenRows(rows, total)

    def _tokenize(self, numbers: Sequence[Any]) -> list[dict[str, np.ndarray]]:
        tokens = self.student.tokenize(self.texts(numbers), self.kind)
        tokens.pop("attention_mask", None)
        return [
            {name: np.array(values[i], dtype=np.int32) for name, values in tokens.items()}
            for i in range(len(numbers))
        ]


def _size(row: dict[str, np.ndarray]) -> int:
    """Bytes of a cached text, with Python's overhead."""
    return sum(values.nbytes + 120 for values in row.values()) + 240


class TextKeys:
    """A hash of each document's words, so that copies of a document are recognized.

    Args:
        texts: gives the texts of documents for a list of rows.
        limit: number of cached hashes.
    """

    def __init__(
        self, texts: Callable[[Sequence[int]], Sequence[str]], limit: int = _CACHED_KEYS
    ) -> None:
        self.texts, self.limit = texts, limit
        self._cache: dict[int, int] = {}

    def __call__(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n,) uint64."""
        numbers = np.asarray(rows, dtype=np.int64).tolist()
        missing = [row for row in dict.fromkeys(numbers) if row not in self._cache]
        if missing:
            self._cache |= {
                row: xxhash.xxh3_64_intdigest(" ".join(text.split()).encode())
                for row, text in zip(missing, self.texts(missing), strict=True)
            }
        keys = np.array([self._cache[row] for row in numbers], dtype=np.uint64)
        while len(self._cache) > self.limit:
            del self._cache[next(iter(self._cache))]
        return keys


@dataclass
class TrainBatch:
    """B lists and their U unique documents, on the CPU.

    Attributes:
        queries: tokens of the B queries.
        documents: tokens of the U documents, or their stored vectors if the document tower is
            frozen.
        index: (B, N) int64, the unique document of each list item (0 on padding).
        mask: (B, N) bool, False on padding.
        teacher: (T, B, N) float32, NaN where not scored.
        labels: (B, N) float32.
        positives: (B, U) bool, documents judged relevant to the query, or suspected to be.
        teacher_weights: (T,) or (T, B) float32 weights of the teachers; None if all are equal.
        pairs: tokens of the (query, document) pairs that ``mask`` names, list by list, for a
            student that reads pairs; then queries and documents are empty.
        representations: of the teacher, if the loss reads any.
        teacher_in_batch: (B, U) or (T, B, U) float32 teacher scores of each query and document, NaN
            where unknown, if the loss reads them.
        bank: texts of other domains and the teacher's scores of the queries against them, if there
            is a bank.
    """

    queries: TokenRows
    documents: TokenRows | VectorBatch
    index: Tensor
    mask: Tensor
    teacher: Tensor
    labels: Tensor
    positives: Tensor
    teacher_weights: Tensor | None = None
    pairs: TokenRows | None = None
    representations: BatchRepresentations | None = None
    teacher_in_batch: Tensor | None = None
    bank: BankBatch | None = None


class BankBatch(NamedTuple):
    """What the B queries of a batch are compared with besides their lists.

    Attributes:
        texts: the n texts of a bank, tokenized, or their stored vectors if the document tower is
            frozen.
        queries: M texts of the bank, tokenized as queries.
        teacher: (B + M, n) float32 scores of the batch's queries and of these; NaN where a text has
            no tokens, and of a text with itself.
    """

    texts: TokenRows | VectorBatch
    queries: TokenRows
    teacher: Tensor


class Collator:
    """Makes the batch of a step; a pure function of the step.

    Documents with the same text are one document: they share a column of the in-batch scores, and a
    copy of a relevant document is relevant under any id.

    Args:
        sampler: draws the lists of a step.
        queries: tokenizer of queries.
        documents: tokenizer of documents, or their vectors.
        pairs: tokenizer of pairs (query number, document row), for a student that reads pairs.
        representations: looks up the teacher's representations of a batch's lists and of its unique
            documents.
        in_batch: likewise the teacher's in-batch scores.
        keys: hashes that tell which documents have the same text; if None, all differ.

    Attributes:
        bank: looks up the bank of texts for a batch's queries, if there is one.
    """

    def __init__(
        self,
        sampler: ListSampler,
        queries: CachedTokenizer | None,
        documents: CachedTokenizer | Store | np.ndarray | None,
        pairs: CachedTokenizer | None = None,
        representations: Callable[[ListBatch, np.ndarray], BatchRepresentations] | None = None,
        in_batch: Callable[[ListBatch, np.ndarray], Tensor] | None = None,
        keys: TextKeys | None = None,
    ) -> None:
        self.sampler, self.queries, self.documents, self.pairs = sampler, queries, documents, pairs
        self.representations, self.in_batch, self.keys = representations, in_batch, keys
        self.bank: Callable[[np.ndarray], BankBatch] | None = None

    def __call__(self, step: int) -> TrainBatch:
        """The lists of a step as one batch."""
        return self.collate(self.sampler(step))

    def micro_batches(self, step: int, count: int) -> list[TrainBatch]:
        """The lists of a step in ``count`` batches."""
        return [self.collate(lists) for lists in self.sampler(step).split(count)]

    def collate(self, lists: ListBatch) -> TrainBatch:
        """Tokenize or look up the texts of some lists."""
        mask = lists.rows >= 0
        unique, inverse, keys = self._unique(lists.rows[mask])
        index = np.zeros(lists.rows.shape, dtype=np.int64)
        index[mask] = inverse
        positives = np.zeros((len(lists.rows), len(unique)), dtype=bool)
        for i, rows in enumerate(lists.not_negatives):
            positives[i] = np.isin(keys, rows if self.keys is None else self.keys(rows))
        pairs = None
        if self.pairs is not None:
            queries = np.broadcast_to(lists.queries[:, None], mask.shape)[mask]
            pairs = self.pairs(list(zip(queries.tolist(), lists.rows[mask].tolist(), strict=True)))
        return TrainBatch(
            queries=self.queries(lists.queries.tolist()) if self.queries else TokenRows([]),
            documents=self._documents(unique),
            index=torch.from_numpy(index),
            mask=torch.from_numpy(mask),
            teacher=torch.from_numpy(lists.teacher),
            labels=torch.from_numpy(lists.labels),
            positives=torch.from_numpy(positives),
            teacher_weights=None if lists.weights is None else torch.from_numpy(lists.weights),
            pairs=pairs,
            representations=(
                None if self.representations is None else self.representations(lists, unique)
            ),
            teacher_in_batch=None if self.in_batch is None else self.in_batch(lists, unique),
            bank=None if self.bank is None else self.bank(lists.queries),
        )

    def _documents(self, rows: np.ndarray) -> TokenRows | VectorBatch:
        if self.documents is None:
            return TokenRows([])
        if isinstance(self.documents, CachedTokenizer):
            return self.documents(rows.tolist())
        if isinstance(self.documents, Store):
            return self.documents.take(rows)
        vectors = np.asarray(self.documents[rows], dtype=np.float32)
        return VectorBatch(torch.from_numpy(vectors))

    def _unique(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A row (U,) for each different text, ascending; the place of each row among them; their
        keys.
        """
        unique, inverse = np.unique(rows, return_inverse=True)
        if self.keys is None:
            return unique, inverse, unique
        keys = self.keys(unique)
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        kept = np.sort(first)  # the first row of each text, in the order of rows
        return unique[kept], np.searchsorted(kept, first[group])[inverse], keys[kept]


def make_collator(
    collection: Collection,
    sampler: ListSampler,
    student: Student,
    vectors: Store | np.ndarray | None = None,
    processes: Processes | None = None,
) -> Collator:
    """The collator for a student.

    Args:
        vectors: stored vectors of the documents; then no document is tokenized.
    """

    def queries(numbers: Sequence[int]) -> list[str]:
        return [collection.queries[sampler.query_ids[number]].text for number in numbers]

    def documents(rows: Sequence[int]) -> list[str]:
        return list(collection.corpus.texts(np.asarray(rows, dtype=np.int64)))

    def pairs(numbers: Sequence[tuple[int, int]]) -> list[tuple[str, str]]:
        asking, rows = zip(*numbers, strict=True)
        return list(zip(queries(asking), documents(rows), strict=True))

    keys = TextKeys(documents)
    if "pair" in student.sides:
        tokenizer = CachedTokenizer(student, "pair", pairs, processes=processes)
        return Collator(sampler, None, None, tokenizer, keys=keys)
    return Collator(
        sampler,
        CachedTokenizer(student, "query", queries, processes=processes),
        vectors
        if vectors is not None
        else CachedTokenizer(student, "document", documents, processes=processes),
        keys=keys,
    )
