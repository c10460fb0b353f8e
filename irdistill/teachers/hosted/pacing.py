"""Spreading requests over time, so that a server's limits per minute are kept."""

from __future__ import annotations

import threading
import time

from irdistill.teachers.hosted.hosted_card import RequestLimits


class Pacer:
    """Delays requests so that no minute has more than its share of requests and tokens.

    Each request reserves the time that it takes of a minute's allowance, and the next one waits
    until that time is over. May be called from several threads.

    Examples:
        >>> pacer = Pacer(RequestLimits(requests_per_minute=60, tokens_per_minute=6000))
        >>> pacer.seconds(tokens=50), pacer.seconds(tokens=500)
        (1.0, 5.0)
    """

    def __init__(self, limits: RequestLimits) -> None:
        self._limits, self._lock, self._free = limits, threading.Lock(), 0.0

    def seconds(self, tokens: int) -> float:
        """The time that a request takes of the allowance."""
        requests, most = self._limits.requests_per_minute, self._limits.tokens_per_minute
        return max(60 / requests if requests else 0.0, 60 * tokens / most if most else 0.0)

    def wait(self, tokens: int) -> None:
        """Wait for the turn of a request."""
        seconds = self.seconds(tokens)
        if not seconds:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free)
            self._free = start + seconds
        time.sleep(start - now)
