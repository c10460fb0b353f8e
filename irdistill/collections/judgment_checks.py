"""Compare judgments with the documents and queries that they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irdistill.collections.collection import Collection, Query
from irdistill.collections.corpus import Corpus
from irdistill.collections.load_report import LoadReport
from irdistill.collections.qrels import Qrels
from irdistill.errors import InputError
from irdistill.storage.files import read_json

#: Query id -> document id -> (grade, line number).
NumberedJudgments = dict[str, dict[str, tuple[int, int]]]


def judged_collection(
    id: str,
    corpus: Corpus,
    queries: Mapping[str, Query],
    judgments: Mapping[str, Mapping[str, int]],
    report: LoadReport,
    source: str,
    origin: str = "",
) -> Collection:
    """The collection of the queries that are judged; the other queries are reported.

    Args:
        judgments: query id -> document id -> grade; those of unknown queries are omitted.
        source: where the queries come from, for the report.
    """
    for query_id in queries:
        if query_id not in judgments:
            report.add("unjudged queries", f"{source} ({query_id})")
    judged = {query_id: query for query_id, query in queries.items() if query_id in judgments}
    qrels = Qrels({query_id: judgments[query_id] for query_id in judged})
    report.queries, report.judgments = len(judged), qrels.judgments
    return Collection(id, corpus, judged, qrels, report, origin)


def drop_line_numbers(judgments: NumberedJudgments) -> dict[str, dict[str, int]]:
    """Query id -> document id -> grade."""
    return {
        query: {doc: grade for doc, (grade, _) in documents.items()}
        for query, documents in judgments.items()
    }


def read_stats(folder: Path) -> dict[str, Any]:
    """The ``stats.json`` of a collection folder, which declares known gaps; empty if absent."""
    path = folder / "stats.json"
    value = read_json(path) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def check_judgments(
    judgments: NumberedJudgments,
    corpus: Corpus,
    queries: Mapping[str, Query],
    path: Path,
    stats: Mapping[str, Any],
    report: LoadReport,
    unit: str = "line",
) -> NumberedJudgments:
    """Compare judgments with documents and queries.

    Args:
        path: the file of the judgments.
        stats: what `read_stats` returned for the folder.
        unit: what the line numbers count (``line`` or ``entry``).

    Returns:
        The judgments of the queries that have a text.
    """
    _check_documents(judgments, corpus, path, stats, report, unit)
    unknown = [query_id for query_id in judgments if query_id not in queries]
    first_lines = {
        query_id: min(line for _, line in judgments[query_id].values()) for query_id in unknown
    }
    for query_id in unknown:
        place = f"{path.name} {unit} {first_lines[query_id]} (query {query_id})"
        report.add("judgments without query", place)
    relevant = [
        query for query in unknown if any(grade > 0 for grade, _ in judgments[query].values())
    ]
    if relevant and stats.get("judged_queries_without_text") != len(unknown):
        raise InputError(
            f"{unit} {first_lines[relevant[0]]} of {path} judges documents for query"
            f" {relevant[0]!r}, but the queries file has no such query ({len(unknown)} judged"
            " queries are missing). A mean over the other queries would not be comparable. Add"
            f' them, or declare them in a stats.json in that folder: "judged_queries_without_text":'
            f" {len(unknown)}."
        )
    return {query_id: documents for query_id, documents in judgments.items() if query_id in queries}


def _check_documents(
    judgments: NumberedJudgments,
    corpus: Corpus,
    path: Path,
    stats: Mapping[str, Any],
    report: LoadReport,
    unit: str,
) -> None:
    """Report judged documents that are not in the corpus, and refuse undeclared relevant ones."""
    missing_positive: list[tuple[str, str, int]] = []
    for query_id, documents in judgments.items():
        rows = corpus.find(list(documents))
        for row, (doc_id, (grade, line)) in zip(rows, documents.items(), strict=True):
            if row < 0:
                place = f"{path.name} {unit} {line} (document {doc_id})"
                report.add("judgments without document", place)
                if grade > 0:
                    missing_positive.append((query_id, doc_id, line))
                    report.add("positive judgments without document", place)
    missing = report.count("judgments without document")
    if missing_positive and stats.get("judgments_without_doc") != missing:
        query_id, doc_id, line = missing_positive[0]
        declared = stats.get("judgments_without_doc", "not there")
        raise InputError(
            f"{unit} {line} of {path} judges document {doc_id!r} relevant to query {query_id!r},"
            " but the corpus has no such document, and neither the documents of"
            f" {len(missing_positive) - 1} other positive judgments. Measures on such a collection"
            " are wrong. If it is partial on purpose, write a stats.json into its folder with"
            f' "judgments_without_doc": {missing} (all such judgments; it is {declared} now).'
        )
