"""A bank of texts of other domains, on which a student keeps a teacher's scores.

Distilling Large Vision-Language Models with Out-of-Distribution Generalizability (Li et al. 2023,
arXiv:2307.03135).
"""

from __future__ import annotations

from collections.abc import Sequence
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
from irdistill.training.data.collate import BankBatch, CachedTokenizer
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
        kinds: tuple[TextKind, ...] = ("query", "document")
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

        def tokenizer(kind: TextKind) -> CachedTokenizer:
            return CachedTokenizer(student, kind, self.texts.texts, processes=processes)

        def vectors(texts: Corpus, kind: TextKind) -> VectorStore:
            store: VectorStore = corpus_vectors(texts, self.teacher, work, kind=kind)
            return store

        rows = np.arange(len(self.texts))
        queries = Corpus.in_memory(
            Document(query_id, "", collection.queries[query_id].text) for query_id in query_ids
        )
        texts: CachedTokenizer | VectorBatch = tokenizer("document")
        if not student.learns("document"):
            texts = corpus_vectors(self.texts, student, work).take(rows)
        return TextBank(
            texts,
            tokenizer("query"),
            vectors(queries, "query"),
            vectors(self.texts, "query"),
            known_or_nan(vectors(self.texts, "document"), rows),
            min(options.bank_queries, len(rows)),
            options.seed,
        )


def _default(name: str) -> Any:
    return getattr(TrainOptions, name)


@dataclass(frozen=True)
class TextBank:
    """Looks up the bank and the teacher's scores for the queries of a batch.

    Attributes:
        texts: tokenizes texts of the bank as documents, or the stored vectors of all.
        tokenizer: tokenizes texts of the bank as queries.
        queries: the teacher's vectors of the training queries, in the order of the sampler.
        texts_as_queries: the teacher's vectors of the bank, read as queries.
        documents: (n, D) the teacher's vectors of the bank, read as documents.
        count: texts that are read as queries in a step.
        seed: draws them.
    """

    texts: CachedTokenizer | VectorBatch
    tokenizer: CachedTokenizer
    queries: VectorStore
    texts_as_queries: VectorStore
    documents: Tensor
    count: int
    seed: int

    def __call__(self, numbers: np.ndarray) -> BankBatch:
        """The bank for the queries with these numbers; a pure function of them."""
        texts = self.texts
        random = np.random.default_rng([self.seed, 9, *numbers.tolist()])
        rows = random.choice(len(self.documents), self.count, replace=False)
        queries = [known_or_nan(self.queries, numbers), known_or_nan(self.texts_as_queries, rows)]
        scores = torch.cat(queries) @ self.documents.T
        scores[len(numbers) + np.arange(self.count), rows] = torch.nan
        return BankBatch(
            texts(range(len(self.documents))) if isinstance(texts, CachedTokenizer) else texts,
            self.tokenizer(rows.tolist()),
            scores,
        )
