"""Texts written by a language model, many of them: kept the moment they are there, so that a job that stops goes on."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from irdistill.errors import IrdistillError
from irdistill.files import digest
from irdistill.progress import kept_when_stopped, progress
from irdistill.teachers.llm.budget import Spent
from irdistill.teachers.llm.model import Answer, LanguageModel, Request
from irdistill.teachers.llm.queue import run_jobs
from irdistill.teachers.llm.response_log import open_log


def card_model(card: str) -> LanguageModel:
    """The language model of a card, whatever its prompt asks for elsewhere.

    Raises:
        IrdistillError: there is no such card, it is of no language model, or the model cannot be loaded.
    """
    from irdistill.teachers.llm.loading import load_language_model
    from irdistill.teachers.loading import LLM_KINDS, card_of

    found = card_of(card)
    if found.kind not in LLM_KINDS:
        raise IrdistillError(
            f"the card {card!r} is of the kind {found.kind}, which writes no text; name one of {', '.join(LLM_KINDS)}."
        )
    return load_language_model(found, {})


def write_texts(model: LanguageModel, requests: Sequence[Request], log: str | Path, label: str = "write") -> list[Answer]:
    """The answers to requests, in their order.

    Those of a model on this machine are kept in the response log ``log``; a model behind a server keeps its own. Requests of
    a local model are answered in fixed groups, since what stands beside a text in a batch may change its last digits: a job
    that was stopped ends with the same texts.

    Raises:
        IrdistillError: the log belongs to another process or is no log; or what the model raises.
    """
    remote = hasattr(model, "request_digest")
    asked: LanguageModel = model if remote else _Logged(model, Path(log))
    size = 1 if remote else max(1, model.parallel)
    with progress(len(requests), "texts", label) as bar, kept_when_stopped(lambda: f"{bar.n} of {len(requests)} texts in {log}"):

        def job(group: Sequence[Request]) -> Generator[Sequence[Request], list[Answer], list[Answer]]:
            answers = yield group
            bar.update(len(group))
            return answers

        groups = [requests[start : start + size] for start in range(0, len(requests), size)]
        return [answer for answers in run_jobs(asked, map(job, groups)) for answer in answers]


class _Logged:
    """A local model whose answers are kept in a log; a group of requests is taken from there or answered as a whole."""

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
            yield digest([dict(self.identity), [list(message) for message in request.messages], request.max_tokens])
