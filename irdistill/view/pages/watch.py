"""The pages that show jobs: all of them, and one with its curves or stages."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from irdistill.errors import OptionError
from irdistill.view.application import send_json, show_page, state_of
from irdistill.view.job_board import JobListing
from irdistill.view.result_links import links_of
from irdistill.view.workspace import Artifact

_LIMIT, _MOST = 100, 5_000


def watch_page(request: Request) -> Response:
    """All jobs: those that run, then the others."""
    return show_page(request, "watch.html.j2", data=_listing(request).to_json())


def job_page(request: Request) -> Response:
    """One job."""
    artifact = _artifact(request)
    board = state_of(request).jobs
    details = board.details(artifact)
    return show_page(
        request,
        "job.html.j2",
        artifact=artifact,
        job=board.job(artifact),
        details=details,
        links=links_of(artifact, {getattr(route, "path", "") for route in request.app.routes}),
        data=_job_data(request, artifact),
    )


def jobs_json(request: Request) -> Response:
    """The jobs that match a filter."""
    return send_json(_listing(request).to_json())


def job_json(request: Request) -> Response:
    """The state of a job, and the points of its curves since an earlier answer."""
    return send_json(_job_data(request, _artifact(request)))


def _artifact(request: Request) -> Artifact:
    return state_of(request).workspace.artifact(request.query_params.get("at", ""))


def _listing(request: Request) -> JobListing:
    values = request.query_params
    limit = min(_number(request, "limit", _LIMIT), _MOST)
    return state_of(request).jobs.listing(values.get("words", ""), values.get("state", ""), limit)


def _job_data(request: Request, artifact: Artifact) -> dict[str, Any]:
    board = state_of(request).jobs
    since, generation = (_number(request, name, 0) for name in ("since", "generation"))
    return {
        "job": board.job(artifact).to_json(),
        "stages": board.details(artifact).stages,
        **board.charts(artifact, since, generation),
    }


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or len(text) > 15:
        raise OptionError(f"{name} is {text[:40]!r}; a whole number was expected.")
    return int(text)


ROUTES = [
    Route("/watch", watch_page),
    Route("/watch/job", job_page),
    Route("/api/jobs", jobs_json),
    Route("/api/job", job_json),
]
