"""A model behind a server: concurrent requests, a budget, and a log of all answers."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path
from typing import Any, Generic
from urllib.parse import urlsplit

from irdistill.errors import NotFoundError, OptionError, ServerError
from irdistill.storage.files import cache_folder, digest
from irdistill.teachers.llm.budget import Budget, Prices, Spent
from irdistill.teachers.llm.chat_answers import Usage
from irdistill.teachers.llm.language_model import Answer
from irdistill.teachers.llm.model_server import (
    Failure,
    ModelServer,
    ReplyT,
    RequestT,
    ServerAccess,
    check_url,
)
from irdistill.teachers.llm.reading import NO_ANSWER
from irdistill.teachers.llm.response_log import ResponseLog, open_log

logger = logging.getLogger(__name__)

_TIME_LIMIT = 600.0
#: A token count above this multiple of the (high) estimate is ignored.
_IMPLAUSIBLE = 100


@dataclass(frozen=True)
class ServingOptions:
    """How requests are sent to a server, what they may cost, and where the answers are kept.

    Attributes:
        url: replaces the card's. At another host or scheme, the card's key and prices are not used.
        key: replaces the card's.
        parallel: maximum number of concurrent requests.
        timeout: seconds without a byte before a request is tried again.
        time_limit: seconds of one try; ten minutes, or twice ``timeout``, if None.
        max_retries: number of tries after the first; the waits between them grow to 8 seconds.
        max_cost: budget, over everything in the log.
        max_requests: budget, over everything in the log.
        max_tokens_total: budget, over everything in the log.
        log: file of the response log; a file in the cache folder if None.
        replay: answer from the log only.
    """

    url: str | None = None
    key: str | None = None
    parallel: int = 8
    timeout: float = 120.0
    time_limit: float | None = None
    max_retries: int = 8
    max_cost: float | None = None
    max_requests: int | None = None
    max_tokens_total: int | None = None
    log: str | Path | None = None
    replay: bool = False

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("parallel", self.parallel, self.parallel >= 1),
            ("timeout", self.timeout, 0 < self.timeout < inf),
            ("time_limit", self.time_limit, 0 < self.seconds < inf),
            ("max_retries", self.max_retries, self.max_retries >= 0),
        ):
            if not valid:
                raise OptionError(
                    f"the setting {name}={value} is invalid; expected a larger number."
                )

    @property
    def seconds(self) -> float:
        """Seconds of one try."""
        if self.time_limit is None:
            return max(_TIME_LIMIT, 2 * self.timeout)
        return self.time_limit


class StoppedError(Exception):
    """Another request of the same call failed for good."""


class ServedModel(ABC, Generic[RequestT, ReplyT]):
    """A model behind a server.

    Each answer, and each refusal, is in the response log before it is returned, and a request that
    is in the log is not sent again. So answers are the same however often a job is started. If a
    request fails at all its tries, a tiny one is sent. If that is answered, the failed request gets
    the error ``no answer``; else the server is down, which raises.

    Args:
        model: name of the model on the server.
        server: settings of the card: ``url``, ``key``, ``prices``.
        identity: everything about the model that determines its answers.
        options: see `ServingOptions`.
    """

    def __init__(
        self,
        model: str,
        server: Mapping[str, Any],
        identity: Mapping[str, Any],
        options: ServingOptions,
    ) -> None:
        self.model, self.url = model, str(options.url or server.get("url") or "")
        check_url(self.url)
        card_url = str(server.get("url") or "")
        moved = options.url is not None and urlsplit(options.url)[:2] != urlsplit(card_url)[:2]
        self.identity = identity
        self.parallel, self._options = options.parallel, options
        self._log_path = Path(options.log) if options.log is not None else self.default_log()
        self._log: ResponseLog | None = None
        self._server: ModelServer[RequestT, ReplyT] | None = None
        if not options.replay:
            self._server = self._connect(
                self.url, options.key or (None if moved else server.get("key")), options
            )
        self._prices = None if moved else Prices.of(server.get("prices"))
        self._budget = Budget(
            lambda: self.log.spent,
            self._prices,
            options.max_cost,
            options.max_requests,
            options.max_tokens_total,
            str(self._log_path),
        )
        self._slots = threading.BoundedSemaphore(options.parallel)
        self._lock = threading.RLock()
        self._pending: dict[str, Future[Answer]] = {}
        self._tokens_per_guess = 1.0
        self._warned_of_usage = False

    @abstractmethod
    def _connect(
        self, url: str, key: str | None, options: ServingOptions
    ) -> ModelServer[RequestT, ReplyT]:
        """The client."""

    @abstractmethod
    def _probe(self) -> RequestT:
        """A tiny request, which a server that works answers."""

    @abstractmethod
    def _content(self, request: RequestT) -> Any:
        """What identifies a request, next to the model's identity: JSON values."""

    @abstractmethod
    def _guess_tokens(self, request: RequestT) -> int:
        """A high estimate of the tokens that the server reads for a request."""

    @abstractmethod
    def _to_answer(
        self, request: RequestT, reply: ReplyT | None, usage: Usage | None, cost: float
    ) -> Answer:
        """The answer that a reply is; without a reply, that there was `NO_ANSWER`."""

    @abstractmethod
    def _notes(self, request: RequestT, reply: ReplyT) -> dict[str, Any]:
        """More fields of an answer's line in the log."""

    def _worst(self, request: RequestT) -> Spent:
        """The most that one try of a request can take."""
        assert self._server is not None
        tokens = ceil(self._guess_tokens(request) * self._tokens_per_guess)
        return self._budget.worst(tokens, self._server.max_tokens(request))

    def _wait(self, request: RequestT) -> None:
        """Wait until the server's rate limits allow a try; called before each."""

    def _check(self, answer: Answer, spent: Spent) -> None:
        """Raise if an answer shows that no request can be answered."""

    @property
    def log(self) -> ResponseLog:
        """The response log; opened and locked at the first use."""
        with self._lock:
            if self._log is None or self._log.closed:
                self._log = open_log(self._log_path, self._options.replay)
            return self._log

    def close(self) -> None:
        """Close the response log, so that another process can use it; the next use opens it."""
        with self._lock:
            if self._log is not None:
                self._log.close()

    def default_log(self) -> Path:
        """The file of the response log in the cache folder."""
        name = re.sub(r"[^\w.-]+", "-", str(self.identity["model"]))[:80]
        return cache_folder() / "responses" / f"{name}-{digest(self.identity)}.jsonl"

    def answer(
        self, requests: Sequence[RequestT], done: Callable[[RequestT, Answer], Any] | None = None
    ) -> list[Answer]:
        """Answer requests, in their order, at most ``parallel`` at a time over all threads.

        When a request fails for good, no more are sent. Those in flight are waited for, because
        they are paid for.

        Args:
            done: called in this thread with each request and its answer.
        """
        stop = threading.Event()
        if len(requests) == 1 or self.parallel == 1:
            answers = []
            for request in requests:
                answers.append(self._answer(request, stop))
                if done is not None:
                    done(request, answers[-1])
            return answers
        pool = ThreadPoolExecutor(self.parallel, thread_name_prefix="answers")
        try:
            futures = [pool.submit(self._answer, request, stop) for request in requests]
            sent = dict(zip(futures, requests, strict=True))
            for future in as_completed(futures):
                if future.exception() is not None:
                    break
                if done is not None:
                    done(sent[future], future.result())
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
        errors = [
            error
            for future in futures
            if not future.cancelled() and (error := future.exception()) is not None
        ]
        if errors:
            raise next(
                (error for error in errors if not isinstance(error, StoppedError)), errors[0]
            )
        return [future.result() for future in futures]

    def request_digest(self, request: RequestT) -> str:
        """The key of a request in the log: 32 hexadecimal digits of its content and the model's
        identity.
        """
        return content_digest([self.identity, *self._content(request)])

    def _answer(self, request: RequestT, stop: threading.Event) -> Answer:
        """From the log, from another thread that sends the same request, or from the server."""
        key = self.request_digest(request)
        while True:
            with self._lock:
                logged = self.log.get(key)
                if logged is not None:
                    return logged
                if self._options.replay:
                    raise self._missing(key)
                future = self._pending.get(key)
                mine = future is None
                if future is None:
                    future = self._pending[key] = Future()
            if not mine:
                try:
                    return future.result()
                except StoppedError:
                    continue
            try:
                future.set_result(self._fetch(request, key, stop))
            except BaseException as error:
                stop.set()
                future.set_exception(error)
            finally:
                with self._lock:
                    del self._pending[key]
            return future.result()

    def _missing(self, key: str) -> NotFoundError:
        damaged = self.log.damaged
        note = f" ({damaged} of its lines are damaged and ignored)" if damaged else ""
        return NotFoundError(
            f"the response log {self._log_path} has no answer to the request {key} among its"
            f" {len(self.log)}{note}, and a replay sends no requests. Remove replay, or give the"
            " log of the job that you want to replay."
        )

    def _fetch(self, request: RequestT, key: str, stop: threading.Event) -> Answer:
        """Send a request; decide between request and server if it fails."""
        result = self._send(request, key, stop)
        if isinstance(result, Failure) and result.unbounded:
            result = self._send(request, key, stop)
        if isinstance(result, Answer):
            return result
        retries = 0 if result.unbounded else min(2, self._options.max_retries)
        answered = (
            result.reached
            and not result.busy
            and not result.retry_after
            and isinstance(self._send(self._probe(), None, stop, retries), Answer)
        )
        if not answered:
            raise self._down(result)
        logger.warning(
            "%s answers, but not the request %s (%s), which gets the flag %r",
            self.url,
            key,
            result.fault,
            NO_ANSWER,
        )
        answer = self._to_answer(request, None, None, 0.0)
        self.log.add(key, answer, Spent(), {"why": result.fault})
        return answer

    def _down(self, failure: Failure) -> ServerError:
        count = 2 if failure.unbounded else self._options.max_retries + 1
        asks = f", and asks to wait {failure.retry_after} seconds" if failure.retry_after else ""
        if failure.busy or failure.retry_after:
            advice = "Lower --parallel, or wait"
        elif failure.unbounded:
            advice = (
                "Check what answers there, or raise time_limit in the card's settings if the server"
                " is only slow"
            )
        else:
            advice = "Check that it runs, and check the url, which usually ends in /v1"
        return ServerError(
            f"the server {self.url} gave {failure.fault}{asks}; a request is tried {count} times."
            f" {advice}. All answers are kept in {self._log_path}: run the same command again to"
            " resume."
        )

    def _send(
        self,
        request: RequestT,
        key: str | None,
        stop: threading.Event,
        max_retries: int | None = None,
    ) -> Answer | Failure:
        """Send a request with retries, within the budget. Its answer is in the log afterwards."""
        assert self._server is not None
        with self._slots, _BudgetedTries(self, request, stop) as tries:
            reply = self._server.send(request, tries, max_retries)
            if isinstance(reply, Failure):
                return reply
            spent, usage, cost = tries.spent(reply.usage, tries.reserved)
            answer = self._to_answer(request, reply, usage, cost)
            if spent.requests and usage is None and not self._warned_of_usage:
                self._warned_of_usage = True
                logger.warning(
                    "the server %s does not report plausible token counts; the budget counts the"
                    " highest possible numbers",
                    self.url,
                )
            self._check(answer, spent)
            if key is None:
                self.log.add_spent(spent, "to check whether the server answers")
            else:
                self.log.add(key, answer, spent, self._notes(request, reply))
            return answer


