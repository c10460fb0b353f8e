"""Pictures of the pages of `irdistill view` and of the report, from the results of the quickstart.

    irdistill run quickstart --out out/quickstart
    python benchmarks/view_pictures.py out --pictures docs/images

Needs Chromium and the extra ``dev``.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

WIDTH, HEIGHT = 1280, 860
QUERY = "how do I merge two dictionaries"
_WORKING = "^(Loading|Computing|Reading) .*…$"
"""What pages say while they work."""


def addresses(recipe: str) -> dict[str, str]:
    """The name of each picture, and the address of its page, for the results of the quickstart."""
    student, runs = f"{recipe}/student", [f"{recipe}/student-test", f"{recipe}/small-test"]
    model = f"{student}/model @ pydocs/train"
    why = {"at": model, "query": QUERY, "doc": "dict"}
    return {
        "watch": "/watch",
        "training": "/watch/job?" + urlencode({"at": student}),
        "ask": "/ask?" + urlencode({"q": QUERY, "a": model, "b": "bm25 @ pydocs/train"}),
        "why": "/why?" + urlencode(why | {"at": "bm25 @ pydocs/train"}),
        "compare": "/compare?"
        + urlencode({"at": runs, "baseline": f"{recipe}/bm25-test"}, doseq=True),
        "queries": "/compare?" + urlencode({"at": runs[0], "baseline": f"{recipe}/teacher-test"}),
        "frontier": "/frontier",
        "judge": "/judge?" + urlencode({"at": runs[0]}),
        "scores": "/scores?" + urlencode({"at": f"{recipe}/teacher-test"}),
    }


def take(page: Any, picture: Path) -> None:
    """Take a picture of an open page when it has finished its work, in 256 colors."""
    from PIL import Image

    page.wait_for_timeout(2000)
    while re.search(_WORKING, page.locator("main").inner_text(), re.MULTILINE):
        page.wait_for_timeout(500)
    if picture.stem == "view-queries":
        queries = page.locator("#queries")
        queries.press("Home")
        queries.press("Enter")
        page.locator("#query h3").first.wait_for()
        page.evaluate("document.getElementById('measure').closest('section').scrollIntoView()")
    page.wait_for_timeout(500)
    shot = Image.open(io.BytesIO(page.screenshot()))
    shot.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(picture, optimize=True)
    print(f"{picture} ({picture.stat().st_size // 1024} KB)")


def main() -> None:
    """Serve the folder and take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the folder that holds the recipe's folder")
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--pictures", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", nargs="*", default=None)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    folder = str(options.folder.resolve())
    command = [sys.executable, "-m", "irdistill", "view", folder, "--judge", "reader"]
    with tempfile.TemporaryDirectory() as judgments, sync_playwright() as driver:
        server = subprocess.Popen(command, cwd=judgments, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.goto(address)
            origin = address.partition("/?")[0]
            for name, path in addresses(options.recipe).items():
                if options.only is None or name in options.only:
                    page.goto(origin + path)
                    take(page, options.pictures / f"view-{name}.png")
            browser.close()
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
