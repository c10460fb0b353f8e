"""Queries: rewrite conversations, generate and filter synthetic queries, split into folds."""

from __future__ import annotations

from irdistill.queries.filtering import FilterRule, critic_curve, filter_queries
from irdistill.queries.generating import Generation, generate
from irdistill.queries.history_template import HistoryTemplate
from irdistill.queries.rewriting import RewriteOptions, rewrite
from irdistill.queries.splitting import split

__all__ = [
    "FilterRule",
    "Generation",
    "HistoryTemplate",
    "RewriteOptions",
    "critic_curve",
    "filter_queries",
    "generate",
    "rewrite",
    "split",
]
