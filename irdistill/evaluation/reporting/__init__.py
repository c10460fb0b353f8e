"""Figures for people: tables in Markdown and LaTeX, one HTML page, plots, a model card and the
layout of MTEB.
"""

from __future__ import annotations

from irdistill.evaluation.reporting.tables import (
    Table,
    costs_table,
    evaluation_latex,
    evaluation_markdown,
    figures_table,
    markdown_table,
    probability,
)

__all__ = [
    "Table",
    "costs_table",
    "evaluation_latex",
    "evaluation_markdown",
    "figures_table",
    "markdown_table",
    "probability",
]
