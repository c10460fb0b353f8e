"""Questions made out of collections: conversations rewritten, and synthetic queries generated and
filtered.
"""

from __future__ import annotations

from irdistill.queries.filtering import FilterRule, critic_curve, filter_queries
from irdistill.queries.generating import Generation, generate
from irdistill.queries.history_template import HistoryTemplate
from irdistill.queries.llm_writing import generate_texts
from irdistill.queries.rewriting import rewrite, rewrite_with
from irdistill.queries.splitting import split

__all__ = [
    "FilterRule",
    "Generation",
    "HistoryTemplate",
    "critic_curve",
    "filter_queries",
    "generate",
    "generate_texts",
    "rewrite",
    "rewrite_with",
    "split",
]
