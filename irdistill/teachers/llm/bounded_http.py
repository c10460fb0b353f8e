"""Limits on the size and the duration of a server's responses, enforced on the connection."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, NoReturn

logger = logging.getLogger(__name__)


class AbortRequest(BaseException):
    """Ends a request of the ``openai`` client without another try.

    It is not an `Exception`, because some versions of the client retry after any exception.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class ResponseLimitError(Exception):
    """A response is larger or takes longer than allowed."""


class ResponseLimits:
    """Limits of each try of a request, and what happened on the connection. One try per thread.

    A timeout of the HTTP client counts seconds *without a byte*, so that it never gives up on a
    server which sends a byte now and then. And the client reads a whole response, headers and error
    bodies included, before anything else can look at it. So bytes and seconds are counted where
    they are read from the connection.

    Args:
        max_bytes: size of a response.
        seconds: time from sending the request to the last byte of the response.
    """

    def __init__(self, max_bytes: int, seconds: float) -> None:
        self.max_bytes, self.seconds = max_bytes, seconds
        self._local = threading.local()

    def begin(self) -> None:
        """Start to count for a try in this thread."""
        self._local.until = time.monotonic() + self.seconds
        self._local.bytes_left = self.max_bytes
        self._local.sent = False
        self._local.fault = "no connection"

    def end(self) -> None:
        """Stop counting."""
        self._local.until = None

    @property
    def sent(self) -> bool:
        """Whether anything was sent in this thread's last try."""
        return getattr(self._local, "sent", False)

    @property
    def fault(self) -> str:
        """What went wrong on the connection of this thread's last try."""
        return getattr(self._local, "fault", "no connection")

    def note(self, error: Exception) -> None:
        """Note an error of the connection."""
        if self.sent:
            timed_out = "Timeout" in type(error).__name__
            self._local.fault = "nothing within the time limit" if timed_out else "a cut connection"

    def remaining(self, timeout: float | None) -> float | None:
        """Seconds that the next read or write may take."""
        until = getattr(self._local, "until", None)
        if until is None:
            return timeout
        left = until - time.monotonic()
        if left <= 0.005:
            self.exceed(f"a response that had not ended after {self.seconds:g} seconds")
        return left if timeout is None else min(left, timeout)

    def count(self, size: int) -> None:
        """Count bytes that were received."""
        if getattr(self._local, "until", None) is None:
            return
        self._local.bytes_left -= size
        if self._local.bytes_left < 0:
            self.exceed(f"a response of more than {self.max_bytes / 2**20:g} MiB")

    def mark_sent(self) -> None:
        """Note that the request is being sent."""
        self._local.sent, self._local.fault = True, "a cut connection"

    def exceed(self, what: str) -> NoReturn:
        """End the request because of its response."""
        raise AbortRequest(ResponseLimitError(what))

    def install(self, client: Any) -> None:
        """Apply the limits to all connections of an httpx client, including those to proxies."""
        transports = [client._transport, *filter(None, client._mounts.values())]
        for transport in transports:
            pool: Any = getattr(transport, "_pool", None)
            if getattr(pool, "_network_backend", None) is None:
                logger.warning(
                    "responses cannot be limited with this version of the HTTP client; a server"
                    " that never ends a response blocks the job"
                )
                return
            pool._network_backend = _Counted(pool._network_backend, self)


class _Counted:
    """A network backend or a connection of the HTTP client, which counts what is read."""

    def __init__(self, inner: Any, limits: ResponseLimits) -> None:
        self._inner, self._limits = inner, limits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def connect_tcp(self, *args: Any, **options: Any) -> _Counted:
        return _Counted(self._inner.connect_tcp(*args, **options), self._limits)

    def connect_unix_socket(self, *args: Any, **options: Any) -> _Counted:
        return _Counted(self._inner.connect_unix_socket(*args, **options), self._limits)

    def start_tls(self, *args: Any, **options: Any) -> _Counted:
        return _Counted(self._inner.start_tls(*args, **options), self._limits)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            data: bytes = self._inner.read(max_bytes, self._limits.remaining(timeout))
        except Exception as error:
            self._limits.note(error)
            self._limits.remaining(timeout)  # the read may have taken all the time that was left
            raise
        self._limits.count(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._limits.mark_sent()
        self._inner.write(buffer, self._limits.remaining(timeout))
