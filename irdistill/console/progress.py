"""Progress bars with rate and ETA, for anything that takes more than two seconds."""

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
"""Is told how many more units are finished."""
_DELAY = 2
_REFRESH = 1.0
"""Seconds."""


class ProgressRelay:
    """Passes counts on to a bar that is made later than the work which is counted."""

    def __init__(self) -> None:
        self.to: ProgressCallback = lambda count: None

    def __call__(self, count: int) -> object:
        """Count more finished units."""
        return self.to(count)


_quiet = False


def set_quiet(quiet: bool) -> None:
    """Show no bars from now on (``--quiet``)."""
    global _quiet
    _quiet = quiet


def progress(total: int | None, unit: str, label: str, initial: int = 0) -> tqdm[Any]:
    """A bar that appears after two seconds of work, on standard error, and leaves nothing in logs.

    Use as a context manager, ``bar.update(n)`` for n finished units, ``bar.set_postfix(...)`` for
    figures.
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
    """That of the terminal. Some say that they have 0 columns, and tqdm would draw nothing
    there.
    """
    try:
        known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        known = True
    return {"dynamic_ncols": True} if known else {"ncols": 80, "nrows": 24}


def with_progress(items: Sequence[Item], unit: str, label: str) -> Iterator[Item]:
    """The items one after another, with a bar that counts those whose turn is over."""
    with progress(len(items), unit, label) as bar:
        for item in items:
            yield item
            bar.update(1)


@contextmanager
def show_activity(label: str) -> Iterator[None]:
    """Show that a step which cannot be counted is going on: a line with the time that has passed,
    after two seconds.
    """
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


def describe_kept(done: float, total: int, what: str) -> str:
    """``3 of 12 parts of out/scores``, for `note_on_interrupt`; empty where nothing is done."""
    return f"{int(done)} of {total} {what}" if done else ""


@contextmanager
def note_on_interrupt(describe: Callable[[], str]) -> Iterator[None]:
    """Let Ctrl-C say what is kept of the work in this block.

    Args:
        describe: gives what is kept, such as ``3 of 12 parts of out/scores``, or an empty text for
            nothing. It is a note of the KeyboardInterrupt, which the command line prints.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        kept = describe()
        if kept:
            error.add_note(kept)
        raise
