"""The browsers there are to open a page with: Chromium where it is installed, and the one in the
package PyQt6-WebEngine.

Both are Chromium, run without a screen and without a network. The package is among the extras for
development, so that one is there wherever the tests run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

CHROME = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
_NO_LIBRARY = 77
_QT = """
import sys
try:
    from PyQt6.QtCore import QUrl
    from PyQt6.QtWebEngineCore import QWebEnginePage, QWebEngineProfile, QWebEngineSettings, QWebEngineUrlRequestInterceptor
    from PyQt6.QtWidgets import QApplication
except ImportError as error:
    sys.exit(print(error, file=sys.stderr) or 77)

class Alone(QWebEngineUrlRequestInterceptor):
    asked = []
    def interceptRequest(self, about):
        self.asked.append(about.requestUrl().toString())
        about.block(about.requestUrl().toString() != sys.argv[1])

def write(text):
    sys.stdout.buffer.write(text.encode())
    application.exit(0 if alone.asked == sys.argv[1:] else print(alone.asked, file=sys.stderr) or 3)

application = QApplication(["page"])
profile, alone = QWebEngineProfile(), Alone()
profile.setUrlRequestInterceptor(alone)
page = QWebEnginePage(profile)
# allowed, so that the interceptor sees a request of the page and it does not merely come to nothing
page.settings().setAttribute(QWebEngineSettings.WebAttribute.LocalContentCanAccessRemoteUrls, True)
page.loadFinished.connect(lambda fine: page.toHtml(write) if fine else application.exit(4))
page.load(QUrl(sys.argv[1]))
code = application.exec()
del page  # before its profile
sys.exit(code)
"""


def _chromium(page: Path) -> str:
    if CHROME is None:
        pytest.skip("no Chromium or Chrome is installed")
    done = subprocess.run(
        [
            CHROME,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={page.parent / 'profile'}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def _qt(page: Path) -> str:
    if find_spec("PyQt6") is None:
        if CHROME is None and os.environ.get("CI"):
            pytest.fail("no browser is there to open the page with; install the extra dev")
        pytest.skip("PyQt6-WebEngine is not installed")
    own = {
        "QT_QPA_PLATFORM": "offscreen",
        "QTWEBENGINE_DISABLE_SANDBOX": "1",
        "QTWEBENGINE_CHROMIUM_FLAGS": "--disable-gpu",
        "XDG_RUNTIME_DIR": str(page.parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", _QT, page.as_uri()],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        env=os.environ | own,
    )
    if done.returncode == _NO_LIBRARY and not os.environ.get("CI"):
        pytest.skip(f"PyQt6-WebEngine cannot be loaded: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


BROWSERS = {"chromium": _chromium, "qt": _qt}
"""Each gives the document of a page as it is after its scripts ran, and fails where the page asks
for anything else.
"""
