"""Judgments beside the documents and queries they name: what is missing, and the collection of the
judged queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irdistill.collections.collection import Collection, Query
from irdistill.collections.corpus import Corpus
from irdistill.collections.load_report import LoadReport
from irdistill.collections.qrels import Qrels
from irdistill.errors import IrdistillError
from irdistill.storage.files import read_json

#: Query -> document -> (grade, the line that says so).
NumberedJudgments = dict[str, dict[str, tuple[int, int]]]


def judged_collection(
    id: str,
    corpus: Corpus,
    queries: Mapping[str, Query],
    judgments: Mapping[str, Mapping[str, int]],
    report: LoadReport,
    source: str,
) -> Collection:
    """The collection of those queries that are judged; the others are reported.

    Args:
        judgments: those of unknown queries are left out.
        source: what the report calls the origin of the queries.
    """
    for query_id in queries:
        if query_id not in judgments:
            report.add("unjudged queries", f"{source} ({query_id})")
    asked = {query_id: query for query_id, query in queries.items() if query_id in judgments}
    qrels = Qrels({query_id: judgments[query_id] for query_id in asked})
    report.queries, report.judgments = len(asked), qrels.judgments
    return Collection(id, corpus, asked, qrels, report)


def drop_line_numbers(judgments: NumberedJudgments) -> dict[str, dict[str, int]]:
    """Query -> document -> grade."""
    return {
        query: {doc: grade for doc, (grade, _) in documents.items()}
        for query, documents in judgments.items()
    }


def read_stats(folder: Path) -> dict[str, Any]:
    """What the ``stats.json`` of a folder says of its collection; nothing where there is none."""
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
    """Compare judgments with documents and queries; leave out judged queries that have no text.

    Args:
        stats: what `read_stats` says of the folder.
        unit: what the numbers of the judgments count in that file.

    Raises:
        IrdistillError: judgments name documents or queries that are not there, and ``stats`` does
            not say that this is so.
    """
    missing_positive: list[tuple[str, str, int]] = []
    for query_id, documents in judgments.items():
        found = corpus.find(list(documents))
        for row, (doc_id, (grade, line)) in zip(found, documents.items(), strict=True):
            if row < 0:
                place = f"{path.name} {unit} {line} (document {doc_id})"
                report.add("judgments without document", place)
                if grade > 0:
                    missing_positive.append((query_id, doc_id, line))
                    report.add("positive judgments without document", place)
    missing = report.count("judgments without document")
    if missing_positive and stats.get("judgments_without_doc") != missing:
        query_id, doc_id, line = missing_positive[0]
        said = stats.get("judgments_without_doc", "nothing of it")
        raise IrdistillError(
            f"{unit} {line} of {path} judges document {doc_id!r} relevant to query {query_id!r},"
            " but the "
            "corpus "
            f"has no such document; so do {len(missing_positive) - 1} others. Figures over such a "
            "collection are "
            "not what they seem. If it is partial on purpose, write a stats.json into its folder"
            " with "
            f'"judgments_without_doc": {missing} (all such judgments; it now says {said}).'
        )
    unknown = [query_id for query_id in judgments if query_id not in queries]
    for query_id in unknown:
        line = min(line for _, line in judgments[query_id].values())
        report.add("judgments without query", f"{path.name} {unit} {line} (query {query_id})")
    relevant = [
        query for query in unknown if any(grade > 0 for grade, _ in judgments[query].values())
    ]
    if relevant and stats.get("judged_queries_without_text") != len(unknown):
        line = min(line for _, line in judgments[relevant[0]].values())
        raise IrdistillError(
            f"{unit} {line} of {path} judges documents for query {relevant[0]!r}, but the queries"
            " file has no "
            "such "
            f"query ({len(unknown)} judged queries are missing). A mean over the others would"
            " not be "
            "comparable. "
            f'Add them, or declare it with "judged_queries_without_text": {len(unknown)} in a'
            " stats.json in "
            "that folder."
        )
    return {query_id: documents for query_id, documents in judgments.items() if query_id in queries}
