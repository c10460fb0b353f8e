"""A headless system Chromium for tests that open an HTML page."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def dom_after_scripts(page: Path) -> str:
    """Return the document of a page after its scripts ran; skip the test without a browser.

    The browser has no network, and the test fails if the page requests anything but itself.
    """
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        pytest.skip(f"no Chromium or Chrome is installed (looked for {', '.join(NAMES)})")
    log = page.with_suffix(".netlog.json")
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={page.parent / 'profile'}",
            f"--log-net-log={log}",
            "--virtual-time-budget=10000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    requests = _requests_of_the_page(log)
    assert not requests, f"the page requested {', '.join(requests)}"
    return done.stdout


def _requests_of_the_page(log: Path) -> list[str]:
    """Return the addresses that the page requested; the browser's own requests have no origin."""
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    parameters = [event.get("params") or {} for event in events]
    return [
        entry["url"]
        for entry in parameters
        if entry.get("initiator", "not an origin") != "not an origin"
    ]
