"""JSON lines of ids: ColBERT's n-way examples and the hard negatives of sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from irdistill.collections import Collection
from irdistill.errors import InputError
from irdistill.runs.formats.rows import (
    Record,
    Rows,
    WriteOptions,
    as_list,
    id_text,
    number_or_text,
    relevant_documents,
    rows_of_records,
    scored_documents,
    split_rows,
)
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run
from irdistill.runs.score_file import ScoreFile, open_output

NWAY_LAYOUT = "[query, [document, score], [document, score], …]"
HARD_LAYOUT = '{"qid": query, "pos": [document, …], "neg": {"system": [document, …]}}'


def records(source: ScoreFile, layout: str, read: Callable[[int, Any], Record]) -> Iterator[Record]:
    """One record per line."""
    for number, line in source.lines():
        try:
            yield read(number, json.loads(line))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(
                f"{source.path}, line {number}: {why}. This was expected: {layout}. The line begins"
                f" {line[:80].decode('utf-8', 'replace')!r}; the file is damaged or of another"
                " --format."
            ) from error


def write_json_lines(run: Run, path: Path, line: Callable[[RankedList], tuple[Any, int]]) -> int:
    """Write a line of JSON for each query with rows; returns the number of rows.

    Args:
        run: what to write.
        line: returns the JSON value of a list, and how many of its rows it expresses.
    """
    count = 0
    with open_output(path) as stream:
        for ranked in run:
            value, rows = line(ranked)
            if rows:
                text = json.dumps(value, ensure_ascii=False, allow_nan=False)
                stream.write(text.encode() + b"\n")
                count += rows
    return count


def read_nway(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """ColBERTv2 (2112.01488): ``[query, [document, score], …]``, 64 documents per line.

    A query may have several lines.
    """

    def read(number: int, value: Any) -> Record:
        query, *pairs = value
        if len(pairs) == 1 and pairs[0] and isinstance(pairs[0][0], list):
            pairs = pairs[0]
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise ValueError("a document stands without a score")
        docs = [id_text(doc) for doc, _ in pairs]
        return Record(number, id_text(query), docs, [score for _, score in pairs])

    return rows_of_records(records(source, NWAY_LAYOUT, read), source)


def write_nway(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """One line per query, best first; a ColBERT trainer takes the first ``nway`` documents."""

    def line(ranked: RankedList) -> tuple[Any, int]:
        pairs = [[number_or_text(doc), score] for doc, score in scored_documents(ranked)]
        return [number_or_text(ranked.query_id), *pairs], len(pairs)

    return write_json_lines(run, path, line)


def read_hard(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """sentence-transformers' hard negatives: ids, by the system that retrieved them.

    The scores are in a pickle beside the file; older files hold them as ``{"pid": document,
    "ce-score": score}``.
    """

    def read(number: int, value: Any) -> Record:
        systems = value["neg"].values() if isinstance(value["neg"], dict) else [value["neg"]]
        entries = [entry for part in (value["pos"], *systems) for entry in as_list(part, ids=True)]
        docs = [id_text(entry["pid"] if isinstance(entry, dict) else entry) for entry in entries]
        scores = [entry.get("ce-score") if isinstance(entry, dict) else None for entry in entries]
        return Record(number, id_text(value["qid"]), docs, scores)

    return rows_of_records(records(source, HARD_LAYOUT, read), source)


def write_hard(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """Relevant documents as ``pos``, all others as the negatives of one system, ``run``."""

    def line(ranked: RankedList) -> tuple[Any, int]:
        names = [(doc, number_or_text(doc)) for doc in ranked.doc_ids]
        positive, negative = split_rows(names, relevant_documents(collection, ranked.query_id))
        if not options.accept(positive, negative):
            return None, 0
        value = {
            "qid": number_or_text(ranked.query_id),
            "pos": [name for _, name in positive],
            "neg": {"run": [name for _, name in negative]},
        }
        return value, len(names)

    return write_json_lines(run, path, line)
