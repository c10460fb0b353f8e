"""A bi-encoder as teacher: self-distillation, and dense teachers for compact students."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections import Corpus
from irdistill.hardware import Precision, choose_dtype
from irdistill.search.vectors import VectorStore, corpus_vectors
from irdistill.students.dense import DenseStudent
from irdistill.teachers.protocol import Pair, Scores


class RetrieverTeacher:
    """Scores by the similarity of vectors.

    The corpus is encoded once, into the store that ``retrieve`` uses, so a teacher that gave the candidates too
    encodes nothing again.

    Args:
        model: any dense model.
        work: where vectors are kept; the cache folder where None.
    """

    def __init__(self, model: DenseStudent, corpus: Corpus, work: Path | None = None, precision: Precision = "auto") -> None:
        self.model, self.precision = model, precision
        self.store: VectorStore = corpus_vectors(corpus, model, work, precision)

    @property
    def identity(self) -> dict[str, Any]:
        """Weights, lengths, prompts and precision."""
        dtype = str(choose_dtype(self.precision, self.model.device)).removeprefix("torch.")
        return {"kind": "retriever", **self.model.identity(), "precision": dtype}

    def score(self, pairs: Sequence[Pair]) -> Scores:
        """Cosine or inner product of each pair, as the model states, summed in float32."""
        texts = list(dict.fromkeys(pair.query.text for pair in pairs))
        vectors = self.model.encode(texts, "query", self.precision, show_progress=False,
                                    normalize=self.model.similarity == "cosine")
        place = {text: number for number, text in enumerate(texts)}
        asked = np.array([place[pair.query.text] for pair in pairs], dtype=np.int64)
        rows = np.array([pair.row for pair in pairs], dtype=np.int64)
        values = np.empty(len(pairs), dtype=np.float32)
        for number in range(len(texts)):
            own = np.flatnonzero(asked == number)
            values[own] = np.asarray(self.store.matrix[rows[own]], dtype=np.float32) @ vectors[number]
        return Scores(values)
