"""QReCC (Anantha et al. 2021, arXiv:2010.04898): ``qrecc_SPLIT.json``, or the turns of the shared
task SCAI-QReCC 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from irdistill.collections.collection import Query
from irdistill.collections.conversations.published_files import (
    ConversationLayout,
    ParsedSplit,
    add_query,
    context_query,
    list_or_empty,
    matching_paths,
    read_entries,
    single_file,
    with_qrels_file,
)
from irdistill.collections.corpus import Corpus
from irdistill.collections.judgment_checks import NumberedJudgments
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
    """Questions ``CONVERSATION_TURN``, with judgments from the turns or from ``qrels_SPLIT.*``.

    The first question of a conversation stays as it was asked. Some published preparations replace
    it by its rewrite, because questions of QuAC may depend on the title of a page.
    """
    path = single_file(folder, *_NAMES[split])
    assert path is not None
    queries: dict[str, Query] = {}
    judgments: NumberedJudgments = {}
    has_judgments = False
    for number, entry in enumerate(read_entries(path), 1):
        rewrite = entry.get("Truth_rewrite", entry.get("Rewrite"))
        query = context_query(entry, path, number, rewrite)
        add_query(queries, query, path)
        passages = entry.get("Truth_passages", entry.get("Passages"))
        has_judgments |= passages is not None
        for passage in filter(None, list_or_empty(passages, "Truth_passages", path, number)):
            judgments.setdefault(query.id, {})[str(passage)] = (1, number)
    if has_judgments:
        return ParsedSplit(queries, judgments, path, "entry")
    qrels = single_file(folder, f"qrels_{split}.*", f"*qrels*{split}*")
    return with_qrels_file(queries, path, qrels, report)


QRECC = ConversationLayout(
    "QReCC",
    _splits,
    _read,
    lambda split: ("passages.zip", "collection-paragraph", "qrecc-passages*"),
    "https://doi.org/10.5281/zenodo.4748782 (turns.zip, passages.zip) and"
    " https://github.com/apple/ml-qrecc",
)
