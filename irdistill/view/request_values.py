"""Values of the addresses of requests, checked."""

from __future__ import annotations

from starlette.requests import Request

from irdistill.errors import OptionError


def whole_number(request: Request, name: str, default: int | None = None) -> int:
    """A parameter that is a whole number, at least 0.

    Raises:
        OptionError: it is another text, or it is missing and has no default.
    """
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isdecimal() or len(text) > 12:
        raise OptionError(f"{name} is {text!r:.80}; a whole number was expected.")
    return int(text)
