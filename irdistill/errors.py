"""The errors a user meets: one paragraph each, saying what was got, what was expected and how to
mend it.
"""

from __future__ import annotations


class IrdistillError(Exception):
    """A fault in what the user gave or has installed. The command line prints it alone and exits
    with 1.
    """


class MissingExtra(IrdistillError):
    """An optional library is needed and absent."""

    def __init__(self, library: str, extra: str, why: str) -> None:
        super().__init__(
            f"{why} needs the library {library!r}, which is not installed. "
            f"Install it with: pip install 'irdistill[{extra}]'"
        )
