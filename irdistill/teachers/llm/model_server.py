"""A server with a JSON interface, called through the retries of the official OpenAI client."""

from __future__ import annotations

import ipaddress
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast
from urllib.parse import urlsplit

from irdistill.console.terminal import printable
from irdistill.errors import InputError, MissingExtraError, OptionError, ServerError
from irdistill.teachers.llm.bounded_http import AbortRequest, ResponseLimitError, ResponseLimits
from irdistill.teachers.llm.chat_answers import Usage

_BUSY = 429


class Failure(NamedTuple):
    """Why a request got no answer after all its tries.

    Attributes:
        fault: what the server did at the last try.
        reached: False if no connection was made.
        busy: the server received too many requests.
        unbounded: the response exceeded a limit; there is no further try.
        retry_after: what the server asks to wait, as it writes it.
    """

    fault: str
    reached: bool = True
    busy: bool = False
    unbounded: bool = False
    retry_after: str = ""


class Tries(Protocol):
    """Is called at each try of a request."""

    def begin(self) -> None:
        """Before a try; an exception ends the request."""
        ...

    def fail(self, fault: str, billed: bool, usage: Usage | None = None) -> None:
        """After a try that gave no answer.

        Args:
            fault: what the server did.
            billed: whether the server may have counted the request.
            usage: what the server counted.
        """
        ...


class _RefusedError(Exception):
    """A server error that is the answer to the request."""


class ServerReply(Protocol):
    """What was read from a response of status 200.

    Attributes:
        fault: why the response is unusable, so that another try is worth it.
        usage: what the server counted; None if it did not report it.
    """

    @property
    def fault(self) -> str | None:
        """Why the response is unusable."""
        ...

    @property
    def usage(self) -> Usage | None:
        """What the server counted."""
        ...


RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT", bound=ServerReply)


@dataclass(frozen=True)
class ServerAccess:
    """Where a server is, and how long it may take.

    Attributes:
        url: address of the interface, usually ending in ``/v1``.
        key: name of the environment variable that holds the key; a server on this machine needs
            none.
        timeout: seconds without a byte after which a try ends.
        time_limit: seconds after which a try ends in any case.
        max_retries: number of tries after the first.
        max_bytes: the largest response.
    """

    url: str
    key: str | None
    timeout: float
    time_limit: float
    max_retries: int
    max_bytes: int


