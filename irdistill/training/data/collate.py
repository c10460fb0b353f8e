"""From lists of row numbers to tensors: each text tokenised once, each document of a batch held
once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xxhash
from torch import Tensor

from irdistill.losses import BatchRepresentations
from irdistill.search.vectors.vector_store import Store, VectorBatch
from irdistill.training.data.list_sampler import ListBatch, ListSampler
from irdistill.training.processes import Processes

if TYPE_CHECKING:
    from irdistill.students.base import Student

Kind = Literal["query", "document", "pair"]


@dataclass
class Tokens:
    """Tokenised texts of one tower, truncated and not yet padded.

    Attributes:
        rows: for each text its arrays by name (``input_ids``, …), without the attention mask.
        total: the texts of all processes; of these, ``rows`` has this process's share.
    """

    rows: list[dict[str, np.ndarray]]
    total: int = 0

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text."""
        return np.array([len(row["input_ids"]) for row in self.rows], dtype=np.int64)


class Tokenizer:
    """Tokenises texts by a number, remembering what it saw last (at most ``limit`` bytes).

    Args:
        student: does the tokenising, with its prompts and lengths.
        kind: the side of the student that the texts go to.
        texts: gives the texts of some numbers, or the pairs of texts.
        processes: of the texts asked for, only this process's share is tokenised.
    """

    def __init__(
        self,
        student: Student,
        kind: Kind,
        texts: Callable[[Sequence[Any]], Sequence[Any]],
        limit: int = 64 << 20,
        processes: Processes | None = None,
    ) -> None:
        self.student, self.kind, self.texts, self.limit = student, kind, texts, limit
        self.processes = processes or Processes()
        self._known: dict[Any, dict[str, np.ndarray]] = {}
        self._bytes = 0

    def __call__(self, numbers: Sequence[Any]) -> Tokens:
        """The tokens of the texts with these numbers, as far as they are this process's."""
        total = len(numbers)
        numbers = [numbers[place] for place in self.processes.share(total).tolist()]
        missing = [number for number in dict.fromkeys(numbers) if number not in self._known]
        fresh = dict(zip(missing, self._tokenize(missing), strict=True)) if missing else {}
        rows = [
            self._known[number] if number in self._known else fresh[number] for number in numbers
        ]
        for number, row in fresh.items():
            self._known[number] = row
            self._bytes += _size(row)
        while self._bytes > self.limit:
            self._bytes -= _size(self._known.pop(next(iter(self._known))))
        return Tokens(rows, total)

    def _tokenize(self, numbers: Sequence[Any]) -> list[dict[str, np.ndarray]]:
        tokens = self.student.tokenize(self.texts(numbers), self.kind)
        tokens.pop("attention_mask", None)
        return [
            {key: np.array(values[i], dtype=np.int32) for key, values in tokens.items()}
            for i in range(len(numbers))
        ]


def _size(row: dict[str, np.ndarray]) -> int:
    """Bytes of one remembered text, with what Python adds."""
    return sum(values.nbytes + 120 for values in row.values()) + 240


@dataclass
class TrainBatch:
    """One step, on the CPU: tokens of the B queries and of the U unique documents, and their
    scores.

    Attributes:
        queries: tokens of the B queries.
        documents: tokens of the U documents, or their stored vectors where the document tower is
            frozen.
        index: (B, N) int64, which of the U documents each list item is (0 on padding).
        mask: (B, N) bool, False on padding.
        teacher: (T, B, N) float32, NaN = not scored.
        labels: (B, N) float32.
        positives: (B, U) bool, documents judged relevant to the query, or suspected to be.
        teacher_weights: (T,) or (T, B) float32, how much each teacher counts; None where all count
            the same.
        pairs: for a student that reads query and document together, the tokens of the pairs that
            ``mask`` names, list by list; then there are no tokens of queries and documents.
        states: the teacher's representations, where the loss reads any.
    """

    queries: Tokens
    documents: Tokens | VectorBatch
    index: Tensor
    mask: Tensor
    teacher: Tensor
    labels: Tensor
    positives: Tensor
    teacher_weights: Tensor | None = None
    pairs: Tokens | None = None
    states: BatchRepresentations | None = None


