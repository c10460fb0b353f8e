"""A real browser for tests of pages. Without Chromium these tests are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import pytest

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
def open_address(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens an address; a console error or a request to elsewhere fails the test."""
    problems: list[str] = []
    contexts = []

    def open_page(address: str, width: int = 1280, dark: bool = False) -> Any:
        # axe is added to the page as a script, which the page's policy forbids to everyone else
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            bypass_csp=True,
        )
        contexts.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        is_file = address.startswith("file:")
        allowed = (address if is_file else address.split("/?")[0], "data:", "blob:")
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on(
            "console",
            lambda message: problems.append(message.text) if message.type == "error" else None,
        )
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(allowed)
                else problems.append(f"request to {request.url}")
            ),
        )
        page.goto(address)
        return page

    yield open_page
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
