"""Quality against cost: which systems no other one beats on both, and a drawing of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irdistill.errors import IrdistillError, MissingExtraError
from irdistill.evaluation.evaluator import Evaluation
from irdistill.storage.ownership import replace_safely

if TYPE_CHECKING:
    from irdistill.evaluation.efficiency import Efficiency

SUFFIXES = (".svg", ".pdf", ".png")


def retention(found: Evaluation, teacher: str) -> dict[str, float]:
    """Each system's first measure on the first dataset as a share of the teacher's."""
    if not found.rows or teacher not in found.systems:
        return {}
    dataset, measure = found.datasets[0], found.measures[0]
    whole = found.row(teacher, dataset, measure).value
    return (
        {system: found.row(system, dataset, measure).value / whole for system in found.systems}
        if whole
        else {}
    )


def points(found: Evaluation, costs: Sequence[Efficiency]) -> list[dict[str, Any]]:
    """Of the systems with both: milliseconds a query (p50) and the first measure on the first
    dataset.
    """
    values = (
        {
            row.system: row.value
            for row in found.rows
            if (row.dataset, row.measure) == (found.datasets[0], found.measures[0])
        }
        if found.rows
        else {}
    )
    return [
        {
            "system": cost.system,
            "cost": cost.p50_ms,
            "value": values[cost.system],
            "measure": found.measures[0],
        }
        for cost in costs
        if cost.system in values
    ]


def frontier(given: Sequence[Mapping[str, Any]]) -> list[bool]:
    """For each point whether no other is at least as good at no more cost, and better in one of
    both.
    """
    return [
        not any(
            other["value"] >= point["value"]
            and other["cost"] <= point["cost"]
            and (other["value"], other["cost"]) != (point["value"], point["cost"])
            for other in given
        )
        for point in given
    ]


def draw(given: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draw the points and the line through the best of them, as SVG, PDF or PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
        IrdistillError: there is no point.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots", "drawing quality against cost") from error
    if not given:
        raise IrdistillError(
            'no system has both a figure and a cost; give a results.json with "rows" and'
            ' "efficiency", as a recipe with the verbs evaluate and measure writes it.'
        )
    best = sorted(
        (point for point, chosen in zip(given, frontier(given), strict=True) if chosen),
        key=lambda point: point["cost"],
    )
    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "irdistill",
            "text.parse_math": False,
            "font.size": 9,
        }
    ):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(
            [point["cost"] for point in best],
            [point["value"] for point in best],
            "--",
            color="#c0603a",
            linewidth=1,
        )
        axes.scatter(
            [point["cost"] for point in given],
            [point["value"] for point in given],
            color="#3b6ea5",
            zorder=3,
        )
        for point in given:
            axes.annotate(
                point["system"],
                (point["cost"], point["value"]),
                xytext=(5, 4),
                textcoords="offset points",
            )
        axes.set_xscale("log")
        axes.set_xlabel("milliseconds a query (p50, one thread)")
        axes.set_ylabel(str(given[0]["measure"]))
        axes.spines[["top", "right"]].set_visible(False)
        form = Path(path).suffix[1:]
        with replace_safely(path) as temporary:
            figure.savefig(
                temporary, format=form, metadata={"Date": None} if form == "svg" else None, dpi=150
            )
