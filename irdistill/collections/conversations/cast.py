"""TREC CAsT 2019 to 2022 of https://github.com/daltonj/treccastweb: JSON topics and TREC qrels."""

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
    with_qrels_file,
)
from irdistill.collections.corpus import Corpus
from irdistill.collections.load_report import LoadReport
from irdistill.collections.text_lines import numbered_lines


class _Year(NamedTuple):
    """The files of a year.

    Attributes:
        topics: the preferred file first.
        rewrites: the file of the rewrites, if they are not in the topics.
        automatic: the file of the automatic topics, if it names the answers.
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
    """Questions ``TOPIC_TURN``, with the history as each year has it.

    2019 has no answers. 2020 names a passage of the corpus as the answer: that of the automatic
    topics, which systems were allowed to see, or that of the manual topics if only these exist.
    2021 contains the passage. 2022 contains a written response, along the branch of the tree that
    leads to the question. The rewrite of a person is preferred to an automatic one.
    """
    year = _YEARS[split]
    path = single_file(folder, *year.topics)
    assert path is not None
    rewrites = _rewrites(folder, year)
    answers = _answers(folder, year, path, report, corpus)
    queries: dict[str, Query] = {}
    for number, topic in enumerate(read_entries(path), 1):
        name, turn_values = (required_field(topic, path, number, key) for key in ("number", "turn"))
        turns = object_list(turn_values, "turn", path, number)
        by_number = {str(required_field(turn, path, number, "number")): turn for turn in turns}
        for place, turn in enumerate(turns):
            if turn.get("participant", "User") != "User":
                continue
            query_id = f"{name}_{turn['number']}"
            earlier = _ancestors(turn, by_number) if "participant" in turn else turns[:place]
            history = tuple(
                said
                for before in earlier
                for said in _turns_of(before, f"{name}_{before['number']}", answers)
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
    return with_qrels_file(queries, path, qrels, report)


def _turns_of(turn: dict[str, Any], turn_id: str, answers: dict[str, str]) -> Iterator[Turn]:
    """The turns that an entry adds to the history: that of the user, and the answer if known."""
    user = text_or_empty(turn.get("raw_utterance", turn.get("utterance")))
    answer = text_or_empty(turn.get("response", turn.get("passage"))) or answers.get(turn_id, "")
    if turn.get("participant", "User") != "User":
        user, answer = "", answer or user
    if user:
        yield Turn("user", user)
    if answer:
        yield Turn("assistant", answer)


def _ancestors(turn: dict[str, Any], by_number: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns from the root of a tree down to the parent of this one."""
    branch: list[dict[str, Any]] = []
    visited = {str(turn["number"])}
    parent = str(turn.get("parent"))
    while parent in by_number and parent not in visited:
        visited.add(parent)
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
    """Turn -> the text of its canonical answer, a passage of the corpus (2020)."""
    if not year.automatic:
        return {}
    path = single_file(folder, year.automatic) or topics
    doc_ids = {
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
        doc_ids.items(), opened.find(list(doc_ids.values())), strict=True
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
