"""Results that take longer than a page may: computed in threads, and kept in memory."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_RETRY = 5.0
"""Seconds after which a computation that failed is repeated."""


class BackgroundResults:
    """Computes each result once; those that were used last are kept.

    Args:
        most: number of results that are kept.

    Examples:
        >>> BackgroundResults().get("sum", lambda: sum(range(4))).result()
        6
    """

    def __init__(self, most: int = 16) -> None:
        self._most, self._lock = most, Lock()
        self._results: OrderedDict[Hashable, Future[Any]] = OrderedDict()
        self._failed: dict[Hashable, float] = {}

    def get(self, key: Hashable, compute: Callable[[], _Result]) -> Future[_Result]:
        """The result of a key; its computation starts with the first call.

        A computation that failed is repeated by a call some seconds later.
        """
        with self._lock:
            future = self._results.get(key)
            if future is None or time.monotonic() - self._failed.get(key, math.inf) > _RETRY:
                future = self._results[key] = Future()
                self._failed.pop(key, None)
                # a daemon, so that Ctrl-C does not wait for it
                Thread(target=self._run, args=(key, future, compute), daemon=True).start()
            self._results.move_to_end(key)
            while len(self._results) > self._most:
                oldest, _ = self._results.popitem(last=False)
                self._failed.pop(oldest, None)
        return future

    def _run(self, key: Hashable, future: Future[Any], compute: Callable[[], Any]) -> None:
        try:
            future.set_result(compute())
        except BaseException as error:  # the page shows it
            self._failed[key] = time.monotonic()
            future.set_exception(error)
