"""The parts of a report: findings with sentences, tables and plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

Severity = Literal["info", "good", "caution", "bad"]

UP, DOWN = "▲", "▼"
_LATEX = str.maketrans(
    {letter: f"\\{letter}" for letter in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        UP: r"$^{\blacktriangle}$",
        DOWN: r"$^{\blacktriangledown}$",
    }
)


@dataclass(frozen=True)
class Table:
    """A table of text cells; the first column names the row.

    Attributes:
        caption: the caption in LaTeX; a table without one is left out there.
        words: numbers of the columns that hold sentences, which pages align to the left.

    Examples:
        >>> print(Table(["system", "AP"], [["BM25", "0.25"]]).markdown())
        | system |   AP |
        | ------ | ---: |
        | BM25   | 0.25 |
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    words: Sequence[int] = ()

    def markdown(self) -> str:
        """The table in Markdown, with aligned columns."""
        cells = [
            [" ".join(cell.replace("|", "\\|").split()) for cell in row]
            for row in (self.header, *self.rows)
        ]
        widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
        rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        return "\n".join(
            f"| {' | '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])} |"
            for row in (cells[0], rule, *cells[1:])
        )

    def latex(self) -> str:
        """The table in LaTeX; needs the packages booktabs and amssymb."""

        def line(row: Sequence[str]) -> str:
            return f"{' & '.join(cell.translate(_LATEX) for cell in row)} \\\\"

        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{self.caption.translate(_LATEX)}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
                r"\toprule",
                line(self.header),
                r"\midrule",
                *map(line, self.rows),
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )


@dataclass(frozen=True)
class Plot:
    """A staircase: ``values[i]`` between ``edges[i]`` and ``edges[i + 1]``.

    Attributes:
        color: number of the color; plots of one teacher share it.
    """

    title: str
    x: str
    y: str
    edges: Sequence[float]
    values: Sequence[float]
    color: int = 0


@dataclass(frozen=True)
class Finding:
    """One section of a report or an audit.

    Attributes:
        name: key for JSON and for links within a page.
        title: heading, or empty.
        text, notes: sentences before and after the tables.
        severity: ``info``, ``good``, ``caution`` or ``bad``.
        examples: (what it is, text) each.
        values: the main figures at full precision, by teacher or system; as in `to_json`.
    """

    name: str
    title: str = ""
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    severity: Severity = "info"
    examples: Sequence[tuple[str, str]] = ()
    plots: Sequence[Plot] = ()
    values: Mapping[str, Any] = field(default_factory=dict)


def cell(value: float | None, form: str) -> str:
    """A number in a table; ``-`` where there is none."""
    return "-" if value is None else format(value, form)


def cells(value: Any, *formats: str) -> list[str]:
    """Cells of an object by format strings such as ``{0.mean:.4f}``; ``-`` where a figure is None.

    Examples:
        >>> cells(Plot("", "x", "y", (0, 1), (0.25,)), "{0.x}", "{0.values[0]:.1%}")
        ['x', '25.0%']
    """
    return [_format(value, form) for form in formats]


def _format(value: Any, form: str) -> str:
    try:
        return form.format(value)
    except (TypeError, AttributeError):  # None has no number format and no attributes
        return "-"


def probability(value: float | None) -> str:
    """A p-value in a table."""
    return "<0.0001" if value is not None and value < 0.0001 else cell(value, ".4f")


def plain(value: Any) -> Any:
    """Dataclasses, tuples and numbers as JSON holds them; null for numbers that are not finite."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
