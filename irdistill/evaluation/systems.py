"""What is timed: retrievers of every kind behind one call, with their sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from irdistill.collections import Collection, Query
from irdistill.search import BM25, FaissIndex
from irdistill.search.faiss_index import IndexKind
from irdistill.search.vectors import corpus_vectors
from irdistill.students import CrossEncoderStudent, LateInteractionStudent, SparseStudent
from irdistill.students.base import Student
from irdistill.students.dense import DenseStudent
from irdistill.teachers.detection import kind_of, retriever_type


@dataclass(frozen=True)
class System:
    """A retriever, or a reranker of ``k`` given documents.

    Attributes:
        answer: searches, or reranks, for some queries.
        encode: makes vectors of some texts; None where nothing is encoded beforehand.
        parameters, layers: those that a query goes through.
        index_bytes: what is kept of the corpus.
        reranks: documents a query that it orders; 0 where it searches all.
    """

    answer: Callable[[list[Query]], Any]
    encode: Callable[[list[str]], Any] | None
    parameters: int
    layers: int
    index_bytes: int
    reranks: int = 0


def open_system(collection: Collection, model: str, k: int, index: IndexKind, work: Path | None, seed: int) -> System:
    """``bm25``, or a model of any kind that a student can be.

    Dense models search an index of the whole corpus. Of sparse and late-interaction models the vectors of ``k`` documents are
    kept, and a query is compared with these; what the whole corpus would take is reckoned from them. Cross-encoders read
    ``k`` documents for each query.
    """
    if model == "bm25":
        bm25 = BM25(collection.corpus, cache=work)
        return System(lambda batch: list(bm25.search(batch, k)), None, 0, 0, bm25.bytes)
    if kind_of(model) == "cross-encoder":
        return _cross_encoder(collection, CrossEncoderStudent.load(model), k)
    kind = retriever_type(model)
    if kind == "dense":
        return _dense(collection, DenseStudent.load(model), k, index, work, seed)
    return _kept(collection, (SparseStudent if kind == "sparse" else LateInteractionStudent).load(model), k)


def _dense(collection: Collection, student: DenseStudent, k: int, kind: IndexKind, work: Path | None, seed: int) -> System:
    store = corpus_vectors(collection.corpus, student, work)
    built = FaissIndex.build(store, kind, store.folder / f"{kind}-{seed}", seed=seed)

    def answer(batch: list[Query]) -> Any:
        vectors = student.encode([query.text for query in batch], "query", show_progress=False,
                                 normalize=student.similarity == "cosine")
        return built.search(vectors, k)

    size = student.size()
    return System(answer, lambda texts: student.encode(texts, "document", show_progress=False), size["query_parameters"],
                  size["query_layers"], built.nbytes)


def _kept(collection: Collection, student: Student, k: int) -> System:
    texts = collection.corpus.texts(range(min(k, len(collection.corpus))))
    held = _vectors(student, texts, "document")
    places = torch.arange(len(texts), device=student.device)

    @torch.inference_mode()
    def answer(batch: list[Query]) -> Any:
        queries = _vectors(student, [query.text for query in batch], "query")
        return student.scores(queries, held, places.expand(len(batch), -1))[0].sort(descending=True)

    size = student.size()
    whole = round(_bytes(held) / max(1, len(texts)) * len(collection.corpus))
    return System(answer, lambda texts: _vectors(student, texts, "document"), size["query_parameters"], size["query_layers"],
                  whole, len(texts))


@torch.inference_mode()
def _vectors(student: Student, texts: list[str], kind: Any) -> Any:
    parts = []
    for start in range(0, len(texts), 32):
        tokens = student.tokenize(texts[start : start + 32], kind)
        parts.append(student.embed(student.pad(tokens, kind), kind))
    return student.join(parts, torch.arange(len(texts), device=student.device))


def _bytes(vectors: Any) -> int:
    """Of sparse vectors an int32 and a float32 for each entry that is not zero; of token vectors all their float32."""
    if isinstance(vectors, torch.Tensor):
        return 8 * int(torch.count_nonzero(vectors))
    return sum(4 * tokens.numel() for tokens in vectors)


def _cross_encoder(collection: Collection, student: CrossEncoderStudent, k: int) -> System:
    texts = collection.corpus.texts(range(min(k, len(collection.corpus))))

    def answer(batch: list[Query]) -> Any:
        return [student.predict([(query.text, text) for text in texts]).sort(descending=True) for query in batch]

    size = student.size()
    return System(answer, None, size["parameters"], size["query_layers"], 0, len(texts))
