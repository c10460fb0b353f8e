"""The request queue: what runs when, the order of results, and how it ends."""

from __future__ import annotations

import _thread
import random
import threading
import time
from collections.abc import Generator, Iterator, Sequence

import pytest

from irdistill import IrdistillError
from irdistill.teachers.llm.language_model import Answer, Message, Request
from irdistill.teachers.llm.queue import run_jobs


def ask(text: str) -> Request:
    return Request((Message("user", text),))


def chain(name: str, steps: int, width: int = 1) -> Generator[list[Request], list[Answer], str]:
    """Asks ``width`` requests a step; each step's requests hold the answers before."""
    state = name
    for step in range(steps):
        answers = yield [ask(f"{state}/{step}.{number}") for number in range(width)]
        state = name + "".join(answer.text[-1] for answer in answers)
    return state


class Echo:
    """Answers with the request's length after a short random delay."""

    def __init__(self, parallel: int = 3, concurrent: bool = False, delay: float = 0.0) -> None:
        self.parallel, self.concurrent, self.delay = parallel, concurrent, delay
        self.identity: dict[str, str] = {}
        self.calls: list[list[str]] = []
        self.in_work = self.most = 0
        self.lock = threading.Lock()

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        with self.lock:
            self.calls.append([request.messages[0].content for request in requests])
            self.in_work += 1
            self.most = max(self.most, self.in_work)
        if self.delay:
            time.sleep(random.random() * self.delay)
        with self.lock:
            self.in_work -= 1
        return [Answer(str(sum(request.messages[0].content.encode()) % 10)) for request in requests]


def jobs() -> Iterator[Generator[list[Request], list[Answer], str]]:
    return (chain(f"job{number}", 1 + number % 4, 1 + number % 3) for number in range(12))


def test_results_are_in_the_order_of_the_jobs_whatever_comes_first() -> None:
    expected = run_jobs(Echo(parallel=1), jobs())
    assert (
        all(result.startswith(f"job{number}") for number, result in enumerate(expected))
        and len(expected) == 12
    )
    for _ in range(5):
        model = Echo(parallel=5, concurrent=True, delay=0.004)
        assert run_jobs(model, jobs()) == expected
        assert 2 <= model.most <= 5 and all(len(call) == 1 for call in model.calls)
    assert run_jobs(Echo(parallel=7), jobs()) == expected


def test_batches_hold_what_is_ready_over_all_jobs() -> None:
    model = Echo(parallel=3)
    run_jobs(model, [chain("a", 3), chain("b", 1), chain("c", 2), chain("d", 2)])
    firsts = [[text[0] for text in call] for call in model.calls]
    assert firsts == [["a", "b", "c"], ["a", "c", "d"], ["a", "d"]]


def test_a_finished_window_starts_the_next_while_another_query_is_busy() -> None:
    gate, requested = threading.Event(), []

    class Slow(Echo):
        def answer(self, requests: Sequence[Request]) -> list[Answer]:
            text = requests[0].messages[0].content
            requested.append(text)
            if text.startswith("busy"):
                assert gate.wait(20), "the other query's later windows never began"
            if text.startswith("quick") and text.endswith("/2.0"):
                gate.set()
            return super().answer(requests)

    done = run_jobs(Slow(parallel=2, concurrent=True), [chain("busy", 1), chain("quick", 3)])
    assert len(done) == 2 and gate.is_set()
    assert sorted(text.split("/")[-1] for text in requested if text.startswith("quick")) == [
        "0.0",
        "1.0",
        "2.0",
    ]


def test_jobs_start_only_when_there_is_room() -> None:
    begun = []

    def counted() -> Iterator[Generator[list[Request], list[Answer], str]]:
        for number in range(50):
            begun.append(number)
            yield chain(str(number), 1, 4)

    class Watching(Echo):
        def answer(self, requests: Sequence[Request]) -> list[Answer]:
            assert len(begun) <= 1 + (len(self.calls) + 1) * self.parallel // 4
            return super().answer(requests)

    assert len(run_jobs(Watching(parallel=4), counted())) == 50


def test_a_job_may_send_no_requests() -> None:
    def silent() -> Generator[list[Request], list[Answer], str]:
        assert (yield []) == []
        return "nothing"
        yield []

    assert run_jobs(Echo(), [silent(), chain("a", 1), silent()])[::2] == ["nothing", "nothing"]
    assert run_jobs(Echo(), []) == []


@pytest.mark.parametrize("concurrent", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, IrdistillError])
def test_an_error_of_the_model_stops_everything(
    concurrent: bool, error: type[BaseException]
) -> None:
    closed = []

    def watched(number: int) -> Generator[list[Request], list[Answer], str]:
        try:
            return (yield from chain(f"w{number}", 5))
        finally:
            closed.append(number)

    class Failing(Echo):
        def answer(self, requests: Sequence[Request]) -> list[Answer]:
            answered = super().answer(requests)
            if len(self.calls) >= 4:
                raise error("no server")
            return answered

    model = Failing(parallel=2, concurrent=concurrent)
    before = threading.active_count()
    with pytest.raises(error):
        run_jobs(model, (watched(number) for number in range(20)))
    assert 4 <= len(model.calls) <= 6
    assert sorted(closed) == list(range(len(closed))) and len(closed) >= 2
    assert threading.active_count() == before


def test_an_interrupted_queue_sends_no_new_requests() -> None:
    class Interrupted(Echo):
        def answer(self, requests: Sequence[Request]) -> list[Answer]:
            if len(self.calls) == 3:
                _thread.interrupt_main()
                time.sleep(0.2)
            return super().answer(requests)

    model = Interrupted(parallel=1, concurrent=True)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(model, [chain("a", 50)])
    assert len(model.calls) == 4


def test_an_error_of_a_job_is_raised() -> None:
    def broken() -> Generator[list[Request], list[Answer], str]:
        yield [ask("x")]
        raise ValueError("broken job")

    with pytest.raises(ValueError, match="broken job"):
        run_jobs(Echo(), [chain("a", 9), broken()])


@pytest.mark.parametrize("concurrent", [False, True])
def test_another_number_of_answers_is_an_error(concurrent: bool) -> None:
    class Short(Echo):
        def answer(self, requests: Sequence[Request]) -> list[Answer]:
            return super().answer(requests)[:-1]

    with pytest.raises(IrdistillError, match=r"gave [01] answers to [12] requests"):
        run_jobs(Short(parallel=2, concurrent=concurrent), [chain("a", 1), chain("b", 1)])
