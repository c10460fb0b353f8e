"""The verb *rewrite*: turn the questions of conversations into standalone queries.

The text of a query becomes a rewrite by a person or by a language model, the last turn alone, or
the conversation rendered as one text. The result has the same query ids, so the runs of one
collection serve the other.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from irdistill.card_files import find_card
from irdistill.collections import Collection, Query, load_collection
from irdistill.collections.derived import check_stored_passages, write_derived
from irdistill.collections.slices import split_folder
from irdistill.errors import InputError, OptionError
from irdistill.option_checks import check_fields
from irdistill.queries.history_template import HistoryTemplate, count_words, tokenizer_count
from irdistill.queries.llm_writing import (
    load_writer,
    log_path,
    no_usable_answer,
    report_unusable,
    response_log_path,
    write_queries,
)
from irdistill.storage.plain_data import read_yaml
from irdistill.teachers.llm.language_model import LanguageModel, Request
from irdistill.teachers.llm.prompt_templates import Template
from irdistill.teachers.llm.queue import check_retry

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RewriteOptions:
    """How a language model rewrites questions, see `rewrite`."""

    prompt: Annotated[
        str | Mapping[str, str],
        Field(description="Prompt of the language model: a card of data/ or a YAML file."),
    ] = "prompts/rewrite"
    max_tokens: Annotated[int, Field(ge=1, description="Maximum tokens of a rewrite.")] = 64
    retry_tokens: Annotated[
        int | None,
        Field(
            description="Retry rewrites that max_tokens cut with this limit (thinking models)."
            " Default: no retry."
        ),
    ] = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_retry(self.retry_tokens, self.max_tokens)


def rewrite(
    collection: Collection,
    out: str | Path,
    by: Literal["human", "last-turn"] | None = None,
    *,
    history: str | HistoryTemplate | None = None,
    tokenizer: str | None = None,
    llm: str | LanguageModel | None = None,
    options: RewriteOptions | None = None,
    log: str | Path | None = None,
) -> Collection:
    """Write a collection with standalone questions. Give one of ``by``, ``history`` and ``llm``.

    A language model only rewrites questions with a history. When its answer has no usable text
    (empty, cut, a refusal, an error) the question stays as it is; the record in ``derived.json``
    counts these by reason.

    Args:
        by: ``human`` or ``last-turn``.
        history: a template, or its text. With ``llm`` it selects the turns that the prompt shows.
        tokenizer: model whose tokenizer counts the tokens of ``history``.
        options: prompt and limits of the language model.
        log: response log of a local language model (default: next to ``out``).
    """
    template = HistoryTemplate.parse(history) if isinstance(history, str) else history
    if (by is not None) + (llm is not None) + (template is not None and llm is None) != 1:
        raise OptionError(
            "rewrite needs exactly one of by (human or last-turn), history and llm; history may"
            " also be given together with llm."
        )
    check_stored_passages(collection)
    if llm is not None:
        model = load_writer(llm) if isinstance(llm, str) else llm
        log = response_log_path(out) if log is None else log
        return _rewrite_with_llm(collection, out, model, template, options or RewriteOptions(), log)
    if template is not None:
        texts, made_by = _render(collection, template, tokenizer)
        return _write(collection, out, texts, made_by)
    if by == "human":
        texts = {query.id: (query.rewrite or "") for query in collection.queries.values()}
        missing = [query_id for query_id, text in texts.items() if not text.strip()]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(texts)} questions of {collection.id!r} have no rewrite,"
                f" for example {missing[0]!r}. Rewrite them with a language model (--llm CARD), or"
                " choose a split that has rewrites."
            )
    elif by == "last-turn":
        texts = {query.id: query.text for query in collection.queries.values()}
    else:
        raise OptionError(f"cannot rewrite by {by!r}; expected human or last-turn.")
    return _write(collection, out, texts, {"verb": "rewrite", "by": by})


def _render(
    collection: Collection, template: HistoryTemplate, tokenizer: str | None
) -> tuple[dict[str, str], dict[str, Any]]:
    """Conversations as texts by query id, and the record of how they were made."""
    count = tokenizer_count(tokenizer) if tokenizer else count_words
    rendered = {query.id: template.render(query, count) for query in collection.queries.values()}
    turns_cut = sum(text.cut for text in rendered.values())
    queries_cut = sum(text.cut > 0 for text in rendered.values())
    if turns_cut:
        logger.info(
            "%d turns of %d questions did not fit and were left out, the oldest first",
            turns_cut,
            queries_cut,
        )
    made_by = {
        "verb": "rewrite",
        "by": template.identity(),
        "tokens_by": (tokenizer or "words") if template.tokens is not None else None,
        "turns_cut": turns_cut,
        "queries_cut": queries_cut,
    }
    return {query_id: text.text for query_id, text in rendered.items()}, made_by


def _rewrite_with_llm(
    collection: Collection,
    out: str | Path,
    model: LanguageModel,
    history: HistoryTemplate | None,
    options: RewriteOptions,
    log: str | Path,
) -> Collection:
    prompt = options.prompt
    parts = read_prompt(prompt) if isinstance(prompt, str) else dict(prompt)
    template = Template(parts, ["history", "question"], "the rewriting prompt")
    shown = history or HistoryTemplate("oldest", "all", "\n")
    questions = [query for query in collection.queries.values() if query.history]
    requests = [
        Request(
            template.messages(history=transcript(query, shown), question=query.text),
            max_tokens=options.max_tokens,
        )
        for query in questions
    ]
    replies = write_queries(model, requests, log, "rewrite", options.retry_tokens)
    texts = {query.id: query.text for query in collection.queries.values()}
    texts |= {
        query.id: reply.text
        for query, reply in zip(questions, replies, strict=True)
        if not reply.flag
    }
    unusable = Counter(reply.flag for reply in replies if reply.flag)
    if unusable:
        logger.warning(
            "%d of %d answers hold no question; these questions stay as they are",
            unusable.total(),
            len(questions),
        )
        report_unusable(replies, "question", log_path(model, log))
    made_by = {
        "verb": "rewrite",
        "by": "llm",
        "model": dict(model.identity),
        "prompt": template.digest,
        "history": shown.identity(),
        "max_tokens": options.max_tokens,
        "kept_as_asked": unusable.total(),
    }
    if options.retry_tokens is not None:
        made_by["retry_tokens"] = options.retry_tokens
    if unusable:
        made_by["unusable"] = dict(sorted(unusable.items()))
    rewritten = _write(collection, out, texts, made_by)
    error = no_usable_answer(replies, "question", log_path(model, log))
    if error is not None:
        raise error
    return rewritten


def transcript(query: Query, template: HistoryTemplate) -> str:
    """Turns before a question with their roles, in the order and number of a template.

    Examples:
        >>> from irdistill.collections import Turn
        >>> turns = (Turn("user", "merge dicts"), Turn("assistant", "use |"))
        >>> transcript(Query("q", "and lists?", turns), HistoryTemplate("oldest", "all", " / "))
        'user: merge dicts / assistant: use |'
    """
    turns = [turn for turn in query.history if template.shown == "all" or turn.role == "user"]
    if template.turns is not None:
        turns = turns[len(turns) - min(template.turns, len(turns)) :]
    lines = [f"{turn.role}: {' '.join(turn.text.split())}" for turn in turns]
    return template.separator.join(reversed(lines) if template.order == "newest" else lines)


def read_prompt(name: str) -> dict[str, str]:
    """Parts (``system``, ``user``, ``assistant``) of a prompt card of ``data/`` or a YAML file."""
    path = find_card("data", name)
    parts = read_yaml(path, "prompt")
    if not all(isinstance(value, str) for value in parts.values()):
        raise InputError(
            f"the prompt {path} is invalid; expected texts with the names user, system and"
            " assistant."
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
