"""Folders in BEIR layout: ``corpus.jsonl[.gz]``, ``queries.jsonl[.gz]`` and ``qrels/SPLIT.tsv``."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irdistill.collections.batches import Document
from irdistill.collections.compiling import cached_corpus
from irdistill.collections.corpus import FORMAT, Corpus
from irdistill.collections.model import Collection, Qrels, Query, Turn
from irdistill.collections.report import LoadReport
from irdistill.errors import IrdistillError
from irdistill.files import digest, read_json


def load_beir(id: str, folder: Path, split: str | None, cache: Path) -> Collection:
    """Load a folder.

    Args:
        split: which ``qrels/SPLIT.tsv``; None means ``test``, or all queries where there are no qrels at all.

    Raises:
        IrdistillError: a file is missing, a line is broken, a query is empty, an id has two texts, or
            judgments name documents or queries that are not there and no ``stats.json`` says that this is so.
    """
    corpus_file = _jsonl(folder, "corpus")
    queries_file = _jsonl(folder, "queries")
    corpus = cached_corpus(
        lambda: read_documents(corpus_file), cache / "corpora" / _key(corpus_file), corpus_file.name
    )
    report = LoadReport(documents=len(corpus))
    report.take(corpus.findings)
    queries = read_queries(queries_file, report)
    qrels_file = _qrels_file(folder, split)
    if qrels_file is None:
        report.queries = len(queries)
        return Collection(id, corpus, queries, Qrels({}), report)
    judgments = read_qrels(qrels_file, report)
    judgments = _checked(judgments, corpus, queries, qrels_file, _declared(folder), report)
    for query_id in queries:
        if query_id not in judgments:
            report.add("unjudged queries", f"{queries_file.name} ({query_id})")
    asked = {query_id: query for query_id, query in queries.items() if query_id in judgments}
    qrels = Qrels({query: {doc: grade for doc, (grade, _) in judgments[query].items()} for query in asked})
    report.queries, report.judgments = len(asked), qrels.judgments
    return Collection(id, corpus, asked, qrels, report)


def read_documents(path: Path) -> Iterator[Document]:
    """Documents of a ``corpus.jsonl[.gz]``: ``_id``, ``title`` (optional) and ``text``."""
    for number, entry in _objects(path):
        doc_id = _id(entry, path, number)
        title, text = (_text(entry, name, path, number) for name in ("title", "text"))
        yield Document(doc_id, title, text, number)


def read_queries(path: Path, report: LoadReport) -> dict[str, Query]:
    """Queries of a ``queries.jsonl[.gz]``: ``_id``, ``text``, and perhaps ``history``, ``rewrite`` and ``excluded_ids``."""
    queries: dict[str, Query] = {}
    lines: dict[str, int] = {}
    for number, entry in _objects(path):
        query = _query(entry, path, number)
        known = queries.setdefault(query.id, query)
        if known != query:
            raise IrdistillError(
                f"{path} has the query id {query.id!r} twice with different contents, in lines "
                f"{lines[query.id]} and {number}. Judgments could mean either; give one another id or remove "
                "it."
            )
        if query.id in lines:
            place = f"{path.name} line {number} ({query.id}, first in line {lines[query.id]})"
            report.add("duplicate queries", place)
        lines.setdefault(query.id, number)
    return queries


def read_qrels(path: Path, report: LoadReport) -> dict[str, dict[str, tuple[int, int]]]:
    """Judgments of a tab-separated file with a header: query -> document -> (grade, line number)."""
    judgments: dict[str, dict[str, tuple[int, int]]] = {}
    for number, line in numbered_lines(path):
        fields = [value.strip() for value in line.rstrip("\r\n").split("\t")]
        try:
            query_id, doc_id, value = fields
            grade = int(value) if not value.endswith(".0") else int(value[:-2])
        except ValueError as error:
            if number == 1 and len(fields) == 3:
                continue
            raise IrdistillError(
                f"line {number} of {path} is not a judgment: {line.strip()[:80]!r}. Expected query id, "
                "document id and a whole number, separated by tabs, under one header line."
            ) from error
        if number == 1:
            report.add("qrels without header", f"{path.name} line 1 (read as a judgment)")
        known = judgments.setdefault(query_id, {}).setdefault(doc_id, (grade, number))
        if known[0] != grade:
            raise IrdistillError(
                f"{path} judges document {doc_id!r} for query {query_id!r} twice and differently: {known[0]} "
                "in "
                f"line {known[1]}, {grade} in line {number}. Keep one of them."
            )
        if known[1] != number:
            report.add("duplicate judgments", f"{path.name} line {number} (as line {known[1]})")
    return judgments


def _checked(
    judgments: dict[str, dict[str, tuple[int, int]]], corpus: Corpus, queries: dict[str, Query], path: Path,
    declared: dict[str, Any], report: LoadReport,
) -> dict[str, dict[str, tuple[int, int]]]:
    """Compare judgments with documents and queries; leave out judged queries that have no text."""
    missing_positive: list[tuple[str, str, int]] = []
    for query_id, documents in judgments.items():
        found = corpus.find(list(documents))
        for row, (doc_id, (grade, line)) in zip(found, documents.items(), strict=True):
            if row < 0:
                place = f"{path.name} line {line} (document {doc_id})"
                report.add("judgments without document", place)
                if grade > 0:
                    missing_positive.append((query_id, doc_id, line))
                    report.add("positive judgments without document", place)
    missing = report.count("judgments without document")
    if missing_positive and declared.get("judgments_without_doc") != missing:
        query_id, doc_id, line = missing_positive[0]
        said = declared.get("judgments_without_doc", "nothing of it")
        raise IrdistillError(
            f"line {line} of {path} judges document {doc_id!r} relevant to query {query_id!r}, but the "
            "corpus "
            f"has no such document; so do {len(missing_positive) - 1} other lines. Figures over such a "
            "collection are "
            "not what they seem. If it is partial on purpose, write a stats.json into its folder with "
            f'"judgments_without_doc": {missing} (all such judgments; it now says {said}).'
        )
    unknown = [query_id for query_id in judgments if query_id not in queries]
    for query_id in unknown:
        line = min(line for _, line in judgments[query_id].values())
        report.add("judgments without query", f"{path.name} line {line} (query {query_id})")
    relevant = [query for query in unknown if any(grade > 0 for grade, _ in judgments[query].values())]
    if relevant and declared.get("judged_queries_without_text") != len(unknown):
        line = min(line for _, line in judgments[relevant[0]].values())
        raise IrdistillError(
            f"line {line} of {path} judges documents for query {relevant[0]!r}, but the queries file has no "
            "such "
            f"query ({len(unknown)} judged queries are missing). A mean over the others would not be "
            "comparable. "
            f'Add them, or declare it with "judged_queries_without_text": {len(unknown)} in a stats.json in '
            'that folder.'
        )
    return {query_id: documents for query_id, documents in judgments.items() if query_id in queries}


def _declared(folder: Path) -> dict[str, Any]:
    path = folder / "stats.json"
    value = read_json(path) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _key(path: Path) -> str:
    """The cache key of a file: any change of it, its size or its times gives another."""
    state = path.stat()
    times = [state.st_mtime_ns, state.st_ctime_ns]
    return digest([FORMAT, str(path.resolve()), state.st_size, *times, state.st_ino])


def _jsonl(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"):
        if path.is_file():
            return path
    raise IrdistillError(
        f"{folder} has no {name}.jsonl and no {name}.jsonl.gz. A collection folder holds corpus.jsonl, "
        "queries.jsonl (each may end in .gz) and qrels/SPLIT.tsv, as BEIR lays them out."
    )


def _qrels_file(folder: Path, split: str | None) -> Path | None:
    path = folder / "qrels" / f"{split or 'test'}.tsv"
    if path.is_file():
        return path
    splits = sorted(found.stem for found in (folder / "qrels").glob("*.tsv"))
    if split is None and not splits:
        return None
    raise IrdistillError(
        f"there is no {path}. Splits in that folder: {', '.join(splits) or 'none'}. "
        f"Choose one as {folder}#{splits[0] if splits else 'SPLIT'}."
    )


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines with something in them; a broken encoding or archive is an error naming the place."""
    number = 0
    try:
        with (gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")) as stream:
            buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)
            for data in buffered:
                number += 1
                text = data.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise IrdistillError(
            f"line {number} of {path} is not UTF-8 ({error.reason}); convert the file."
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise IrdistillError(
            f"{path} ends or breaks after line {number} ({error}); the archive is damaged, get it again."
        ) from error


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in numbered_lines(path):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise IrdistillError(
                f"line {number} of {path} is broken: {line.strip()[:80]!r} is not JSON ({error}). "
                "Mend or remove it."
            ) from error
        if not isinstance(entry, dict):
            raise IrdistillError(
                f"line {number} of {path} is broken: expected an object in braces, got {line.strip()[:80]!r}."
            )
        yield number, entry


def _id(entry: dict[str, Any], path: Path, number: int) -> str:
    value = entry.get("_id")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise IrdistillError(
            f'line {number} of {path} is broken: expected an "_id" with something in it, got {value!r}.'
        )
    return _storable(value, "_id", path, number)


def _text(entry: dict[str, Any], name: str, path: Path, number: int) -> str:
    value = entry.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise IrdistillError(
            f'line {number} of {path} is broken: "{name}" should be a text, got {str(value)[:80]!r}.'
        )
    return _storable(value, name, path, number)


def _storable(value: str, name: str, path: Path, number: int) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise IrdistillError(
            f'line {number} of {path} is broken: "{name}" holds half a character (the lone surrogate '
            f"{error.object[error.start]!r})."
        ) from error
    return value


def _query(entry: dict[str, Any], path: Path, number: int) -> Query:
    query_id = _id(entry, path, number)
    text = _text(entry, "text", path, number)
    if not text.strip():
        raise IrdistillError(
            f"line {number} of {path} has an empty query ({query_id!r}); write its text or remove it."
        )
    turns = entry.get("history") or []
    well_formed = isinstance(turns, list) and all(
        isinstance(turn, dict) and {"role", "text"} <= turn.keys() for turn in turns
    )
    if not well_formed:
        raise IrdistillError(
            f'line {number} of {path} is broken: "history" should be a list of {{"role": ..., "text": ...}}, '
            f"got {str(turns)[:80]!r}."
        )
    history = tuple(
        Turn(_text(turn, "role", path, number), _text(turn, "text", path, number)) for turn in turns
    )
    excluded = entry.get("excluded_ids") or []
    if not isinstance(excluded, list) or not all(isinstance(doc_id, str) for doc_id in excluded):
        raise IrdistillError(
            f'line {number} of {path} is broken: "excluded_ids" should be a list of document ids, got {str(excluded)[:80]!r}.'
        )
    return Query(query_id, text, history, _text(entry, "rewrite", path, number) or None, tuple(excluded))
