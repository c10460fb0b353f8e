"""The page `Watch`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.view.conftest import accessibility_problems


def test_the_page_opens(open_page: Callable[..., Any], tmp_path: Path) -> None:
    page = open_page(tmp_path)
    assert page.get_by_role("heading", level=1).inner_text() == "Watch"
    assert accessibility_problems(page) == []
