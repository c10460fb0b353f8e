"""The options of `irdistill view`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import Field

from irdistill.errors import MissingExtraError


@dataclass(frozen=True)
class ViewOptions:
    """Options of `irdistill.view`."""

    port: Annotated[
        int, Field(ge=0, le=65535, description="Port on the loopback address; 0: any free one.")
    ] = 0
    judgments: Annotated[
        Path,
        Field(
            description="Folder of what is judged on the page: a file for each judge, of one"
            " collection. Made when judging begins."
        ),
    ] = Path("judgments")
    judge: Annotated[
        str | None, Field(description="Name of the person who judges (default: the login name).")
    ] = None
    open: Annotated[bool, Field(description="Open the page in the browser.")] = False
    collection: Annotated[
        Sequence[str],
        Field(
            description="Collections of the runs and models, if they do not name them or to ask"
            " models on others."
        ),
    ] = ()


def check_view_extra() -> None:
    """Check that the libraries of the page are installed.

    Raises:
        MissingExtraError: one is not.
    """
    for name in ("starlette", "uvicorn"):
        if find_spec(name) is None:
            raise MissingExtraError(name, "view", "the local page")
