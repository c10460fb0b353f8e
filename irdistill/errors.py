"""Exceptions. All of them derive from `IrdistillError`; the command line prints the message alone.

A message says what was given, what was expected, and how to fix it.
"""

from __future__ import annotations

from pathlib import Path


class IrdistillError(Exception):
    """Base class of all errors of irdistill; the command line exits with 1."""


class InputError(IrdistillError, ValueError):
    """A file, a table or an object holds data that cannot be used."""


class OptionError(IrdistillError, ValueError):
    """An option or an argument has a value that is not allowed, or two options contradict."""


class NotFoundError(IrdistillError, LookupError):
    """A collection, run, model, card, query or document does not exist."""


class WrongCollectionError(IrdistillError):
    """A run or a stored artifact belongs to another collection or corpus."""


class LabelLeakError(IrdistillError):
    """Scores that contain labels would decide a figure."""


class OutputExistsError(IrdistillError):
    """The output already exists, or holds files that irdistill did not write."""


class SettingsDifferError(IrdistillError):
    """A job cannot be resumed because it was started with other settings."""


class DamagedError(IrdistillError):
    """A file does not hold the bytes that were written: it is truncated or fails its checksum.

    Args:
        path: the file or folder; the subject of the message.
        damage: what is wrong with it.
        advice: one sentence that says what to do.
    """

    def __init__(self, path: Path, damage: str, advice: str) -> None:
        super().__init__(f"{path} {damage}. {advice}")
        self.path = path


class LockedError(IrdistillError):
    """Another process is writing to the same folder."""


class ModelError(IrdistillError):
    """A model cannot be loaded, or does not do what it is used for."""


class NothingScoredError(ModelError):
    """A teacher scored no document. The run is complete and saved, with a flag per document."""


class ServerError(IrdistillError):
    """A server did not answer, or answered with an error."""


class BudgetError(IrdistillError):
    """The budget of requests, tokens or money is spent."""


class MissingExtraError(IrdistillError, ImportError):
    """An optional library is not installed.

    Args:
        library: name of the library.
        extra: the extra of irdistill that installs it; None if there is none.
        why: what needs it; the subject of the message.
        alternative: another library and its extra, one of which is enough.
    """

    def __init__(
        self,
        library: str,
        extra: str | None,
        why: str,
        alternative: tuple[str, str] | None = None,
    ) -> None:
        install = f"pip install {library if extra is None else repr(f'irdistill[{extra}]')}"
        if alternative is None:
            message = f"the library {library!r}, which is not installed. Install it with: {install}"
        else:
            message = (
                f"{library!r} or {alternative[0]!r}, and neither is installed. Install one of them,"
                f" not both, with: {install} or pip install 'irdistill[{alternative[1]}]'"
            )
        super().__init__(f"{why} needs {message}")


def one_line(error: object, limit: int = 300) -> str:
    """The message of an error of a library on one line, without the full stop at its end.

    Examples:
        >>> one_line(ValueError("no such\\n  file."))
        'no such file'
    """
    text = " ".join(str(error).split())[:limit].rstrip(". ")
    return text or type(error).__name__
