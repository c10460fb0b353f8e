"""Pickled dictionaries ``{query: {document: score}}``, as sentence-transformers publishes them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irdistill.collections import Collection
from irdistill.errors import InputError
from irdistill.runs.formats.pickles import RefusedPickleError, memory_for, read_items
from irdistill.runs.formats.rows import (
    Record,
    Rows,
    WriteOptions,
    id_text,
    number_or_text,
    rows_of_records,
)
from irdistill.runs.run import Run
from irdistill.runs.score_file import ScoreFile, open_output


def read_scores(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """``{query: {document: score}}``, ids as numbers or text; read query by query, and no code of
    the pickle is run.
    """
    return rows_of_records(_records(source), source)


def _records(source: ScoreFile) -> Iterator[Record]:
    source.unit, number = "query", 0
    with source.binary() as stream:
        try:
            items = read_items(stream, memory_for(source.bytes))
            for number, (query, scores) in enumerate(items, 1):
                if not isinstance(scores, dict):
                    raise RefusedPickleError(f"query {query!r} has a {type(scores).__name__}")
                docs = [id_text(doc) for doc in scores]
                yield Record(number, id_text(query), docs, list(scores.values()))
        except RefusedPickleError as error:
            raise InputError(
                f"{source.path} is refused after {number} queries: {error}, and a pickled"
                " dictionary of dictionaries {query: {document: score}} of plain text and"
                " numbers was expected. Nothing of it was run. A pickle can run any code when"
                " Python loads it; load this one only if you trust its source, and save it as"
                " JSON."
            ) from error
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{source.path}, query {number + 1}: {error}; the pickle is truncated, damaged or"
                " not one of scores."
            ) from error


def write_scores(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """The same dictionary, written query by query, so that it need not fit into memory.

    Ids that are numbers are written as numbers.
    """
    count = 0
    with open_output(path) as stream:
        stream.write(b"\x80\x03}")
        for ranked in run:
            # plain floats of float32 values: every reader gets the same numbers back
            rows = {
                number_or_text(doc): score
                for doc, score in zip(ranked.doc_ids, ranked.scores.tolist(), strict=True)
                if score == score
            }
            if rows:
                stream.write(_body(number_or_text(ranked.query_id)) + _body(rows) + b"s")
                count += len(rows)
        stream.write(b".")
    return count


def _body(value: Any) -> bytes:
    """The instructions that make a value, without the pickle's first and last."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=3)
    pickler.fast = True  # no memo: the instructions are part of one pickle with others
    pickler.dump(value)
    return buffer.getvalue()[2:-1]
