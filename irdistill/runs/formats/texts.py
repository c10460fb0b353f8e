"""JSON lines with the texts in them: FlagEmbedding and Tevatron."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from irdistill.collections import Collection
from irdistill.runs.formats.jsonl import records, write_lines
from irdistill.runs.formats.rows import (
    Record,
    Rows,
    WriteOptions,
    entries_of,
    gathered,
    name_of,
    parted,
    relevant,
    scored,
)
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run
from irdistill.runs.score_file import ScoreFile

FLAG = (
    '{"query": text, "pos": [text, …], "neg": [text, …], "pos_scores": [number, …], "neg_scores":'
    " [number, …]}"
)
TEVATRON = (
    '{"query_id": id, "query": text, "positive_passages": [{"docid": id, "title": text, "text":'
    ' text, "score": number}, …], "negative_passages": […]}'
)
UNKNOWN, AMBIGUOUS = -1, -2


class TextIndex:
    """Which row a text is. Twelve bytes a text: hashes, sorted; a hit is compared with the text
    itself.

    A document is found by title and text joined, or by its text alone. White space at the ends does
    not count.
    """

    def __init__(self, collection: Collection) -> None:
        self._corpus = collection.corpus
        hashes, rows = array("Q"), array("i")
        for row, document in enumerate(self._corpus.documents()):
            for text in {document.text} | (
                {f"{document.title} {document.text}"} if document.title else set()
            ):
                hashes.append(_hash(text))
                rows.append(row)
        self._hashes, self._rows = np.array(hashes, np.uint64), np.array(rows, np.int32)
        order = np.argsort(self._hashes, kind="stable")
        self._hashes, self._rows = self._hashes[order], self._rows[order]

    def find(self, texts: Sequence[str]) -> np.ndarray:
        """(n,) int64 rows; -1 for a text of no document, -2 for one of several documents."""
        return np.array([self._find(text) for text in texts], np.int64)

    def _find(self, text: str) -> int:
        wanted = np.uint64(_hash(text))
        start = int(np.searchsorted(self._hashes, wanted, "left"))
        end = int(np.searchsorted(self._hashes, wanted, "right"))
        found = {row for row in self._rows[start:end].tolist() if self._is(row, text)}
        return found.pop() if len(found) == 1 else AMBIGUOUS if found else UNKNOWN

    def _is(self, row: int, text: str) -> bool:
        document = self._corpus.document(row)
        return text.strip() in (document.text.strip(), f"{document.title} {document.text}".strip())


def _hash(text: str) -> int:
    return xxhash.xxh64_intdigest(text.strip().encode("utf-8", "surrogatepass"))


def query_texts(collection: Collection) -> dict[str, int]:
    """Each query's text -> its number in the collection; -2 for a text of several queries."""
    found: dict[str, int] = {}
    for number, query in enumerate(collection.queries.values()):
        text = query.text.strip()
        found[text] = AMBIGUOUS if text in found else number
    return found


def read_flag(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """FlagEmbedding's fine-tuning data; there are no ids in it, so queries and documents are found
    by their texts.
    """

    def read(number: int, value: Any) -> Record:
        texts: list[str] = []
        scores: list[float | None] = []
        for side in ("pos", "neg"):
            side_texts, side_scores = entries_of(value[side]), value.get(f"{side}_scores")
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

    return gathered(records(source, FLAG, read), source, by_text=True)


def write_flag(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """Documents that are judged relevant as ``pos``; texts as the collection has them, title and
    text joined.
    """
    assert collection is not None

    def line(found: RankedList) -> tuple[Any, int]:
        rows = scored(found)
        positive, negative = parted(rows, relevant(collection, found.query_id))
        if not options.takes(positive, negative):
            return None, 0
        value: dict[str, Any] = {"query": collection.queries[found.query_id].text}
        for side, own in (("pos", positive), ("neg", negative)):
            value[side] = collection.corpus.texts(collection.corpus.rows([doc for doc, _ in own]))
        for side, own in (("pos_scores", positive), ("neg_scores", negative)):
            value[side] = [score for _, score in own]
        return value, len(rows)

    return write_lines(run, path, line)


def read_tevatron(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """Tevatron's training data, with or without ``score`` in the passages; newer files hold ids of
    documents alone.
    """

    def read(number: int, value: Any) -> Record:
        sides = [
            ("positive_passages", "positive_document_ids"),
            ("negative_passages", "negative_document_ids"),
        ]
        entries = [
            entry
            for old, new in sides
            for entry in (
                entries_of(value[old])
                if old in value or new not in value
                else entries_of(value[new], ids=True)
            )
        ]
        docs = [name_of(entry["docid"] if isinstance(entry, dict) else entry) for entry in entries]
        scores = [entry.get("score") if isinstance(entry, dict) else None for entry in entries]
        return Record(number, name_of(value["query_id"]), docs, scores)

    return gathered(records(source, TEVATRON, read), source)


def write_tevatron(
    run: Run, path: Path, collection: Collection | None, options: WriteOptions
) -> int:
    """Every document with its text; ``score`` where it has one."""
    assert collection is not None

    def line(found: RankedList) -> tuple[Any, int]:
        values = dict(scored(found))
        positive, negative = parted(
            [(doc, values.get(doc)) for doc in found.doc_ids], relevant(collection, found.query_id)
        )
        if not options.takes(positive, negative):
            return None, 0
        value: dict[str, Any] = {
            "query_id": found.query_id,
            "query": collection.queries[found.query_id].text,
        }
        for side, own in (("positive_passages", positive), ("negative_passages", negative)):
            value[side] = [
                {"docid": doc, "title": document.title, "text": document.text}
                | ({} if score is None else {"score": score})
                for doc, score in own
                for document in [collection.corpus.document(collection.corpus.row(doc))]
            ]
        return value, len(found.doc_ids)

    return write_lines(run, path, line)
