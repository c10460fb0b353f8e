"""Limits on what a server may send for one request and on the time it may take, counted on the
connection itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

logger = logging.getLogger(__name__)


class LimitExceeded(Exception):
    """A response is larger or takes longer than allowed; the HTTP client may hand it on as an error
    of its own.
    """


class ResponseLimits:
    """What one request's response may take. Each thread sends one request at a time.

    A timeout of the HTTP client counts seconds *without a byte*, so that a server which sends one
    byte now and then is never given up; and the client reads a response whole, headers and bodies
    of errors included, before anything else can look at it. So bytes and seconds are counted where
    they are read from the connection.

    Args:
        largest: bytes of a response.
        seconds: from sending the request to the last byte of the response.
    """

    def __init__(self, largest: int, seconds: float) -> None:
        self.largest, self.seconds = largest, seconds
        self._local = threading.local()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Begin to count for this thread."""
        self._local.until, self._local.left, self._local.broken = (
            time.monotonic() + self.seconds,
            self.largest,
            None,
        )
        try:
            yield
        finally:
            self._local.until = None

    @property
    def broken(self) -> str | None:
        """What this thread's last request exceeded, in words; None where it kept to the limits."""
        return getattr(self._local, "broken", None)

    def remaining(self, timeout: float | None) -> float | None:
        """Seconds that the next read may take.

        Raises:
            LimitExceeded: none are left.
        """
        until = getattr(self._local, "until", None)
        if until is None:
            return timeout
        left = until - time.monotonic()
        if left <= 0.005:
            self.exceed(f"a response that had not ended after {self.seconds:g} seconds")
        return left if timeout is None else min(left, timeout)

    def count(self, size: int) -> None:
        """Count bytes.

        Raises:
            LimitExceeded: there are more than allowed.
        """
        if getattr(self._local, "until", None) is None:
            return
        self._local.left -= size
        if self._local.left < 0:
            self.exceed(f"a response of more than {self.largest / 2**20:g} MiB")

    def exceed(self, what: str) -> NoReturn:
        """Note what was exceeded, and stop."""
        self._local.broken = what
        raise LimitExceeded(what)

    def install(self, client: Any) -> None:
        """Make all connections of an httpx client keep to the limits, through its proxies too."""
        transports = [
            client._transport,
            *(one for one in client._mounts.values() if one is not None),
        ]
        for transport in transports:
            pool: Any = getattr(transport, "_pool", None)
            if getattr(pool, "_network_backend", None) is None:
                logger.warning(
                    "this version of the HTTP client takes no limits on responses; a server that"
                    " never ends one is waited for"
                )
                return
            pool._network_backend = _Backend(pool._network_backend, self)


class _Backend:
    """Opens connections that count."""

    def __init__(self, inner: Any, limits: ResponseLimits) -> None:
        self._inner, self._limits = inner, limits

    def connect_tcp(self, *args: Any, **options: Any) -> _CountingStream:
        return _CountingStream(self._inner.connect_tcp(*args, **options), self._limits)

    def connect_unix_socket(self, *args: Any, **options: Any) -> _CountingStream:
        return _CountingStream(self._inner.connect_unix_socket(*args, **options), self._limits)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _CountingStream:
    """A connection that counts what is read from it."""

    def __init__(self, inner: Any, limits: ResponseLimits) -> None:
        self._inner, self._limits = inner, limits

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            data: bytes = self._inner.read(max_bytes, self._limits.remaining(timeout))
        except LimitExceeded:
            raise
        except Exception:
            self._limits.remaining(timeout)  # it waited for as long as was left
            raise
        self._limits.count(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._limits.remaining(timeout))

    def start_tls(self, *args: Any, **options: Any) -> _CountingStream:
        return _CountingStream(self._inner.start_tls(*args, **options), self._limits)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
