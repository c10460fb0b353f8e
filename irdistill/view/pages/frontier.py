"""The page of quality, latency and index size over many systems."""

from __future__ import annotations

import os
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from irdistill.evaluation.costs import costs_table, index_tables, shown_points
from irdistill.evaluation.measured_systems import (
    MeasuredSystems,
    frontier_sentence,
    measured_below,
    measured_points,
)
from irdistill.evaluation.reporting.findings import Table
from irdistill.view.application import show_page, state_of


def frontier_page(request: Request) -> Response:
    """The plot and table of one dataset and measure."""
    folders = state_of(request).workspace.folders
    groups = {_group_name(group.folder, folders): group for group in measured_below(folders)}
    settings = list(dict.fromkeys(pair for group in groups.values() for pair in group.settings))
    if not settings:
        return show_page(request, "frontier.html.j2", settings=[], points=[])
    chosen = request.query_params.get("setting", "")
    names = [f"{measure} on {dataset}" for dataset, measure in settings]
    dataset, measure = settings[names.index(chosen) if chosen in names else 0]
    points = measured_points(groups, dataset, measure)
    costs = _costs(groups)
    shown = sorted(shown_points(points), key=lambda point: -point["value"])
    return show_page(
        request,
        "frontier.html.j2",
        settings=names,
        chosen=f"{measure} on {dataset}",
        measure=measure,
        sentence=frontier_sentence(points),
        points=shown,
        tables=[costs, *index_tables([cost for g in groups.values() for cost in g.costs])],
    )


def _costs(groups: dict[str, MeasuredSystems]) -> Table:
    """All costs, as ``measure`` prints them, without the column of shares of a teacher's figure."""
    whole = costs_table([cost for group in groups.values() for cost in group.costs])
    return Table(whole.header[:-1], [row[:-1] for row in whole.rows])


def _group_name(folder: Path, roots: tuple[Path, ...]) -> str:
    """A folder's path below the viewed folder, or its name if it is the viewed folder."""
    for root in roots:
        if folder != root and root in folder.parents:
            return folder.relative_to(root).as_posix()
    return folder.resolve().name or os.sep


ROUTES = [Route("/frontier", frontier_page)]
