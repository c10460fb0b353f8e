"""Check the installation: what works, what is missing, and the command that fixes it."""

from __future__ import annotations

from irdistill.doctor.health import HealthCheck, examine, is_healthy, render, to_json

__all__ = ["HealthCheck", "examine", "is_healthy", "render", "to_json"]