class ModelServer(ABC, Generic[RequestT, ReplyT]):
    """Sends requests to a server; its methods may be called from several threads.

    The client tries again after 408, 409, 429, 5xx, time limits and cut connections, with growing
    waits, and after the time that a ``Retry-After`` header of up to two minutes names. Responses of
    status 200 that cannot be read are treated like cut connections.

    The key is read from the environment and given to the client only. No message contains it.

    Args:
        model: name of the model on the server.
        access: address, key and limits.
        use: what it is used for, for the message about a missing library.
    """

    def __init__(self, model: str, access: ServerAccess, use: str) -> None:
        self.model, self.url = model, access.url
        self._key_variable, self._secret = access.key, _read_key(access.key, access.url)
        try:
            import openai
        except ImportError as error:
            raise MissingExtraError("openai", "llm", use) from error
        self._openai = openai
        self._limits = ResponseLimits(access.max_bytes, access.time_limit)
        self._local = threading.local()
        # A proxy cannot reach servers on this machine. Compressed responses are refused, because a
        # few bytes can stand for any number.
        client = openai.DefaultHttpxClient(
            trust_env=not is_loopback(access.url),
            event_hooks={"request": [self._before_try], "response": [self._after_response]},
        )
        self._http = import_module(type(client).__mro__[1].__module__.partition(".")[0])
        self._limits.install(client)
        self._client = openai.OpenAI(
            api_key=self._secret or "none",
            base_url=access.url,
            max_retries=access.max_retries,
            default_headers={"Accept-Encoding": "identity"},
            timeout=openai.Timeout(access.timeout, connect=min(access.timeout, 20.0)),
            http_client=client,
        )

    @abstractmethod
    def max_tokens(self, request: RequestT) -> int:
        """The most tokens that the server writes for a request."""

    @abstractmethod
    def _post(self, client: Any, request: RequestT) -> None:
        """Send a request once with the client, which tries again."""

    @abstractmethod
    def _read(self, request: RequestT, body: str, headers: Mapping[str, str]) -> ReplyT:
        """Read a response of status 200."""

    @abstractmethod
    def _refusal(self, request: RequestT, status: int, code: str, text: str) -> ReplyT | None:
        """The reply that a refusal (400, 413, 422) is; None if it ends the job."""

    def _lasting_error(self, request: RequestT, status: int, text: str) -> ReplyT | None:
        """The reply that an error is which the client would try again in vain; None for others."""
        return None

    def send(
        self, request: RequestT, tries: Tries, max_retries: int | None = None
    ) -> ReplyT | Failure:
        """Send a request, with retries.

        Args:
            tries: called at each try.
            max_retries: replaces that of the server.

        Returns:
            The answer (also a refusal, or that the request is too long), or why there is none.
        """
        self._local.request, self._local.tries, self._local.running = request, tries, False
        client = self._client
        if max_retries is not None:
            client = client.with_options(max_retries=max_retries)
        try:
            self._post(client, request)
        except AbortRequest as abort:
            if isinstance(abort.error, _RefusedError):
                return cast(ReplyT, self._local.reply)
            if not isinstance(abort.error, ResponseLimitError):
                raise abort.error from None
            fault = str(abort.error)
            self._fail(fault)
            return Failure(fault, unbounded=True)
        except self._openai.APIConnectionError:
            fault = self._local.fault or self._limits.fault
            reached = self._limits.sent
            self._fail(fault)
            return Failure(fault, reached)
        except self._openai.APIStatusError as error:
            refusal = error
        else:
            reply: ReplyT = self._local.reply
            return reply
        finally:
            self._limits.end()
        return self._read_refusal(refusal, request)

    def _before_try(self, request: Any) -> None:
        """Called by the HTTP client before each try."""
        self._fail(self._limits.fault)
        try:
            self._local.tries.begin()
        except Exception as error:
            raise AbortRequest(error) from None
        self._local.running, self._local.fault = True, ""
        self._limits.begin()

    def _fail(self, fault: str) -> None:
        """Record a running try that ended without a response."""
        if self._local.running:
            self._local.running = False
            self._local.tries.fail(fault, self._limits.sent)

    def _after_response(self, response: Any) -> None:
        """Called by the HTTP client when the headers of a response are there."""
        encoding = response.headers.get("content-encoding", "identity")
        if encoding not in ("", "identity"):
            self._limits.exceed(
                f"a compressed response ({printable(encoding)[:20]}), which was not requested"
            )
        if response.status_code != 200:
            response.read()
            self._local.running = False
            self._local.tries.fail(f"status {response.status_code}", False)
            text = self._without_key(response.text[:10_000])
            reply = self._lasting_error(self._local.request, response.status_code, text)
            if reply is not None:
                self._local.reply = reply
                raise AbortRequest(_RefusedError())
            return
        body = self._without_key(response.read().decode("utf-8", "replace"))
        reply = self._read(self._local.request, body, response.headers)
        self._local.running = False
        if reply.fault is not None:
            self._local.fault = reply.fault
            self._local.tries.fail(reply.fault, True, reply.usage)
            raise self._http.RemoteProtocolError(reply.fault, request=response.request)
        self._local.reply = reply

    def _read_refusal(self, error: Any, request: RequestT) -> ReplyT | Failure:
        """A response with a status other than 200: a failure, an answer, or the end."""
        status, code = error.status_code, str(getattr(error, "code", None) or "")
        message = str(error.message)
        if " - " not in message:  # the client shows only messages in the form of OpenAI's
            message = f"{message} - {error.response.text}"
        message = self._without_key(message[:10_000])
        text = printable(" ".join(message.split()))[:300]
        if status in (400, 413, 422):
            reply = self._refusal(request, status, code, text)
            if reply is not None:
                return reply
        if (status in (408, 409, _BUSY) or status >= 500) and code != "insufficient_quota":
            retry_after = printable(str(error.response.headers.get("retry-after", "")))[:40]
            return Failure(
                f"status {status} ({text})", busy=status == _BUSY, retry_after=retry_after
            )
        raise ServerError(
            f"the server {self.url} answered {status} to a request to the model {self.model!r}:"
            f" {text}. {self._advice(status)}."
        )

    def _advice(self, status: int) -> str:
        if status == 401 and not self._key_variable:
            return (
                "It needs a key: name the environment variable that holds it (key: in the card's"
                " server, or --key)"
            )
        return {
            401: f"Check the key in the environment variable {self._key_variable}",
            402: "The account of the key has no credit left",
            403: "The key has no permission for this model",
            404: "Check the url, which usually ends in /v1, and the model's name",
            _BUSY: "The account of the key has no credit left",
        }.get(status, "Check the card's model and parameters")

    def _without_key(self, text: str) -> str:
        """A text without the key, which servers quote in their errors."""
        return text.replace(self._secret, "***") if self._secret else text


def check_url(url: Any) -> None:
    """Refuse an invalid address, and one with secrets, which would be written to logs."""
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise InputError(
            "the url of the card's server is missing or invalid; expected one that begins with"
            " http:// or https://, such as https://host/v1 (url: in the card's server, or --url)."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            f"the url of the server {parts.hostname} contains a user, a password or a query. Set an"
            " environment variable to the secret, name that variable (key: in the card's server, or"
            " --key), and use the plain address."
        )


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine.

    Examples:
        >>> is_loopback("http://127.0.0.1:8000/v1"), is_loopback("https://example.com/v1")
        (True, False)
    """
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _read_key(variable: str | None, url: str) -> str:
    secret = os.environ.get(variable, "").strip() if variable else ""
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise OptionError(
            f"the environment variable {variable} does not hold a key: its value has blanks or"
            " special characters."
        )
    if variable and not secret and not is_loopback(url):
        raise OptionError(
            f"the server {url} needs the key in the environment variable {variable}, which is not"
            " set. Set it, or name another variable (key: in the card's server, or --key)."
        )
    return secret
