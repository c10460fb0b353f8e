"""QReCC (Anantha et al. 2021, arXiv:2010.04898): ``qrecc_SPLIT.json``, or the turns of the shared
task SCAI-QReCC 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from irdistill.collections.collection import Query, Turn
from irdistill.collections.conversations.published_files import (
    ConversationLayout,
    ParsedSplit,
    add_query,
    list_or_empty,
    matching_paths,
    read_entries,
    required_field,
    single_file,
    text_or_empty,
)
from irdistill.collections.corpus import Corpus
from irdistill.collections.judgment_checks import NumberedJudgments
from irdistill.collections.judgments import numbered_judgments
from irdistill.collections.load_report import LoadReport

_NAMES = {
    "test": ("scai-qrecc21-test-turns.json", "qrecc_test.json", "qrecc-test.json"),
    "train": ("scai-qrecc21-training-turns.json", "qrecc_train.json", "qrecc-training.json"),
}


def _splits(folder: Path) -> list[str]:
    return [split for split, names in _NAMES.items() if matching_paths(folder, *names)]


def _read(
    folder: Path, split: str, report: LoadReport, corpus: Callable[[], Corpus]
) -> ParsedSplit:
    """Questions ``CONVERSATION_TURN``; judgments out of the turns themselves, else out of a file
    ``qrels_SPLIT.*``.

    The first question of a conversation is kept as it was asked. Some take its rewrite in its
    place, for in QuAC it may lean on the title of a page; that is a rewrite, and stays one here.
    """
    path = single_file(folder, *_NAMES[split])
    assert path is not None
    queries: dict[str, Query] = {}
    judgments: NumberedJudgments = {}
    told = False
    for number, entry in enumerate(read_entries(path), 1):
        conversation, turn = (
            required_field(entry, path, number, name) for name in ("Conversation_no", "Turn_no")
        )
        query_id = f"{conversation}_{turn}"
        context = list_or_empty(
            required_field(entry, path, number, "Context"), "Context", path, number
        )
        history = tuple(
            Turn("assistant" if place % 2 else "user", text_or_empty(text))
            for place, text in enumerate(context)
            if text_or_empty(text)
        )
        rewrite = text_or_empty(entry.get("Truth_rewrite", entry.get("Rewrite"))) or None
        add_query(
            queries,
            Query(
                query_id,
                text_or_empty(required_field(entry, path, number, "Question")),
                history,
                rewrite,
            ),
            path,
        )
        passages = entry.get("Truth_passages", entry.get("Passages"))
        told |= passages is not None
        for passage in filter(None, list_or_empty(passages, "Truth_passages", path, number)):
            judgments.setdefault(query_id, {})[str(passage)] = (1, number)
    if told:
        return ParsedSplit(queries, judgments, path, "entry")
    qrels = single_file(folder, f"qrels_{split}.*", f"*qrels*{split}*")
    return ParsedSplit(queries, numbered_judgments(qrels, report) if qrels else None, qrels or path)


QRECC = ConversationLayout(
    "QReCC",
    _splits,
    _read,
    lambda split: ("passages.zip", "collection-paragraph", "qrecc-passages*"),
    "https://doi.org/10.5281/zenodo.4748782 (turns.zip, passages.zip) and"
    " https://github.com/apple/ml-qrecc",
)
