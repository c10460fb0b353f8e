"""The page that shows what lies below the folders, and what runs there."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from irdistill.view.application import show_page, workspace_of


def watch_page(request: Request) -> Response:
    """The artifacts of the workspace."""
    return show_page(request, "watch.html.j2", artifacts=workspace_of(request).artifacts())


ROUTES = [Route("/watch", watch_page)]
