"""The audit: everything about a teacher's scores that should be known before anything is trained on
them.
"""

from __future__ import annotations

from irdistill.evaluation.auditing.agreement import Agreement
from irdistill.evaluation.auditing.findings import Audit, TeacherAudit
from irdistill.evaluation.auditing.verb import AuditOptions, audit

__all__ = ["Agreement", "Audit", "AuditOptions", "TeacherAudit", "audit"]
