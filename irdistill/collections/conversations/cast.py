"""TREC CAsT 2019 to 2022, as https://github.com/daltonj/treccastweb publishes it: topics in JSON,
judgments of TREC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from irdistill.collections.collection import Query, Turn
from irdistill.collections.conversations.published_files import (
    ConversationLayout,
    ParsedSplit,
    add_query,
    matching_paths,
    object_list,
    read_entries,
    required_field,
    single_file,
    text_or_empty,
)
from irdistill.collections.corpus import Corpus
from irdistill.collections.judgments import numbered_judgments
from irdistill.collections.load_report import LoadReport
from irdistill.collections.text_lines import numbered_lines


class _Year(NamedTuple):
    """The files of a year: topics, the best first; qrels; rewrites or automatic topics where they
    stand apart.
    """

    topics: tuple[str, ...]
    qrels: tuple[str, ...]
    rewrites: str = ""
    automatic: str = ""


_YEARS = {
    "2022": _Year(
        (
            "2022_evaluation_topics_tree_v1.0.json",
            "2022_automatic_evaluation_topics_tree_v1.0.json",
        ),
        ("cast2022.qrel", "2022-qrels.txt", "2022qrels.txt"),
    ),
    "2021": _Year(
        ("2021_manual_evaluation_topics_v1.0.json", "2021_automatic_evaluation_topics_v1.0.json"),
        ("trec-cast-qrels-docs.2021.qrel", "2021qrels.txt"),
    ),
    "2020": _Year(
        ("2020_manual_evaluation_topics_v1.0.json", "2020_automatic_evaluation_topics_v1.0.json"),
        ("2020qrels.txt",),
        automatic="2020_automatic_evaluation_topics_v1.0.json",
    ),
    "2019": _Year(
        ("evaluation_topics_v1.0.json",),
        ("2019qrels.txt",),
        rewrites="evaluation_topics_annotated_resolved_v1.0.tsv",
    ),
    "2019-train": _Year(
        ("train_topics_v1.0.json",),
        ("train_topics_mod.qrel",),
        rewrites="train_topic_sample_annotated_resolved_v1.0.tsv",
    ),
}


def _splits(folder: Path) -> list[str]:
    return [split for split, year in _YEARS.items() if matching_paths(folder, *year.topics)]


def _read(
    folder: Path, split: str, report: LoadReport, corpus: Callable[[], Corpus]
) -> ParsedSplit:
    """Questions ``TOPIC_TURN``. What the system answered to earlier turns is in the history as each
    year has it:

    2019 has no answers. 2020 names a passage of the corpus: the one of the automatic topics, which
        systems were allowed to see,
    and that of the manual topics only where these lie in the folder alone. 2021 gives the passage,
    2022 a written response, along the branch of the tree that leads to the question. A person's
    rewrite is taken before an automatic one.
    """
    year = _YEARS[split]
    path = single_file(folder, *year.topics)
    assert path is not None
    rewrites = _rewrites(folder, year)
    answers = _answers(folder, year, path, report, corpus)
    queries: dict[str, Query] = {}
    for number, topic in enumerate(read_entries(path), 1):
        name, turns = (
            required_field(topic, path, number, "number"),
            object_list(required_field(topic, path, number, "turn"), "turn", path, number),
        )
        by_number = {str(required_field(turn, path, number, "number")): turn for turn in turns}
        for place, turn in enumerate(turns):
            if turn.get("participant", "User") != "User":
                continue
            query_id = f"{name}_{turn['number']}"
            before = _above(turn, by_number) if "participant" in turn else turns[:place]
            history = tuple(
                said_then
                for earlier in before
                for said_then in _said(earlier, f"{name}_{earlier['number']}", answers)
            )
            text = text_or_empty(required_field(turn, path, number, "raw_utterance", "utterance"))
            rewrite = (
                rewrites.get(query_id)
                or text_or_empty(turn.get("manual_rewritten_utterance"))
                or text_or_empty(turn.get("automatic_rewritten_utterance"))
                or None
            )
            add_query(queries, Query(query_id, text, history, rewrite), path)
    qrels = single_file(folder, *year.qrels)
    return ParsedSplit(queries, numbered_judgments(qrels, report) if qrels else None, qrels or path)


def _said(turn: dict[str, Any], turn_id: str, answers: dict[str, str]) -> Iterator[Turn]:
    """What an earlier turn adds to the history: the user's words, and the answer to them where the
    turn holds both.
    """
    user = text_or_empty(turn.get("raw_utterance", turn.get("utterance")))
    answer = text_or_empty(turn.get("response", turn.get("passage"))) or answers.get(turn_id, "")
    if turn.get("participant", "User") != "User":
        user, answer = "", answer or user
    if user:
        yield Turn("user", user)
    if answer:
        yield Turn("assistant", answer)


def _above(turn: dict[str, Any], by_number: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns from the root of a tree down to the parent of this one."""
    branch: list[dict[str, Any]] = []
    seen = {str(turn["number"])}
    parent = str(turn.get("parent"))
    while parent in by_number and parent not in seen:
        seen.add(parent)
        branch.append(by_number[parent])
        parent = str(by_number[parent].get("parent"))
    return branch[::-1]


def _rewrites(folder: Path, year: _Year) -> dict[str, str]:
    path = single_file(folder, year.rewrites) if year.rewrites else None
    if path is None:
        return {}
    rows = (line.rstrip("\r\n").partition("\t") for _, line in numbered_lines(path))
    return {turn.strip(): text.strip() for turn, _, text in rows}


def _answers(
    folder: Path, year: _Year, topics: Path, report: LoadReport, corpus: Callable[[], Corpus]
) -> dict[str, str]:
    """Turn -> the passage of the corpus that is the canonical answer to it (2020)."""
    if not year.automatic:
        return {}
    path = single_file(folder, year.automatic) or topics
    named = {
        f"{topic['number']}_{turn['number']}": str(
            required_field(
                turn, path, number, "automatic_canonical_result_id", "manual_canonical_result_id"
            )
        )
        for number, topic in enumerate(read_entries(path), 1)
        for turn in object_list(topic.get("turn"), "turn", path, number)
    }
    opened = corpus()
    answers = {}
    for (turn_id, doc_id), row in zip(
        named.items(), opened.find(list(named.values())), strict=True
    ):
        if row < 0:
            report.add(
                "responses without document", f"{path.name} (turn {turn_id}, document {doc_id})"
            )
        else:
            answers[turn_id] = opened.text(int(row))
    return answers


CAST = ConversationLayout(
    "TREC CAsT",
    _splits,
    _read,
    lambda split: (f"passages-{split}", f"passages-{split}.*"),
    "https://www.treccast.ai and https://github.com/daltonj/treccastweb; the passages of 2019 and"
    " 2020 are trec-cast/v1 of ir_datasets",
)
