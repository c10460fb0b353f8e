"""Child processes to be killed, forked from a process that has imported everything.

Starting Python and importing torch takes seconds, many times the work of most tests.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

_PRELOADED = ["irdistill.recipes", "irdistill.training.trainer", "irdistill.search.retrieval"]


class Child:
    """A running function in a process of its own.

    Its errors go to the standard error of the tests.
    """

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self.process = context.Process(target=function, args=args)
        self.process.start()

    def ends_within(self, seconds: float | None = None) -> bool:
        """Wait for the end, at most some seconds."""
        self.process.join(seconds)
        return self.process.exitcode is not None

    def kill(self) -> None:
        """Kill it as a crash would."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def finish(self) -> None:
        """Wait until it ends well."""
        self.process.join()
        assert self.process.exitcode == 0, "see the error that the child printed"
