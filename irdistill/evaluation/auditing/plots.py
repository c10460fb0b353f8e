"""Plots of an audit as inline SVG, drawn with matplotlib (the extra ``plots``)."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import Any

from irdistill.errors import MissingExtraError
from irdistill.evaluation.auditing.distribution import Histogram
from irdistill.evaluation.auditing.findings import Audit

_COLOURS = ("#3b6ea5", "#c0603a", "#4d8c57", "#8a5aa8", "#a8862b", "#5a5a5a")
_SIZE = (4.6, 2.5)


def require_plots() -> None:
    """Check, before any work is done, that matplotlib is there.

    Raises:
        MissingExtraError: it is not.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots", "the plots of an audit") from error


def plots(found: Audit) -> dict[str, list[str]]:
    """Section key -> SVG elements: scores and margins of each teacher, and each comparison with the
    first stage.
    """
    require_plots()
    drawn: dict[str, list[str]] = {"scores": [], "margins": [], "quality": []}
    draw = _Drawer()
    for number, teacher in enumerate(found.teachers):
        colour = _COLOURS[number % len(_COLOURS)]
        if teacher.distribution.histogram is not None:
            drawn["scores"].append(
                draw(
                    f"Scores of {teacher.teacher}",
                    "score",
                    "documents",
                    _bars(teacher.distribution.histogram, colour),
                )
            )
        if teacher.margins.histogram is not None:
            drawn["margins"].append(
                draw(
                    f"Margins of {teacher.teacher}",
                    "relevant minus other",
                    "pairs",
                    _bars(teacher.margins.histogram, colour, zero=True),
                )
            )
        if teacher.quality is not None and teacher.quality.against is not None:
            against = teacher.quality.against
            drawn["quality"].append(
                draw(
                    f"{teacher.teacher} minus the first stage",
                    "queries, sorted",
                    against.deciding.measure,
                    _changes(against.changes, colour),
                )
            )
    return drawn


def _bars(seen: Histogram, colour: str, zero: bool = False) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        axes.stairs(seen.counts, seen.edges, fill=True, color=colour)
        if zero:
            axes.axvline(0, color="#333333", linewidth=0.8, linestyle="--")

    return draw


def _changes(values: tuple[float, ...], colour: str) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        # a staircase, as a bar for each of thousands of queries would make the page heavy
        axes.stairs(values, range(len(values) + 1), fill=True, color=colour)
        axes.axhline(0, color="#333333", linewidth=0.8)

    return draw


class _Drawer:
    """Draws figures one after another, each with ids of its own, as a page may hold an id once."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self, title: str, x: str, y: str, content: Callable[[Any], None]) -> str:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        self.drawn += 1
        settings: Mapping[str, Any] = {
            "svg.fonttype": "none",
            "svg.hashsalt": "irdistill",
            "font.size": 8,
            "font.family": "sans-serif",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "text.parse_math": False,
        }
        with matplotlib.rc_context(dict(settings)):
            figure = Figure(figsize=_SIZE, layout="constrained")
            axes = figure.add_subplot()
            content(axes)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            stream = io.StringIO()
            FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
        return _inline(stream.getvalue(), f"plot{self.drawn}-")


def _inline(svg: str, prefix: str) -> str:
    """The element alone: no prologue, no metadata, no namespace addresses, ids with a prefix."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r"<!--.*?-->", "", element, flags=re.DOTALL)
    element = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", element)
    element = re.sub(r'\bid="', f'id="{prefix}', element)
    element = element.replace("url(#", f"url(#{prefix}").replace('href="#', f'href="#{prefix}')
    return element.replace("<svg ", '<svg role="img" ', 1).strip()
