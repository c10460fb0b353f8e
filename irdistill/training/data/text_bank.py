"""A bank of texts of other domains, on which a student keeps a teacher's scores.

Distilling Large Vision-Language Models with Out-of-Distribution Generalizability (Li et al. 2023,
arXiv:2307.03135).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irdistill.collections import Collection, Corpus, Document
from irdistill.errors import OptionError
from irdistill.search.vectors.vector_store import (
    VectorBatch,
    VectorStore,
    corpus_vectors,
    store_identity,
)
from irdistill.students.dense_student import DenseStudent
from irdistill.students.student_base import Student
from irdistill.students.tower_model import TextKind
from irdistill.training.data.collate import BankBatch, CachedTokenizer, TokenRows
from irdistill.training.data.text_batches import known_or_nan
from irdistill.training.options import BANK, TrainOptions
from irdistill.training.processes import Processes


@dataclass(frozen=True)
class BankData:
    """The texts of a bank, and the model whose scores a student keeps on them.

    Attributes:
        texts: n texts.
        teacher: a dense model; the student itself scores before its first step.
    """

    texts: Corpus
    teacher: DenseStudent

    @classmethod
    def read(
        cls,
        texts: Corpus | None,
        teacher: DenseStudent | None,
        options: TrainOptions,
        student: Student,
    ) -> BankData | None:
        """The checked data; None without a bank.

        Args:
            teacher: by default the student.

        Raises:
            OptionError: an option needs a bank, or the student is not dense.
        """
        if texts is None:
            needless = [name for name in BANK if getattr(options, name) != _default(name)]
            if needless or teacher is not None:
                raise OptionError(
                    f"{needless[0] if needless else 'bank_teacher'} was given without bank, which"
                    " names the texts; add bank=COLLECTION, or leave it out."
                )
            return None
        if not isinstance(student, DenseStudent):
            raise OptionError(
                f"a bank was given for a {student.kind} student; only a dense student keeps scores"
                " on a bank. Leave out bank, or train a dense student."
            )
        return cls(texts, teacher or student)

    def identity(self, options: TrainOptions) -> dict[str, Any]:
        """What decides the teacher's scores and their weight, as JSON values."""
        kinds = "query", "document"
        return {
            "teacher": {
                kind: store_identity(self.texts, self.teacher, "auto", "float32", kind)
                for kind in kinds
            },
            "queries": options.bank_queries,
            "weight": options.bank_weight,
            "tau": options.bank_tau,
        }

    def open(
        self,
        collection: Collection,
        query_ids: Sequence[str],
        student: Student,
        options: TrainOptions,
        processes: Processes,
        work: str | Path | None,
    ) -> TextBank:
        """Encode the bank and the training queries with the teacher, unless that was done before.

        Args:
            student: with its weights before the first step.
            work: folder of the stores; the cache folder by default.
        """
        queries = Corpus.in_memory(
            Document(query_id, "", collection.queries[query_id].text) for query_id in query_ids
        )
        rows = np.arange(len(self.texts))

        def tokenizer(kind: TextKind) -> CachedTokenizer:
            return CachedTokenizer(student, kind, self.texts.texts, processes=processes)

        def teacher(texts: Corpus, kind: TextKind) -> VectorStore:
            store: VectorStore = corpus_vectors(texts, self.teacher, work, kind=kind)
            return store

        texts: CachedTokenizer | VectorBatch = tokenizer("document")
        if not student.learns("document"):
            texts = corpus_vectors(self.texts, student, work).take(rows)
        bank = TextBank(
            texts, teacher(queries, "query"), known_or_nan(teacher(self.texts, "document"), rows)
        )
        if options.bank_queries:
            bank.read_as_queries(tokenizer("query"), teacher(self.texts, "query"), options)
        return bank


def _default(name: str) -> Any:
    return getattr(TrainOptions, name)


class TextBank:
    """Looks up the bank and the teacher's scores for the queries of a batch.

    Args:
        texts: tokenizes the bank, or its stored vectors.
        queries: the teacher's vectors of all queries, in the order of the sampler.
        documents: (n, D) the teacher's vectors of the bank.
    """

    def __init__(
        self, texts: CachedTokenizer | VectorBatch, queries: VectorStore, documents: Tensor
    ) -> None:
        self.texts, self.queries, self.documents = texts, queries, documents
        self._draw: Callable[[np.ndarray], tuple[np.ndarray, TokenRows, Tensor]] | None = None

    def read_as_queries(
        self, tokenize: CachedTokenizer, vectors: VectorStore, options: TrainOptions
    ) -> None:
        """Read texts of the bank as queries, too.

        Args:
            vectors: the teacher's vectors of the bank as queries.
        """
        count = min(options.bank_queries, len(self.documents))

        def draw(numbers: np.ndarray) -> tuple[np.ndarray, TokenRows, Tensor]:
            random = np.random.default_rng([options.seed, 9, *numbers.tolist()])
            rows = random.choice(len(self.documents), count, replace=False)
            return rows, tokenize(rows.tolist()), known_or_nan(vectors, rows)

        self._draw = draw

    def __call__(self, numbers: np.ndarray) -> BankBatch:
        """The bank for the queries with these numbers; a pure function of them."""
        texts, queries = self.texts, known_or_nan(self.queries, numbers)
        rows, tokens = np.empty(0, np.int64), TokenRows([])
        if self._draw is not None:
            rows, tokens, vectors = self._draw(numbers)
            queries = torch.cat([queries, vectors])
        scores = queries @ self.documents.T
        scores[len(numbers) + np.arange(len(rows)), rows] = torch.nan
        return BankBatch(
            texts(range(len(self.documents))) if isinstance(texts, CachedTokenizer) else texts,
            tokens,
            scores,
        )
