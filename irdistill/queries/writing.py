"""Texts written by a language model, many of them: kept the moment they are there, so that a job
that stops goes on.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from irdistill.console.progress import kept_of, kept_when_stopped, progress
from irdistill.errors import IrdistillError
from irdistill.storage.files import digest
from irdistill.teachers.llm.budget import Spent
from irdistill.teachers.llm.language_model import CUT, Answer, LanguageModel, Request
from irdistill.teachers.llm.queue import run_jobs
from irdistill.teachers.llm.reading import Reply
from irdistill.teachers.llm.response_log import open_log
from irdistill.teachers.llm.written import read_written
from irdistill.teachers.scoring_reports import WARNING_SHARE, counts_in_words

logger = logging.getLogger(__name__)


def card_model(card: str) -> LanguageModel:
    """The language model of a card, whatever its prompt asks for elsewhere.

    Raises:
        IrdistillError: there is no such card, it is of no language model, or the model cannot be
            loaded.
    """
    from irdistill.teachers.llm.llm_loading import load_language_model
    from irdistill.teachers.teacher_card import LLM_KINDS, card_of

    found = card_of(card)
    if found.kind not in LLM_KINDS:
        raise IrdistillError(
            f"the card {card!r} is of the kind {found.kind}, which writes no text; name one of"
            f" {', '.join(LLM_KINDS)}."
        )
    return load_language_model(found, {})


def write_lines(
    model: LanguageModel,
    requests: Sequence[Request],
    log: str | Path,
    label: str = "write",
    retry_tokens: int | None = None,
) -> list[Reply]:
    """The line that each request asks for, read as `read_written` does; flagged and empty where an
    answer holds none.

    Args:
        retry_tokens: what the limit of tokens cut is asked for once more, with this limit; None for
            no second try.

    Raises:
        IrdistillError: as `write_texts`.
    """
    lines = [read_written(answer) for answer in write_texts(model, requests, log, label)]
    cut = [
        place
        for place, line in enumerate(lines)
        if line.flag == CUT
        and retry_tokens is not None
        and requests[place].max_tokens < retry_tokens
    ]
    if cut and retry_tokens is not None:
        again = [requests[place]._replace(max_tokens=retry_tokens) for place in cut]
        for place, answer in zip(
            cut, write_texts(model, again, log, f"{label}, cut ones again"), strict=True
        ):
            if answer.error in (
                None,
                CUT,
            ):  # where there is no room for a longer one, what was cut stays so
                lines[place] = read_written(answer)
    return lines


def log_place(model: LanguageModel, log: str | Path) -> str | Path:
    """Where a model's answers are kept: a model behind a server has a log of its own."""
    return getattr(getattr(model, "log", None), "path", log)


def report_unusable(lines: Sequence[Reply], what: str, log: str | Path) -> None:
    """Warn of many answers that hold no line, with their flags.

    Args:
        what: what was to be written, for the message.
    """
    counts = Counter(line.flag for line in lines if line.flag)
    if counts and sum(counts.values()) >= WARNING_SHARE * len(lines):
        logger.warning(
            "WARNING: %d of %d answers hold no %s: %s. The answers are in the response log (%s)%s",
            sum(counts.values()),
            len(lines),
            what,
            counts_in_words(counts, len(lines)),
            log,
            cut_advice(counts),
        )


def nothing_usable(lines: Sequence[Reply], what: str, log: str | Path) -> IrdistillError | None:
    """The error of a job whose answers all hold no line; None where one does, or none was asked
    for.
    """
    if not lines or any(line.flag is None for line in lines):
        return None
    counts = Counter(line.flag or "" for line in lines)
    return IrdistillError(
        f"none of the {len(lines)} answers of the language model holds a {what}"
        f" ({counts_in_words(counts, len(lines))}); look at some in the response log ({log}), and"
        f" change model or prompt{cut_advice(counts)}"
    )


def cut_advice(counts: Mapping[str, int]) -> str:
    """What to do about answers that were cut, to end a message with."""
    return (
        "; for those that were cut give more --max-tokens, or --retry-tokens for a second try."
        if counts.get(CUT)
        else "."
    )


def write_texts(
    model: LanguageModel, requests: Sequence[Request], log: str | Path, label: str = "write"
) -> list[Answer]:
    """The answers to requests, in their order.

    Those of a model on this machine are kept in the response log ``log``; a model behind a server
    keeps its own. Requests of a local model are answered in fixed groups, since what stands beside
    a text in a batch may change its last digits: a job that was stopped ends with the same texts.

    Raises:
        IrdistillError: the log belongs to another process or is no log; or what the model raises.
    """
    remote = hasattr(model, "request_digest")
    asked: LanguageModel = model if remote else _Logged(model, Path(log))
    size = 1 if remote else max(1, model.parallel)
    with (
        progress(len(requests), "texts", label) as bar,
        kept_when_stopped(lambda: kept_of(bar.n, len(requests), f"texts in {log}")),
    ):

        def job(
            group: Sequence[Request],
        ) -> Generator[Sequence[Request], list[Answer], list[Answer]]:
            answers = yield group
            bar.update(len(group))
            return answers

        groups = [requests[start : start + size] for start in range(0, len(requests), size)]
        return [answer for answers in run_jobs(asked, map(job, groups)) for answer in answers]


class _Logged:
    """A local model whose answers are kept in a log; a group of requests is taken from there or
    answered as a whole.
    """

    def __init__(self, model: LanguageModel, log: Path) -> None:
        self._model, self._log = model, open_log(log)

    @property
    def identity(self) -> Mapping[str, Any]:
        return self._model.identity

    @property
    def parallel(self) -> int:
        return self._model.parallel

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        keys = list(self._keys(requests))
        known = [self._log.get(key) for key in keys]
        if all(answer is not None for answer in known):
            return [answer for answer in known if answer is not None]
        answers = self._model.answer(requests)
        for key, answer in zip(keys, answers, strict=True):
            self._log.add(key, answer, Spent())
        return answers

    def _keys(self, requests: Sequence[Request]) -> Iterator[str]:
        for request in requests:
            yield digest(
                [
                    dict(self.identity),
                    [list(message) for message in request.messages],
                    request.max_tokens,
                ]
            )
