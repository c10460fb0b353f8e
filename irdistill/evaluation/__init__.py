"""Evaluation: trec_eval's measures, tested differences, audits, costs and reports."""

from __future__ import annotations

from irdistill.evaluation.auditing import Agreement, Audit, AuditOptions, TeacherAudit, audit
from irdistill.evaluation.comparison import Comparison, Entry, compare_losses
from irdistill.evaluation.costs import Efficiency
from irdistill.evaluation.evaluator import DEFAULT_MEASURES, combine, evaluate
from irdistill.evaluation.figures import Evaluation, Row
from irdistill.evaluation.friedman_test import Friedman, friedman
from irdistill.evaluation.fusing import FusionWeights, fuse_teachers
from irdistill.evaluation.measure_names import parse_measures
from irdistill.evaluation.measures import PerQuery, per_query
from irdistill.evaluation.significance import (
    Difference,
    compare,
    detectable,
    holm,
    interval,
    paired_t,
    randomization,
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
    "Efficiency",
    "Entry",
    "Evaluation",
    "Friedman",
    "FusionWeights",
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
    "randomization",
]
