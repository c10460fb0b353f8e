"""Conversations in the layouts they are published in: QReCC, TopiOCQA, MTRAG, TREC CAsT and TREC
iKAT.

No layout gives a question its rewrite, its answer or a later turn as text or history.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from irdistill.collections.collection import Collection
from irdistill.collections.conversations.cast import CAST
from irdistill.collections.conversations.ikat import IKAT
from irdistill.collections.conversations.mtrag import MTRAG
from irdistill.collections.conversations.passages import open_passages
from irdistill.collections.conversations.published_files import ConversationLayout
from irdistill.collections.conversations.qrecc import QRECC
from irdistill.collections.conversations.topiocqa import TOPIOCQA
from irdistill.collections.corpus import Corpus
from irdistill.collections.judgment_checks import (
    check_judgments,
    drop_line_numbers,
    judged_collection,
    read_stats,
)
from irdistill.collections.load_report import LoadReport
from irdistill.collections.qrels import Qrels
from irdistill.errors import IrdistillError

__all__ = ["LAYOUTS", "layout_of", "load_conversations"]

LAYOUTS = (QRECC, TOPIOCQA, MTRAG, IKAT, CAST)


def layout_of(folder: Path) -> ConversationLayout | None:
    """The layout that a folder's files have, told by their names.

    Raises:
        IrdistillError: it has files of several.
    """
    fitting = [layout for layout in LAYOUTS if layout.splits(folder)]
    if len(fitting) > 1:
        raise IrdistillError(
            f"{folder} holds files of {' and '.join(layout.name for layout in fitting)}; give each"
            " a folder of its own, or name the one that is meant."
        )
    return fitting[0] if fitting else None


def load_conversations(
    id: str,
    folder: Path,
    layout: ConversationLayout,
    split: str | None,
    cache: Path,
    open_corpus: Callable[[str], Corpus],
) -> Collection:
    """Load a split of published conversations over their passages.

    Args:
        split: as the layout calls it; None means its first.
        open_corpus: opens the corpus of another collection by its id, which ``corpus.txt`` may
            name.

    Raises:
        IrdistillError: there is no such split, a file is missing or broken, or judgments name
            passages that are not there and no ``stats.json`` says that this is so.
    """
    splits = layout.splits(folder)
    if split is not None and split not in splits:
        raise IrdistillError(
            f"{folder} has no {split!r} of {layout.name}; it has {', '.join(splits)}: write"
            f" {folder}#{splits[0]}. More is published at {layout.home}."
        )
    if split is None and layout is MTRAG and len(splits) > 1:
        raise IrdistillError(
            f"{folder} has {len(splits)} domains of {layout.name}, each over its own passages:"
            f" write {' or '.join(f'{folder}#{domain}' for domain in splits)}."
        )
    chosen = split or splits[0]
    opened: list[Corpus] = []

    def corpus() -> Corpus:
        if not opened:
            what = f"{layout.name} {chosen}"
            opened.append(
                open_passages(
                    folder, chosen, layout.passages(chosen), cache, open_corpus, what, layout.home
                )
            )
        return opened[0]

    report = LoadReport()
    asked = layout.read(folder, chosen, report, corpus)
    report.documents = len(corpus())
    report.add_stored(corpus().problems)
    if asked.judgments is None:
        report.add("no judgments", f"{folder} (they are published at {layout.home})")
        report.queries = len(asked.queries)
        return Collection(id, corpus(), asked.queries, Qrels({}), report)
    judgments = check_judgments(
        asked.judgments,
        corpus(),
        asked.queries,
        asked.source,
        read_stats(folder),
        report,
        asked.unit,
    )
    return judged_collection(
        id, corpus(), asked.queries, drop_line_numbers(judgments), report, f"{layout.name} {chosen}"
    )
