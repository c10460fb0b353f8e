"""The page of a folder served in a thread, and opened in the browser."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from irdistill.view.application import build_application
from irdistill.view.server import page_address
from irdistill.view.view_options import ViewOptions
from irdistill.view.workspace import Workspace
from tests.browser import accessibility_problems

__all__ = ["TOKEN", "accessibility_problems"]

TOKEN = "the-token"


@pytest.fixture
def serve_view() -> Iterator[Callable[..., str]]:
    """Serves folders, and returns the address with the token."""
    with ExitStack() as stack:

        def serve(*folders: Path, **options: Any) -> str:
            listening = socket.socket()
            listening.bind(("127.0.0.1", 0))
            stack.enter_context(listening)
            application = build_application(Workspace(folders), TOKEN, ViewOptions(**options))
            server = uvicorn.Server(uvicorn.Config(application, log_level="error"))
            thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
            thread.start()
            while not server.started:
                time.sleep(0.01)

            def stop() -> None:
                server.should_exit = True
                thread.join(10)

            stack.callback(stop)
            return page_address(listening.getsockname()[1], TOKEN)

        yield serve


@pytest.fixture
def open_page(
    serve_view: Callable[..., str], open_address: Callable[..., Any]
) -> Callable[..., Any]:
    """Opens the page of folders in the browser; a console error or outside request fails the test.

    The page is closed before its server, which it may ask every second.
    """

    def open_folders(
        *folders: Path, width: int = 1280, path: str = "", dark: bool = False, **options: Any
    ) -> Any:
        address = serve_view(*folders, **options)
        page = open_address(address, width, dark)
        if path:
            page.goto(address.split("/?")[0] + path)
        return page

    return open_folders
