"""Pseudo-relevance feedback: queries are moved toward the first documents of an earlier run.

The vector form of Rocchio's method (Li et al., arXiv 2108.11044, "Pseudo Relevance Feedback with
Deep Language Models and Dense Retrievers"). A student that learns the scores of expanded queries
from the short ones needs no second search (SoftQE, arXiv 2402.12663).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from irdistill.collections import Query
from irdistill.errors import OptionError
from irdistill.option_checks import check_fields

if TYPE_CHECKING:
    from irdistill.runs import Run
    from irdistill.search.searchers import CorpusSearcher


@dataclass(frozen=True, kw_only=True)
class FeedbackOptions:
    """How the documents of an earlier run move the queries.

    Examples:
        >>> FeedbackOptions().feedback_k
        3
    """

    feedback_k: Annotated[
        int, Field(ge=1, description="Documents per query of the feedback run that are read.")
    ] = 3
    feedback_weight: Annotated[
        float, Field(ge=0, le=1, description="Share of their mean vector in the query's vector.")
    ] = 0.5

    def __post_init__(self) -> None:
        check_fields(self)


class Feedback:
    """Moves the vectors of queries toward the first documents of a run.

    Args:
        run: of the same corpus; a query that it lacks stays as it is.
        searcher: of a dense model with float vectors.

    Raises:
        OptionError: the searcher has no float vectors of whole documents.
    """

    def __init__(self, run: Run, searcher: CorpusSearcher, options: FeedbackOptions) -> None:
        from irdistill.search.searchers import DenseSearcher
        from irdistill.search.vectors.vector_store import VectorStore

        store = searcher.index.store if isinstance(searcher, DenseSearcher) else None
        if not isinstance(store, VectorStore):
            raise OptionError(
                "feedback moves query vectors toward document vectors, so it needs a dense model"
                " with float vectors of whole documents; leave it out."
            )
        self._run, self._options, self._matrix = run, options, store.matrix
        self._corpus, self._unit = searcher.corpus, searcher.student.similarity == "cosine"

    def settings(self) -> dict[str, Any]:
        """What decides the moved queries, for the manifest of a run."""
        return {
            "run": self._run.fingerprint,
            "k": self._options.feedback_k,
            "weight": self._options.feedback_weight,
        }

    def __call__(self, queries: Sequence[Query], vectors: np.ndarray) -> np.ndarray:
        """The moved vectors (Q, D) float32; of length 1 if they are compared by cosine."""
        moved = np.array(vectors, np.float32)
        weight = self._options.feedback_weight
        for place, query in enumerate(queries):
            ranked = self._run.get(query.id)
            if ranked is None:
                continue
            documents = [
                ranked.doc_ids[at]
                for at in np.flatnonzero(~np.isnan(ranked.scores)).tolist()
                if ranked.doc_ids[at] not in query.excluded
            ]
            rows = self._corpus.rows(documents[: self._options.feedback_k])
            if len(rows):
                mean = np.asarray(self._matrix[np.sort(rows)], np.float32).mean(axis=0)
                moved[place] = (1 - weight) * moved[place] + weight * mean
        if self._unit:
            norms = np.linalg.norm(moved, axis=1, keepdims=True)
            moved /= np.where(norms > 0, norms, 1)
        return moved
