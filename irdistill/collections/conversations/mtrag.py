"""MTRAG (Katsis et al. 2025, arXiv:2501.03468): the retrieval tasks of four domains, each over its
own passages.
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
)
from irdistill.collections.corpus import Corpus
from irdistill.collections.judgments import numbered_judgments
from irdistill.collections.load_report import LoadReport
from irdistill.collections.text_files import uncompressed_name
from irdistill.errors import IrdistillError

_HOME = "https://github.com/IBM/mt-rag-benchmark"
_MARK = re.compile(r"(?:^|\n)\|(user|agent|assistant)\|:[ \t]*")
_ROLES = {"user": "user", "agent": "assistant", "assistant": "assistant"}


def _splits(folder: Path) -> list[str]:
    paths = matching_paths(folder, "*/*_lastturn.jsonl", "*_lastturn.jsonl")
    return [uncompressed_name(path).removesuffix("_lastturn.jsonl") for path in paths]


def _read(
    folder: Path, split: str, report: LoadReport, corpus: Callable[[], Corpus]
) -> ParsedSplit:
    """Questions of a domain. The turns before one are those of the user, as
    ``DOMAIN_questions.jsonl`` has them; with the agent's answers where
    ``generation_tasks/reference.jsonl`` lies in the folder and has the same questions.
    """
    texts, asked, rewrites = (
        _texts(folder, split, kind) for kind in ("lastturn", "questions", "rewrite")
    )
    path = single_file(folder, f"{split}_lastturn.jsonl")
    assert path is not None
    answered = _answered(folder)
    queries: dict[str, Query] = {}
    for query_id, turns in texts.items():
        text = turns[-1].text
        before = asked.get(query_id, ())
        if before and before[-1].text.split() != text.split():
            raise IrdistillError(
                f"the question {query_id!r} is {text[:60]!r} in {path} and {before[-1].text[:60]!r}"
                f" in {split}_questions.jsonl; the two are not of one release."
            )
        history = answered.get(_task(query_id), before)
        history = (
            history[:-1] if history and history[-1].text.split() == text.split() else before[:-1]
        )
        rewrite = rewrites[query_id][-1].text if query_id in rewrites else None
        add_query(queries, Query(query_id, text, history, rewrite), path)
    qrels = single_file(folder, f"{split}/qrels/dev.tsv", f"qrels/{split}.tsv")
    return ParsedSplit(queries, numbered_judgments(qrels, report) if qrels else None, qrels or path)


def _texts(folder: Path, domain: str, kind: str) -> dict[str, tuple[Turn, ...]]:
    path = single_file(folder, f"{domain}_{kind}.jsonl")
    if path is None:
        raise IrdistillError(
            f"{folder} has no {domain}_{kind}.jsonl, which {_HOME} publishes below"
            f" retrieval_tasks/{domain}; put it beside {domain}_lastturn.jsonl."
        )
    return {
        str(required_field(entry, path, number, "_id")): _turns(
            text_or_empty(required_field(entry, path, number, "text"))
        )
        for number, entry in enumerate(read_entries(path), 1)
    }


def _turns(text: str) -> tuple[Turn, ...]:
    """The turns of a text that has a mark before each, ``|user|: ...``."""
    parts = _MARK.split(text)
    turns = [
        Turn(_ROLES[role], said_then.strip())
        for role, said_then in zip(parts[1::2], parts[2::2], strict=True)
    ]
    return tuple(turns) or (Turn("user", text.strip()),)


def _answered(folder: Path) -> dict[str, tuple[Turn, ...]]:
    """Task -> all turns up to its question, with the agent's; the answer to the question stands
    under ``targets``, unread.
    """
    path = single_file(folder, "generation_tasks/reference.jsonl")
    if path is None:
        return {}
    return {
        _task(str(required_field(entry, path, number, "task_id"))): tuple(
            Turn(
                _ROLES.get(str(turn.get("speaker")), "assistant"),
                text_or_empty(turn.get("text")).strip(),
            )
            for turn in object_list(
                required_field(entry, path, number, "input"), "input", path, number
            )
        )
        for number, entry in enumerate(read_entries(path), 1)
    }


def _task(id: str) -> str:
    """A task's id; releases write ``<::>`` or ``::`` before the number of the turn."""
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
