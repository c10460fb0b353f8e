"""Figures drawn with matplotlib (the extra ``plots``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irdistill.errors import MissingExtraError, OptionError
from irdistill.storage.ownership import replace_safely

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = (".svg", ".png", ".pdf")
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "irdistill",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
}


@contextmanager
def drawn_figure(path: Path, size: tuple[float, float], what: str) -> Iterator[Figure]:
    """Give an empty figure of a size in inches; when the block ends, write it to the file.

    An SVG file has no date, so that the same figure gives the same bytes.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots", what) from error
    if path.suffix not in ENDINGS:
        raise OptionError(
            f"the plot {path} has the ending {path.suffix!r}; one of {', '.join(ENDINGS)} was"
            " expected."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata: dict[str, Any] = {"Date": None, "Creator": None} if path.suffix == ".svg" else {}
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, facecolor="white")
        yield figure
        with replace_safely(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], metadata=metadata, dpi=150)
