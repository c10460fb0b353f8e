"""Pickled dictionaries ``{query: {document: score}}``, as sentence-transformers publishes them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.runs.formats.pickles import RefusedPickleError, memory_for, read_items
from irdistill.runs.formats.rows import (
    Record,
    Rows,
    WriteOptions,
    gathered,
    name_of,
    number_or_name,
)
from irdistill.runs.run import Run
from irdistill.runs.score_file import ScoreFile, open_output


def _records(source: ScoreFile) -> Iterator[Record]:
    source.unit, number = "query", 0
    with source.binary() as stream:
        try:
            for number, (query, found) in enumerate(
                read_items(stream, memory_for(source.bytes)), 1
            ):
                if not isinstance(found, dict):
                    raise RefusedPickleError(f"query {query!r} has a {type(found).__name__}")
                yield Record(
                    number, name_of(query), [name_of(doc) for doc in found], list(found.values())
                )
        except RefusedPickleError as error:
            raise IrdistillError(
                f"{source.path} is refused after {number} queries: {error}, and a pickled"
                " dictionary of dictionaries {query: {document: score}} of plain text and"
                " numbers was expected. Nothing of it was run. A pickle can run any code when"
                " Python loads it; load this one only if you trust its source, and save it as"
                " JSON."
            ) from error
        except (ValueError, TypeError) as error:
            raise IrdistillError(
                f"{source.path}, query {number + 1}: {error}; the pickle is truncated, damaged or"
                " not one of scores."
            ) from error


def read_scores(source: ScoreFile, collection: Collection) -> Iterator[Rows]:
    """``{query: {document: score}}``, ids as numbers or text; read a query at a time by a machine
    that runs no code.
    """
    return gathered(_records(source), source)


def write_scores(run: Run, path: Path, collection: Collection | None, options: WriteOptions) -> int:
    """The same dictionary, one query after the other, so that it need not fit into memory; ids as
    numbers where they are.
    """
    count = 0
    with open_output(path) as stream:
        stream.write(b"\x80\x03}")
        for found in run:
            # plain floats of float32 values: every reader gets the same numbers back
            rows = {
                number_or_name(doc): score
                for doc, score in zip(found.doc_ids, found.scores.tolist(), strict=True)
                if score == score
            }
            if rows:
                stream.write(_body(number_or_name(found.query_id)) + _body(rows) + b"s")
                count += len(rows)
        stream.write(b".")
    return count


def _body(value: Any) -> bytes:
    """The instructions that make a value, without the pickle's first and last."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=3)
    pickler.fast = True  # no memo: the instructions stand beside others in one pickle
    pickler.dump(value)
    return buffer.getvalue()[2:-1]
