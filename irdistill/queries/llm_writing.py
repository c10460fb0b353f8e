"""Texts written by a language model, logged as they arrive so that a job can resume."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from irdistill.console.progress_bars import describe_kept, note_on_interrupt, progress
from irdistill.errors import InputError, ModelError
from irdistill.storage.files import digest
from irdistill.teachers.llm.budget import Spent
from irdistill.teachers.llm.language_model import CUT, Answer, LanguageModel, Request
from irdistill.teachers.llm.queue import run_jobs
from irdistill.teachers.llm.reading import Reply
from irdistill.teachers.llm.response_log import open_log
from irdistill.teachers.llm.written import read_written
from irdistill.teachers.scoring_reports import WARNING_SHARE, counts_in_words

logger = logging.getLogger(__name__)


def load_writer(card: str) -> LanguageModel:
    """Load the language model of a teacher card; the prompt of the card is not used."""
    from irdistill.teachers.llm.llm_loading import load_language_model
    from irdistill.teachers.teacher_card import LLM_KINDS, card_of

    teacher = card_of(card)
    if teacher.kind not in LLM_KINDS:
        raise ModelError(
            f"the card {card!r} has the kind {teacher.kind}, which cannot write text; expected one"
            f" of {', '.join(LLM_KINDS)}."
        )
    return load_language_model(teacher, {})


def response_log_path(out: str | Path) -> Path:
    """The response log next to an output folder."""
    folder = Path(out)
    return folder.with_name(f"{folder.name}.responses.jsonl")


def write_queries(
    model: LanguageModel,
    requests: Sequence[Request],
    log: str | Path,
    label: str = "write",
    retry_tokens: int | None = None,
) -> list[Reply]:
    """Query written for each request; empty and flagged where an answer has no usable line.

    Args:
        log: response log of a local model.
        retry_tokens: retry answers that the token limit cut with this limit (None: no retry).
    """
    replies = [read_written(answer) for answer in generate_texts(model, requests, log, label)]
    if retry_tokens is None:
        return replies
    cut = [
        place
        for place, reply in enumerate(replies)
        if reply.flag == CUT and requests[place].max_tokens < retry_tokens
    ]
    if cut:
        again = [requests[place]._replace(max_tokens=retry_tokens) for place in cut]
        answers = generate_texts(model, again, log, f"{label}, cut ones again")
        for place, answer in zip(cut, answers, strict=True):
            if answer.error in (None, CUT):  # no room for a longer answer: the reply stays cut
                replies[place] = read_written(answer)
    return replies


def log_path(model: LanguageModel, log: str | Path) -> str | Path:
    """Where the answers of a model are logged; a model behind a server has a log already."""
    return getattr(getattr(model, "log", None), "path", log)


def report_unusable(replies: Sequence[Reply], item: str, log: str | Path) -> None:
    """Warn when at least a tenth of the answers are unusable."""
    counts = Counter(reply.flag for reply in replies if reply.flag)
    if counts and counts.total() >= WARNING_SHARE * len(replies):
        logger.warning(
            "WARNING: %d of %d answers hold no %s: %s. The answers are in the response log (%s)%s",
            counts.total(),
            len(replies),
            item,
            counts_in_words(counts, len(replies)),
            log,
            _cut_advice(counts),
        )


def no_usable_answer(replies: Sequence[Reply], item: str, log: str | Path) -> InputError | None:
    """The error of a job without a usable answer; None when there is one, or no request."""
    if not replies or any(reply.flag is None for reply in replies):
        return None
    counts = Counter(reply.flag or "" for reply in replies)
    return InputError(
        f"none of the {len(replies)} answers of the language model holds a {item}"
        f" ({counts_in_words(counts, len(replies))}). Read some answers in the response log"
        f" ({log}), and change the model or the prompt{_cut_advice(counts)}"
    )


def _cut_advice(counts: Mapping[str, int]) -> str:
    """How to fix cut answers, as the end of a message."""
    if not counts.get(CUT):
        return "."
    return "; for answers that were cut, raise --max-tokens or retry with --retry-tokens."


def generate_texts(
    model: LanguageModel, requests: Sequence[Request], log: str | Path, label: str = "write"
) -> list[Answer]:
    """Answers to requests, in order. An interrupted job resumes from the response log.

    A model behind a server keeps its own log. A local model answers fixed groups of requests, and
    a group is logged as a whole: the other texts of a batch may change the last digits of a score,
    and so a text, and a resumed job must end with the same texts.
    """
    remote = hasattr(model, "request_digest")
    answering: LanguageModel = model if remote else _LoggedModel(model, Path(log))
    size = 1 if remote else max(1, model.parallel)
    with (
        progress(len(requests), "texts", label) as bar,
        note_on_interrupt(lambda: describe_kept(bar.n, len(requests), f"texts in {log}")),
    ):

        def job(
            group: Sequence[Request],
        ) -> Generator[Sequence[Request], list[Answer], list[Answer]]:
            answers = yield group
            bar.update(len(group))
            return answers

        groups = [requests[start : start + size] for start in range(0, len(requests), size)]
        return [answer for answers in run_jobs(answering, map(job, groups)) for answer in answers]


class _LoggedModel:
    """A local model with a response log; a group of requests is read from it or answered whole."""

    def __init__(self, model: LanguageModel, log: Path) -> None:
        self._model, self._log = model, open_log(log)

    @property
    def identity(self) -> Mapping[str, Any]:
        return self._model.identity

    @property
    def parallel(self) -> int:
        return self._model.parallel

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        keys = [self._key(request) for request in requests]
        logged = [answer for key in keys if (answer := self._log.get(key)) is not None]
        if len(logged) == len(keys):
            return logged
        answers = self._model.answer(requests)
        for key, answer in zip(keys, answers, strict=True):
            self._log.add(key, answer, Spent())
        return answers

    def _key(self, request: Request) -> str:
        messages = [list(message) for message in request.messages]
        return digest([dict(self.identity), messages, request.max_tokens])
