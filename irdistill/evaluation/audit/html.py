"""The audit as one HTML file: no scripts, no network, every text escaped, plots inside."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from irdistill.evaluation.audit.findings import Audit
from irdistill.evaluation.audit.page import sections
from irdistill.evaluation.audit.plots import plots
from irdistill.files import write_text

TEMPLATE = "page.html.j2"


def html_page(found: Audit) -> str:
    """The page.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    environment = Environment(loader=PackageLoader("irdistill.evaluation.audit", "templates"), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # the drawings are matplotlib's, which escapes the texts in them
    drawn = {key: [Markup(svg) for svg in own] for key, own in plots(found).items()}
    return environment.get_template(TEMPLATE).render(audit=found, sections=sections(found), plots=drawn)


def write_html(found: Audit, path: str | Path) -> None:
    """Write the page, atomically."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, html_page(found))
