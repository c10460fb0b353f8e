"""An OpenAI-compatible server: one request sent through the official client, and what came of
it.
"""

from __future__ import annotations

import ipaddress
import os
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from irdistill.console.terminal import printable
from irdistill.errors import IrdistillError, MissingExtraError
from irdistill.teachers.llm.bounded_http import LimitExceeded, ResponseLimits
from irdistill.teachers.llm.chat_answers import Completion, read_completion
from irdistill.teachers.llm.language_model import Request
from irdistill.teachers.llm.reading import REFUSED
from irdistill.teachers.protocol import TOO_LONG

#: What the client itself sets in every request.
_OURS = ("model", "messages", "stream", "n", "logprobs")
TOP_LOGPROBS = 20
#: Bytes of a response: a hundred times the longest answer.
LARGEST = 8 * 2**20
#: Room for a label that is written out.
_LABEL_TOKENS = 16
_TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size)|maximum.{0,20}(length|context)|too long|too many tokens",
    re.I,
)


class Outcome(NamedTuple):
    """What came of sending a request once.

    Attributes:
        completion: what the server answered; None where nothing came that could be read.
        fault: why another try is worth it; None where the completion is an answer.
        retry_after: seconds the server asks to wait.
        billed: whether the server may have counted the request although no answer came.
        reached: False where no connection was made at all.
        busy: the server says that there are too many requests.
        endless: the response was larger or took longer than allowed; more tries would mostly end
            alike.
    """

    completion: Completion | None = None
    fault: str | None = None
    retry_after: float | None = None
    billed: bool = False
    reached: bool = True
    busy: bool = False
    endless: bool = False


