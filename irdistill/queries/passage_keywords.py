"""Keywords of a passage: the words that distinguish it from the other passages of a corpus."""

from __future__ import annotations

from collections import Counter

import numpy as np

from irdistill.collections import Corpus
from irdistill.modeling.stemming import words_of
from irdistill.search.lexical.bm25 import BM25

MIN_WORDS, MAX_WORDS = 2, 8


class KeywordSampler:
    """Draws the keywords of passages by frequency and inverse document frequency.

    A word is drawn with a probability proportional to its frequency in the passage, times
    ``log(N / n)`` for the ``n`` of ``N`` documents that have its stem. Stop words, numbers, and
    words that only one document has are left out: no other passage can answer for them.

    Examples:
        >>> import tempfile
        >>> from unittest import mock
        >>> from irdistill.collections import Collection
        >>> texts = {"a": "merge sorted lists", "b": "merge sorted heaps", "c": "open a file"}
        >>> corpus = Collection.from_dicts("three", texts, {}).corpus
        >>> with tempfile.TemporaryDirectory() as cache:
        ...     with mock.patch.dict("os.environ", IRDISTILL_CACHE=cache):
        ...         sampler = KeywordSampler(corpus)
        >>> sorted(sampler.draw(0, np.random.default_rng(0)))
        ['merge', 'sorted']
    """

    def __init__(self, corpus: Corpus) -> None:
        """Open or build the BM25 index of a corpus, which has the document frequencies."""
        self._corpus = corpus
        self._bm25 = BM25(corpus)
        counts = np.diff(self._bm25.matrix.indptr)
        self._frequencies = dict(zip(self._bm25.stems, counts.tolist(), strict=True))

    def draw(self, row: int, rng: np.random.Generator) -> list[str]:
        """From 2 to 8 keywords of a passage in random order; none if it has fewer than two."""
        first: dict[str, str] = {}
        counts: Counter[str] = Counter()
        for word in words_of(self._corpus.text(row)):
            for stem in self._bm25.words(word):
                if self._frequencies.get(stem, 0) > 1 and not word.isdigit():
                    first.setdefault(stem, word)
                    counts[stem] += 1
        total = len(self._corpus)
        weights = {
            stem: count * np.log(total / self._frequencies[stem]) for stem, count in counts.items()
        }
        stems = [stem for stem, weight in weights.items() if weight > 0]
        if len(stems) < MIN_WORDS:
            return []
        size = min(int(rng.integers(MIN_WORDS, MAX_WORDS + 1)), len(stems))
        chances = np.array([weights[stem] for stem in stems])
        chosen = rng.choice(len(stems), size, replace=False, p=chances / chances.sum())
        return [first[stems[place]] for place in chosen.tolist()]
