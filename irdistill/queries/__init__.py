"""Questions made out of collections: conversations rewritten, and synthetic queries generated and
filtered.
"""

from __future__ import annotations

from irdistill.queries.filtering import Rule, critic_curve, filter_queries
from irdistill.queries.generating import Generation, generate
from irdistill.queries.history import HistoryTemplate
from irdistill.queries.rewriting import rewrite, rewrite_with
from irdistill.queries.splitting import split
from irdistill.queries.writing import write_texts

__all__ = [
    "Generation",
    "HistoryTemplate",
    "Rule",
    "critic_curve",
    "filter_queries",
    "generate",
    "rewrite",
    "rewrite_with",
    "split",
    "write_texts",
]
