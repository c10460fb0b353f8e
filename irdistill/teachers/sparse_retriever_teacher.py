"""Learned sparse retrievers as teachers: SPLADE (Formal et al. 2021, arXiv:2107.05720) and similar
models.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from irdistill.errors import ModelError
from irdistill.teachers.part_encoding import PartEncodingTeacher, TextKind


class SparseVector(NamedTuple):
    """The terms of a text with a weight: (t,) int64 ids in the vocabulary, (t,) float32 weights."""

    terms: np.ndarray
    weights: np.ndarray


class SparseRetrieverTeacher(PartEncodingTeacher[SparseVector]):
    """Any ``SparseEncoder`` of sentence-transformers; the score is the dot product of two sparse
    vectors, in float32.

    If the model states cosine similarity, vectors are normalized first.
    """

    type = "sparse"
    tokens_cpu, tokens_gpu = 4096, 32_768  # a token takes a row of the vocabulary's size

    def __init__(self, model: str, **settings: Any) -> None:
        super().__init__(model, **settings)
        if self.model.similarity_fn_name not in ("dot", "cosine"):
            raise ModelError(
                f"the model {model!r} compares vectors by {self.model.similarity_fn_name!r};"
                " expected dot or cosine."
            )

    @classmethod
    def library_class(cls) -> Any:
        """``SparseEncoder``."""
        from sentence_transformers import SparseEncoder

        return SparseEncoder

    def forms(self, texts: list[str], kind: TextKind) -> list[SparseVector]:
        """The sparse vectors of one batch."""
        encode = self.model.encode_query if kind == "query" else self.model.encode_document
        vectors = encode(
            texts,
            batch_size=len(texts),
            show_progress_bar=False,
            convert_to_tensor=True,
            convert_to_sparse_tensor=True,
            save_to_cpu=True,
        ).coalesce()
        owners, terms = vectors.indices().numpy()
        weights = vectors.values().float().numpy()
        ends = np.searchsorted(owners, np.arange(len(texts) + 1))
        vectors = [
            SparseVector(terms[start:end], weights[start:end]) for start, end in pairwise(ends)
        ]
        if self.model.similarity_fn_name == "dot":
            return vectors
        return [
            SparseVector(terms, weights / max(float(np.linalg.norm(weights)), 1e-12))
            for terms, weights in vectors
        ]

    def compare(self, query: SparseVector, documents: Sequence[SparseVector]) -> np.ndarray:
        """Dot products (n,) float32."""
        dense = np.zeros(
            1 + max([0, *(int(document.terms.max(initial=0)) for document in (query, *documents))]),
            dtype=np.float32,
        )
        dense[query.terms] = query.weights
        return np.array(
            [dense[document.terms] @ document.weights for document in documents], dtype=np.float32
        )
