"""Progress bars with rate and ETA, for anything that takes more than two seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from irdistill.terminal import printable

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Show no bars from now on (``--quiet``)."""
    global _quiet
    _quiet = quiet


def progress(total: int | None, unit: str, label: str, initial: int = 0) -> tqdm[Any]:
    """A bar that appears after two seconds of work, on standard error, and leaves nothing in logs.

    Use as a context manager, ``bar.update(n)`` for n finished units, ``bar.set_postfix(...)`` for figures.
    """
    return tqdm(
        total=total, unit=f" {unit}", desc=printable(label), initial=initial, delay=2, mininterval=0.5, leave=False,
        disable=_quiet or not sys.stderr.isatty(), unit_scale=bool(total and total >= 100_000), dynamic_ncols=True,
    )


@contextmanager
def kept_when_stopped(describe: Callable[[], str]) -> Iterator[None]:
    """Let Ctrl-C say what is kept of the work in this block.

    Args:
        describe: gives what is kept, such as ``3 of 12 parts of out/scores``, or an empty text for nothing. It is a note of the
            KeyboardInterrupt, which the command line prints.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        kept = describe()
        if kept:
            error.add_note(kept)
        raise
