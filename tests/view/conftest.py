"""A browser, and the page of a folder served in a thread. Without Chromium these tests are skipped."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from irdistill.view.application import build_application
from irdistill.view.server import page_address
from irdistill.view.view_options import ViewOptions
from irdistill.view.workspace import Workspace

TOKEN = "the-token"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's package chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        # Chromium's own sandbox needs privileges that containers lack; the pages are ours.
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


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
def open_page(browser: Any, serve_view: Callable[..., str]) -> Iterator[Callable[..., Any]]:
    """Opens the page of folders in the browser; a console error or outside request fails the test."""
    problems: list[str] = []
    contexts = []

    def open_folders(
        *folders: Path, width: int = 1280, path: str = "", dark: bool = False, **options: Any
    ) -> Any:
        address = serve_view(*folders, **options)
        # axe is added to the page as a script, which the page's policy forbids to everyone else
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            bypass_csp=True,
        )
        contexts.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        origin = address.split("/?")[0]
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on(
            "console",
            lambda message: problems.append(message.text) if message.type == "error" else None,
        )
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((origin, "data:", "blob:"))
                else problems.append(f"request to {request.url}")
            ),
        )
        page.goto(address)
        if path:
            page.goto(origin + path)
        return page

    yield open_folders
    for context in contexts:
        context.close()
    assert problems == []


def accessibility_problems(page: Any) -> list[str]:
    """The serious violations that axe-core finds in an open page."""
    page.add_script_tag(content=(files("axe_core_python") / "axe.min.js").read_text("utf-8"))
    results = page.evaluate("axe.run()")
    return [
        f"{problem['id']}: {problem['help']}: {problem['nodes'][0]['html'][:200]}"
        for problem in results["violations"]
        if problem["impact"] in ("serious", "critical")
    ]
