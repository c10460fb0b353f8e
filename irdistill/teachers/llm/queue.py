"""The work queue: many queries at a time ask a language model, and no query waits for the slowest
of the others.

A job is a generator that orders one query's documents. It yields the requests that it needs
answered next, is sent their answers, and returns its result. The queue keeps ``model.parallel``
requests in work over all jobs: the moment that the last answer a job waits for is there, its next
requests are ready and go to the model before any new job is begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Generic, NamedTuple, TypeVar

from irdistill.errors import IrdistillError
from irdistill.teachers.llm.language_model import CUT, Answer, LanguageModel, Request

T = TypeVar("T")

#: Yields requests that may all be answered at the same time, is sent their answers in the same
#: order, returns its result.
Job = Generator[Sequence[Request], list[Answer], T]


class Answers(NamedTuple):
    """Answers to some requests.

    Attributes:
        last: one for each request, in their order: what to read.
        all: those that were cut and asked for again as well: what was used up.
    """

    last: list[Answer]
    all: list[Answer]


def with_retry(
    requests: Sequence[Request], retry_tokens: int | None, is_cut: Callable[[int, Answer], bool]
) -> Job[Answers]:
    """Ask, and ask once more, with room for ``retry_tokens``, what the limit of tokens cut.

    Args:
        is_cut: whether the answer at a place cannot be used because it was cut.
    """
    first = yield requests
    places = [
        place
        for place, answer in enumerate(first)
        if retry_tokens is not None
        and requests[place].max_tokens < retry_tokens
        and is_cut(place, answer)
    ]
    if not places or retry_tokens is None:
        return Answers(first, first)
    second = yield [requests[place]._replace(max_tokens=retry_tokens) for place in places]
    last = list(first)
    for place, answer in zip(places, second, strict=True):
        if answer.error in (
            None,
            CUT,
        ):  # where there is no room for a longer one, what was cut stays so
            last[place] = answer
    return Answers(last, [*first, *second])


def check_retry(retry_tokens: int | None, answer_tokens: int | None = None) -> int | None:
    """The setting ``retry_tokens`` of a card.

    Raises:
        IrdistillError: it is no more than an answer may take at first.
    """
    if retry_tokens is not None and (
        isinstance(retry_tokens, bool)
        or not isinstance(retry_tokens, int)
        or retry_tokens <= (answer_tokens or 0)
    ):
        raise IrdistillError(
            f"retry_tokens is {retry_tokens}; a number of tokens above the {answer_tokens or 0} of"
            " a first answer was expected, or leave it out: then no answer is asked for twice."
        )
    return retry_tokens


def run_jobs(model: LanguageModel, jobs: Iterable[Job[T]]) -> list[T]:
    """Run jobs to their ends.

    A model with an attribute ``concurrent`` that is true (a server) is called from ``parallel``
    threads with one request each. Any other is called from this thread with up to ``parallel``
    requests that are ready. Jobs are begun only as there is room, so an iterator of jobs is held in
    memory a few jobs at a time. What a job is sent depends on its own requests alone, so results do
    not depend on which answer comes first.

    Returns:
        The results, in the order of the jobs.

    Raises:
        IrdistillError: the model gave another number of answers than it got requests.
        BaseException: whatever the model or a job raises, `KeyboardInterrupt` too. Nothing new is
            asked then; requests in work at a server are waited for, since they are paid and a
            response log keeps them; jobs are closed.
    """
    queue = _Queue(jobs)
    parallel = max(1, model.parallel)
    try:
        if getattr(model, "concurrent", False):
            _by_threads(model, queue, parallel)
        else:
            _by_batches(model, queue, parallel)
    finally:
        queue.close()
    return [queue.results[number] for number in range(len(queue.results))]


class _Step(Generic[T]):
    """What a job has asked, and the answers there are so far."""

    def __init__(self, number: int, job: Job[T], count: int) -> None:
        self.number, self.job, self.missing = number, job, count
        self.answers: list[Answer] = [Answer()] * count


class _Ticket(NamedTuple, Generic[T]):
    """One request, and where its answer belongs."""

    request: Request
    step: _Step[T]
    place: int


class _Queue(Generic[T]):
    """Jobs begun and not begun, and the requests that are ready, first come first served."""

    def __init__(self, jobs: Iterable[Job[T]]) -> None:
        self.results: dict[int, T] = {}
        self._waiting = enumerate(jobs)
        self._begun: dict[int, Job[T]] = {}
        self._ready: deque[_Ticket[T]] = deque()

    def take(self, count: int) -> list[_Ticket[T]]:
        """Up to so many requests; fewer only where no job can ask more before it has an answer."""
        while len(self._ready) < count:
            number, job = next(self._waiting, (-1, None))
            if job is None:
                break
            self._begun[number] = job
            self._go_on(number, job, None)
        return [self._ready.popleft() for _ in range(min(count, len(self._ready)))]

    def give(self, ticket: _Ticket[T], answer: Answer) -> None:
        step = ticket.step
        step.answers[ticket.place] = answer
        step.missing -= 1
        if not step.missing:
            self._go_on(step.number, step.job, step.answers)

    def close(self) -> None:
        for job in self._begun.values():
            job.close()

    def _go_on(self, number: int, job: Job[T], answers: list[Answer] | None) -> None:
        try:
            requests = next(job) if answers is None else job.send(answers)
            while not requests:
                requests = job.send([])
        except StopIteration as end:
            self.results[number] = end.value
            del self._begun[number]
            return
        step = _Step(number, job, len(requests))
        self._ready.extend(_Ticket(request, step, place) for place, request in enumerate(requests))


def _by_batches(model: LanguageModel, queue: _Queue[T], parallel: int) -> None:
    while tickets := queue.take(parallel):
        for ticket, answer in zip(
            tickets, _answers(model, [ticket.request for ticket in tickets]), strict=True
        ):
            queue.give(ticket, answer)


def _by_threads(model: LanguageModel, queue: _Queue[T], parallel: int) -> None:
    in_work: dict[Future[list[Answer]], _Ticket[T]] = {}
    with ThreadPoolExecutor(parallel, "ask") as pool:
        try:
            while True:
                for ticket in queue.take(parallel - len(in_work)):
                    in_work[pool.submit(_answers, model, [ticket.request])] = ticket
                if not in_work:
                    return
                done, _ = wait(in_work, return_when=FIRST_COMPLETED)
                for future in [one for one in in_work if one in done]:
                    queue.give(in_work.pop(future), future.result()[0])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _answers(model: LanguageModel, requests: list[Request]) -> list[Answer]:
    answers = model.answer(requests)
    if len(answers) != len(requests):
        raise IrdistillError(
            f"the language model gave {len(answers)} answers to {len(requests)} requests; one each"
            " was expected."
        )
    return answers
