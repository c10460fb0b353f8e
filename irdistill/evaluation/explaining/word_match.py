"""BM25 of one document, term by term."""

from __future__ import annotations

import numpy as np

from irdistill.collections import Corpus
from irdistill.collections.passage_corpus import reading_corpus
from irdistill.evaluation.explaining.explanation import WordMatch, WordScore
from irdistill.modeling.stemming import StemTokenizer, words_of
from irdistill.search.lexical.bm25 import BM25
from irdistill.search.passage_ranking import MAXP, Aggregation
from irdistill.search.retrieve_options import RetrieveOptions


class WordExplainer:
    """Explains BM25 scores of documents; the index is built or opened once.

    Args:
        corpus: the documents; of passages the best one is explained.
        options: parameters of BM25, and how passages are aggregated.
    """

    def __init__(self, corpus: Corpus, options: RetrieveOptions) -> None:
        self.corpus = corpus
        self._bm25 = BM25(reading_corpus(corpus), options.k1, options.b)
        self._aggregation = aggregation_of(options, 1.0)

    def explain(self, query: str, row: int) -> WordMatch:
        """The BM25 score of the document in a row of the corpus, by `BM25.search`."""
        passages = self.corpus.passages
        rows = np.array([row]) if passages is None else passages.all_of([row])
        scores = self._bm25.score(query, rows)
        best = self._aggregation.best(scores)
        text = self._bm25.corpus.text(int(rows[best]))
        present = _words_by_stem(text)
        words = [
            WordScore(term.stem, present.get(term.stem, ()), term.count, term.documents, term.score)
            for term in self._bm25.term_scores(query, int(rows[best]))
        ]
        masked = np.where(scores > 0, scores, -np.inf).astype(np.float32)
        total = float(self._aggregation.reduce(masked[None], np.array([0]))[0, 0])
        return WordMatch(max(total, 0.0), None if passages is None else best, words)


def aggregation_of(options: RetrieveOptions, tau: float) -> Aggregation:
    """How the scores of passages become that of a document.

    Args:
        tau: temperature if the options have none.
    """
    if options.aggregate == "whole" or options.aggregate == "vector":
        return MAXP
    return Aggregation(options.aggregate, options.aggregate_tau or tau)


def _words_by_stem(text: str) -> dict[str, tuple[str, ...]]:
    """The distinct words of a text with each stem."""
    tokenizer = StemTokenizer()
    words: dict[str, tuple[str, ...]] = {}
    for word in dict.fromkeys(words_of(text)):
        for stem in tokenizer(word):
            words[stem] = (*words.get(stem, ()), word)
    return words
