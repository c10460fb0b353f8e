"""Late-interaction retrievers as teachers: ColBERT (Khattab and Zaharia 2020, arXiv:2004.12832) and
similar models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from irdistill.errors import ModelError
from irdistill.students.late_interaction_student import (
    LateInteractionStudent,
    pool_without_autocast,
)
from irdistill.teachers.part_encoding import PartEncodingTeacher, TextKind


class LateInteractionTeacher(PartEncodingTeacher[Tensor]):
    """Any ``MultiVectorEncoder`` of sentence-transformers, which includes PyLate and Stanford
    ColBERT checkpoints.

    The score is MaxSim: the largest similarity of each query token to a token of the document,
    summed over query tokens in float32 (``meanmaxsim`` if the model states it). Its scale grows
    with the number of query tokens.
    """

    type = "late-interaction"
    tokens_cpu, tokens_gpu = 8192, 65_536

    def __init__(self, model: str, **settings: Any) -> None:
        super().__init__(model, **settings)
        pool_without_autocast(self.model)

    @classmethod
    def library_class(cls) -> Any:
        """``MultiVectorEncoder``."""
        from sentence_transformers import MultiVectorEncoder

        return MultiVectorEncoder

    def encode(self, texts: Sequence[str], kind: TextKind) -> list[Tensor | None]:
        """(tokens, D) float32 of each text; None if no token is scored."""
        return [
            vectors if vectors is not None and len(vectors) else None
            for vectors in super().encode(texts, kind)
        ]

    def forms(self, texts: list[str], kind: TextKind) -> list[Tensor]:
        """(tokens, D) float32 of each text of one batch."""
        encode = self.model.encode_query if kind == "query" else self.model.encode_document
        return [
            vectors.float()
            for vectors in encode(texts, batch_size=len(texts), show_progress_bar=False)
        ]

    states = "tokens"

    def query_states(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The vectors of each query's tokens, (tokens, D) float32."""
        return self._vectors(texts, "query")

    def document_states(self, rows: Sequence[int], texts: Sequence[str]) -> list[np.ndarray]:
        """The vectors of each document's tokens, (tokens, D) float32."""
        return self._vectors(texts, "document")

    def token_offsets(self, texts: Sequence[str], kind: TextKind) -> list[np.ndarray] | None:
        """As `LateInteractionStudent.token_offsets`; None where it raises."""
        student = LateInteractionStudent.from_model(self.model, self.model_name)
        try:
            return student.token_offsets(texts, kind)
        except ModelError:
            return None

    def _vectors(self, texts: Sequence[str], kind: TextKind) -> list[np.ndarray]:
        none = np.empty((0, int(self.model.get_embedding_dimension())), np.float32)
        return [
            none if vectors is None else vectors.cpu().numpy()
            for vectors in self.encode(texts, kind)
        ]

    def compare(self, query: Tensor, documents: Sequence[Tensor]) -> np.ndarray:
        """MaxSim (n,) float32."""
        scores: np.ndarray = (
            self.model.similarity([query], list(documents))[0].float().cpu().numpy()
        )
        return scores
