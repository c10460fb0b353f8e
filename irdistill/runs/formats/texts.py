"""JSON lines with texts: FlagEmbedding and Tevatron."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from irdistill.collections import Collection, Document
from irdistill.runs.formats.jsonl import records, write_json_lines
from irdistill.runs.formats.rows import (
    Record,
    Rows,
    WriteOptions,
    as_list,
    id_text,
    relevant_documents,
    rows_of_records,
    scored_documents,
    split_rows,
)
from irdistill.runs.named_passages import list_texts
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run
from irdistill.runs.score_file import ScoreFile

FLAG_LAYOUT = (
    '{"query": text, "pos": [text, …], "neg": [text, …], "pos_scores": [number, …], "neg_scores":'
    " [number, …]}"
)
TEVATRON_LAYOUT = (
    '{"query_id": id, "query": text, "positive_passages": [{"docid": id, "title": text, "text":'
    ' text, "score": number}, …], "negative_passages": […]}'
)
UNKNOWN, AMBIGUOUS = -1, -2


class TextIndex:
    """Text -> row of the document: sorted hashes, 12 bytes per text; a hit is compared exactly.

    A document is known by title and text joined, or by its text, and if it is split by those of its
    passages. White space at the ends is ignored.
    """

    def __init__(self, collection: Collection) -> None:
        self._corpus = collection.corpus
        passages = self._corpus.passages
        hashes, rows = array("Q"), array("i")
        texts: Iterator[tuple[int, Document]] = enumerate(self._corpus.documents())
        if passages is not None:
            texts = chain(texts, zip(passages.documents, passages.corpus.documents(), strict=True))
        for row, document in texts:
            titled = {f"{document.title} {document.text}"} if document.title else set()
            for text in {document.text} | titled:
                hashes.append(_hash(text))
                rows.append(row)
        order = np.argsort(np.array(hashes, np.uint64), kind="stable")
        self._hashes = np.array(hashes, np.uint64)[order]
        self._rows = np.array(rows, np.int32)[order]

    def find(self, texts: Sequence[str]) -> np.ndarray:
        """(n,) int64 rows; -1 for a text of no document, -2 for a text of several documents."""
        return np.array([self._find(text) for text in texts], np.int64)

    def _find(self, text: str) -> int:
        key = np.uint64(_hash(text))
        start, end = (int(np.searchsorted(self._hashes, key, side)) for side in ("left", "right"))
        rows = {row for row in self._rows[start:end].tolist() if self._has_text(row, text)}
        return rows.pop() if len(rows) == 1 else AMBIGUOUS if rows else UNKNOWN

    def _has_text(self, row: int, text: str) -> bool:
        documents = [self._corpus.document(row)]
        passages = self._corpus.passages
        if passages is not None:
            documents += map(passages.corpus.document, passages.all_of([row]).tolist())
        return any(
            text.strip() in (document.text.strip(), f"{document.title} {document.text}".strip())
            for document in documents
        )


def _hash(text: str) -> int:
    return xxhash.xxh64_intdigest(text.strip().encode("utf-8", "surrogatepass"))


def query_texts(collection: Collection) -> dict[str, int]:
    """Text of a query -> its number in the collection; -2 for a text of several queries."""
    numbers: dict[str, int] = {}
    for number, query in enumerate(collection.queries.values()):
        text = query.text.strip()
        numbers[text] = AMBIGUOUS if text in numbers else number
    return numbers


def read_flag(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """FlagEmbedding's fine-tuning data, which has texts instead of ids."""

    def read(number: int, value: Any) -> Record:
        texts: list[str] = []
        scores: list[float | None] = []
        for side in ("pos", "neg"):
            side_texts, side_scores = as_list(value[side]), value.get(f"{side}_scores")
            if isinstance(side_scores, int | float):
                side_scores = [side_scores]
            if side_scores is not None and len(side_scores) != len(side_texts):
                raise ValueError(
                    f"{len(side_texts)} texts in {side} and {len(side_scores)} scores in"
                    f" {side}_scores"
                )
            texts += side_texts
            scores += [None] * len(side_texts) if side_scores is None else side_scores
        if not all(isinstance(text, str) for text in (value["query"], *texts)):
            raise ValueError("a text is not text")
        return Record(number, value["query"], texts, scores)

    return rows_of_records(records(source, FLAG_LAYOUT, read), source, by_text=True)


def write_flag(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """Relevant documents as ``pos``; texts as in the collection, title and text joined.

    The text of a document that is split is the passage that the run names.
    """
    assert collection is not None

    def line(ranked: RankedList) -> tuple[Any, int]:
        rows = scored_documents(ranked)
        positive, negative = split_rows(rows, relevant_documents(collection, ranked.query_id))
        if not options.accept(positive, negative):
            return None, 0
        value: dict[str, Any] = {"query": collection.queries[ranked.query_id].text}
        texts = dict(zip(ranked.doc_ids, list_texts(collection.corpus, ranked), strict=True))
        for side, some in (("pos", positive), ("neg", negative)):
            value[side] = [texts[doc] for doc, _ in some]
        for side, some in (("pos_scores", positive), ("neg_scores", negative)):
            value[side] = [score for _, score in some]
        return value, len(rows)

    return write_json_lines(run, path, line)


def read_tevatron(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """Tevatron's training data, with or without ``score`` in the passages.

    Newer files hold ids of documents only.
    """

    def read(number: int, value: Any) -> Record:
        entries: list[Any] = []
        for side in ("positive", "negative"):
            passages, ids = f"{side}_passages", f"{side}_document_ids"
            if passages in value or ids not in value:
                entries += as_list(value[passages])
            else:
                entries += as_list(value[ids], ids=True)
        docs = [id_text(entry["docid"] if isinstance(entry, dict) else entry) for entry in entries]
        scores = [entry.get("score") if isinstance(entry, dict) else None for entry in entries]
        return Record(number, id_text(value["query_id"]), docs, scores)

    return rows_of_records(records(source, TEVATRON_LAYOUT, read), source)


def write_tevatron(
    run: Run, path: Path, collection: Collection | None, options: WriteOptions
) -> int:
    """Every document with its text; ``score`` for a document that has one.

    The text of a document that is split is the passage that the run names.
    """
    assert collection is not None
    corpus = collection.corpus

    def passage(doc: str, score: float | None, number: int) -> dict[str, Any]:
        document = corpus.document(corpus.row(doc))
        if number >= 0 and corpus.passages is not None:
            [row] = corpus.passages.rows([corpus.row(doc)], [number])
            document = corpus.passages.corpus.document(int(row))
        entry = {"docid": doc, "title": document.title, "text": document.text}
        return entry if score is None else entry | {"score": score}

    def line(ranked: RankedList) -> tuple[Any, int]:
        scores = dict(scored_documents(ranked))
        numbers = [-1] * len(scores) if ranked.passages is None else ranked.passages.tolist()
        named = dict(zip(ranked.doc_ids, numbers, strict=False))
        rows = [(doc, scores.get(doc)) for doc in ranked.doc_ids]
        positive, negative = split_rows(rows, relevant_documents(collection, ranked.query_id))
        if not options.accept(positive, negative):
            return None, 0
        value: dict[str, Any] = {
            "query_id": ranked.query_id,
            "query": collection.queries[ranked.query_id].text,
            "positive_passages": [passage(*row, named.get(row[0], -1)) for row in positive],
            "negative_passages": [passage(*row, named.get(row[0], -1)) for row in negative],
        }
        return value, len(ranked.doc_ids)

    return write_json_lines(run, path, line)
