"""Forward passes with gradients over texts of many lengths, with next to no padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from irdistill.modeling.batching import TokenBudget, token_budget_batches
from irdistill.modeling.truncation import snapshot
from irdistill.students.inputs import TOKENLESS
from irdistill.training.data.collate import Kind, Tokens
from irdistill.training.processes import Processes

if TYPE_CHECKING:
    from irdistill.students.base import Student


def pad(
    tokens: Tokens, chosen: np.ndarray, fill: Mapping[str, int], left: bool = False
) -> dict[str, Tensor]:
    """The tensors (n, length) of some texts, padded to the longest of them, with their attention
    mask.

    Args:
        fill: what to pad with, by name of the tensor; 0 for those not named.
        left: pad on the left, as decoders want it.
    """
    rows = [tokens.rows[i] for i in chosen.tolist()]
    tokenless = torch.tensor([not len(row["input_ids"]) for row in rows])
    if tokenless.any():  # a token that can be computed with; the result is replaced
        rows = [
            (
                {key: np.full(1, fill.get(key, 0), np.int64) for key in row}
                if not len(row["input_ids"])
                else row
            )
            for row in rows
        ]
    longest = max(len(row["input_ids"]) for row in rows)
    arrays = {
        key: np.full((len(rows), longest), fill.get(key, 0), dtype=np.int64) for key in rows[0]
    }
    arrays["attention_mask"] = np.zeros((len(rows), longest), dtype=np.int64)
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        where = slice(longest - length, longest) if left else slice(0, length)
        arrays["attention_mask"][i, where] = 1
        for key, values in row.items():
            arrays[key][i, where] = values
    tensors = {key: torch.from_numpy(values) for key, values in arrays.items()}
    return tensors | {TOKENLESS: tokenless} if tokenless.any() else tensors


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
        self._settings: dict[str, tuple[dict[str, int], bool, dict[str, Any]]] = {}

    def _padding(self, kind: Kind) -> tuple[dict[str, int], bool, dict[str, Any]]:
        """(what to pad with, whether on the left, features that are the same for all texts)."""
        if kind not in self._settings:
            texts: list[Any] = ["a", "a b c d e f"]
            if kind == "pair":
                texts = [(text, text) for text in texts]
            counts = snapshot(self.student)
            tokens = self.student.tokenize(texts, kind)
            self.student.truncation = counts  # these are no texts of the training
            example = self.student.pad(tokens, kind, device=torch.device("cpu"))
            mask = example.pop("attention_mask")[0]
            extra = {key: value for key, value in example.items() if key not in tokens}
            left = bool(mask[0] == 0)
            fill = {}
            if not mask.all():
                at = int((mask == 0).nonzero()[0])
                fill = {key: int(example[key][0, at]) for key in tokens if key != "attention_mask"}
            self._settings[kind] = fill, left, extra
        return self._settings[kind]

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
        fill, left, extra = self._padding(kind)
        budget = TokenBudget(self.token_budget or default_token_budget(device))
        parts, order = [], []
        for chosen in token_budget_batches(tokens.lengths, budget):
            padded = pad(tokens, chosen, fill, left)
            features = extra | {
                key: value.to(device, non_blocking=True) for key, value in padded.items()
            }
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
