"""The options of `irdistill view`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True)
class ViewOptions:
    """Options of `irdistill.view`."""

    port: Annotated[
        int, Field(ge=0, le=65535, description="Port on the loopback address; 0: any free one.")
    ] = 0
    open: Annotated[bool, Field(description="Open the page in the browser.")] = False
    collection: Annotated[
        Sequence[str],
        Field(
            description="Collections of the runs and models, if they do not name them or to ask"
            " models on others."
        ),
    ] = ()
