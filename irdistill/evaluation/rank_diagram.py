"""The critical-difference diagram of a comparison of losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irdistill.errors import InputError, MissingExtraError, OptionError
from irdistill.evaluation.comparison import Comparison
from irdistill.evaluation.friedman_test import Friedman
from irdistill.storage.ownership import replace_safely

_WIDTH = 7.0
_LINE = 0.24
"""Inches."""
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "irdistill", "font.family": "sans-serif"}


def write_diagram(comparison: Comparison, path: Path) -> None:
    """Draw the critical-difference diagram over (student, collection, seed) as SVG, PNG or PDF.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OptionError: the file has another ending.
        InputError: the comparison has a single block.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots", "the critical-difference diagram") from error
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise OptionError(
            f"the plot {path} has the ending {path.suffix!r}; .svg, .png or .pdf was expected."
        )
    ranks = comparison.over_blocks
    if ranks is None:
        raise InputError(
            "a diagram of ranks needs at least two cells of student, collection and seed; one was"
            " given."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    title = f"mean rank by {comparison.measure} over {ranks.blocks} cells (1 is best)"
    with matplotlib.rc_context({**_STYLE, "font.size": 9}):
        rows = (len(ranks.ranks) + 1) // 2
        figure = Figure(figsize=(_WIDTH, _LINE * (rows + len(ranks.groups) + 6)), facecolor="white")
        _draw(figure.add_axes((0, 0, 1, 1)), ranks, title)
        metadata: dict[str, Any] = {"Date": None, "Creator": None} if path.suffix == ".svg" else {}
        with replace_safely(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], metadata=metadata, dpi=150)


def _draw(axes: Any, result: Friedman, title: str) -> None:
    """An axis of ranks, the best on the left, with names on both sides; bars join what is equal."""
    count, names = len(result.ranks), list(result.ranks)
    left, right = 1.9, _WIDTH - 1.9

    def place(rank: float) -> float:
        return left + (rank - 1) / (count - 1) * (right - left)

    def line(x: Sequence[float], y: Sequence[float], width: float = 0.8) -> None:
        axes.plot(x, y, color="black", linewidth=width, solid_capstyle="butt")

    axes.set_axis_off()
    axes.text(_WIDTH / 2, 3.2, title, ha="center", va="center")
    wide = min(result.critical_difference, count - 1)
    line((left, place(1 + wide)), (1.9, 1.9), 1.5)
    axes.text(
        left, 2.15, f"critical difference {result.critical_difference:.2f}", ha="left", va="bottom"
    )
    line((left, right), (0, 0))
    for rank in range(1, count + 1):
        line((place(rank), place(rank)), (0, 0.25))
        axes.text(place(rank), 0.4, str(rank), ha="center", va="bottom")
    for number, group in enumerate(result.groups):
        ends = [place(result.ranks[group[0]]) - 0.04, place(result.ranks[group[-1]]) + 0.04]
        line(ends, [-0.5 - 0.45 * number] * 2, 3.0)
    below = -0.9 - 0.45 * len(result.groups)
    half = (count + 1) // 2
    for number, name in enumerate(names):
        first = number < half
        y = below - (number if first else count - 1 - number)
        end = left - 0.1 if first else right + 0.1
        line((place(result.ranks[name]), place(result.ranks[name]), end), (0, y, y))
        text = f"{name}  {result.ranks[name]:.2f}" if first else f"{result.ranks[name]:.2f}  {name}"
        axes.text(
            end - 0.06 if first else end + 0.06,
            y,
            text,
            ha="right" if first else "left",
            va="center",
        )
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(below - half, 3.8)
