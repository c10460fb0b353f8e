"""``--view``: the local page beside a job, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

from irdistill.console.terminal import echo
from irdistill.errors import OptionError
from irdistill.view.view_options import check_view_extra

_SERVER = "irdistill.view.companion_server"


def viewed_folder(verb: str, values: Mapping[str, Any]) -> Path:
    """The folder that the page shows: that of a recipe, or the one in which a result is made.

    Raises:
        OptionError: the result has no folder.
    """
    out = values.get("out")
    if out is None and verb == "run":
        from irdistill.recipes.recipe import read_recipe

        out = Path("out") / read_recipe(values["recipe"], values.get("set") or ()).name
    if out is None:
        raise OptionError("--view shows the folder of the result; give --out, too.")
    return Path(out) if verb in ("run", "specialise") else Path(out).parent


@contextmanager
def page_beside(verb: str, values: Mapping[str, Any]) -> Iterator[None]:
    """Serve the page while a verb works, and print its address once it is there.

    The job does not wait for the page, and the page ends when the job's process does, also if that
    is killed. Of the processes of a ``torchrun`` the first one starts it.

    Raises:
        MissingExtraError: the libraries of the page are not installed.
        OptionError: the result has no folder.
    """
    check_view_extra()
    folder = viewed_folder(verb, values)
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    page = subprocess.Popen(
        [sys.executable, "-m", _SERVER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C is for the job
    )
    assert page.stdin is not None and page.stdout is not None
    Thread(target=_announce, args=(page.stdout, folder), daemon=True).start()
    try:
        yield
    finally:
        with suppress(OSError):
            page.stdin.close()
        echo(f"The page of --view ends with the job; irdistill view {folder} shows it.", err=True)


def _announce(lines: Any, folder: Path) -> None:
    address = lines.readline().strip()
    echo(
        f"view: {address}"
        if address
        else f"the page of --view did not start; try: irdistill view {folder}",
        err=True,
    )
