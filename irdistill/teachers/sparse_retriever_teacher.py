"""Learned sparse retrievers as teachers: SPLADE (Formal et al. 2021, arXiv:2107.05720) and its
like.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from irdistill.errors import IrdistillError
from irdistill.teachers.part_encoding import PartEncodingTeacher, TextKind


class SparseVector(NamedTuple):
    """The terms of a text that weigh anything: (t,) int64 places in the vocabulary, (t,) float32
    weights.
    """

    terms: np.ndarray
    weights: np.ndarray


class SparseRetrieverTeacher(PartEncodingTeacher[SparseVector]):
    """Any ``SparseEncoder`` of sentence-transformers: the dot product of two sparse vectors, in
    float32.

    Where the model states cosine similarity, vectors are brought to length 1 first.
    """

    type = "sparse"
    tokens_cpu, tokens_gpu = 4096, 32_768  # a token takes a row of the vocabulary's size

    def __init__(self, model: str, **settings: Any) -> None:
        super().__init__(model, **settings)
        if self.model.similarity_fn_name not in ("dot", "cosine"):
            raise IrdistillError(
                f"the model {model!r} compares vectors by {self.model.similarity_fn_name!r}; dot"
                " and cosine are supported."
            )

    @classmethod
    def library_class(cls) -> Any:
        """``SparseEncoder``."""
        from sentence_transformers import SparseEncoder

        return SparseEncoder

    def forms(self, texts: list[str], kind: TextKind) -> list[SparseVector]:
        """Encode one batch."""
        encode = self.model.encode_query if kind == "query" else self.model.encode_document
        found = encode(
            texts,
            batch_size=len(texts),
            show_progress_bar=False,
            convert_to_tensor=True,
            convert_to_sparse_tensor=True,
            save_to_cpu=True,
        ).coalesce()
        owners, terms = found.indices().numpy()
        weights = found.values().float().numpy()
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
            1 + max([0, *(int(one.terms.max(initial=0)) for one in (query, *documents))]),
            dtype=np.float32,
        )
        dense[query.terms] = query.weights
        return np.array([dense[one.terms] @ one.weights for one in documents], dtype=np.float32)
