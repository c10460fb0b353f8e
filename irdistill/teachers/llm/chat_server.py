"""An OpenAI-compatible server, called through the official client."""

from __future__ import annotations

import ipaddress
import os
import re
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from irdistill.console.terminal import printable
from irdistill.errors import InputError, MissingExtraError, OptionError, ServerError
from irdistill.teachers.llm.bounded_http import AbortRequest, ResponseLimitError, ResponseLimits
from irdistill.teachers.llm.chat_answers import Completion, Usage, read_completion
from irdistill.teachers.llm.language_model import Request
from irdistill.teachers.llm.reading import REFUSED
from irdistill.teachers.protocol import TOO_LONG

#: Parameters that irdistill sets in every request.
_RESERVED = ("model", "messages", "stream", "n", "logprobs")
TOP_LOGPROBS = 20
#: The largest response: a hundred times the longest answer.
MAX_BYTES = 8 * 2**20
#: Token limit of a label that is written out.
_LABEL_TOKENS = 16
_BUSY = 429
_TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size)|maximum.{0,20}(length|context)|too long|too many tokens",
    re.I,
)


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


class ChatServer:
    """Sends requests to a server; its methods may be called from several threads.

    The client tries again after 408, 409, 429, 5xx, time limits and cut connections, with growing
    waits, and after the time that a ``Retry-After`` header of up to two minutes names. Responses of
    status 200 that are not a chat completion are treated like cut connections.

    The key is read from the environment and given to the client only. No message contains it.

    Args:
        model: name of the model on the server.
        url: address of the interface, usually ending in ``/v1``.
        key: name of the environment variable that holds the key; a server on this machine needs
            none.
        parameters: added to the body of every request; replace irdistill's. None as a value removes
            a parameter.
        logprobs: whether labels are requested as log-probabilities.
        timeout: seconds without a byte after which a try ends.
        time_limit: seconds after which a try ends in any case.
        max_retries: number of tries after the first.
    """

    def __init__(
        self,
        model: str,
        url: str,
        key: str | None,
        parameters: Mapping[str, Any],
        *,
        logprobs: bool,
        timeout: float,
        time_limit: float,
        max_retries: int,
    ) -> None:
        reserved = sorted(set(parameters) & set(_RESERVED))
        if reserved:
            raise OptionError(
                f"the server's parameters set {', '.join(reserved)}, which irdistill sets itself."
                " Remove them."
            )
        self.model, self.url, self.logprobs = model, url, logprobs
        self._parameters = dict(parameters)
        self._key_variable, self._secret = key, _read_key(key, url)
        self._limit_name = "max_tokens"
        try:
            import openai
        except ImportError as error:
            raise MissingExtraError("openai", "llm", "a language model behind a server") from error
        self._openai = openai
        self._limits = ResponseLimits(MAX_BYTES, time_limit)
        self._local = threading.local()
        # A proxy cannot reach servers on this machine. Compressed responses are refused, because a
        # few bytes can stand for any number.
        client = openai.DefaultHttpxClient(
            trust_env=not is_loopback(url),
            event_hooks={"request": [self._before_try], "response": [self._after_response]},
        )
        self._http = import_module(type(client).__mro__[1].__module__.partition(".")[0])
        self._limits.install(client)
        self._client = openai.OpenAI(
            api_key=self._secret or "none",
            base_url=url,
            max_retries=max_retries,
            default_headers={"Accept-Encoding": "identity"},
            timeout=openai.Timeout(timeout, connect=min(timeout, 20.0)),
            http_client=client,
        )

    def max_tokens(self, request: Request) -> int:
        """The most tokens of the answer to a request."""
        for name in ("max_completion_tokens", "max_tokens"):
            if isinstance(self._parameters.get(name), int):
                return self._parameters[name]
        if request.labels:
            return 1 if self.logprobs else max(request.max_tokens, _LABEL_TOKENS)
        return request.max_tokens

    def send(
        self, request: Request, tries: Tries, max_retries: int | None = None
    ) -> Completion | Failure:
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
        name = self._limit_name
        try:
            client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=[message._asdict() for message in request.messages],
                extra_body=self._body(request, name),
            )
        except AbortRequest as abort:
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
            completion: Completion = self._local.completion
            return completion
        finally:
            self._limits.end()
        return self._read_refusal(refusal, request, tries, name, max_retries)

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
            return
        body = self._without_key(response.read().decode("utf-8", "replace"))
        request: Request = self._local.request
        completion = read_completion(body, request.labels, self.logprobs, self.max_tokens(request))
        self._local.running = False
        if completion.fault is not None:
            self._local.fault = completion.fault
            self._local.tries.fail(completion.fault, True, completion.usage)
            raise self._http.RemoteProtocolError(completion.fault, request=response.request)
        self._local.completion = completion

    def _body(self, request: Request, limit_name: str) -> dict[str, Any]:
        body: dict[str, Any] = {"temperature": 0}
        if not {"max_tokens", "max_completion_tokens"} & self._parameters.keys():
            body[limit_name] = self.max_tokens(request)
        parameters = dict(self._parameters)
        if request.labels and self.logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        else:
            parameters.pop("top_logprobs", None)
        return {key: value for key, value in (body | parameters).items() if value is not None}

    def _read_refusal(
        self,
        error: Any,
        request: Request,
        tries: Tries,
        limit_name: str,
        max_retries: int | None,
    ) -> Completion | Failure:
        """A response with a status other than 200: a failure, an answer, or the end."""
        status, code = error.status_code, str(getattr(error, "code", None) or "")
        message = self._without_key(str(error.message)[:10_000])
        text = printable(" ".join(message.split()))[:300]
        if status in (400, 413, 422):
            if code in ("content_filter", "invalid_prompt"):
                return Completion(error=REFUSED)
            renamed = "instead" in text or code.startswith("unsupported")
            if "max_completion_tokens" in text and renamed and limit_name == "max_tokens":
                self._limit_name = "max_completion_tokens"
                return self.send(request, tries, max_retries)
            named = "context_length" in code or "context_size" in text
            if status == 413 or named or _TOO_LONG.search(text):
                return Completion(error=TOO_LONG)
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
