"""Questions made out of collections: conversations laid out or rewritten so that each question stands alone."""

from __future__ import annotations

from irdistill.queries.history import HistoryTemplate
from irdistill.queries.rewriting import rewrite, rewrite_with
from irdistill.queries.writing import write_texts

__all__ = ["HistoryTemplate", "rewrite", "rewrite_with", "write_texts"]
