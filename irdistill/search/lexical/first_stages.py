"""First stages that need no model, by name: ``bm25``, ``lucene``, ``lucene:INDEX``."""

from __future__ import annotations

from pathlib import Path

from irdistill.collections import Corpus
from irdistill.search.lexical.bm25 import BM25
from irdistill.search.lucene.lucene_search import LuceneBM25


def is_lexical(model: object) -> bool:
    """Whether a model's name means BM25 over words, and no folder or hub id."""
    return isinstance(model, str) and (model in ("bm25", "lucene") or model.startswith("lucene:"))


def open_lexical(
    model: str, corpus: Corpus, k1: float = 0.9, b: float = 0.4, work: str | Path | None = None
) -> BM25 | LuceneBM25:
    """BM25 over a corpus.

    Args:
        model: ``bm25`` for bm25s, ``lucene`` for Lucene, ``lucene:INDEX`` for a Lucene index that
            exists: a folder, or the name of a prebuilt one.
        work: where indexes are kept; the cache folder where None.

    Raises:
        IrdistillError: see the two classes.
    """
    cache = Path(work) if work is not None else None
    if model == "bm25":
        return BM25(corpus, k1, b, cache)
    return LuceneBM25(corpus, k1, b, cache, model.partition(":")[2] or None)
