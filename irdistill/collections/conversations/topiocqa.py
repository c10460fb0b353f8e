"""TopiOCQA (Adlakha et al. 2022, arXiv:2110.00768): ``topiocqa_SPLIT.json[l]`` over the segments of
a Wikipedia.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from irdistill.collections.collection import Query, Turn
from irdistill.collections.conversations.published_files import (
    ConversationLayout,
    ParsedSplit,
    add_query,
    list_or_empty,
    matching_paths,
    object_list,
    read_entries,
    required_field,
    single_file,
    text_or_empty,
)
from irdistill.collections.corpus import Corpus
from irdistill.collections.judgment_checks import NumberedJudgments
from irdistill.collections.load_report import LoadReport

#: The development set is what everybody reports; the test set's answers were never published.
_NAMES = {
    "dev": ("topiocqa_dev.json*", "topiocqa_valid.json*"),
    "train": ("topiocqa_train.json*",),
    "test": ("topiocqa_test.json*",),
}


def _splits(folder: Path) -> list[str]:
    return [split for split, names in _NAMES.items() if matching_paths(folder, *names)]


def _read(
    folder: Path, split: str, report: LoadReport, corpus: Callable[[], Corpus]
) -> ParsedSplit:
    """Questions ``CONVERSATION_TURN``, relevant the gold passage of the turn; rewrites as those of
    T5 that were published.
    """
    path = single_file(folder, *_NAMES[split])
    assert path is not None
    rewrites = _by_turn(
        single_file(
            folder, f"topiocqa_rewrites_t5_qrecc*_{split}.json", f"rewrites_t5_qrecc/{split}.json"
        )
    )
    gold_file = single_file(
        folder,
        f"topiocqa_all_history*_{split}.json",
        f"ir_all_history_{split}.json",
        f"all_history/{split}.json",
    )
    gold = _by_turn(gold_file)
    queries: dict[str, Query] = {}
    judgments: NumberedJudgments = {}
    told = bool(gold)
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
        rewrite = text_or_empty(rewrites.get(query_id, {}).get("question")) or None
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
        told |= "Gold_passage" in entry
        passages = (
            [entry["Gold_passage"]]
            if entry.get("Gold_passage")
            else gold.get(query_id, {}).get("positive_ctxs")
        )
        for passage in object_list(passages, "Gold_passage", path, number)[:1]:
            judgments.setdefault(query_id, {})[_passage_id(passage, path, number)] = (1, number)
    return ParsedSplit(queries, judgments if told else None, path, "entry")


def _passage_id(passage: dict[str, Any], path: Path, number: int) -> str:
    """The number of the segment in ``full_wiki_segments.tsv``; questions call it
    ``wiki:NUMBER``.
    """
    return str(required_field(passage, path, number, "id", "passage_id")).removeprefix("wiki:")


def _by_turn(path: Path | None) -> dict[str, dict[str, Any]]:
    """The entries of a file for DPR under the ids of their questions."""
    if path is None:
        return {}
    return {
        "_".join(
            str(required_field(entry, path, number, name)) for name in ("conv_id", "turn_id")
        ): entry
        for number, entry in enumerate(read_entries(path), 1)
    }


TOPIOCQA = ConversationLayout(
    "TopiOCQA",
    _splits,
    _read,
    lambda split: ("full_wiki_segments.tsv*",),
    "https://zenodo.org/records/6149599 (full_wiki_segments.tsv) and"
    " https://huggingface.co/datasets/McGill-NLP/TopiOCQA (topiocqa_train.jsonl,"
    " topiocqa_valid.jsonl)",
)
