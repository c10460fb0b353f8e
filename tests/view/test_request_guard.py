"""Who may read the page, and change something through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from irdistill.errors import NotFoundError
from irdistill.view.application import build_application
from irdistill.view.view_options import ViewOptions
from irdistill.view.workspace import Workspace
from tests.view.conftest import TOKEN

ORIGIN = "http://127.0.0.1:8620"


def client(folder: Path, signed_in: bool = True) -> TestClient:
    application = build_application(Workspace([folder]), TOKEN, ViewOptions())
    opened = TestClient(application, base_url=ORIGIN, raise_server_exceptions=False)
    if signed_in:
        opened.get(f"/?token={TOKEN}")
    return opened


def test_the_token_becomes_a_cookie_and_leaves_the_address(tmp_path: Path) -> None:
    opened = client(tmp_path, signed_in=False)
    assert opened.get("/watch").status_code == 403
    assert opened.get("/watch?token=wrong").status_code == 403
    answer = opened.get(f"/watch?a=1&token={TOKEN}&b=", follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["location"] == "/watch?a=1&b="
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert opened.get("/watch").status_code == 200


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example"])
def test_the_token_does_not_lead_elsewhere(tmp_path: Path, path: str) -> None:
    answer = client(tmp_path).get(f"{ORIGIN}{path}?token={TOKEN}", follow_redirects=False)
    assert answer.headers["location"] == "/evil.example" + ("/" if path.endswith("/") else "")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8620", "", "[::2]:8620"])
def test_foreign_hosts_are_refused(tmp_path: Path, host: str) -> None:
    assert client(tmp_path).get("/watch", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": ORIGIN, "Content-Type": "application/json"}, 405),
        ({"Origin": "http://evil.example", "Content-Type": "application/json"}, 403),
        ({"Content-Type": "application/json"}, 403),
        ({"Origin": ORIGIN, "Content-Type": "text/plain"}, 415),
    ],
)
def test_changes_come_from_the_page_itself(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    assert client(tmp_path).post("/watch", headers=headers, content="{}").status_code == status


def test_every_response_has_the_security_headers(tmp_path: Path) -> None:
    opened = client(tmp_path)
    for path in ("/watch", "/static/style.css", "/nowhere"):
        headers: Any = opened.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_static_files_are_a_fixed_list(tmp_path: Path) -> None:
    opened = client(tmp_path)
    assert opened.get("/static/page_tools.js").status_code == 200
    for name in ("report.html.j2", "..%2f..%2fapplication.py", "%2e%2e/server.py"):
        assert opened.get(f"/static/{name}").status_code == 404


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no folder"):
        Workspace([tmp_path / "none"])
