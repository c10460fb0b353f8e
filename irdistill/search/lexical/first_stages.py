"""BM25 first stages by name: ``bm25``, ``lucene`` and ``lucene:INDEX``."""

from __future__ import annotations

from pathlib import Path

from irdistill.collections import Corpus
from irdistill.search.lexical.bm25 import BM25
from irdistill.search.lucene.lucene_search import LuceneBM25


def is_lexical(model: object) -> bool:
    """Whether a model name means BM25, not a folder or hub id.

    Examples:
        >>> is_lexical("lucene:msmarco-v1-passage"), is_lexical("intfloat/e5-base-v2")
        (True, False)
    """
    return isinstance(model, str) and (model in ("bm25", "lucene") or model.startswith("lucene:"))


def open_lexical(
    model: str, corpus: Corpus, k1: float = 0.9, b: float = 0.4, work: str | Path | None = None
) -> BM25 | LuceneBM25:
    """BM25 over a corpus.

    Args:
        model: ``bm25`` (bm25s), ``lucene``, or ``lucene:INDEX`` with the folder of a Lucene index
            or the name of a prebuilt one.
    """
    cache = Path(work) if work is not None else None
    if model == "bm25":
        return BM25(corpus, k1, b, cache)
    return LuceneBM25(corpus, k1, b, cache, model.partition(":")[2] or None)