class ChatServer:
    """A server's address, key and parameters. Its methods may be called from several threads.

    The key is read from the environment and given to the client alone; no message of this class
    holds it.

    Args:
        url: the address of the interface, mostly ending in ``/v1``.
        key: the name of the environment variable that holds the key; a server on this machine needs
            none.
        parameters: added to the body of every request, in place of ours; None as a value takes one
            of ours out.
        logprobs: whether labels are asked for by log-probabilities.
        timeout: seconds without a byte after which a request is given up.
        time_limit: seconds after which it is given up whatever comes.

    Raises:
        IrdistillError: the url is none, or holds a user, password or query; the variable is not
            set; a parameter is one that cannot be changed.
        MissingExtraError: there is no ``openai``.
    """

    def __init__(
        self,
        model: str,
        url: str,
        key: str | None,
        parameters: Mapping[str, Any],
        logprobs: bool = True,
        timeout: float = 120.0,
        time_limit: float = 600.0,
    ) -> None:
        check_url(url)
        wrong = sorted(set(parameters) & set(_OURS))
        if wrong:
            raise IrdistillError(
                f"the server's parameters set {', '.join(wrong)}, which irdistill sets itself; take"
                " them out."
            )
        self.model, self.url, self.logprobs = model, url, logprobs
        self._parameters = dict(parameters)
        self._secret = _secret(key, url)
        self._variable = key
        self._limit_name = "max_tokens"
        try:
            import openai
        except ImportError as error:
            raise MissingExtraError("openai", "llm", "a language model behind a server") from error
        self._openai = openai
        self._limits = ResponseLimits(LARGEST, time_limit)
        # A proxy cannot reach this machine's own servers. A few compressed bytes may stand for any
        # number, so none are asked for.
        client = openai.DefaultHttpxClient(
            trust_env=not is_loopback(url), event_hooks={"response": [self._check_encoding]}
        )
        self._limits.install(client)
        self._client = openai.OpenAI(
            api_key=self._secret or "none",
            base_url=url,
            max_retries=0,
            default_headers={"Accept-Encoding": "identity"},
            timeout=openai.Timeout(timeout, connect=min(timeout, 20.0)),
            http_client=client,
        )

    def _check_encoding(self, response: Any) -> None:
        encoding = response.headers.get("content-encoding", "identity")
        if encoding not in ("", "identity"):
            self._limits.exceed(
                f"a compressed response ({printable(encoding)[:20]}), which was not asked for and"
                " is not read"
            )

    def max_tokens(self, request: Request) -> int:
        """Tokens that the answer to a request may take."""
        for name in ("max_completion_tokens", "max_tokens"):
            if isinstance(self._parameters.get(name), int):
                return self._parameters[name]
        if request.labels:
            return 1 if self.logprobs else max(request.max_tokens, _LABEL_TOKENS)
        return request.max_tokens

    def send(self, request: Request) -> Outcome:
        """Send a request once.

        Raises:
            IrdistillError: the server refuses in a way that every request would meet (no
                permission, no such model, a parameter it does not know), naming address and status.
        """
        name = self._limit_name
        try:
            with self._limits.request():
                raw = self._client.chat.completions.with_raw_response.create(
                    model=self.model,
                    messages=[one._asdict() for one in request.messages],
                    extra_body=self._body(request, name),
                )
            return self._read(raw.http_response.content, request)
        except (LimitExceeded, self._openai.APIConnectionError) as error:
            if self._limits.broken is not None:
                return Outcome(fault=self._limits.broken, billed=True, endless=True)
            return self._unreached(error)
        except self._openai.APIStatusError as error:
            refused = error
        return self._refused(refused, request, name)

    def _unreached(self, error: Any) -> Outcome:
        """No answer came: in time, or at all."""
        cause = type(error.__cause__).__name__
        reached = "Connect" not in cause
        if isinstance(error, self._openai.APITimeoutError):
            return Outcome(fault="nothing within the time limit", billed=reached, reached=reached)
        return Outcome(
            fault="a cut connection" if reached else "no connection",
            billed=reached,
            reached=reached,
        )

    def _read(self, body: bytes, request: Request) -> Outcome:
        found = read_completion(
            self._safe(body.decode("utf-8", "replace")),
            request.labels,
            self.logprobs,
            self.max_tokens(request),
        )
        return Outcome(found, found.fault, billed=True)

    def _body(self, request: Request, limit_name: str) -> dict[str, Any]:
        body: dict[str, Any] = {"temperature": 0}
        if "max_tokens" not in self._parameters and "max_completion_tokens" not in self._parameters:
            body[limit_name] = self.max_tokens(request)
        if request.labels and self.logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        parameters = {
            key: value
            for key, value in self._parameters.items()
            if body.get("logprobs") or key != "top_logprobs"
        }
        return {key: value for key, value in (body | parameters).items() if value is not None}

    def _refused(self, error: Any, request: Request, limit_name: str) -> Outcome:
        """An answer of another status than 200: worth another try, an answer in itself, or the
        end.
        """
        status, said = (
            error.status_code,
            printable(" ".join(self._safe(str(error.message)[:10_000]).split()))[:300],
        )
        code = str(getattr(error, "code", None) or "")
        if status in (400, 413, 422):
            if code in ("content_filter", "invalid_prompt"):
                return Outcome(Completion(error=REFUSED))
            renamed = "max_completion_tokens" in said and (
                "instead" in said or code.startswith("unsupported")
            )
            if renamed and limit_name == "max_tokens":
                self._limit_name = "max_completion_tokens"
                return self.send(request)
            if (
                status == 413
                or "context_length" in code
                or "context_size" in said
                or _TOO_LONG.search(said)
            ):
                return Outcome(Completion(error=TOO_LONG))
        if (status in (408, 409, 425, 429) or status >= 500) and code != "insufficient_quota":
            return Outcome(
                fault=f"status {status} ({said})",
                retry_after=_retry_after(error.response.headers),
                busy=status == 429,
            )
        advice = {
            401: (
                f"check the key in the environment variable {self._variable}"
                if self._variable
                else (
                    "it wants a key; name the environment variable that holds it (key: in the"
                    " card's server, or --key)"
                )
            ),
            402: "the account behind the key has no credit left",
            403: "the key has no permission for this model",
            404: "check the url, which mostly ends in /v1, and the model's name",
            429: "the account behind the key has no credit left",
        }.get(status, "check the card's model and parameters")
        raise IrdistillError(
            f"the server {self.url} answered {status} to a request to the model {self.model!r}:"
            f" {said}. {advice}."
        )

    def _safe(self, text: str) -> str:
        """Without the key, which servers quote in their errors."""
        return text.replace(self._secret, "***") if self._secret else text


def check_url(url: Any) -> None:
    """Refuse what is no address, and addresses with secrets in them, which would go into logs and
    manifests.

    Raises:
        IrdistillError: it is one of those.
    """
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        well = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        well = False
    if not well:
        raise IrdistillError(
            "the card's server has no url that begins with http:// or https:// and names a host;"
            " write it like https://host/v1 (url: in the card's server, or --url)."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise IrdistillError(
            f"the url of the server {parts.hostname} holds a user, a password or a query; put the"
            " secret into an environment variable and name that (key: in the card's server, or"
            " --key), and leave the bare address."
        )


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _secret(key: str | None, url: str) -> str:
    found = os.environ.get(key, "").strip() if key else ""
    if not found.isascii() or not found.isprintable() or " " in found:
        raise IrdistillError(
            f"the environment variable {key} holds no key: there are blanks or letters in it that"
            " no key has."
        )
    if found or is_loopback(url):
        return found
    if not key:
        return ""
    raise IrdistillError(
        f"the key of the server {url} is to be in the environment variable {key}, which is not set;"
        " set it, or name another (key: in the card's server, or --key)."
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a header in seconds, milliseconds or as a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except KeyError:
            continue
        except ValueError:
            try:
                seconds = parsedate_to_datetime(headers[name]).timestamp() - time.time()
            except (ValueError, TypeError, OverflowError):
                continue
        if 0 <= seconds < float("inf"):
            return seconds
    return None
