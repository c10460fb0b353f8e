"""The web application: its pages, its static files, and how errors are shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from jinja2 import Environment
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from irdistill.errors import IrdistillError, NotFoundError, one_line
from irdistill.evaluation import reporting
from irdistill.evaluation.reporting.findings import plain
from irdistill.evaluation.reporting.rendering import page_environment, script_json
from irdistill.view.background_results import BackgroundResults
from irdistill.view.job_board import JobBoard
from irdistill.view.judging_desk import JudgingDesk
from irdistill.view.opened_systems import OpenedSystems
from irdistill.view.request_guard import RequestGuard
from irdistill.view.run_collections import RunCollections
from irdistill.view.run_summaries import RunSummaries
from irdistill.view.view_options import ViewOptions
from irdistill.view.workspace import Workspace

#: The pages of the menu: path, title, module of `irdistill.view.pages`.
PAGES = (
    ("/watch", "Watch", "watch"),
    ("/ask", "Ask", "ask"),
    ("/compare", "Compare", "compare"),
    ("/frontier", "Frontier", "frontier"),
    ("/judge", "Judge", "judge"),
    ("/scores", "Score files", "scores"),
)
#: Modules with pages that are reached from other pages.
LINKED_PAGES = (
    "run_page",
    "why",
)

_STATIC_FOLDERS = (
    Path(__file__).parent / "static",
    Path(str(reporting.__file__)).parent / "templates",
)
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class ViewState:
    """What the pages share.

    Attributes:
        jobs: the jobs below the viewed folders.
        results: results that are computed in the background.
        summaries: the runs of the workspace in short.
        collections: the collections of runs.
        systems: the bundles and models that are asked.
        judging: the queues of pairs, and the files of judgments.
    """

    workspace: Workspace
    options: ViewOptions
    jobs: JobBoard
    results: BackgroundResults
    summaries: RunSummaries
    collections: RunCollections
    systems: OpenedSystems
    judging: JudgingDesk


def build_application(workspace: Workspace, token: str, options: ViewOptions) -> Starlette:
    """The application for the artifacts of a workspace.

    Each module of a page has ``ROUTES``. Endpoints are plain functions, which run in threads; they
    find the workspace, the options and more by `state_of`.

    Args:
        token: the secret that requests must show.
    """
    routes = [
        Route("/", lambda request: RedirectResponse(PAGES[0][0])),
        Route("/static/{name}", _static_file),
    ]
    for module in (*(page[2] for page in PAGES), *LINKED_PAGES):
        routes += import_module(f"irdistill.view.pages.{module}").ROUTES
    application = Starlette(
        routes=routes,
        middleware=[Middleware(RequestGuard, token=token)],
        exception_handlers={
            IrdistillError: _show_error,
            HTTPException: _show_error,
            Exception: _show_error,
        },
    )
    collections = RunCollections(workspace.folders, options.collection)
    application.state.view = ViewState(
        workspace,
        options,
        JobBoard(workspace),
        BackgroundResults(),
        RunSummaries(),
        collections,
        OpenedSystems(workspace, collections, tuple(options.collection)),
        JudgingDesk(workspace, collections, options),
    )
    return application


def state_of(request: Request) -> ViewState:
    """What the pages share."""
    state: ViewState = request.app.state.view
    return state


def show_page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page from a template of ``view/templates``, which extends ``layout.html.j2``."""
    menu = [(path, title) for path, title, _ in PAGES]
    text = _environment().get_template(template).render(path=request.url.path, menu=menu, **values)
    return HTMLResponse(text, status)


def send_json(value: Any, status: int = 200) -> Response:
    """A JSON response: dataclasses as objects, numbers at full precision, null for NaN."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
    return Response(text, status, media_type="application/json")


@cache
def _environment() -> Environment:
    environment = page_environment("irdistill.view")
    environment.filters["json"] = lambda value: script_json(plain(value))
    return environment


def _static_file(request: Request) -> Response:
    name = request.path_params["name"]
    files = _static_files()
    if name not in files:
        raise HTTPException(404, f"There is no file {name}.")
    return Response(files[name].read_bytes(), media_type=_TYPES[files[name].suffix])


@cache
def _static_files() -> Mapping[str, Path]:
    return {
        path.name: path
        for folder in _STATIC_FOLDERS
        for path in folder.iterdir()
        if path.suffix in _TYPES
    }


def _show_error(request: Request, error: Exception) -> Response:
    """An error as a page, or as JSON for a script's request."""
    status = 500
    if isinstance(error, HTTPException):
        status, message = error.status_code, error.detail
    elif isinstance(error, IrdistillError):
        status, message = (404 if isinstance(error, NotFoundError) else 400), str(error)
    else:
        message = f"internal error: {type(error).__name__}: {one_line(error)}"
    if request.url.path.startswith("/api/"):
        return send_json({"error": message}, status)
    return show_page(request, "error.html.j2", status, message=message, code=status)
