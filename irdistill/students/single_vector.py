"""Students with one vector for each text, dense or sparse."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from irdistill.console.progress_bars import ProgressCallback
from irdistill.errors import ModelError
from irdistill.modeling.batching import TokenBudget
from irdistill.modeling.hardware import Precision
from irdistill.students.student_base import Student
from irdistill.students.student_options import Similarity
from irdistill.students.tower_model import TextKind


class SingleVectorStudent(Student):
    """A student whose scores are cosines or dot products of one vector for each text."""

    def _check_model(self) -> None:
        if self.model.similarity_fn_name not in ("cosine", "dot"):
            raise ModelError(
                f"the model {self.source!r} compares vectors by {self.model.similarity_fn_name!r};"
                " cosine and dot are supported. Set similarity_fn_name in its"
                " config_sentence_transformers.json."
            )

    @property
    def similarity(self) -> Similarity:
        """How two vectors are compared."""
        return "cosine" if self.model.similarity_fn_name == "cosine" else "dot"

    def scores(
        self, queries: Tensor, documents: Tensor, index: Tensor, every: bool = True
    ) -> tuple[Tensor, Tensor]:
        """List scores (B, N) and in-batch scores (B, U), in float32; padding gets any score.

        Args:
            queries: (B, D).
            documents: (U, D), the batch's unique documents.
            index: (B, N) row in ``documents`` of each list entry; negative on padding.
            every: ignored, because the in-batch scores are one matrix product.
        """
        with torch.autocast(queries.device.type, enabled=False):
            queries, documents = queries.float(), documents.float()
            if self.similarity == "cosine":
                queries, documents = F.normalize(queries, dim=-1), F.normalize(documents, dim=-1)
            in_batch = queries @ documents.T
        return in_batch.gather(1, index.clamp_min(0)), in_batch

    @abstractmethod
    def encode(
        self,
        texts: Sequence[str],
        kind: TextKind = "document",
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        show_progress: bool | ProgressCallback = True,
        normalize: bool = False,
    ) -> Any:
        """Vectors of texts in float32, in their order.

        Args:
            precision, budget: see `encode_batches`.
            show_progress: show a bar, or call a function with the number of encoded texts.
            normalize: scale every vector to length 1; a zero vector stays zero.

        Raises:
            ModelError: a vector is not finite.
        """

    def search_vectors(
        self,
        texts: Sequence[str],
        kind: TextKind,
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        done: ProgressCallback | None = None,
    ) -> Any:
        """As `Student.search_vectors`; of length 1 for cosine."""
        return self.encode(
            texts, kind, precision, budget, done or False, normalize=self.similarity == "cosine"
        )
