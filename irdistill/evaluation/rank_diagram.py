"""The critical-difference diagram of a comparison of losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irdistill.errors import InputError
from irdistill.evaluation.comparison import Comparison
from irdistill.evaluation.friedman_test import Friedman
from irdistill.evaluation.reporting.drawing import drawn_figure

_WIDTH = 7.0
_LINE = 0.24
"""Inches."""


def write_diagram(comparison: Comparison, path: Path) -> None:
    """Draw the critical-difference diagram over (student, collection, seed) as SVG, PNG or PDF."""
    ranks = comparison.over_blocks
    if ranks is None:
        raise InputError(
            "a diagram of ranks needs at least two cells of student, collection and seed; one was"
            " given."
        )
    title = f"mean rank by {comparison.measure} over {ranks.blocks} cells (1 is best)"
    height = _LINE * ((len(ranks.ranks) + 1) // 2 + len(ranks.groups) + 6)
    with drawn_figure(path, (_WIDTH, height), "the critical-difference diagram") as figure:
        _draw(figure.add_axes((0, 0, 1, 1)), ranks, title)


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
        x, side = (end - 0.06, "right") if first else (end + 0.06, "left")
        axes.text(x, y, text, ha=side, va="center")
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(below - half, 3.8)
