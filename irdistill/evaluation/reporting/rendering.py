"""One renderer for all results: Markdown for terminals and files, LaTeX, and HTML pages.

An HTML page is one file that loads nothing and escapes every text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from irdistill.collections.foreign_tables import import_library
from irdistill.evaluation.reporting.findings import Finding, Plot, plain

if TYPE_CHECKING:
    from jinja2 import Environment

_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_WIDTH, _HEIGHT = 470, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 448, 28, 208


class Displayed:
    """A result that shows itself in terminals and notebooks.

    Subclasses give `findings` and, for `to_pandas`, `to_rows`.
    """

    title = ""
    """Heading above all findings; may be empty."""

    def findings(self) -> list[Finding]:
        """The sections of the result."""
        raise NotImplementedError

    def to_rows(self) -> list[dict[str, Any]]:
        """One mapping per row of the result's main table, at full precision."""
        raise NotImplementedError

    def to_markdown(self) -> str:
        """The result as Markdown."""
        return render_markdown(self.findings(), self.title)

    def to_pandas(self) -> Any:
        """The rows as a `pandas.DataFrame`."""
        return import_library("pandas", "to_pandas()").DataFrame(self.to_rows())

    def __repr__(self) -> str:
        return self.to_markdown().rstrip()

    def _repr_html_(self) -> str:
        return render_template("findings.html.j2", title=self.title, findings=self.findings())


def render_markdown(findings: Sequence[Finding], title: str = "", level: int = 2) -> str:
    """Render findings as Markdown; ``level`` is that of their headings."""
    lines = [f"{'#' * (level - 1)} {title}", ""] if title else []
    for finding in findings:
        if finding.title:
            lines += [f"{'#' * level} {finding.title}", ""]
        for block in (*finding.text, *(t.markdown() for t in finding.tables), *finding.notes):
            lines += [block, ""]
        for what, text in finding.examples:
            lines += [f"- {what}", *([f"    {text}"] if text else [])]
        lines += [""] if finding.examples else []
    return "\n".join(lines)


def render_latex(findings: Sequence[Finding]) -> str:
    """Render the tables that have a caption."""
    tables = [table.latex() for finding in findings for table in finding.tables if table.caption]
    return "\n\n".join([r"% needs \usepackage{booktabs,amssymb}", *tables]) + "\n"


def render_html(
    title: str,
    findings: Sequence[Finding],
    data: Mapping[str, Any] | None = None,
    verdicts: Sequence[str] = (),
) -> str:
    """Render a whole page.

    Args:
        data: figures for the page's script: ``costs`` and ``queries``. The page has a script, and
            tables that sort, only with it.
        verdicts: sentences at the top; the first is the headline.
    """
    script = None if data is None else script_json(data)
    return render_template(
        "page.html.j2",
        title=title,
        findings=findings,
        data=data,
        script=script,
        verdicts=list(verdicts),
    )


def render_template(name: str, **values: Any) -> str:
    """Render a template; texts are escaped in HTML only."""
    return page_environment().get_template(name).render(**values)


def page_environment(*packages: str) -> Environment:
    """The templates of the reports, after those of other packages with a folder ``templates``.

    Texts are escaped in templates whose names contain ``.html``.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in (*packages, __package__)]),
        autoescape=lambda name: ".html" in (name or ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["drawing"] = _drawing
    return environment


def script_json(value: Any) -> Any:
    """JSON for a ``script`` element, which no text in it can end."""
    from markupsafe import Markup

    text = json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup("".join(_UNSAFE.get(letter, letter) for letter in text))


def _drawing(plot: Plot) -> dict[str, Any]:
    """The coordinates of a plot: outline, axes, and ticks of (position, label)."""
    left, right = plot.edges[0], plot.edges[-1]
    low, high = min(0.0, *plot.values), max(0.0, *plot.values)

    def x(value: float) -> float:
        return round(_LEFT + (value - left) / ((right - left) or 1) * (_RIGHT - _LEFT), 1)

    def y(value: float) -> float:
        return round(_BOTTOM - (value - low) / ((high - low) or 1) * (_BOTTOM - _TOP), 1)

    steps = "".join(
        f"V{y(value)}H{x(edge)}" for value, edge in zip(plot.values, plot.edges[1:], strict=True)
    )
    return {
        "outline": f"M{x(left)} {y(0)}{steps}V{y(0)}Z",
        "width": _WIDTH,
        "height": _HEIGHT,
        "axis": y(0),
        "zero": x(0) if left < 0 < right else None,
        "left": _LEFT,
        "right": _RIGHT,
        "top": _TOP,
        "bottom": _BOTTOM,
        "x_ticks": [(x(value), _tick(value)) for value in (left, (left + right) / 2, right)],
        "y_ticks": [(y(value), _tick(value)) for value in sorted({low, 0.0, high})],
    }


def _tick(value: float) -> str:
    """The label of a tick: three digits, and whole numbers from 1000 on."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
