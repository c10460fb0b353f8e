"""MTRAG (Katsis et al. 2025, arXiv:2501.03468): the retrieval tasks of four domains, each over its
passages.
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
from irdistill.collections.text_files import uncompressed_name
from irdistill.errors import InputError, NotFoundError

_HOME = "https://github.com/IBM/mt-rag-benchmark"
_MARK = re.compile(r"(?:^|\n)\|(user|agent|assistant)\|:[ \t]*")
_ROLES = {"user": "user", "agent": "assistant", "assistant": "assistant"}


def _splits(folder: Path) -> list[str]:
    paths = matching_paths(folder, "*/*_lastturn.jsonl", "*_lastturn.jsonl")
    return [uncompressed_name(path).removesuffix("_lastturn.jsonl") for path in paths]


def _read(
    folder: Path, split: str, report: LoadReport, corpus: Callable[[], Corpus]
) -> ParsedSplit:
    """Questions of a domain, with the earlier turns of the user from ``DOMAIN_questions.jsonl``.

    The answers of the agent are included if ``generation_tasks/reference.jsonl`` is in the folder
    and has the same questions.
    """
    last_turns, user_turns, rewrites = (
        _texts(folder, split, kind) for kind in ("lastturn", "questions", "rewrite")
    )
    path = single_file(folder, f"{split}_lastturn.jsonl")
    assert path is not None
    answered = _turns_with_answers(folder)
    queries: dict[str, Query] = {}
    for query_id, turns in last_turns.items():
        text = turns[-1].text
        user = user_turns.get(query_id, ())
        if user and user[-1].text.split() != text.split():
            raise InputError(
                f"the question {query_id!r} is {text[:60]!r} in {path} and {user[-1].text[:60]!r}"
                f" in {split}_questions.jsonl; the two files are of different releases."
            )
        history = answered.get(_task(query_id), user)
        ends_with_question = history and history[-1].text.split() == text.split()
        history = history[:-1] if ends_with_question else user[:-1]
        rewrite = rewrites[query_id][-1].text if query_id in rewrites else None
        add_query(queries, Query(query_id, text, history, rewrite), path)
    qrels = single_file(folder, f"{split}/qrels/dev.tsv", f"qrels/{split}.tsv")
    return with_qrels_file(queries, path, qrels, report)


def _texts(folder: Path, domain: str, kind: str) -> dict[str, tuple[Turn, ...]]:
    path = single_file(folder, f"{domain}_{kind}.jsonl")
    if path is None:
        raise NotFoundError(
            f"{folder} has no {domain}_{kind}.jsonl, which {_HOME} publishes in"
            f" retrieval_tasks/{domain}. Put it beside {domain}_lastturn.jsonl."
        )
    texts = {}
    for number, entry in enumerate(read_entries(path), 1):
        query_id, text = (required_field(entry, path, number, name) for name in ("_id", "text"))
        texts[str(query_id)] = _turns(text_or_empty(text))
    return texts


def _turns(text: str) -> tuple[Turn, ...]:
    """The turns of a text with a mark before each, ``|user|: ...``."""
    parts = _MARK.split(text)
    turns = [
        Turn(_ROLES[role], content.strip())
        for role, content in zip(parts[1::2], parts[2::2], strict=True)
    ]
    return tuple(turns) or (Turn("user", text.strip()),)


def _turns_with_answers(folder: Path) -> dict[str, tuple[Turn, ...]]:
    """Task -> all turns up to its question, with those of the agent.

    The answer to the question itself is in ``targets``, which is not read.
    """
    path = single_file(folder, "generation_tasks/reference.jsonl")
    if path is None:
        return {}
    tasks = {}
    for number, entry in enumerate(read_entries(path), 1):
        task_id, turns = (
            required_field(entry, path, number, name) for name in ("task_id", "input")
        )
        tasks[_task(str(task_id))] = tuple(
            Turn(
                _ROLES.get(str(turn.get("speaker")), "assistant"),
                text_or_empty(turn.get("text")).strip(),
            )
            for turn in object_list(turns, "input", path, number)
        )
    return tasks


def _task(id: str) -> str:
    """The id of a task; releases write ``<::>`` or ``::`` before the number of the turn."""
    return id.replace("<::>", "::")


MTRAG = ConversationLayout(
    "MTRAG",
    _splits,
    _read,
    lambda split: (
        f"passage_level/{split}.json*",
        f"{split}.jsonl",
        f"{split}.jsonl.*",
        f"{split}.json.zip",
    ),
    _HOME,
)
