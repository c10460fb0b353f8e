"""The verb `view`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from irdistill.verbs.declaration import verb
from irdistill.view.view_options import ViewOptions, check_view_extra


@verb(
    "view",
    positional=("folders",),
    examples=(
        "irdistill view out",
        "irdistill view out/quickstart bundle --port 8620 --open",
        "# Judge documents under another name than the login name:",
        "irdistill view out --judgments judgments --judge anna",
    ),
)
def view_results(
    folders: Annotated[
        Sequence[Path], Field(description="Folders with results, or bundles; default: this folder.")
    ] = (Path(),),
    *,
    options: ViewOptions = ViewOptions(),
) -> None:
    """Show results on a local web page: watch jobs, ask models, compare rankings, judge documents.

    Only this machine can open the page, and only with the token in the printed address. The page
    reads the folders; judgments are the only files that it writes. Ctrl-C stops it.
    """
    check_view_extra()
    from irdistill.view.server import serve
    from irdistill.view.workspace import Workspace

    serve(Workspace(folders), options)