class TextKeys:
    """A number for the text of each document, the same for documents with the same words; the
    latest are remembered.

    Args:
        texts: of documents by their rows.
        limit: how many numbers are remembered.
    """

    def __init__(
        self, texts: Callable[[Sequence[int]], Sequence[str]], limit: int = 1 << 18
    ) -> None:
        self.texts, self.limit = texts, limit
        self._known: dict[int, int] = {}

    def __call__(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n,) uint64."""
        numbers = np.asarray(rows, dtype=np.int64).tolist()
        missing = [row for row in dict.fromkeys(numbers) if row not in self._known]
        fresh = (
            {
                row: xxhash.xxh3_64_intdigest(" ".join(text.split()).encode())
                for row, text in zip(missing, self.texts(missing), strict=True)
            }
            if missing
            else {}
        )
        keys = np.array(
            [fresh[row] if row in fresh else self._known[row] for row in numbers], dtype=np.uint64
        )
        self._known |= fresh
        while len(self._known) > self.limit:
            del self._known[next(iter(self._known))]
        return keys


class Collator:
    """Makes the batch of a step; a pure function of the step.

    Documents with the same text are one: they share a column of the in-batch scores, and a copy of
        a positive is a positive
    under whatever id.

    Args:
        documents: the tokeniser of documents, or their vectors.
        pairs: of a student that reads pairs the tokeniser, which is given (query number, document
            row).
        states: looks up the teacher's representations of a batch's lists and of its unique
            documents.
        keys: tell which documents have the same text; where None, all differ.
    """

    def __init__(
        self,
        sampler: ListSampler,
        queries: Tokenizer | None,
        documents: Tokenizer | Store | np.ndarray | None,
        pairs: Tokenizer | None = None,
        states: Callable[[ListBatch, np.ndarray], BatchRepresentations] | None = None,
        keys: TextKeys | None = None,
    ) -> None:
        self.sampler, self.queries, self.documents, self.pairs = sampler, queries, documents, pairs
        self.states, self.keys = states, keys

    def __call__(self, step: int) -> TrainBatch:
        return self.collate(self.sampler(step))

    def collate(self, lists: ListBatch) -> TrainBatch:
        """Tokenise or look up what the lists name, each document once."""
        mask = lists.rows >= 0
        unique, inverse, keys = self._unique(lists.rows[mask])
        index = np.zeros(lists.rows.shape, dtype=np.int64)
        index[mask] = inverse
        positives = np.zeros((len(lists.rows), len(unique)), dtype=bool)
        for i, query in enumerate(lists.queries.tolist()):
            judged = self.sampler.relevant.get(self.sampler.query_ids[query], {})
            relevant = [row for row, grade in judged.items() if grade > 0]
            known = np.union1d(np.array(relevant, np.int64), self.sampler.suspected(query))
            positives[i] = np.isin(keys, known if self.keys is None else self.keys(known))
        documents: Tokens | VectorBatch
        pairs = None
        if self.pairs is not None:
            asked = np.broadcast_to(lists.queries[:, None], mask.shape)[mask]
            pairs = self.pairs(list(zip(asked.tolist(), lists.rows[mask].tolist(), strict=True)))
        if self.documents is None:
            documents = Tokens([])
        elif isinstance(self.documents, Tokenizer):
            documents = self.documents(unique.tolist())
        elif isinstance(self.documents, Store):
            documents = self.documents.take(unique)
        else:
            documents = VectorBatch(
                torch.from_numpy(np.asarray(self.documents[unique], dtype=np.float32))
            )
        weights = lists.weights if lists.weights is not None else self.sampler.teacher_weights
        return TrainBatch(
            queries=self.queries(lists.queries.tolist()) if self.queries else Tokens([]),
            documents=documents,
            index=torch.from_numpy(index),
            mask=torch.from_numpy(mask),
            teacher=torch.from_numpy(lists.teacher),
            labels=torch.from_numpy(lists.labels),
            positives=torch.from_numpy(positives),
            teacher_weights=None if weights is None else torch.from_numpy(weights),
            pairs=pairs,
            states=None if self.states is None else self.states(lists, unique),
        )

    def _unique(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A row (U,) for each different text, ascending; which of them each of the rows is; and
        their keys.
        """
        unique, inverse = np.unique(rows, return_inverse=True)
        if self.keys is None:
            return unique, inverse, unique
        keys = self.keys(unique)
        _, first, group = np.unique(keys, return_index=True, return_inverse=True)
        kept = np.sort(first)  # the first row of each text, in the order of rows
        return unique[kept], np.searchsorted(kept, first[group])[inverse], keys[kept]
