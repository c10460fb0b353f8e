"""Language models behind any OpenAI-compatible server: parallel, patient, within a budget, and
never paid twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from datetime import UTC, datetime
from math import ceil, inf
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from irdistill.errors import IrdistillError
from irdistill.storage.files import cache_folder, digest
from irdistill.teachers.llm.budget import Budget, Prices, Spent
from irdistill.teachers.llm.chat_answers import NO_LOGPROBS, Completion
from irdistill.teachers.llm.chat_server import TOP_LOGPROBS, ChatServer, Outcome, check_url
from irdistill.teachers.llm.language_model import Answer, Message, Request
from irdistill.teachers.llm.reading import NO_ANSWER
from irdistill.teachers.llm.response_log import ResponseLog, open_log

logger = logging.getLogger(__name__)

_KNOWN = ("url", "name", "key", "prices", "parameters", "labels")
_LONGEST_BACKOFF, _LONGEST_WAIT, _TIME_LIMIT = 60.0, 600.0, 600.0
#: Tries of a request whose response does not end; each may take the whole time limit.
_ENDLESS_TRIES = 2
#: A server that counts more tokens than so many times our own (high) estimate is not believed, nor
#: is the estimate raised above it.
_IMPLAUSIBLE = 100
_PROBE = Request((Message("user", "Answer with the word yes."),), max_tokens=16)


class _Stopped(Exception):
    """Another request of the same call failed for good."""


class ServerModel:
    """A language model behind a server with the chat-completions interface, asked through the
    official client.

    Every answer, and every refusal, is in the response log before it is returned, and a request
    that is in the log is not sent again, so an answer is what it was however often a job is
    started. Faults of the moment (429, 5xx, time limits, cut connections, responses that cannot be
    read) are tried again after a wait that doubles. If a request still fails, a tiny one is sent:
    where that is answered, the fault lies in the request, which gets the error ``no answer``; else
    the server is down, and that raises.

    Args:
        server: of the card: ``url``; ``key``, the name of an environment variable; ``prices``;
            ``parameters``, added to every request's body; ``labels``, ``logprobs`` or ``text``
            (`chat_answers.read_completion`); ``name``, which stands for the url in the identity and
            in the log where several servers, or one at a changing address, count as the same.
        url, key: in place of the card's. At another host or scheme than the card's, its key and
            prices are not used.
        parallel: requests in flight at most.
        timeout: seconds without a byte before a request is tried again.
        time_limit: seconds of one try in all, however steadily bytes come; ten minutes, or twice
            ``timeout``, where None.
        max_retries: tries after the first.
        backoff: seconds before the first retry.
        max_cost, max_requests, max_tokens_total: the budget, over all that the log holds.
        log: the response log's file; a file of this model and server in the cache folder where
            None.
        replay: answer from the log alone, and raise where it has no answer.

    Raises:
        IrdistillError: the card's server or a setting is faulty, or the key is missing.
        MissingExtraError: there is no ``openai``.
    """

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
        max_retries: int = 6,
        backoff: float = 1.0,
        max_cost: float | None = None,
        max_requests: int | None = None,
        max_tokens_total: int | None = None,
        log: str | Path | None = None,
        replay: bool = False,
    ) -> None:
        unknown = sorted(set(server) - set(_KNOWN))
        labels = server.get("labels", "logprobs")
        parameters = server.get("parameters") or {}
        if unknown or labels not in ("logprobs", "text") or not isinstance(parameters, Mapping):
            raise IrdistillError(
                "the card's server has"
                f" {', '.join(unknown) or f'labels {labels!r} and parameters {parameters!r}'}; it"
                f" takes {', '.join(_KNOWN)}, labels being logprobs or text, and parameters a"
                " mapping."
            )
        time_limit = max(_TIME_LIMIT, 2 * timeout) if time_limit is None else time_limit
        if not (
            parallel >= 1
            and 0 < timeout < inf
            and 0 < time_limit < inf
            and max_retries >= 0
            and 0 <= backoff < inf
        ):
            raise IrdistillError(
                f"parallel={parallel}, timeout={timeout}, time_limit={time_limit},"
                f" max_retries={max_retries}, backoff={backoff} were given; at least 1, above 0,"
                " above 0, at least 0 and at least 0 were expected."
            )
        self.model, self.url = model, url or server.get("url")
        check_url(self.url)
        moved = url is not None and urlsplit(url)[:2] != urlsplit(server.get("url") or "")[:2]
        prices = None if moved else Prices.of(server.get("prices"))
        self._identity = {
            "backend": "openai",
            "api": "chat completions",
            "model": model,
            "server": server.get("name") or str(self.url).rstrip("/"),
            "parameters": dict(parameters),
            "labels": labels if labels == "text" else f"top {TOP_LOGPROBS} log-probabilities",
        }
        self._parallel, self._max_retries, self._backoff, self._replay = (
            parallel,
            max_retries,
            backoff,
            replay,
        )
        self._place = Path(log) if log is not None else _usual_log(self._identity)
        self._log: ResponseLog | None = None
        self._server = (
            None
            if replay
            else ChatServer(
                model,
                str(self.url),
                key or (None if moved else server.get("key")),
                parameters,
                labels == "logprobs",
                timeout,
                time_limit,
            )
        )
        self._prices = prices
        self._budget = Budget(
            lambda: self.log.spent,
            prices,
            max_cost,
            max_requests,
            max_tokens_total,
            str(self._place),
        )
        self._slots, self._lock = threading.BoundedSemaphore(parallel), threading.RLock()
        self._flying: dict[str, Future[Answer]] = {}
        self._resume_at, self._tokens_per_guess = 0.0, 1.0
        self._unsaid = False

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model, server and parameters; never a key."""
        return self._identity

    @property
    def parallel(self) -> int:
        """Requests in flight at most."""
        return self._parallel

    @property
    def log(self) -> ResponseLog:
        """The response log, opened and locked when it is first needed.

        Raises:
            IrdistillError: another process holds it, or it is no log.
        """
        with self._lock:
            if self._log is None:
                self._log = open_log(self._place, self._replay)
            return self._log

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer requests, in their order, at most ``parallel`` at a time however many threads
        call.

        When one fails for good no more are sent; those in flight are waited for, since they are
        paid for.

        Raises:
            IrdistillError: the budget is spent, the server refuses every request or is down, or the
                log cannot be written; in a replay, a request is not in the log. The answers that
                came are in the log.
        """
        stop = threading.Event()
        if len(requests) == 1 or self._parallel == 1:
            return [self._one(request, stop) for request in requests]
        pool = ThreadPoolExecutor(self._parallel, thread_name_prefix="answers")
        try:
            futures = [pool.submit(self._one, request, stop) for request in requests]
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
            raise next((error for error in errors if not isinstance(error, _Stopped)), errors[0])
        return [future.result() for future in futures]

    def request_digest(self, request: Request) -> str:
        """What the log knows a request by: 32 hexadecimal digits of its content and of the model's
        identity.
        """
        content = [
            self._identity,
            [list(message) for message in request.messages],
            list(request.labels),
            request.max_tokens,
        ]
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _one(self, request: Request, stop: threading.Event) -> Answer:
        """From the log, from a call that is asking the same right now, or from the server."""
        key = self.request_digest(request)
        while True:
            with self._lock:
                logged = self.log.get(key)
                if logged is not None:
                    return logged
                if self._replay:
                    damaged = (
                        f" ({self.log.damaged} of its lines are damaged and left out)"
                        if self.log.damaged
                        else ""
                    )
                    raise IrdistillError(
                        f"the response log {self._place} has no answer to the request {key} among"
                        f" its {len(self.log)}{damaged}, and replay asks no server; take replay"
                        " out, or give the log of the job that is to be replayed."
                    )
                asked = self._flying.get(key)
                own = asked is None
                future: Future[Answer] = Future() if asked is None else asked
                self._flying[key] = future
            if not own:
                try:
                    return future.result()
                except _Stopped:
                    continue
            try:
                future.set_result(self._fetch(request, key, stop))
            except BaseException as error:
                stop.set()
                future.set_exception(error)
            finally:
                with self._lock:
                    del self._flying[key]
            return future.result()

    def _fetch(self, request: Request, key: str, stop: threading.Event) -> Answer:
        fault, endless = Outcome(), 0
        for attempt in range(self._max_retries + 1):
            found = self._try(request, key, stop)
            if isinstance(found, Answer):
                return found
            fault = found
            endless += fault.endless
            if endless >= _ENDLESS_TRIES:
                break
            logger.debug("%s: %s at try %d", self.url, fault.fault, attempt + 1)
            if fault.retry_after is not None and fault.retry_after > _LONGEST_WAIT:
                break
            if attempt < self._max_retries:
                self._back_off(fault, attempt, stop)
        return self._give_up(request, key, fault, stop)

    def _back_off(self, fault: Outcome, attempt: int, stop: threading.Event) -> None:
        """Wait before another try. What a server asks for holds back all requests; a wait of ours
        only this one.
        """
        if fault.retry_after is not None:
            self._resume_at = max(self._resume_at, time.monotonic() + fault.retry_after)
        else:
            _wait(
                stop, min(_LONGEST_BACKOFF, self._backoff * 2.0**attempt) * random.uniform(0.5, 1)
            )

    def _give_up(self, request: Request, key: str, fault: Outcome, stop: threading.Event) -> Answer:
        """Is it the request, or the server?"""
        busy = fault.busy or (fault.retry_after or 0) > _LONGEST_WAIT
        tries = 1 if fault.endless else 3
        if (
            fault.reached
            and not busy
            and any(isinstance(self._try(_PROBE, None, stop), Answer) for _ in range(tries))
        ):
            logger.warning(
                "%s answers, but not the request %s (%s), which is flagged %r",
                self.url,
                key,
                fault.fault,
                NO_ANSWER,
            )
            answer = _answer(request, Completion(error=NO_ANSWER))
            self.log.add(key, answer, Spent(), {"why": fault.fault})
            return answer
        advice = (
            "lower --parallel, or wait"
            if busy
            else (
                "check what answers there, or raise time_limit in the card's settings if it is only"
                " slow"
                if fault.endless
                else "check that it runs, and the url, which mostly ends in /v1"
            )
        )
        count = _ENDLESS_TRIES if fault.endless else self._max_retries + 1
        asks = f", and asks to wait {fault.retry_after:.0f} seconds" if fault.retry_after else ""
        raise IrdistillError(
            f"the server {self.url} gave {fault.fault}{asks}, and a request is tried {count} times;"
            f" {advice}. All answers so far are kept in {self._place}, and the same command goes on"
            " from there."
        )

    def _try(self, request: Request, key: str | None, stop: threading.Event) -> Answer | Outcome:
        """Send a request once, within the budget; what comes of it is in the log when this
        returns.
        """
        assert self._server is not None
        while (left := self._resume_at - time.monotonic()) > 0 and not stop.is_set():
            _wait(stop, left + random.uniform(0, min(1.0, self._backoff)))
        guess = _guess_tokens(request)
        with self._slots, ExitStack() as held:
            # Only now, since what was answered while this waited for a slot may have raised the
            # guess.
            worst = self._budget.worst(
                ceil(guess * self._tokens_per_guess), self._server.max_tokens(request)
            )
            held.enter_context(self._budget.reserve(worst))
            if stop.is_set():
                raise _Stopped
            found = self._server.send(request)
            completion = found.completion or Completion()
            usage = completion.usage
            if usage is not None and usage.input_tokens > _IMPLAUSIBLE * guess:
                completion, usage = completion._replace(usage=None), None
            if usage is not None:
                self._tokens_per_guess = max(self._tokens_per_guess, usage.input_tokens / guess)
            cost = self._prices.cost(*usage) if usage and self._prices else 0.0
            spent = (
                Spent(1, usage.input_tokens + usage.output_tokens, cost)
                if usage
                else worst
                if found.billed
                else Spent()
            )
            if found.fault is not None:
                if spent.requests:
                    self.log.add_spent(spent, found.fault)
                return found
            return self._keep(key, _answer(request, completion, cost), spent, completion)

    def _keep(
        self, key: str | None, answer: Answer, spent: Spent, completion: Completion
    ) -> Answer:
        if spent.requests and completion.usage is None and not self._unsaid:
            self._unsaid = True
            logger.warning(
                "the server %s does not say how many tokens it read, or numbers that cannot be; the"
                " budget counts the most it can be",
                self.url,
            )
        if answer.error == NO_LOGPROBS and self._identity["labels"] != "text":
            self.log.add_spent(spent, NO_LOGPROBS)
            raise IrdistillError(
                f"the server {self.url} reports no log-probabilities, which the model"
                f" {self.model!r} was asked for; give a server that does, or use a teacher that"
                " reads text (llm-listwise), with labels: text in the card's server."
            )
        if key is None:
            self.log.add_spent(spent, "to see whether the server answers")
        else:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.log.add(key, answer, spent, {"model": completion.model, "time": now})
        return answer


def _answer(request: Request, found: Completion, cost: float = 0.0) -> Answer:
    labels = found.labels
    if labels is None and request.labels:
        labels = np.full(len(request.labels), np.nan, dtype=np.float32)
    usage = found.usage or (0, 0, 0)
    return Answer(found.text, labels, found.error, *usage, cost, found.cut)


def _guess_tokens(request: Request) -> int:
    """More tokens than a prompt has in most languages: three bytes each, and some around each
    message.
    """
    size = sum(
        len(message.content.encode("utf-8", "surrogatepass")) for message in request.messages
    )
    return size // 3 + 8 * (len(request.messages) + 2)


def _wait(stop: threading.Event, seconds: float) -> None:
    stop.wait(seconds)


def _usual_log(identity: Mapping[str, Any]) -> Path:
    name = re.sub(r"[^\w.-]+", "-", str(identity["model"]))[:80]
    return cache_folder() / "responses" / f"{name}-{digest(identity)}.jsonl"
