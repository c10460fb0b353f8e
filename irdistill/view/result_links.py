"""Links from a job to the pages that use its result."""

from __future__ import annotations

from irdistill.view.workspace import Artifact


def links_of(artifact: Artifact) -> list[tuple[str, str]]:
    """Address and label of each page."""
    return []
