"""The audit: what should be known about a teacher's scores before anything is trained on them."""

from __future__ import annotations

from irdistill.evaluation.auditing.agreement import Agreement
from irdistill.evaluation.auditing.audit_results import Audit
from irdistill.evaluation.auditing.auditor import AuditOptions, audit
from irdistill.evaluation.auditing.teacher_audit import TeacherAudit

__all__ = ["Agreement", "Audit", "AuditOptions", "TeacherAudit", "audit"]