def access_of(url: str, key: str | None, options: ServingOptions, max_bytes: int) -> ServerAccess:
    """Address, key and limits of a server."""
    return ServerAccess(url, key, options.timeout, options.seconds, options.max_retries, max_bytes)


def content_digest(content: Any) -> str:
    """32 hexadecimal digits of JSON values.

    Examples:
        >>> content_digest(["text"]) == content_digest(["text"]) != content_digest(["Text"])
        True
    """
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class _BudgetedTries:
    """Reserves the budget for each try of a request, and logs what failed tries cost.

    Attributes:
        reserved: whether a try is running or has succeeded.
    """

    def __init__(
        self, model: ServedModel[RequestT, ReplyT], request: RequestT, stop: threading.Event
    ) -> None:
        self._model: ServedModel[Any, Any] = model
        self._request, self._stop = request, stop
        self._reservation, self.reserved = ExitStack(), False
        self._guess = model._guess_tokens(request)
        self._worst = Spent()

    def __enter__(self) -> _BudgetedTries:
        return self

    def __exit__(self, *error: object) -> None:
        self._reservation.close()

    def begin(self) -> None:
        """Reserve the worst case of a try."""
        model = self._model
        if self._stop.is_set():
            raise StoppedError
        model._wait(self._request)
        self._worst = model._worst(self._request)
        self._reservation.enter_context(model._budget.reserve(self._worst))
        self.reserved = True
        if self._stop.is_set():
            raise StoppedError

    def fail(self, fault: str, billed: bool, usage: Usage | None = None) -> None:
        """Log what a failed try cost, and release its reservation."""
        spent, _, _ = self.spent(usage, billed)
        logger.debug("%s: %s", self._model.url, fault)
        if spent.requests:
            self._model.log.add_spent(spent, fault)
        self._reservation.close()
        self.reserved = False

    def spent(self, usage: Usage | None, billed: bool) -> tuple[Spent, Usage | None, float]:
        """What a try cost: as the server counted, or the worst case; also its plausible usage."""
        model = self._model
        if usage is not None and usage.input_tokens > _IMPLAUSIBLE * self._guess:
            usage = None
        if usage is None:
            return self._worst if billed else Spent(), None, 0.0
        model._tokens_per_guess = max(model._tokens_per_guess, usage.input_tokens / self._guess)
        cost = model._prices.cost(*usage) if model._prices else 0.0
        return Spent(1, usage.input_tokens + usage.output_tokens, cost), usage, cost
