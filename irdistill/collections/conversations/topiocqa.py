"""TopiOCQA (Adlakha et al. 2022, arXiv:2110.00768): ``topiocqa_SPLIT.json[l]`` over segments of
Wikipedia.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from irdistill.collections.collection import Query
from irdistill.collections.conversations.published_files import (
    ConversationLayout,
    ParsedSplit,
    add_query,
    context_query,
    matching_paths,
    object_list,
    read_entries,
    required_field,
    single_file,
)
from irdistill.collections.corpus import Corpus
from irdistill.collections.judgment_checks import NumberedJudgments
from irdistill.collections.load_report import LoadReport

#: Papers report the development set; the answers of the test set were never published.
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
    """Questions ``CONVERSATION_TURN`` with the published T5 rewrites; the gold passage of a turn is
    relevant.
    """
    path = single_file(folder, *_NAMES[split])
    assert path is not None
    rewrites = _entries_by_turn(
        folder, f"topiocqa_rewrites_t5_qrecc*_{split}.json", f"rewrites_t5_qrecc/{split}.json"
    )
    gold = _entries_by_turn(
        folder,
        f"topiocqa_all_history*_{split}.json",
        f"ir_all_history_{split}.json",
        f"all_history/{split}.json",
    )
    queries: dict[str, Query] = {}
    judgments: NumberedJudgments = {}
    has_judgments = bool(gold)
    for number, entry in enumerate(read_entries(path), 1):
        turn = f"{entry.get('Conversation_no')}_{entry.get('Turn_no')}"
        query = context_query(entry, path, number, rewrites.get(turn, {}).get("question"))
        add_query(queries, query, path)
        has_judgments |= "Gold_passage" in entry
        passages = (
            [entry["Gold_passage"]]
            if entry.get("Gold_passage")
            else gold.get(query.id, {}).get("positive_ctxs")
        )
        for passage in object_list(passages, "Gold_passage", path, number)[:1]:
            judgments.setdefault(query.id, {})[_passage_id(passage, path, number)] = (1, number)
    return ParsedSplit(queries, judgments if has_judgments else None, path, "entry")


def _passage_id(passage: dict[str, Any], path: Path, number: int) -> str:
    """The number of the segment in ``full_wiki_segments.tsv``; questions call it
    ``wiki:NUMBER``.
    """
    return str(required_field(passage, path, number, "id", "passage_id")).removeprefix("wiki:")


def _entries_by_turn(folder: Path, *patterns: str) -> dict[str, dict[str, Any]]:
    """The entries of a DPR file by the ids of their questions; empty if there is no file."""
    path = single_file(folder, *patterns)
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
