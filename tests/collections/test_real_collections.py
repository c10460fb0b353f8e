"""The real collections load with the counts that were published with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irdistill.collections import load_collection


@pytest.mark.parametrize(
    "name",
    [
        "adi",
        "cast22-provenance",
        "cranfield",
        "cystic-fibrosis",
        "mtrag-cloud-pooled",
        "mtrag-fiqa-pooled",
        "scifact",
        "trec-dl19-top100",
    ],
)
def test_counts_are_those_of_stats_json(name: str, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / name
    if not folder.is_dir():
        pytest.skip(f"needs the collection {folder}")
    collection = load_collection(str(folder), cache=tmp_path)
    stats = json.loads((folder / "stats.json").read_text())
    report = collection.report
    assert {
        "docs": len(collection.corpus),
        "empty_docs": report.count("empty documents"),
        "queries": len(collection.queries) + report.count("unjudged queries"),
        "judged_queries": len(collection.queries),
        "judgments": collection.qrels.judgments,
        "positive": sum(
            grade > 0 for grades in collection.qrels.values() for grade in grades.values()
        ),
        "judgments_without_doc": report.count("judgments without document"),
        "positive_without_doc": report.count("positive judgments without document"),
        "judged_queries_without_text": report.count("judgments without query"),
    } == stats
    assert list(collection.corpus.ids) == [
        document.id for document in collection.corpus.documents()
    ]


def test_conversations_have_history_and_rewrite(shared_data: Path, tmp_path: Path) -> None:
    collection = load_collection(str(shared_data / "cast22-provenance"), cache=tmp_path)
    with_history = [query for query in collection.queries.values() if query.history]
    assert {turn.role for query in with_history for turn in query.history} == {"user", "assistant"}
    assert all(query.rewrite for query in with_history)
