"""The score of a model for one document, and the parts that add up to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix, vstack

from irdistill.bundles.bundle_searcher import Searcher
from irdistill.collections import Collection, Query
from irdistill.collections.corpus import joined
from irdistill.collections.passage_corpus import reading_corpus
from irdistill.evaluation.explaining.explanation import ModelScore, ScorePart, TokenMatch
from irdistill.evaluation.explaining.word_match import aggregation_of
from irdistill.runs import RankedList
from irdistill.search.multi_vector.maxsim import MaxSimQueries
from irdistill.search.passage_choice import PassageChoice
from irdistill.search.passage_ranking import DENSE_TAU, MAXP, Aggregation
from irdistill.search.retrieve_options import RetrieveOptions
from irdistill.search.vectors.text_encoder import TextEncoder
from irdistill.search.vectors.vector_store import SparseStore, TokenStore, finished_vectors
from irdistill.students.late_interaction_student import LateInteractionStudent
from irdistill.students.query_vector_parts import query_parts
from irdistill.students.student_base import Student
from irdistill.teachers.part_scoring import score_pairs
from irdistill.teachers.protocol import TextPair
from irdistill.teachers.teacher_card import card_of
from irdistill.teachers.teacher_loading import known_settings, load_teacher

_NO_PARTS = (
    "This model compares one vector of the query with one of the document; such a score has no"
    " parts that belong to words."
)


class _Compared(NamedTuple):
    """What a model compares for one document.

    Attributes:
        query: vector (1, D) or (1, V), or tokens (n, D).
        documents: of each of P rows a vector, or tokens.
        texts: of the rows.
        numbers: of the passages; None if the one row is a whole document.
    """

    query: Any
    documents: Any
    texts: Sequence[str]
    numbers: Sequence[int] | None


class VectorExplainer(ABC):
    """Explains the scores of a model with vectors.

    Attributes:
        name: of the model.
    """

    name: str

    @property
    @abstractmethod
    def student(self) -> TextEncoder:
        """The model."""

    @abstractmethod
    def _compared(self, query: str, doc_id: str) -> _Compared: ...

    def _aggregation(self) -> Aggregation:
        return MAXP

    def explain(self, query: str, doc_id: str) -> ModelScore:
        """The score of a document, by exact search with float vectors."""
        student, compared = self.student, self._compared(query, doc_id)
        facts = (self.name, student.kind, student.similarity)
        scores = _scores(student, compared)
        readable = np.isfinite(scores)
        if not readable.any():
            return ModelScore(
                *facts, None, note="the model reads no token of the query or document."
            )
        aggregation = self._aggregation()
        best = aggregation.best(scores)
        total = float(aggregation.reduce(scores[None], np.array([0]))[0, 0])
        passage = None if compared.numbers is None else compared.numbers[best]
        parts, tokens = self._parts(query, compared, best)
        note = _NO_PARTS if parts is None and tokens is None else ""
        return ModelScore(*facts, total, passage, len(scores), parts, tokens, note)

    def _parts(
        self, query: str, compared: _Compared, best: int
    ) -> tuple[list[ScorePart] | None, TokenMatch | None]:
        student = self.student
        if not isinstance(student, Student):
            return None, None
        document = compared.documents[best]
        if isinstance(student, LateInteractionStudent):
            return None, _tokens(student, query, compared, best)
        if student.kind == "sparse":
            return _common_terms(student, compared.query, document), None
        parts = query_parts(student, query, self._precision())
        if parts is None:
            return None, None
        values = (parts.vectors @ np.asarray(document)).tolist()
        return [
            ScorePart(name, value, count)
            for name, value, count in zip(parts.names, values, parts.counts, strict=True)
        ], None

    def _precision(self) -> Any:
        return "auto"


class CollectionVectors(VectorExplainer):
    """Explains the scores of a model for the documents of a collection.

    Vectors of documents that a search keeps in the cache are used; others are encoded.
    """

    def __init__(
        self, collection: Collection, model: TextEncoder, options: RetrieveOptions
    ) -> None:
        self.collection, self._model, self.options = collection, model, options
        self.name = str(model.source)

    @property
    def student(self) -> TextEncoder:
        """The model."""
        return self._model

    @cached_property
    def _store(self) -> Any:
        read, options = reading_corpus(self.collection.corpus), self.options
        return finished_vectors(read, self._model, options.precision, options.storage)

    def _precision(self) -> Any:
        return self.options.precision

    def _aggregation(self) -> Aggregation:
        return aggregation_of(self.options, DENSE_TAU if self._model.kind == "dense" else 1.0)

    def _compared(self, query: str, doc_id: str) -> _Compared:
        corpus, precision = self.collection.corpus, self.options.precision
        row, passages = corpus.row(doc_id), corpus.passages
        rows = np.array([row]) if passages is None else passages.all_of([row])
        read = reading_corpus(corpus)
        texts = read.texts(rows)
        vectors = self._model.search_vectors([query], "query", precision)
        if self._store is None:
            documents = self._model.search_vectors(texts, "document", precision)
        elif isinstance(self._store, SparseStore):
            documents = self._store.rows_of(rows)
        elif isinstance(self._store, TokenStore):
            batch = self._store.take(rows)
            documents = [tokens.numpy() for tokens in batch.values.split(batch.lengths)]
        else:
            documents = self._store.take(rows).values.numpy()
        numbers = None if passages is None else list(range(len(rows)))
        query_vectors = vectors[0] if self._model.kind == "late-interaction" else vectors
        return _Compared(query_vectors, documents, texts, numbers)


class BundleVectors(VectorExplainer):
    """Explains the scores of a bundle from the vectors in its index."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher, self.name = searcher, str(searcher.bundle.path)

    @property
    def student(self) -> TextEncoder:
        """The model of the bundle."""
        student: TextEncoder = self.searcher.load_model()
        return student

    def _precision(self) -> Any:
        return "float32"  # as bundles are searched

    def _compared(self, query: str, doc_id: str) -> _Compared:
        rows = self.searcher.rows_of(doc_id)
        vectors = self.searcher.vectors_of(rows)
        fields = list(self.searcher.fields_of(rows))
        numbers = [one["passage"] for one in fields] if "passage" in fields[0] else None
        texts = [str(one.get("text", "")) for one in fields]
        if numbers is None:  # passages begin with the title
            titles = [str(one.get("title", "")) for one in fields]
            texts = [joined(*pair) for pair in zip(titles, texts, strict=True)]
        query_vectors = self.searcher.query_vector(query)
        documents: Any = vectors
        if self.student.kind == "sparse":
            query_vectors, documents = csr_matrix(query_vectors), csr_matrix(np.stack(vectors))
        elif self.student.kind == "dense":
            query_vectors, documents = query_vectors[None], np.stack(vectors)
        return _Compared(query_vectors, documents, texts, numbers)


