"""Results for readers: Markdown, LaTeX, HTML pages, plots, model cards and MTEB's layout."""

from __future__ import annotations

from irdistill.evaluation.reporting.findings import Finding, Table

__all__ = ["Finding", "Table"]
