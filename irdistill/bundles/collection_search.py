"""Search a corpus with a model that stays loaded, for one question after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from irdistill.bundles.bundle_searcher import SearchHit, check_questions
from irdistill.collections import Collection, Query
from irdistill.runs.named_passages import list_texts
from irdistill.runs.ranked_lists import RankedList
from irdistill.search.lexical.first_stages import is_lexical
from irdistill.search.retrieval import open_first_stage, open_model, searched_collection
from irdistill.search.retrieve_options import RetrieveOptions

if TYPE_CHECKING:
    from irdistill.search.vectors.text_encoder import TextEncoder


class CollectionSearch:
    """Searches the corpus of a collection with BM25 or a model.

    Args:
        collection: its queries are not read.
        model: as of `irdistill.search.retrieval.retrieve`.
    """

    def __init__(
        self, collection: Collection, model: str | Path | TextEncoder, options: RetrieveOptions
    ) -> None:
        self.collection, self.model = searched_collection(collection, model, options), model
        if is_lexical(model):
            self._first_stage, _, _ = open_first_stage(self.collection, str(model), options)
        else:
            self._searcher, _ = open_model(self.collection, model, options)

    @property
    def student(self) -> TextEncoder | None:
        """The model; None for BM25."""
        return None if is_lexical(self.model) else self._searcher.student

    @overload
    def search(self, query: str, k: int = 10) -> list[SearchHit]: ...  # type: ignore[overload-overlap]

    @overload
    def search(self, query: Sequence[str], k: int = 10) -> list[list[SearchHit]]: ...

    def search(
        self, query: str | Sequence[str], k: int = 10
    ) -> list[SearchHit] | list[list[SearchHit]]:
        """The k best documents of a query, or of each of several queries.

        Raises:
            OptionError: a query is empty.
            InputError: a query holds bytes that are not UTF-8.
        """
        several = [query] if isinstance(query, str) else list(query)
        check_questions(several)
        results = [self._hits(ranked) for ranked in self._ranked(several, k)]
        return results[0] if isinstance(query, str) else results

    def _ranked(self, queries: list[str], k: int) -> list[RankedList]:
        if is_lexical(self.model):
            texts = [Query(str(place), query) for place, query in enumerate(queries)]
            return list(self._first_stage(texts, k))
        (tops,) = self._searcher.search([self._searcher.encode(queries)], k)
        corpus = self.collection.corpus
        return [
            RankedList("", corpus.ids_at(top.rows), top.scores, None, top.passages) for top in tops
        ]

    def _hits(self, ranked: RankedList) -> list[SearchHit]:
        corpus = self.collection.corpus
        documents = [corpus.document(row) for row in corpus.rows(ranked.doc_ids)]
        texts, numbers = [document.text for document in documents], [None] * len(documents)
        if ranked.passages is not None:
            texts, numbers = list_texts(corpus, ranked), ranked.passages.tolist()
        return [
            SearchHit(rank, document.id, score, text, document.title, number)
            for rank, (document, score, text, number) in enumerate(
                zip(documents, ranked.scores.tolist(), texts, numbers, strict=True), 1
            )
        ]

    def __repr__(self) -> str:
        return f"CollectionSearch({self.collection.id!r}, {str(self.model)!r})"