class PairExplainer:
    """The scores of a cross-encoder, which have no parts."""

    def __init__(self, collection: Collection, model: str, options: RetrieveOptions) -> None:
        self.collection, self.name = collection, model
        split = collection.corpus.passages is not None
        self._choice = PassageChoice(collection.corpus) if split else None
        corpus = reading_corpus(collection.corpus)
        settings: dict[str, Any] = {
            "precision": options.precision,
            "trust_remote_code": options.trust_remote_code,
            "backend": "torch",  # compiling a network takes longer than one pair
        }
        known = known_settings(card_of(model).kind)
        chosen = {name: value for name, value in settings.items() if name in known}
        self._teacher: Any = load_teacher(model, corpus, **chosen)

    def explain(self, query: str, doc_id: str) -> ModelScore:
        """The score of a document, or of its best passage by BM25, as a teacher gives it."""
        corpus = self.collection.corpus
        row, number, count = corpus.row(doc_id), None, 1
        question = Query("", query)
        if self._choice is not None:
            listed = RankedList("", [doc_id], np.zeros(1, np.float32))
            number = int(self._choice.best(question, listed)[0])
            count = int(self._choice.passages.counts([row])[0])
            row = int(self._choice.passages.rows([row], [number])[0])
        text = reading_corpus(corpus).text(row)
        scores, _ = score_pairs(self._teacher, [TextPair(question, row, text)])
        value = float(scores.values[0])
        note = "It reads query and document together, so its score has no parts."
        if value != value:
            return ModelScore(self.name, "cross-encoder", "logit", None, note=str(scores.flags))
        return ModelScore(self.name, "cross-encoder", "logit", value, number, count, note=note)


def _scores(student: TextEncoder, compared: _Compared) -> np.ndarray:
    """Scores (P,) float32 of the rows of a document; -inf where there is none."""
    count = len(compared.texts)
    scores = np.full(count, -np.inf, np.float32)
    if student.kind == "late-interaction":
        queries = MaxSimQueries(
            [compared.query], student.similarity == "meanmaxsim", torch.device("cpu")
        )
        for place, tokens in enumerate(compared.documents):
            if len(compared.query) and len(tokens):
                lengths = torch.tensor([len(tokens)])
                scores[place] = queries.scores(torch.from_numpy(np.array(tokens)), lengths)[0, 0]
        return scores
    if student.kind == "sparse":
        values = (compared.documents @ compared.query.T).toarray()[:, 0]
        return np.where(values > 0, values, -np.inf).astype(np.float32)
    query, documents = compared.query[0], np.asarray(compared.documents, np.float32)
    present = documents.any(axis=1) & bool(np.any(query))
    scores[present] = documents[present] @ query
    return scores


def _common_terms(student: Student, query: Any, document: Any) -> list[ScorePart]:
    """The terms that query and document share, each weight, and the products."""
    both = vstack([query, document]).toarray()
    terms = np.flatnonzero(both.all(axis=0))
    names = student._first("document").tokenizer.convert_ids_to_tokens(terms.tolist())
    return [
        ScorePart(name, float(one * other), None, float(one), float(other))
        for name, one, other in zip(names, *both[:, terms], strict=True)
    ]


def _tokens(
    student: LateInteractionStudent, query: str, compared: _Compared, best: int
) -> TokenMatch:
    tokens = np.asarray(compared.documents[best], np.float32)
    similarities = np.asarray(compared.query, np.float32) @ tokens.T
    return TokenMatch(
        _names(student.scored_tokens(query, "query"), len(compared.query)),
        _names(student.scored_tokens(compared.texts[best], "document"), len(tokens)),
        similarities.tolist(),
        similarities.argmax(axis=1).tolist(),
        student.similarity == "meanmaxsim",
    )


def _names(names: Sequence[str], count: int) -> Sequence[str]:
    """The names of tokens; numbers where a vector stands for several tokens."""
    return names if len(names) == count else [f"group {place + 1}" for place in range(count)]
