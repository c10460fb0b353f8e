"""What students have in common that encode query and document apart and then compare them term by
term with learnt layers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from irdistill.console.progress import ProgressCallback
from irdistill.errors import IrdistillError
from irdistill.modeling.batching import TokenBudget, token_budget_batches
from irdistill.modeling.hardware import Precision, choose_dtype
from irdistill.modeling.model_files import STUDENT_FILE, find_model_file, resolve_model
from irdistill.storage.files import read_json, write_json
from irdistill.students.base import Kind, Student
from irdistill.students.encoding import encode_batches

_TOKENS_CPU, _TOKENS_GPU = 4096, 65536


class Padded(NamedTuple):
    """Texts of one chunk: states (p, L, D) and which of them are there, (p, L) bool."""

    states: Tensor
    mask: Tensor


class InteractionStudent(Student):
    """A student whose texts become a state a token, and whose learnt layers score pairs of such
    texts.

    A document's states do not depend on the query, so they can be made once and kept. ``model`` is
    a ``Sequential`` of the module that takes the texts and what stands behind it.
    """

    #: Files of the saved folder, beside the tokenizer, without which there is no model.
    weight_files: ClassVar[tuple[str, ...]] = ("model.safetensors",)

    @property
    def similarity(self) -> str:
        return "logit"

    def _prompt(self, kind: Kind) -> str | None:
        return None

    # -- what a kind of student has of its own
    # ------------------------------------------------------------

    @property
    @abstractmethod
    def dimension(self) -> int:
        """The length of a document token's state."""

    @abstractmethod
    def states(self, features: Mapping[str, Tensor], kind: Kind) -> Tensor:
        """States (n, L, D) of padded texts; those of padding mean nothing."""

    @abstractmethod
    def match(self, queries: Padded, documents: Padded) -> Tensor:
        """Scores (p,) of p pairs, of padded states in float32."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What `load` needs to know besides the weights."""

    # -- the contract of a student
    # --------------------------------------------------------------------------

    def _embed(self, features: Mapping[str, Any], kind: Kind) -> list[Tensor]:
        """States (tokens, D) of each text with gradients."""
        mask = features["attention_mask"].bool()
        return list(self.states(features, kind)[mask].split(mask.sum(dim=1).tolist()))

    def join(self, parts: Sequence[Any], order: Tensor) -> list[Tensor]:
        found = list(chain.from_iterable(parts))
        return [found[place].float() for place in order.tolist()]

    def scores(
        self,
        queries: Sequence[Tensor],
        documents: Sequence[Tensor],
        index: Tensor,
        every: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """List scores (B, N) and, where ``every``, those of each query with each document (B, U),
        in float32.

        Each different pair is scored once. With ``every`` there are B * U pairs, which is what a
        cross-encoder cannot afford and a kernel student can.
        """
        count = len(documents)
        places = index.clamp_min(0) + count * torch.arange(
            len(queries), device=index.device
        ).unsqueeze(1)
        if every:
            pairs = np.arange(len(queries) * count)
            in_batch = self._score(queries, documents, pairs // count, pairs % count).view(
                len(queries), count
            )
            return in_batch.gather(1, index.clamp_min(0)), in_batch
        asked, inverse = places.unique(return_inverse=True)
        pairs = asked.cpu().numpy()
        return self._score(queries, documents, pairs // count, pairs % count)[inverse], None

    def _score(
        self,
        queries: Sequence[Tensor],
        documents: Sequence[Tensor],
        asking: np.ndarray,
        asked: np.ndarray,
    ) -> Tensor:
        """Scores (p,) of the pairs of a query and a document at these places, in chunks of like
        lengths.

        A pair with a text without tokens has the score 0, which means nothing.
        """
        device = queries[0].device
        budget = TokenBudget(_TOKENS_CPU if device.type == "cpu" else _TOKENS_GPU)
        left, right = _Packed(queries), _Packed(documents)
        parts, order = [], []
        readable = np.flatnonzero((left.lengths[asking] > 0) & (right.lengths[asked] > 0))
        lengths = left.lengths[asking] + right.lengths[asked]
        for batch in token_budget_batches(lengths[readable], budget):
            chosen = readable[batch]
            parts.append(
                self.match(left.padded(asking[chosen]), right.padded(asked[chosen])).float()
            )
            order.append(chosen)
        if len(readable) < len(asking):
            order.append(np.setdiff1d(np.arange(len(asking)), readable))
            parts.append(torch.zeros(len(order[-1]), device=device))
        return torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate(order))).to(device)]

    # -- without gradients
    # ------------------------------------------------------------------------------------

    def encode(
        self,
        texts: Sequence[str],
        kind: Kind,
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        show_progress: bool | ProgressCallback = False,
    ) -> list[Tensor]:
        """States (tokens, D) of texts in float32, in their order; see ``encode_batches``."""
        found: list[Any] = [None] * len(texts)

        def take(rows: np.ndarray, states: list[Tensor]) -> bool:
            for row, one in zip(rows.tolist(), states, strict=True):
                found[row] = one.float()
            return bool(torch.cat(states).isfinite().all())

        encode_batches(self, texts, kind, precision, budget, show_progress, take)
        return found

    @torch.inference_mode()
    def compare(
        self, query: Tensor, documents: Sequence[Tensor], precision: Precision = "auto"
    ) -> np.ndarray:
        """Scores (n,) float32 of documents for one query, of states that ``encode`` gave."""
        dtype = choose_dtype(precision, self.device)
        index = torch.arange(len(documents), device=self.device).unsqueeze(0)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            found, _ = self.scores([query], documents, index, every=False)
        scores: np.ndarray = found[0].cpu().numpy()
        return scores

    # -- saving
    # -------------------------------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        return super().identity() | self.settings()

    def _write(self, folder: Path) -> None:
        """Write weights (safetensors), tokenizer, and what else `load` needs to know (JSON)."""
        self._save_weights(folder)
        write_json(folder / STUDENT_FILE, {"kind": self.kind, **self.settings()})

    @abstractmethod
    def _save_weights(self, folder: Path) -> None:
        """Write weights and tokenizer."""

    @classmethod
    def _saved(cls, model: str | Path, revision: str | None) -> dict[str, Any]:
        """The settings of a saved student, once all its files are known to be there.

        Raises:
            IrdistillError: the folder or repository holds no such student, or not all of it.
        """
        name = str(model)
        resolve_model(name)
        files = [
            find_model_file(name, file, revision) for file in (STUDENT_FILE, *cls.weight_files)
        ]
        saved = read_json(files[0]) if files[0] is not None else {}
        if saved.get("kind") != cls.kind or None in files:
            raise IrdistillError(
                f"the model {name!r} is no saved {cls.kind} student (a {STUDENT_FILE} that says so,"
                f" and {' and '.join(cls.weight_files)}, were expected); to begin with an encoder,"
                " build one."
            )
        return saved


class _Packed:
    """States of several texts one after another, from which chunks of pairs are gathered without a
    loop over texts.
    """

    def __init__(self, texts: Sequence[Tensor]) -> None:
        self.flat = torch.cat(list(texts))
        self.lengths = np.array([len(states) for states in texts], dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths

    def padded(self, rows: np.ndarray) -> Padded:
        """The texts at these places, padded to the longest of them."""
        steps = np.arange(self.lengths[rows].max())
        mask = steps < self.lengths[rows][:, None]
        places = np.where(mask, self.starts[rows][:, None] + steps, 0)
        device = self.flat.device
        # a look-up of embeddings, because its gradients are summed in the same order every time
        return Padded(
            F.embedding(torch.from_numpy(places).to(device), self.flat),
            torch.from_numpy(mask).to(device),
        )
