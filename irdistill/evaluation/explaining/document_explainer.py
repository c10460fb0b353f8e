"""Explains documents of a collection: BM25, a model, runs and judgments."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irdistill.bundles.bundle_searcher import Searcher
from irdistill.collections import Collection
from irdistill.errors import NotFoundError, OptionError
from irdistill.evaluation.explaining.explanation import Explanation, RunScore
from irdistill.evaluation.explaining.word_match import WordExplainer
from irdistill.runs import Run
from irdistill.search.lexical.first_stages import is_lexical
from irdistill.search.retrieval import searched_collection
from irdistill.search.retrieve_options import RetrieveOptions

if TYPE_CHECKING:
    from irdistill.search.vectors.text_encoder import TextEncoder


class DocumentExplainer:
    """Explains why documents are in rankings; indexes and models stay open.

    Args:
        collection: the documents, and queries and judgments if it has any.
        model: ``bm25``, or a dense, sparse, late-interaction or cross-encoder model: folder, hub
            id, a loaded model, or the searcher of a bundle with these documents.
        runs: runs of the collection by name.
        options: of the search that is explained. Scores are those of exact search.

    Examples:
        >>> docs = {"a": "merge two dictionaries", "b": "sort a list"}
        >>> explainer = DocumentExplainer(Collection.from_dicts("two", docs, {}))
        >>> explainer.explain("merge dictionaries", "b").verdict()
        'BM25 gives 0: the document has no word of the query.'
    """

    def __init__(
        self,
        collection: Collection,
        model: str | Path | TextEncoder | Searcher = "bm25",
        runs: Mapping[str, Run] | None = None,
        options: RetrieveOptions | None = None,
    ) -> None:
        options = options or RetrieveOptions()
        if is_lexical(model) and model != "bm25":
            raise OptionError(
                f"model is {model}, and only bm25 of the lexical first stages is explained; use"
                " bm25."
            )
        if options.aggregate == "vector":
            raise OptionError(
                "aggregate is vector, whose vectors are fitted to all passages of a document; an"
                " explanation needs maxp, firstp, logsumexp or whole."
            )
        searched = "bm25" if isinstance(model, Searcher) else model
        self.collection = searched_collection(collection, searched, options)
        self.model, self.runs, self.options = model, dict(runs or {}), options

    def explain(self, query: str, doc_id: str, *, use_model: bool = True) -> Explanation:
        """Explain a document for a query.

        Args:
            query: a text, or the id of a query of the collection.
            use_model: whether to load and run the model.

        Raises:
            NotFoundError: the collection does not have the document.
            OptionError: the query is empty.
        """
        collection = self.collection
        query_id, text = self.known_query(query)
        if not collection.corpus.has(doc_id):
            raise NotFoundError(
                f"the collection {collection.id!r} has no document {doc_id!r}; give the id of one"
                " of its documents."
            )
        row = collection.corpus.row(doc_id)
        words = self._words.explain(text, row)
        model = None
        if use_model and self.model != "bm25":
            model = self._model.explain(text, doc_id)
        document = collection.corpus.document(row)
        passage = words.passage if model is None or model.passage is None else model.passage
        judgments = collection.qrels.get(query_id) if query_id is not None else None
        return Explanation(
            query_id,
            text,
            doc_id,
            document.title,
            document.text if passage is None else self._passage(row, passage),
            passage,
            words,
            model,
            [] if query_id is None else self._runs(query_id, doc_id),
            judgments is not None,
            (judgments or {}).get(doc_id),
        )

    def known_query(self, query: str) -> tuple[str | None, str]:
        """The id and the text of a query that is given by either; the id is None for another text.

        Raises:
            OptionError: the query is empty.
        """
        if not query.strip():
            raise OptionError("the query is empty; give some words, or the id of a query.")
        queries = self.collection.queries
        if query in queries:
            return query, queries[query].text
        return self._ids_by_text.get(query.strip()), query

    @cached_property
    def _ids_by_text(self) -> dict[str, str]:
        queries = self.collection.queries
        return {queries[query_id].text.strip(): query_id for query_id in reversed(list(queries))}

    @cached_property
    def _words(self) -> WordExplainer:
        return WordExplainer(self.collection.corpus, self.options)

    @cached_property
    def _model(self) -> Any:
        from irdistill.evaluation.explaining.model_score import (
            BundleVectors,
            CollectionVectors,
            PairExplainer,
        )
        from irdistill.students import load_student
        from irdistill.students.model_kinds import model_kind

        model, options = self.model, self.options
        if isinstance(model, Searcher):
            return BundleVectors(model)
        if isinstance(model, str | Path):
            if model_kind(str(model), options.kind) == "cross-encoder":
                return PairExplainer(self.collection, str(model), options)
            model = load_student(
                model,
                kind=options.kind,
                trust_remote_code=options.trust_remote_code,
                dimension=options.dimension,
            )
        return CollectionVectors(self.collection, model, options)

    def _passage(self, row: int, number: int) -> str:
        passages = self.collection.corpus.passages
        assert passages is not None
        if number >= int(passages.counts([row])[0]):  # a bundle leaves out empty passages
            return self.collection.corpus.document(row).text
        return passages.corpus.text(int(passages.rows([row], [number])[0]))

    def _runs(self, query_id: str, doc_id: str) -> list[RunScore]:
        return [_run_score(name, run, query_id, doc_id) for name, run in self.runs.items()]


def _run_score(name: str, run: Run, query_id: str, doc_id: str) -> RunScore:
    """What a run has for a query and a document."""
    ranked, kind = run.get(query_id), run.identity.kind
    if ranked is None:
        return RunScore(name, kind, None)
    if doc_id not in ranked.doc_ids:
        return RunScore(name, kind, len(ranked.doc_ids))
    place = ranked.doc_ids.index(doc_id)
    score = float(ranked.scores[place])
    passage = None
    if ranked.passages is not None and ranked.passages[place] >= 0:
        passage = int(ranked.passages[place])
    return RunScore(
        name,
        kind,
        len(ranked.doc_ids),
        None if np.isnan(score) else place + 1,
        None if np.isnan(score) else score,
        None if ranked.flags is None else ranked.flags[place],
        passage,
    )
