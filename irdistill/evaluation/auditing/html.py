"""The audit as one HTML file: no scripts, no network, every text escaped, plots inside."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from irdistill.evaluation.auditing.findings import Audit
from irdistill.evaluation.auditing.page import sections
from irdistill.evaluation.auditing.plots import plots
from irdistill.evaluation.reporting.html import render, write_page


def html_page(found: Audit) -> str:
    """The page.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    # the drawings are matplotlib's, which escapes the texts in them
    drawn = {key: [Markup(svg) for svg in own] for key, own in plots(found).items()}
    return render(
        "page.html.j2",
        "irdistill.evaluation.auditing",
        audit=found,
        sections=sections(found),
        plots=drawn,
    )


def write_html(found: Audit, path: str | Path) -> None:
    """Write the page, atomically."""
    write_page(path, html_page(found))
