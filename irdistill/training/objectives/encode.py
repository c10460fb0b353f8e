"""Forward passes with gradients over texts of many lengths, with next to no padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from irdistill.modeling.batching import TokenBudget, token_budget_batches
from irdistill.training.data.collate import Kind, Tokens
from irdistill.training.processes import Processes

if TYPE_CHECKING:
    from irdistill.students.base import Student


def default_token_budget(device: torch.device) -> int:
    """Padded tokens for one forward pass: what suits the caches of a CPU, or fills a GPU."""
    return 32768 if device.type == "cuda" else 2048


class Encoder:
    """Encodes token lists in chunks of like lengths; the chunks' graphs are joined, so gradients
    are exact.

    Args:
        dtype: of the forward pass (autocast); vectors come out in float32.
        token_budget: padded tokens in one chunk; 0 chooses for the device.
        processes: each encodes its share, and has the results of all.
        cached: keep only the vectors of a chunk. When their gradients are known the chunk is
            encoded once more, with the same dropout, and its own gradients are added: the steps of
            GradCache (Gao et al. 2021, arXiv:2101.06983). No more than one chunk's activations are
            held at a time.

    Attributes:
        watch: is called with the side and the result, where given.
    """

    def __init__(
        self,
        student: Student,
        dtype: torch.dtype,
        token_budget: int = 0,
        cached: bool = False,
        processes: Processes | None = None,
    ) -> None:
        self.student, self.dtype = student, dtype
        self.token_budget, self.cached = token_budget, cached
        self.processes = processes or Processes()
        self.watch: Callable[[Kind, Any], None] | None = None

    def autocast(self) -> torch.autocast:
        """The precision of the forward pass."""
        return torch.autocast(
            self.student.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )

    def __call__(self, tokens: Tokens, kind: Kind) -> Any:
        """What the student makes of the texts in float32 and their order: vectors (n, D), of a
        dense student.
        """
        device = self.student.device
        budget = TokenBudget(self.token_budget or default_token_budget(device))
        parts, order = [], []
        for chosen in token_budget_batches(tokens.lengths, budget):
            rows = [tokens.rows[place] for place in chosen.tolist()]
            features = self.student.pad_rows(rows, kind, device)
            with self.autocast():
                parts.append(self._embed(features, kind))
            order.append(chosen)
        inverse = torch.from_numpy(np.argsort(np.concatenate(order))).to(device)
        result = self.processes.gather(self.student.join(parts, inverse), tokens.total)
        if self.watch is not None:
            self.watch(kind, result)
        return result

    def _embed(self, features: dict[str, Any], kind: Kind) -> Any:
        if self.cached and torch.is_grad_enabled():
            return checkpoint(self.student.embed, features, kind, use_reentrant=False)
        return self.student.embed(features, kind)
