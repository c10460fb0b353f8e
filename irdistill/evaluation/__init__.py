"""Evaluation: measures as trec_eval computes them, tested differences, audits, costs and the
report.
"""

from __future__ import annotations

from irdistill.evaluation.auditing import Agreement, Audit, AuditOptions, TeacherAudit, audit
from irdistill.evaluation.comparison import Comparison, Entry, compare_losses
from irdistill.evaluation.evaluator import DEFAULT_MEASURES, Evaluation, Row, combine, evaluate
from irdistill.evaluation.friedman_test import Friedman, friedman
from irdistill.evaluation.fusing import fuse_teachers
from irdistill.evaluation.measure_names import parse_measures
from irdistill.evaluation.measures import PerQuery, per_query
from irdistill.evaluation.significance import (
    Difference,
    compare,
    detectable,
    holm,
    interval,
    paired_t,
    randomisation,
)
from irdistill.evaluation.weighting import (
    Weighting,
    agreement_weights,
    fit_gate,
    labelled_weights,
    power_weights,
)

__all__ = [
    "DEFAULT_MEASURES",
    "Agreement",
    "Audit",
    "AuditOptions",
    "Comparison",
    "Difference",
    "Entry",
    "Evaluation",
    "Friedman",
    "PerQuery",
    "Row",
    "TeacherAudit",
    "Weighting",
    "agreement_weights",
    "audit",
    "combine",
    "compare",
    "compare_losses",
    "detectable",
    "evaluate",
    "fit_gate",
    "friedman",
    "fuse_teachers",
    "holm",
    "interval",
    "labelled_weights",
    "paired_t",
    "parse_measures",
    "per_query",
    "power_weights",
    "randomisation",
]
