"""BM25 over the passages of documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from irdistill.collections import Corpus, Query
from irdistill.search.lexical.bm25 import BM25
from irdistill.search.lucene.lucene_search import LuceneBM25
from irdistill.search.passage_ranking import (
    Aggregation,
    PassageScores,
    check_exact,
    deepen,
    rank_documents,
)
from irdistill.search.ranking import SearchHits

if TYPE_CHECKING:
    from irdistill.runs import RankedList


class PassageBM25:
    """Ranks documents by the BM25 of their passages.

    Args:
        corpus: the documents, with their passages.
        passages: BM25 over the corpus of the passages; that of Lucene ranks by MaxP alone.
        aggregation: how scores of passages become scores of documents. A passage without a common
            term has no score.
    """

    def __init__(
        self, corpus: Corpus, passages: BM25 | LuceneBM25, aggregation: Aggregation
    ) -> None:
        if isinstance(passages, LuceneBM25):
            check_exact(aggregation, "Lucene")
        self.corpus, self.passages, self.aggregation = corpus, passages, aggregation

    def search(self, queries: Sequence[Query], k: int = 100) -> Iterator[RankedList]:
        """Top k documents of each query with their best passages, without scores of zero."""
        from irdistill.runs import RankedList

        for query in queries:
            hits = self._hits(query, k)
            ids = [self.corpus.id(row) for row in hits.rows.tolist()]
            yield RankedList(query.id, ids, hits.scores, None, hits.passages)

    def _hits(self, query: Query, k: int) -> SearchHits:
        if isinstance(self.passages, LuceneBM25):
            return deepen(lambda depth: [self._retrieved(query, depth)], self.corpus, k)[0]
        scores = self.passages.all_scores(query.text)
        scores[scores <= 0] = -np.inf
        blocks = [PassageScores(0, [scores[None]])]
        return rank_documents(blocks, self.corpus, self.aggregation, k)[0][0]

    def _retrieved(self, query: Query, depth: int) -> SearchHits:
        """The top passages of Lucene."""
        ranked = next(iter(self.passages.search([query], depth)))
        return SearchHits(self.passages.corpus.rows(ranked.doc_ids), ranked.scores)
