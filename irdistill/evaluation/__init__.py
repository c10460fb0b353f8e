"""Evaluation: measures as trec_eval computes them, tested differences, audits, costs and the report."""

from __future__ import annotations

from irdistill.evaluation.audit import Agreement, Audit, AuditOptions, TeacherAudit, audit
from irdistill.evaluation.evaluate import DEFAULT_MEASURES, Evaluation, Row, combine, evaluate
from irdistill.evaluation.measures import PerQuery, parse_measures, per_query
from irdistill.evaluation.significance import Difference, compare, holm, interval, paired_t, randomisation

__all__ = [
    "DEFAULT_MEASURES", "Agreement", "Audit", "AuditOptions", "Difference", "Evaluation", "PerQuery", "Row", "TeacherAudit",
    "audit", "combine", "compare", "evaluate", "holm", "interval", "paired_t", "parse_measures", "per_query", "randomisation",
]
