"""Progress bars with rate and remaining time, for work that takes more than two seconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, TypeVar

from tqdm import tqdm

from irdistill.console.terminal import printable

Item = TypeVar("Item")
ProgressCallback = Callable[[int], object]
"""Called with the number of units that were finished since the last call."""
_DELAY = 2
_REFRESH = 1.0
"""Seconds."""


class ProgressRelay:
    """Passes counts to a bar that is created after the work that is counted has started."""

    def __init__(self) -> None:
        self.target: ProgressCallback = lambda count: None

    def __call__(self, count: int) -> object:
        """Count finished units."""
        return self.target(count)


_quiet = False


def set_quiet(quiet: bool) -> None:
    """Show no bars from now on (``--quiet``)."""
    global _quiet
    _quiet = quiet


def progress(total: int | None, unit: str, label: str, initial: int = 0) -> tqdm[Any]:
    """A bar on standard error that appears after two seconds, and not in log files.

    Use it as a context manager, with ``bar.update(n)`` and ``bar.set_postfix(...)``.

    Examples:
        >>> with progress(3, "pairs", "score") as bar:
        ...     _ = bar.update(3)
    """
    hidden = _hidden()
    return tqdm(
        total=total,
        unit=f" {unit}",
        desc=printable(label),
        initial=initial,
        delay=_DELAY,
        mininterval=0.5,
        leave=False,
        disable=hidden,
        unit_scale=bool(total and total >= 100_000),
        **({} if hidden else _size()),
    )


def _hidden() -> bool:
    return _quiet or not sys.stderr.isatty()


def _size() -> dict[str, Any]:
    """The size of the terminal. Some terminals report 0 columns, in which tqdm draws nothing."""
    try:
        known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        known = True
    return {"dynamic_ncols": True} if known else {"ncols": 80, "nrows": 24}


def with_progress(items: Sequence[Item], unit: str, label: str) -> Iterator[Item]:
    """Iterate over items with a bar that counts the finished ones."""
    with progress(len(items), unit, label) as bar:
        for item in items:
            yield item
            bar.update(1)


@contextmanager
def show_activity(label: str) -> Iterator[None]:
    """Show a line with the elapsed time, after two seconds, for a step that cannot be counted."""
    if _hidden():
        yield
        return
    with tqdm(
        desc=printable(label), delay=_DELAY, leave=False, bar_format="{desc}: {elapsed}", **_size()
    ) as bar:
        ended = Event()

        def refresh() -> None:
            if ended.wait(_DELAY):
                return
            while not ended.wait(_REFRESH):
                bar.refresh()

        thread = Thread(target=refresh, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def describe_kept(finished: float, total: int, what: str) -> str:
    """The text for `note_on_interrupt`; empty if nothing is finished.

    Examples:
        >>> describe_kept(3, 12, "parts of out/scores")
        '3 of 12 parts of out/scores'
    """
    return f"{int(finished)} of {total} {what}" if finished else ""


@contextmanager
def note_on_interrupt(describe: Callable[[], str]) -> Iterator[None]:
    """Add to a KeyboardInterrupt in this block a note of what is kept; the command line prints it.

    Args:
        describe: returns what is kept, such as ``3 of 12 parts of out/scores``, or an empty string.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        note = describe()
        if note:
            error.add_note(note)
        raise
