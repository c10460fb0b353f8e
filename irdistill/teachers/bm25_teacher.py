"""BM25 as a teacher; it knows exact words, which a dense teacher misses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections import Corpus
from irdistill.search import BM25
from irdistill.teachers.protocol import TeacherScores, TextPair


class BM25Teacher:
    """Scores documents as the BM25 of ``irdistill.search`` does, also those that it would not
    retrieve.
    """

    def __init__(
        self, corpus: Corpus, cache: Path | None = None, *, k1: float = 0.9, b: float = 0.4
    ) -> None:
        self.index = BM25(corpus, k1, b, cache)

    @property
    def identity(self) -> dict[str, Any]:
        """Parameters and tokenizer."""
        return {"kind": "bm25", **self.index.identity()}

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        """BM25 of each pair; 0.0 if they share no term."""
        values = np.empty(len(pairs), dtype=np.float32)
        start = 0
        for text, group in groupby(pairs, key=lambda pair: pair.query.text):
            rows = np.array([pair.row for pair in group], dtype=np.int64)
            values[start : start + len(rows)] = self.index.score(text, rows)
            start += len(rows)
        return TeacherScores(values)
