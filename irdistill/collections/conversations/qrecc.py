"""QReCC (Anantha et al. 2021, arXiv:2010.04898): ``qrecc_SPLIT.json``, or the turns of the shared
task SCAI-QReCC 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from irdistill.collections.collection import Query, Turn
from irdistill.collections.conversations.published import (
    Asked,
    Layout,
    add_query,
    entries,
    field,
    found,
    listed,
    one,
    said,
)
from irdistill.collections.corpus import Corpus
from irdistill.collections.judgment_checks import Numbered
from irdistill.collections.judgments import numbered_judgments
from irdistill.collections.load_report import LoadReport

_NAMES = {
    "test": ("scai-qrecc21-test-turns.json", "qrecc_test.json", "qrecc-test.json"),
    "train": ("scai-qrecc21-training-turns.json", "qrecc_train.json", "qrecc-training.json"),
}


def _splits(folder: Path) -> list[str]:
    return [split for split, names in _NAMES.items() if found(folder, *names)]


def _read(folder: Path, split: str, report: LoadReport, corpus: Callable[[], Corpus]) -> Asked:
    """Questions ``CONVERSATION_TURN``; judgments out of the turns themselves, else out of a file
    ``qrels_SPLIT.*``.

    The first question of a conversation is kept as it was asked. Some take its rewrite in its
    place, for in QuAC it may lean on the title of a page; that is a rewrite, and stays one here.
    """
    path = one(folder, *_NAMES[split])
    assert path is not None
    queries: dict[str, Query] = {}
    judgments: Numbered = {}
    told = False
    for number, entry in enumerate(entries(path), 1):
        conversation, turn = (
            field(entry, path, number, name) for name in ("Conversation_no", "Turn_no")
        )
        query_id = f"{conversation}_{turn}"
        context = listed(field(entry, path, number, "Context"), "Context", path, number)
        history = tuple(
            Turn("assistant" if place % 2 else "user", said(text))
            for place, text in enumerate(context)
            if said(text)
        )
        rewrite = said(entry.get("Truth_rewrite", entry.get("Rewrite"))) or None
        add_query(
            queries,
            Query(query_id, said(field(entry, path, number, "Question")), history, rewrite),
            path,
        )
        passages = entry.get("Truth_passages", entry.get("Passages"))
        told |= passages is not None
        for passage in filter(None, listed(passages, "Truth_passages", path, number)):
            judgments.setdefault(query_id, {})[str(passage)] = (1, number)
    if told:
        return Asked(queries, judgments, path, "entry")
    qrels = one(folder, f"qrels_{split}.*", f"*qrels*{split}*")
    return Asked(queries, numbered_judgments(qrels, report) if qrels else None, qrels or path)


QRECC = Layout(
    "QReCC",
    _splits,
    _read,
    lambda split: ("passages.zip", "collection-paragraph", "qrecc-passages*"),
    "https://doi.org/10.5281/zenodo.4748782 (turns.zip, passages.zip) and"
    " https://github.com/apple/ml-qrecc",
)
