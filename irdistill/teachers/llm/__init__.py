"""Language models as teachers: pointwise, pairwise and listwise, local or behind a server."""

from __future__ import annotations

from irdistill.teachers.llm.language_model import (
    Answer,
    LanguageModel,
    Message,
    Request,
    total_usage,
)

__all__ = ["Answer", "LanguageModel", "Message", "Request", "total_usage"]
