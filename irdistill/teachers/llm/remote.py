"""Language models behind an OpenAI-compatible server: concurrent requests, a budget, and a log of
all answers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, inf
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np

from irdistill.errors import NotFoundError, OptionError, ServerError
from irdistill.storage.files import cache_folder, digest
from irdistill.storage.plain_data import check_values
from irdistill.teachers.llm.budget import Budget, Prices, Spent
from irdistill.teachers.llm.chat_answers import NO_LOGPROBS, Completion, Usage
from irdistill.teachers.llm.chat_server import TOP_LOGPROBS, ChatServer, Failure, check_url
from irdistill.teachers.llm.language_model import Answer, Message, Request
from irdistill.teachers.llm.reading import NO_ANSWER
from irdistill.teachers.llm.response_log import ResponseLog, open_log

logger = logging.getLogger(__name__)

_TIME_LIMIT = 600.0
#: A token count above this multiple of the (high) estimate is ignored.
_IMPLAUSIBLE = 100
_PROBE = Request((Message("user", "Answer with the word yes."),), max_tokens=16)


@dataclass(frozen=True)
class ServerCard:
    """The server of a card; see `ServerModel`."""

    url: str | None = None
    name: str | None = None
    key: str | None = None
    prices: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    labels: Literal["logprobs", "text"] = "logprobs"


class _StoppedError(Exception):
    """Another request of the same call failed for good."""


class ServerModel:
    """A language model behind a server with the chat-completions interface.

    Each answer, and each refusal, is in the response log before it is returned, and a request that
    is in the log is not sent again. So answers are the same however often a job is started. If a
    request fails at all its tries, a tiny one is sent. If that is answered, the failed request gets
    the error ``no answer``; else the server is down, which raises.

    Args:
        model: name of the model on the server.
        server: settings of the card: ``url``; ``key``, the name of an environment variable;
            ``prices``; ``parameters``, added to the body of every request; ``labels``, ``logprobs``
            or ``text`` (see `chat_answers.read_completion`); ``name``, which replaces the url in
            the identity and in the log if several servers, or one with a changing address, count as
            the same.
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

    #: `run_jobs` sends requests from several threads.
    concurrent = True

    def __init__(
        self,
        model: str,
        server: Mapping[str, Any],
        *,
        url: str | None = None,
        key: str | None = None,
        parallel: int = 8,
        timeout: float = 120.0,
        time_limit: float | None = None,
        max_retries: int = 8,
        max_cost: float | None = None,
        max_requests: int | None = None,
        max_tokens_total: int | None = None,
        log: str | Path | None = None,
        replay: bool = False,
    ) -> None:
        check_values(server, ServerCard, "the card's server")
        card = ServerCard(**server)
        labels, parameters = card.labels, card.parameters or {}
        time_limit = max(_TIME_LIMIT, 2 * timeout) if time_limit is None else time_limit
        for name, value, valid in (
            ("parallel", parallel, parallel >= 1),
            ("timeout", timeout, 0 < timeout < inf),
            ("time_limit", time_limit, 0 < time_limit < inf),
            ("max_retries", max_retries, max_retries >= 0),
        ):
            if not valid:
                raise OptionError(
                    f"the setting {name}={value} is invalid; expected a larger number."
                )
        self.model, self.url = model, url or card.url
        check_url(self.url)
        moved = url is not None and urlsplit(url)[:2] != urlsplit(card.url or "")[:2]
        self.identity: Mapping[str, Any] = {
            "backend": "openai",
            "api": "chat completions",
            "model": model,
            "server": card.name or str(self.url).rstrip("/"),
            "parameters": dict(parameters),
            "labels": labels if labels == "text" else f"top {TOP_LOGPROBS} log-probabilities",
        }
        self.parallel, self._max_retries, self._replay = parallel, max_retries, replay
        self._log_path = Path(log) if log is not None else _default_log(self.identity)
        self._log: ResponseLog | None = None
        self._server: ChatServer | None = None
        if not replay:
            self._server = ChatServer(
                model,
                str(self.url),
                key or (None if moved else card.key),
                parameters,
                logprobs=labels == "logprobs",
                timeout=timeout,
                time_limit=time_limit,
                max_retries=max_retries,
            )
        self._prices = None if moved else Prices.of(card.prices)
        self._budget = Budget(
            lambda: self.log.spent,
            self._prices,
            max_cost,
            max_requests,
            max_tokens_total,
            str(self._log_path),
        )
        self._slots, self._lock = threading.BoundedSemaphore(parallel), threading.RLock()
        self._pending: dict[str, Future[Answer]] = {}
        self._tokens_per_guess = 1.0
        self._warned_of_usage = False

    @property
    def log(self) -> ResponseLog:
        """The response log; opened and locked at the first use."""
        with self._lock:
            if self._log is None:
                self._log = open_log(self._log_path, self._replay)
            return self._log

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer requests, in their order, at most ``parallel`` at a time over all threads.

        When a request fails for good, no more are sent. Those in flight are waited for, because
        they are paid for.
        """
        stop = threading.Event()
        if len(requests) == 1 or self.parallel == 1:
            return [self._answer(request, stop) for request in requests]
        pool = ThreadPoolExecutor(self.parallel, thread_name_prefix="answers")
        try:
            futures = [pool.submit(self._answer, request, stop) for request in requests]
            wait(futures, return_when=FIRST_EXCEPTION)
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
                (error for error in errors if not isinstance(error, _StoppedError)), errors[0]
            )
        return [future.result() for future in futures]

    def request_digest(self, request: Request) -> str:
        """The key of a request in the log: 32 hexadecimal digits of its content and the model's
        identity.
        """
        content = [
            self.identity,
            [list(message) for message in request.messages],
            list(request.labels),
            request.max_tokens,
        ]
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _answer(self, request: Request, stop: threading.Event) -> Answer:
        """From the log, from another thread that sends the same request, or from the server."""
        key = self.request_digest(request)
        while True:
            with self._lock:
                logged = self.log.get(key)
                if logged is not None:
                    return logged
                if self._replay:
                    raise self._missing(key)
                future = self._pending.get(key)
                mine = future is None
                if future is None:
                    future = self._pending[key] = Future()
            if not mine:
                try:
                    return future.result()
                except _StoppedError:
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

    def _fetch(self, request: Request, key: str, stop: threading.Event) -> Answer:
        """Send a request; decide between request and server if it fails."""
        result = self._send(request, key, stop)
        if isinstance(result, Failure) and result.unbounded:
            result = self._send(request, key, stop)
        if isinstance(result, Answer):
            return result
        answered = (
            result.reached
            and not result.busy
            and not result.retry_after
            and isinstance(
                self._send(
                    _PROBE, None, stop, 0 if result.unbounded else min(2, self._max_retries)
                ),
                Answer,
            )
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
        answer = _to_answer(request, Completion(error=NO_ANSWER))
        self.log.add(key, answer, Spent(), {"why": result.fault})
        return answer

    def _down(self, failure: Failure) -> ServerError:
        count = 2 if failure.unbounded else self._max_retries + 1
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
        request: Request,
        key: str | None,
        stop: threading.Event,
        max_retries: int | None = None,
    ) -> Answer | Failure:
        """Send a request with retries, within the budget. Its answer is in the log afterwards."""
        assert self._server is not None
        with self._slots, _BudgetedTries(self, request, stop) as tries:
            completion = self._server.send(request, tries, max_retries)
            if isinstance(completion, Failure):
                return completion
            spent, usage, cost = tries.spent(completion.usage, tries.reserved)
            answer = _to_answer(request, completion._replace(usage=usage), cost)
            if spent.requests and usage is None and not self._warned_of_usage:
                self._warned_of_usage = True
                logger.warning(
                    "the server %s does not report plausible token counts; the budget counts the"
                    " highest possible numbers",
                    self.url,
                )
            if answer.error == NO_LOGPROBS and self.identity["labels"] != "text":
                self.log.add_spent(spent, NO_LOGPROBS)
                raise ServerError(
                    f"the server {self.url} reports no log-probabilities for the model"
                    f" {self.model!r}. Use a server that does, or a teacher that reads text"
                    " (llm-listwise), with labels: text in the card's server."
                )
            if key is None:
                self.log.add_spent(spent, "to check whether the server answers")
            else:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                self.log.add(key, answer, spent, {"model": completion.model, "time": now})
            return answer


class _BudgetedTries:
    """Reserves the budget for each try of a request, and logs what failed tries cost.

    Attributes:
        reserved: whether a try is running or has succeeded.
    """

    def __init__(self, model: ServerModel, request: Request, stop: threading.Event) -> None:
        self._model, self._request, self._stop = model, request, stop
        self._reservation, self.reserved = ExitStack(), False
        self._guess = _guess_tokens(request)
        self._worst = Spent()

    def __enter__(self) -> _BudgetedTries:
        return self

    def __exit__(self, *error: object) -> None:
        self._reservation.close()

    def begin(self) -> None:
        """Reserve the worst case of a try."""
        model = self._model
        if self._stop.is_set():
            raise _StoppedError
        assert model._server is not None
        self._worst = model._budget.worst(
            ceil(self._guess * model._tokens_per_guess), model._server.max_tokens(self._request)
        )
        self._reservation.enter_context(model._budget.reserve(self._worst))
        self.reserved = True
        if self._stop.is_set():
            raise _StoppedError

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


def _to_answer(request: Request, completion: Completion, cost: float = 0.0) -> Answer:
    labels = completion.labels
    if labels is None and request.labels:
        labels = np.full(len(request.labels), np.nan, dtype=np.float32)
    usage = completion.usage or (0, 0, 0)
    return Answer(completion.text, labels, completion.error, *usage, cost, completion.cut)


def _guess_tokens(request: Request) -> int:
    """More tokens than a prompt has in most languages: one per three bytes, plus some."""
    texts = (message.content.encode("utf-8", "surrogatepass") for message in request.messages)
    return sum(map(len, texts)) // 3 + 8 * (len(request.messages) + 2)


def _default_log(identity: Mapping[str, Any]) -> Path:
    name = re.sub(r"[^\w.-]+", "-", str(identity["model"]))[:80]
    return cache_folder() / "responses" / f"{name}-{digest(identity)}.jsonl"
