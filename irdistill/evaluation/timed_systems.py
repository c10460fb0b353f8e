"""Retrievers and rerankers of every kind behind one call, with their sizes, for timing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irdistill.collections import Collection, Corpus, Query
from irdistill.collections.passage_corpus import reading_corpus
from irdistill.search import open_searcher
from irdistill.search.lexical.first_stages import is_lexical, open_lexical
from irdistill.search.lexical.passage_bm25 import PassageBM25
from irdistill.search.passage_ranking import MAXP
from irdistill.search.retrieve_options import CodeOptions, Index
from irdistill.students import CrossEncoderStudent, load_student
from irdistill.students.model_kinds import model_kind


@dataclass(frozen=True)
class TimedSystem:
    """A retriever, or a reranker of a fixed set of documents.

    Attributes:
        answer: searches or reranks for some queries.
        encode: makes vectors of some texts; None if nothing is encoded beforehand.
        parameters, layers: the part of the model that a query goes through.
        index_bytes: size of the index.
        index_parts: bytes of the index by part, and of the ids of the documents.
        reranks: documents reordered per query; 0 if it searches the corpus.
    """

    answer: Callable[[list[Query]], Any]
    encode: Callable[[list[str]], Any] | None
    parameters: int
    layers: int
    index_bytes: int
    reranks: int = 0
    index_parts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SystemOptions:
    """How systems are opened.

    Attributes:
        k: documents per query that are retrieved or reranked.
        index: index of dense models, or their short codes.
        seed: random seed of approximate indexes.
        dimension: truncate the vectors of Matryoshka models to this dimension.
        trust_remote_code: allow code in the models' folders.
    """

    k: int = 100
    index: Index | CodeOptions = "flat"
    seed: int = 42
    dimension: int | None = None
    trust_remote_code: bool = False


def open_system(
    collection: Collection,
    model: str,
    options: SystemOptions,
    work: Path | None = None,
    kind: str | None = None,
) -> TimedSystem:
    """Open ``bm25``, ``lucene``, a model that searches the corpus, or a cross-encoder.

    A cross-encoder reranks ``k`` documents of the corpus for each query.
    """
    corpus, k, trust_remote_code = collection.corpus, options.k, options.trust_remote_code
    if is_lexical(model):
        lexical = open_lexical(model, reading_corpus(corpus), work=work)
        search = lexical.search
        if corpus.passages is not None:
            search = PassageBM25(corpus, lexical, MAXP).search
        return TimedSystem(lambda batch: list(search(batch, k)), None, 0, 0, lexical.bytes)
    kind = model_kind(model, kind)
    if kind == "cross-encoder":
        return _cross_encoder(
            collection, CrossEncoderStudent.load(model, trust_remote_code=trust_remote_code), k
        )
    student = load_student(
        model, kind=kind, trust_remote_code=trust_remote_code, dimension=options.dimension
    )
    engine = open_searcher(corpus, student, options.index, work, seed=options.seed)

    def answer(batch: list[Query]) -> Any:
        return list(engine.search([engine.encode([query.text for query in batch])], k))

    size = student.size()
    return TimedSystem(
        answer,
        lambda texts: student.search_vectors(texts, "document"),
        size["query_parameters"],
        size["query_layers"],
        engine.nbytes,
        index_parts={**(engine.sizes or {"vectors": engine.nbytes}), "ids": _id_bytes(corpus)},
    )


def _id_bytes(corpus: Corpus) -> int:
    """Bytes of the ids of all documents in UTF-8."""
    return sum(len(doc_id.encode()) for doc_id in corpus.ids)


def _cross_encoder(collection: Collection, student: CrossEncoderStudent, k: int) -> TimedSystem:
    corpus = reading_corpus(collection.corpus)
    texts = corpus.texts(range(min(k, len(corpus))))

    def answer(batch: list[Query]) -> Any:
        return [
            student.predict([(query.text, text) for text in texts]).sort(descending=True)
            for query in batch
        ]

    size = student.size()
    return TimedSystem(answer, None, size["parameters"], size["query_layers"], 0, len(texts))
