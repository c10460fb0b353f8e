"""The verb *rewrite*: a collection of questions in conversations in, one of questions that stand
alone out.

By a person, by a language model, or not at all: the conversation laid out as one text is what a
    student reads that needs no
rewrite. All of them are collections of the same questions, so the runs of one serve the others.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from irdistill.card_files import find_card
from irdistill.collections import Collection, Query, load_collection
from irdistill.collections.derived import write_derived
from irdistill.collections.slices import split_folder
from irdistill.errors import IrdistillError
from irdistill.queries.history import Count, HistoryTemplate, words
from irdistill.queries.writing import log_place, nothing_usable, report_unusable, write_lines
from irdistill.storage.plain_data import read_yaml
from irdistill.teachers.llm.language_model import LanguageModel, Request
from irdistill.teachers.llm.prompt_templates import Template
from irdistill.teachers.llm.queue import check_retry

logger = logging.getLogger(__name__)
LAST_TURN, HUMAN = "last-turn", "human"


def rewrite(
    collection: Collection,
    out: str | Path,
    by: Literal["human", "last-turn"] | HistoryTemplate,
    count: Count = words,
    counted_by: str = "words",
) -> Collection:
    """Write the questions as a person has rewritten them, as they were asked last, or with the
    turns before them.

    Args:
        count, counted_by: how a budget of tokens counts, and the name of that way, for the record.

    Raises:
        IrdistillError: ``human`` was asked for and a question has no rewrite, or ``out`` holds
            another collection.
    """
    made_by: dict[str, Any] = {
        "verb": "rewrite",
        "by": by if isinstance(by, str) else by.identity(),
    }
    cut = 0
    if isinstance(by, HistoryTemplate):
        laid_out = {query.id: by.lay_out(query, count) for query in collection.queries.values()}
        texts = {query_id: found.text for query_id, found in laid_out.items()}
        cut = sum(found.cut for found in laid_out.values())
        shortened = sum(found.cut > 0 for found in laid_out.values())
        made_by |= {
            "tokens_by": counted_by if by.tokens is not None else None,
            "turns_cut": cut,
            "queries_cut": shortened,
        }
        if cut:
            logger.info(
                "%d turns of %d questions did not fit and were left out, the oldest first",
                cut,
                shortened,
            )
    elif by == HUMAN:
        missing = [
            query.id for query in collection.queries.values() if not (query.rewrite or "").strip()
        ]
        if missing:
            raise IrdistillError(
                f"{len(missing)} of {len(collection.queries)} questions of {collection.id!r} have"
                f" no rewrite, {missing[0]!r} for one; rewrite them with a language model (--llm"
                " CARD), or choose a split that has them."
            )
        texts = {query.id: query.rewrite or "" for query in collection.queries.values()}
    elif by == LAST_TURN:
        texts = {query.id: query.text for query in collection.queries.values()}
    else:
        raise IrdistillError(
            f"questions cannot be rewritten by {by!r}; expected were human, last-turn or a"
            " HistoryTemplate."
        )
    return _write(collection, out, texts, made_by)


def rewrite_with(
    model: LanguageModel,
    collection: Collection,
    out: str | Path,
    prompt: str | Mapping[str, str] = "prompts/rewrite",
    history: HistoryTemplate | None = None,
    max_tokens: int = 64,
    log: str | Path | None = None,
    retry_tokens: int | None = None,
) -> Collection:
    """Let a language model write each question so that it stands alone; a question without a
    history stays as it is.

    An answer that holds no question (empty, cut, a refusal), or that could not be had, leaves the
    question as it was asked; the record counts them by their flags.

    Args:
        prompt: a card of ``data/``, a file, or its parts: ``user`` (and ``system``, ``assistant``)
            with the places ``{history}`` and ``{question}``.
        history: how the turns before are shown; all of them, as they went, where None.
        max_tokens: of an answer.
        log: keeps the answers of a local model; beside ``out`` where None.
        retry_tokens: an answer that ``max_tokens`` cut is asked for once more, with this limit;
            None for no second try.

    Raises:
        IrdistillError: the prompt cannot be used, or ``out`` holds another collection; or no answer
            holds a question: the collection is saved all the same, with the questions as they were
            asked.
    """
    check_retry(retry_tokens, max_tokens)
    parts = read_prompt(prompt) if isinstance(prompt, str) else dict(prompt)
    template = Template(parts, ["history", "question"], "the prompt of the rewriter")
    shown = history or HistoryTemplate("oldest", "all", "\n")
    asked = [query for query in collection.queries.values() if query.history]
    requests = [
        Request(
            template.messages(history=transcript(query, shown), question=query.text),
            max_tokens=max_tokens,
        )
        for query in asked
    ]
    folder = Path(out)
    log = log or folder.with_name(f"{folder.name}.responses.jsonl")
    lines = write_lines(model, requests, log, "rewrite", retry_tokens)
    texts = {query.id: query.text for query in collection.queries.values()}
    texts |= {
        query.id: line.text for query, line in zip(asked, lines, strict=True) if not line.flag
    }
    unusable = Counter(line.flag for line in lines if line.flag)
    kept = sum(unusable.values())
    if kept:
        logger.warning(
            "%d of %d answers hold no question; those stay as they were asked", kept, len(asked)
        )
        report_unusable(lines, "question", log_place(model, log))
    made_by = {
        "verb": "rewrite",
        "by": "llm",
        "model": dict(model.identity),
        "prompt": template.digest,
        "history": shown.identity(),
        "max_tokens": max_tokens,
        "kept_as_asked": kept,
    }
    made_by |= {"retry_tokens": retry_tokens} if retry_tokens is not None else {}
    made_by |= {"unusable": dict(sorted(unusable.items()))} if unusable else {}
    found = _write(collection, out, texts, made_by)
    failed = nothing_usable(lines, "question", log_place(model, log))
    if failed is not None:
        raise failed
    return found


def transcript(query: Query, template: HistoryTemplate) -> str:
    """The turns before a question, with who said them, in the order and within the number of turns
    of a template.
    """
    turns = [turn for turn in query.history if template.shown == "all" or turn.role == "user"]
    turns = (
        turns if template.turns is None else turns[len(turns) - min(template.turns, len(turns)) :]
    )
    lines = [f"{turn.role}: {' '.join(turn.text.split())}" for turn in turns]
    return template.separator.join(reversed(lines) if template.order == "newest" else lines)


def read_prompt(name: str) -> dict[str, str]:
    """The parts of a prompt that is a card of ``data/`` or a YAML file.

    Raises:
        IrdistillError: there is none, or it holds no texts.
    """
    path = find_card("data", name)
    parts = read_yaml(path, "prompt")
    if not all(isinstance(value, str) for value in parts.values()):
        raise IrdistillError(
            f"the prompt {path} holds no texts by the names user, system or assistant."
        )
    return parts


def _write(
    collection: Collection, out: str | Path, texts: Mapping[str, str], made_by: Mapping[str, Any]
) -> Collection:
    queries = [
        Query(query_id, text, excluded=collection.queries[query_id].excluded)
        for query_id, text in texts.items()
    ]
    judgments = {split_folder(collection.id)[1] or "test": collection.qrels}
    return load_collection(
        write_derived(out, collection, queries, judgments, made_by, same_questions=True)
    )
