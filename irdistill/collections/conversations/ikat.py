"""TREC iKAT 2023 to 2025 (https://www.trecikat.com): ``YEAR_test_topics.json``, TREC qrels, and
passages of ClueWeb22-B.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from irdistill.collections.collection import Query, Turn
from irdistill.collections.conversations.published_files import (
    ConversationLayout,
    ParsedSplit,
    add_query,
    all_matching_paths,
    object_list,
    read_entries,
    required_field,
    single_file,
    text_or_empty,
    with_qrels_file,
)
from irdistill.collections.corpus import Corpus
from irdistill.collections.load_report import LoadReport
from irdistill.collections.text_files import uncompressed_name

_TOPICS = re.compile(r"(20\d\d)_(test|train)_topics\.json")


def _splits(folder: Path) -> list[str]:
    """``2025``, ``2024``, ``2023`` and ``2023-train`` if they exist, the newest test set first."""
    names = [
        _TOPICS.fullmatch(uncompressed_name(path))
        for path in all_matching_paths(folder, "20??_t*_topics.json")
    ]
    matches = {(name[2] == "train", -int(name[1])) for name in names if name}
    return [f"{-year}-train" if train else str(-year) for train, year in sorted(matches)]


def _read(
    folder: Path, split: str, report: LoadReport, corpus: Callable[[], Corpus]
) -> ParsedSplit:
    """Questions ``TOPIC_TURN`` with the turns before them and the written responses to those.

    The facts about the user (``ptkb``) are not part of a turn and are omitted; a rewrite
    (``resolved_utterance``) may contain some of them.
    """
    year, _, part = split.partition("-")
    path = single_file(folder, f"{year}_{part or 'test'}_topics.json")
    assert path is not None
    queries: dict[str, Query] = {}
    for number, topic in enumerate(read_entries(path), 1):
        history: list[Turn] = []
        turns = required_field(topic, path, number, "turns", "responses")
        for turn in object_list(turns, "turns", path, number):
            text = text_or_empty(required_field(turn, path, number, "utterance", "user_utterance"))
            topic_id = required_field(topic, path, number, "number")
            query_id = f"{topic_id}_{required_field(turn, path, number, 'turn_id')}"
            rewrite = text_or_empty(turn.get("resolved_utterance")) or None
            add_query(queries, Query(query_id, text, tuple(history), rewrite), path)
            history.append(Turn("user", text))
            if response := text_or_empty(turn.get("response")):
                history.append(Turn("assistant", response))
    # The file "qrels" of the repository holds only a link, so the name must contain the year.
    qrels = single_file(folder, f"*{split}*qrel*", f"*qrel*{split}*")
    return with_qrels_file(queries, path, qrels, report)


IKAT = ConversationLayout(
    "TREC iKAT",
    _splits,
    _read,
    lambda split: ("ikat_*_passages*", "clueweb22*"),
    "https://www.trecikat.com/data (topics, passages) and https://trec.nist.gov/data/ikat"
    " (2023-qrels.all-turns.txt, 2024-qrels.txt)",
)
