"""The page that a job shows with ``--view``: ``python -m irdistill.view.companion_server FOLDER``.

It prints its address, and ends soon after the job, which holds the other end of its standard input.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from irdistill.view.server import PageServer
from irdistill.view.view_options import ViewOptions
from irdistill.view.workspace import Workspace

_NICENESS = 10
"""The job goes first."""

_FAREWELL = 5.0
"""Seconds in which an open page still sees how the job ended."""


def serve_while_open(folder: Path) -> None:
    """Serve the page of a folder, which may be created later, until standard input ends."""
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    page = PageServer(Workspace([folder], wait=True), ViewOptions())

    def wait_for_the_end() -> None:
        sys.stdin.read()
        time.sleep(_FAREWELL)
        page.stop()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    print(page.address, flush=True)
    page.run()


if __name__ == "__main__":
    serve_while_open(Path(sys.argv[1]))
