"""Forward passes with gradients over texts of different lengths, with little padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from irdistill.modeling.batching import TokenBudget, token_budget_batches
from irdistill.search.vectors.vector_store import VectorBatch
from irdistill.training.data.collate import TokenRows
from irdistill.training.objectives.quantization import Codes, quantized_documents
from irdistill.training.processes import Processes

if TYPE_CHECKING:
    from irdistill.students.student_base import Student
    from irdistill.students.tower_model import TextKind


def default_token_budget(device: torch.device) -> int:
    """Padded tokens per forward pass: what fits the caches of a CPU, or fills a GPU."""
    return 32768 if device.type == "cuda" else 2048


class Encoder:
    """Encodes tokenized texts in chunks of similar lengths.

    The graphs of the chunks are joined, so gradients are exact.

    Args:
        dtype: precision of the forward pass (autocast); results are float32.
        token_budget: padded tokens per chunk; 0 chooses for the device.
        cached: keep only the result of a chunk, and recompute its activations for the gradients,
            with the same dropout: GradCache (Gao et al. 2021, arXiv:2101.06983). The activations of
            one chunk are in memory at a time.
        processes: each encodes its share, and receives the results of all.

    Attributes:
        watch: called with the side and the result, if set.
        codes: short codes that document vectors are rounded to, if any.
    """

    def __init__(
        self,
        student: Student,
        dtype: torch.dtype,
        token_budget: int = 0,
        cached: bool = False,
        processes: Processes | None = None,
    ) -> None:
        self.student, self.dtype, self.cached = student, dtype, cached
        self.token_budget = token_budget
        self.processes = processes or Processes()
        self.watch: Callable[[TextKind, Any], None] | None = None
        self.codes: Codes | None = None

    def autocast(self) -> torch.autocast:
        """The precision of the forward pass."""
        return torch.autocast(
            self.student.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )

    def __call__(self, tokens: TokenRows, kind: TextKind) -> Any:
        """The student's output for the texts, in float32 and in their order; (n, D) vectors for a
        dense student.
        """
        device = self.student.device
        budget = TokenBudget(self.token_budget or default_token_budget(device))
        parts, order = [], []
        for chosen in token_budget_batches(tokens.lengths, budget):
            rows = [tokens.rows[place] for place in chosen.tolist()]
            features = self.student.pad_rows(rows, kind)
            with self.autocast():
                parts.append(self._embed(features, kind))
            order.append(chosen)
        inverse = torch.from_numpy(np.argsort(np.concatenate(order))).to(device)
        result = self.processes.gather(self.student.join(parts, inverse), tokens.total)
        if self.watch is not None:
            self.watch(kind, result)
        return result

    def documents(self, documents: TokenRows | VectorBatch) -> Any:
        """The documents of a batch, encoded or stored, rounded to short codes if there are any."""
        student = self.student
        if isinstance(documents, VectorBatch):
            vectors = documents.on(student.device)
        else:
            vectors = self(documents, "document")
        return quantized_documents(vectors, student, self.codes)

    def _embed(self, features: dict[str, Any], kind: TextKind) -> Any:
        if self.cached and torch.is_grad_enabled():
            return checkpoint(self.student.embed, features, kind, use_reentrant=False)
        return self.student.embed(features, kind)
