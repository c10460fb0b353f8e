"""A queue that keeps a language model busy with the requests of many jobs.

A job is a generator. It yields the requests that it needs answered next, is sent their answers, and
returns its result. The queue keeps ``model.parallel`` requests in flight over all jobs. As soon as
the last answer that a job waits for arrives, its next requests are ready, and they go to the model
before any new job starts. So no job waits for the slowest of the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Generic, NamedTuple, TypeVar

from irdistill.errors import ModelError, OptionError
from irdistill.teachers.llm.language_model import CUT, Answer, LanguageModel, Request

T = TypeVar("T")

#: Yields requests that may be answered at the same time, is sent their answers in the same order,
#: and returns its result.
RequestJob = Generator[Sequence[Request], list[Answer], T]


class Answers(NamedTuple):
    """Answers to some requests.

    Attributes:
        last: the answer to read for each request, in their order.
        all: also those that were cut and requested again, for the usage.
    """

    last: list[Answer]
    all: list[Answer]


def with_retry(
    requests: Sequence[Request], retry_tokens: int | None, is_cut: Callable[[int, Answer], bool]
) -> RequestJob[Answers]:
    """Send requests, and send those whose answers were cut once more with a larger token limit.

    Args:
        retry_tokens: token limit of the second try (of the thinking, if it has a limit); no second
            try if None.
        is_cut: whether the answer to request i cannot be used because it was cut.
    """
    first = yield requests
    if retry_tokens is None:
        return Answers(first, first)
    places = [
        place
        for place, answer in enumerate(first)
        if _limit(requests[place]) < retry_tokens and is_cut(place, answer)
    ]
    if not places:
        return Answers(first, first)
    second = yield [requests[place].with_room(retry_tokens) for place in places]
    last = list(first)
    for place, answer in zip(places, second, strict=True):
        # If the context has no room for a longer answer, the cut one stays.
        if answer.error in (None, CUT):
            last[place] = answer
    return Answers(last, [*first, *second])


def _limit(request: Request) -> int:
    return request.thinking_tokens or request.max_tokens


def check_thinking(thinking_tokens: int | None, prompt: Mapping[str, Any]) -> int:
    """Check the setting ``thinking_tokens`` of a card, and return it; 0 for None."""
    if thinking_tokens is not None and (type(thinking_tokens) is not int or thinking_tokens < 1):
        raise OptionError(
            f"thinking_tokens is {thinking_tokens}; expected at least 1. Leave it out for a model"
            " that does not think."
        )
    if thinking_tokens and prompt.get("assistant"):
        raise OptionError(
            "the prompt begins the answer (assistant), so that the model cannot think before it."
            " Remove assistant, or thinking_tokens."
        )
    return thinking_tokens or 0


def check_retry(
    retry_tokens: int | None, answer_tokens: int | None = None, thinking_tokens: int = 0
) -> int | None:
    """Check the setting ``retry_tokens`` of a card, and return it."""
    least = thinking_tokens or answer_tokens or 0
    if retry_tokens is not None and (type(retry_tokens) is not int or retry_tokens <= least):
        raise OptionError(
            f"retry_tokens is {retry_tokens}; expected a number of tokens above {least}, the limit"
            f" of the first {'thinking' if thinking_tokens else 'answer'}. Leave it out to try only"
            " once."
        )
    return retry_tokens


def run_jobs(model: LanguageModel, jobs: Iterable[RequestJob[T]]) -> list[T]:
    """Run jobs to their ends.

    A model whose attribute ``concurrent`` is true (a server) is called from ``parallel`` threads
    with one request each; any other from this thread, with up to ``parallel`` requests. Jobs are
    started only when there is room, so an iterator of jobs is read a few jobs at a time. The
    answers that a job is sent depend on its own requests only, so results do not depend on which
    answer arrives first.

    Returns:
        The results, in the order of the jobs.
    """
    queue = _Queue(jobs)
    parallel = max(1, model.parallel)
    try:
        if getattr(model, "concurrent", False):
            _run_in_threads(model, queue, parallel)
        else:
            _run_in_batches(model, queue, parallel)
    finally:
        queue.close()
    return [queue.results[number] for number in range(len(queue.results))]


class _Step(Generic[T]):
    """The requests of a job that are in flight, and the answers so far."""

    def __init__(self, number: int, job: RequestJob[T], count: int) -> None:
        self.number, self.job, self.missing = number, job, count
        self.answers: list[Answer] = [Answer()] * count


class _Ticket(NamedTuple, Generic[T]):
    """One request, and the place of its answer."""

    request: Request
    step: _Step[T]
    place: int


class _Queue(Generic[T]):
    """The jobs, and the requests that are ready, first in, first out."""

    def __init__(self, jobs: Iterable[RequestJob[T]]) -> None:
        self.results: dict[int, T] = {}
        self._waiting = enumerate(jobs)
        self._started: dict[int, RequestJob[T]] = {}
        self._ready: deque[_Ticket[T]] = deque()

    def take(self, count: int) -> list[_Ticket[T]]:
        """Up to ``count`` requests; fewer only if all jobs wait for answers."""
        while len(self._ready) < count:
            number, job = next(self._waiting, (-1, None))
            if job is None:
                break
            self._started[number] = job
            self._advance(number, job, None)
        return [self._ready.popleft() for _ in range(min(count, len(self._ready)))]

    def give(self, ticket: _Ticket[T], answer: Answer) -> None:
        step = ticket.step
        step.answers[ticket.place] = answer
        step.missing -= 1
        if not step.missing:
            self._advance(step.number, step.job, step.answers)

    def close(self) -> None:
        for job in self._started.values():
            job.close()

    def _advance(self, number: int, job: RequestJob[T], answers: list[Answer] | None) -> None:
        try:
            requests = next(job) if answers is None else job.send(answers)
            while not requests:
                requests = job.send([])
        except StopIteration as end:
            self.results[number] = end.value
            del self._started[number]
            return
        step = _Step(number, job, len(requests))
        self._ready.extend(_Ticket(request, step, place) for place, request in enumerate(requests))


def _run_in_batches(model: LanguageModel, queue: _Queue[T], parallel: int) -> None:
    while tickets := queue.take(parallel):
        answers = _answer(model, [ticket.request for ticket in tickets])
        for ticket, answer in zip(tickets, answers, strict=True):
            queue.give(ticket, answer)


def _run_in_threads(model: LanguageModel, queue: _Queue[T], parallel: int) -> None:
    running: dict[Future[list[Answer]], _Ticket[T]] = {}
    with ThreadPoolExecutor(parallel, "requests") as pool:
        try:
            while True:
                for ticket in queue.take(parallel - len(running)):
                    running[pool.submit(_answer, model, [ticket.request])] = ticket
                if not running:
                    return
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in [future for future in running if future in finished]:
                    queue.give(running.pop(future), future.result()[0])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _answer(model: LanguageModel, requests: list[Request]) -> list[Answer]:
    answers = model.answer(requests)
    if len(answers) != len(requests):
        raise ModelError(
            f"the language model gave {len(answers)} answers to {len(requests)} requests; expected"
            " one per request."
        )
    return answers
