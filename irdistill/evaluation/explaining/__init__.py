"""Why a document is in a ranking: words, vectors, tokens, teachers and judgments."""

from __future__ import annotations

from irdistill.evaluation.explaining.document_explainer import DocumentExplainer
from irdistill.evaluation.explaining.explanation import Explanation

__all__ = ["DocumentExplainer", "Explanation"]
