"""TREC iKAT 2023 to 2025 (https://www.trecikat.com): ``YEAR_test_topics.json``, judgments of TREC,
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
)
from irdistill.collections.corpus import Corpus
from irdistill.collections.judgments import numbered_judgments
from irdistill.collections.load_report import LoadReport
from irdistill.collections.text_files import uncompressed_name

_TOPICS = re.compile(r"(20\d\d)_(test|train)_topics\.json")


def _splits(folder: Path) -> list[str]:
    """``2025``, ``2024``, ``2023`` and ``2023-train``, whichever are there, the newest tests
    first.
    """
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

    What is known of the user (``ptkb``) is in no turn and is left out; a rewrite
    (``resolved_utterance``) may say some of it.
    """
    year, _, part = split.partition("-")
    path = single_file(folder, f"{year}_{part or 'test'}_topics.json")
    assert path is not None
    queries: dict[str, Query] = {}
    for number, topic in enumerate(read_entries(path), 1):
        history: list[Turn] = []
        for turn in object_list(
            required_field(topic, path, number, "turns", "responses"), "turns", path, number
        ):
            text = text_or_empty(required_field(turn, path, number, "utterance", "user_utterance"))
            topic_id = required_field(topic, path, number, "number")
            query_id = f"{topic_id}_{required_field(turn, path, number, 'turn_id')}"
            rewrite = text_or_empty(turn.get("resolved_utterance")) or None
            add_query(queries, Query(query_id, text, tuple(history), rewrite), path)
            history.append(Turn("user", text))
            if text_or_empty(turn.get("response")):
                history.append(Turn("assistant", turn["response"]))
    # The repository's own file "qrels" holds a link only, so the year must be in the name.
    qrels = single_file(folder, f"*{split}*qrel*", f"*qrel*{split}*")
    return ParsedSplit(queries, numbered_judgments(qrels, report) if qrels else None, qrels or path)


IKAT = ConversationLayout(
    "TREC iKAT",
    _splits,
    _read,
    lambda split: ("ikat_*_passages*", "clueweb22*"),
    "https://www.trecikat.com/data (topics, passages) and https://trec.nist.gov/data/ikat"
    " (2023-qrels.all-turns.txt, 2024-qrels.txt)",
)
