"""QReCC (Anantha et al. 2021, arXiv:2010.04898): ``qrecc_SPLIT.json``, or the turns of the shared task SCAI-QReCC 2021."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from irdistill.collections.checking import Numbered
from irdistill.collections.conversations.published import Asked, Layout, add_query, entries, field, found, one, said
from irdistill.collections.corpus import Corpus
from irdistill.collections.grades import whole_grade
from irdistill.collections.judgments import numbered_judgments
from irdistill.collections.model import Query, Turn
from irdistill.collections.report import LoadReport
from irdistill.errors import IrdistillError

_NAMES = {
    "test": ("scai-qrecc21-test-turns.json", "qrecc_test.json", "qrecc-test.json"),
    "train": ("scai-qrecc21-training-turns.json", "qrecc_train.json", "qrecc-training.json"),
}


def _splits(folder: Path) -> list[str]:
    return [split for split, names in _NAMES.items() if found(folder, *names)]


def _read(folder: Path, split: str, report: LoadReport, corpus: Callable[[], Corpus]) -> Asked:
    """Questions ``CONVERSATION_TURN``; judgments out of the turns themselves, else out of a file ``qrels_SPLIT.*``.

    The first question of a conversation is kept as it was asked. Some take its rewrite in its place, for in QuAC it may lean on
    the title of a page; that is a rewrite, and stays one here.
    """
    path = one(folder, *_NAMES[split])
    assert path is not None
    queries: dict[str, Query] = {}
    judgments: Numbered = {}
    told = False
    for number, entry in enumerate(entries(path), 1):
        query_id = f"{field(entry, path, number, 'Conversation_no')}_{field(entry, path, number, 'Turn_no')}"
        context = field(entry, path, number, "Context")
        history = tuple(Turn("assistant" if place % 2 else "user", said(text)) for place, text in enumerate(context))
        rewrite = said(entry.get("Truth_rewrite", entry.get("Rewrite"))) or None
        add_query(queries, Query(query_id, said(field(entry, path, number, "Question")), history, rewrite), path)
        passages = entry.get("Truth_passages", entry.get("Passages"))
        told |= passages is not None
        for passage in passages or ():
            judgments.setdefault(query_id, {})[str(passage)] = (1, number)
    if told:
        return Asked(queries, judgments, path, "entry")
    qrels = one(folder, f"qrels_{split}.*", f"*qrels*{split}*")
    return Asked(queries, _qrels(qrels, report) if qrels else None, qrels or path)


def _qrels(path: Path, report: LoadReport) -> Numbered:
    """Judgments as TREC's or BEIR's, or as one object query -> document -> grade; an empty document id means that none fits."""
    text = path.read_text(encoding="utf-8-sig").lstrip()
    if not text.startswith("{"):
        return numbered_judgments(path, report)
    try:
        entries_by_query = json.loads(text, object_pairs_hook=list)
    except ValueError as error:
        raise IrdistillError(f"{path} is not a JSON object of queries with documents and grades: {error}.") from error
    judgments: Numbered = {}
    # pairs, so that a document that stands there twice is seen
    for query_id, documents in entries_by_query:
        if not isinstance(documents, list) or not all(isinstance(pair, tuple) for pair in documents):
            raise IrdistillError(
                f"{path} has {str(documents)[:60]!r} under the query {query_id!r}; document ids with grades were expected."
            )
        for doc_id, value in documents:
            if doc_id:
                _judge(judgments, query_id, doc_id, value, path, report)
    return judgments


def _judge(judgments: Numbered, query_id: str, doc_id: str, value: Any, path: Path, report: LoadReport) -> None:
    """Add one judgment of a JSON object.

    Raises:
        IrdistillError: the grade is not a whole number, or the document is judged twice and differently.
    """
    place = f"query {query_id}, document {doc_id}"
    grade = whole_grade(value, f"{path} ({place})")
    documents = judgments.setdefault(query_id, {})
    if doc_id in documents:
        if documents[doc_id][0] != grade:
            raise IrdistillError(f"{path} judges document {doc_id!r} for query {query_id!r} twice and differently: "
                                 f"{documents[doc_id][0]} and {grade}. Keep one of them.")
        report.add("duplicate judgments", f"{path.name} ({place})")
    documents[doc_id] = (grade, 1)


QRECC = Layout("QReCC", _splits, _read, lambda split: ("passages.zip", "collection-paragraph", "qrecc-passages*"),
               "https://doi.org/10.5281/zenodo.4748782 (turns.zip, passages.zip) and https://github.com/apple/ml-qrecc")
