"""JSON lines of ids: ColBERT's n-way examples and the hard negatives of sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.runs.formats.rows import (
    Record,
    Rows,
    WriteOptions,
    entries_of,
    gathered,
    name_of,
    number_or_name,
    parted,
    relevant,
    scored,
)
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run
from irdistill.runs.score_file import ScoreFile, open_output

NWAY = "[query, [document, score], [document, score], …]"
HARD = '{"qid": query, "pos": [document, …], "neg": {"system": [document, …]}}'


def records(source: ScoreFile, layout: str, read: Callable[[int, Any], Record]) -> Iterator[Record]:
    """One record a line.

    Raises:
        IrdistillError: a line is not JSON, or ``read`` fails on it with KeyError, TypeError,
            ValueError or AttributeError; the line and the layout are named.
    """
    for number, line in source.lines():
        try:
            yield read(number, json.loads(line))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise IrdistillError(
                f"{source.path}, line {number}: {why}. This was expected: {layout}. The line begins"
                f" {line[:80].decode('utf-8', 'replace')!r}; the file is damaged or of another"
                " --format."
            ) from error


def read_nway(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """ColBERTv2 (2112.01488): ``[query, [document, score], …]``, 64 documents a line; a query may
    have many lines.
    """

    def read(number: int, value: Any) -> Record:
        query, *pairs = value
        if len(pairs) == 1 and pairs[0] and isinstance(pairs[0][0], list):
            pairs = pairs[0]
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise ValueError("a document stands without a score")
        return Record(
            number,
            name_of(query),
            [name_of(doc) for doc, _ in pairs],
            [score for _, score in pairs],
        )

    return gathered(records(source, NWAY, read), source)


def write_nway(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """One line a query, best first; a ColBERT trainer takes the first ``nway`` documents of
    each.
    """

    def line(found: RankedList) -> tuple[Any, int]:
        pairs = [[number_or_name(doc), score] for doc, score in scored(found)]
        return [number_or_name(found.query_id), *pairs], len(pairs)

    return write_lines(run, path, line)


def read_hard(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """sentence-transformers' hard negatives: ids by the system that found them.

    The scores lie in a pickle beside it; older files carry them as ``{"pid": document, "ce-score":
    score}``.
    """

    def read(number: int, value: Any) -> Record:
        negatives = value["neg"].values() if isinstance(value["neg"], dict) else [value["neg"]]
        entries = [
            *entries_of(value["pos"], ids=True),
            *(entry for system in negatives for entry in entries_of(system, ids=True)),
        ]
        docs = [name_of(entry["pid"] if isinstance(entry, dict) else entry) for entry in entries]
        scores = [entry.get("ce-score") if isinstance(entry, dict) else None for entry in entries]
        return Record(number, name_of(value["qid"]), docs, scores)

    return gathered(records(source, HARD, read), source)


def write_hard(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """Documents that are judged relevant as ``pos``, all others as negatives of one system,
    ``run``.
    """

    def line(found: RankedList) -> tuple[Any, int]:
        names = [(doc, number_or_name(doc)) for doc in found.doc_ids]
        positive, negative = parted(names, relevant(collection, found.query_id))
        if not options.takes(positive, negative):
            return None, 0
        value = {
            "qid": number_or_name(found.query_id),
            "pos": [name for _, name in positive],
            "neg": {"run": [name for _, name in negative]},
        }
        return value, len(names)

    return write_lines(run, path, line)


def write_lines(run: Run, path: Path, line: Callable[[RankedList], tuple[Any, int]]) -> int:
    """A line of JSON for each query that has rows to express; ``line`` gives the value and how many
    rows it expresses.
    """
    count = 0
    with open_output(path) as stream:
        for found in run:
            value, rows = line(found)
            if rows:
                stream.write(
                    json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
                )
                count += rows
    return count
