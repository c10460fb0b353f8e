"""Conversations as published: QReCC, TopiOCQA, MTRAG, TREC CAsT and TREC iKAT.

The text and the history of a question never contain its rewrite, its answer or a later turn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache as cache_result
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
from irdistill.errors import InputError, NotFoundError

__all__ = ["LAYOUTS", "layout_of", "load_conversations"]

LAYOUTS = (QRECC, TOPIOCQA, MTRAG, IKAT, CAST)


def layout_of(folder: Path) -> ConversationLayout | None:
    """The layout of a folder, detected from its file names; None if it has none of them."""
    fitting = [layout for layout in LAYOUTS if layout.splits(folder)]
    if len(fitting) > 1:
        raise InputError(
            f"{folder} holds files of {' and '.join(layout.name for layout in fitting)}. Put each"
            " into a separate folder, and give the name of that folder."
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
        split: the publisher's name of the split; None means the first one.
        open_corpus: opens the corpus of another collection by its id, which ``corpus.txt`` may
            name.
    """
    splits = layout.splits(folder)
    if split is not None and split not in splits:
        raise NotFoundError(
            f"{folder} has no {split!r} of {layout.name}; it has {', '.join(splits)}: write"
            f" {folder}#{splits[0]}. More is published at {layout.home}."
        )
    if split is None and layout is MTRAG and len(splits) > 1:
        raise InputError(
            f"{folder} has {len(splits)} domains of {layout.name}, each over its passages:"
            f" write {' or '.join(f'{folder}#{domain}' for domain in splits)}."
        )
    chosen = split or splits[0]
    source = f"{layout.name} {chosen}"
    patterns = layout.passages(chosen)

    @cache_result
    def corpus() -> Corpus:
        return open_passages(folder, chosen, patterns, cache, open_corpus, source, layout.home)

    report = LoadReport()
    parsed = layout.read(folder, chosen, report, corpus)
    report.documents = len(corpus())
    report.add_stored(corpus().problems)
    if parsed.judgments is None:
        report.add("no judgments", f"{folder} (they are published at {layout.home})")
        report.queries = len(parsed.queries)
        return Collection(id, corpus(), parsed.queries, Qrels({}), report)
    stats = read_stats(folder)
    judgments = check_judgments(
        parsed.judgments, corpus(), parsed.queries, parsed.source, stats, report, parsed.unit
    )
    grades = drop_line_numbers(judgments)
    return judged_collection(id, corpus(), parsed.queries, grades, report, source)
