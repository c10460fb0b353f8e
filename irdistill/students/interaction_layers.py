"""Students that encode query and document separately and score pairs with trained layers."""

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

from irdistill.console.progress_bars import ProgressCallback
from irdistill.errors import ModelError, OptionError
from irdistill.modeling.batching import TokenBudget, token_budget_batches
from irdistill.modeling.hardware import Precision, choose_dtype
from irdistill.modeling.model_files import (
    STUDENT_FILE,
    find_model_file,
    read_model_json,
    resolve_model,
)
from irdistill.storage.files import read_json, write_json
from irdistill.students.encoding import encode_batches
from irdistill.students.student_base import Student
from irdistill.students.student_options import StudentOptions
from irdistill.students.tower_model import TextKind

_TOKENS_CPU, _TOKENS_GPU = 4096, 65536


class PaddedStates(NamedTuple):
    """Texts of one chunk: states (p, L, D) and their mask (p, L)."""

    states: Tensor
    mask: Tensor


class InteractionStudent(Student):
    """A student with a state for each token, whose trained layers score pairs of such texts.

    A document's states do not depend on the query, so they can be stored. ``model`` is a
    ``Sequential`` of the module that takes the texts and the layers after it.
    """

    #: Files that the saved folder must have besides the tokenizer.
    weight_files: ClassVar[tuple[str, ...]] = ("model.safetensors",)

    @property
    def similarity(self) -> str:
        """``logit``."""
        return "logit"

    def _prompt(self, kind: TextKind) -> str | None:
        return None

    @property
    @abstractmethod
    def dimension(self) -> int:
        """The size of a document token's state."""

    @abstractmethod
    def states(self, features: Mapping[str, Tensor], kind: TextKind) -> Tensor:
        """States (n, L, D) of padded texts; those of padding are undefined."""

    @abstractmethod
    def match(self, queries: PaddedStates, documents: PaddedStates) -> Tensor:
        """Scores (p,) of p pairs of padded states in float32."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What ``load`` needs besides the weights."""

    def _embed(self, features: Mapping[str, Any], kind: TextKind) -> list[Tensor]:
        """States (tokens, D) of each text with gradients."""
        mask = features["attention_mask"].bool()
        return list(self.states(features, kind)[mask].split(mask.sum(dim=1).tolist()))

    def join(self, parts: Sequence[Any], order: Tensor) -> list[Tensor]:
        """As `Student.join`, of lists of token states."""
        texts = list(chain.from_iterable(parts))
        return [texts[place].float() for place in order.tolist()]

    def scores(
        self,
        queries: Sequence[Tensor],
        documents: Sequence[Tensor],
        index: Tensor,
        every: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """List scores (B, N) and, if ``every``, scores of all pairs (B, U), in float32.

        Each distinct pair is scored once. With ``every`` there are B * U pairs, which a kernel
        student can afford and a cross-encoder cannot.
        """
        count = len(documents)
        index = index.clamp_min(0)
        if every:
            pairs = np.arange(len(queries) * count)
            flat = self._score(queries, documents, pairs // count, pairs % count)
            in_batch = flat.view(len(queries), count)
            return in_batch.gather(1, index), in_batch
        rows = torch.arange(len(queries), device=index.device).unsqueeze(1)
        distinct, inverse = (index + count * rows).unique(return_inverse=True)
        pairs = distinct.cpu().numpy()
        return self._score(queries, documents, pairs // count, pairs % count)[inverse], None

    def _score(
        self,
        queries: Sequence[Tensor],
        documents: Sequence[Tensor],
        query_places: np.ndarray,
        document_places: np.ndarray,
    ) -> Tensor:
        """Scores (p,) of pairs, in chunks of similar lengths.

        A pair with a text without tokens gets the score 0, which means nothing.
        """
        device = queries[0].device
        budget = TokenBudget(_TOKENS_CPU if device.type == "cpu" else _TOKENS_GPU)
        left, right = _Packed(queries), _Packed(documents)
        left_lengths, right_lengths = left.lengths[query_places], right.lengths[document_places]
        readable = np.flatnonzero((left_lengths > 0) & (right_lengths > 0))
        parts, order = [], []
        for batch in token_budget_batches((left_lengths + right_lengths)[readable], budget):
            chosen = readable[batch]
            states = left.padded(query_places[chosen]), right.padded(document_places[chosen])
            parts.append(self.match(*states).float())
            order.append(chosen)
        if len(readable) < len(query_places):
            order.append(np.setdiff1d(np.arange(len(query_places)), readable))
            parts.append(torch.zeros(len(order[-1]), device=device))
        return torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate(order))).to(device)]

    def encode(
        self,
        texts: Sequence[str],
        kind: TextKind,
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        show_progress: bool | ProgressCallback = False,
    ) -> list[Tensor]:
        """States (tokens, D) of texts in float32, in their order; see `encode_batches`."""
        result: list[Any] = [None] * len(texts)

        def take(rows: np.ndarray, batch: list[Tensor]) -> bool:
            for row, states in zip(rows.tolist(), batch, strict=True):
                result[row] = states.float()
            return bool(torch.cat(batch).isfinite().all())

        encode_batches(self, texts, kind, precision, budget, show_progress, take)
        return result

    @torch.inference_mode()
    def compare(
        self, query: Tensor, documents: Sequence[Tensor], precision: Precision = "auto"
    ) -> np.ndarray:
        """Scores (n,) float32 of documents for one query, of states from ``encode``."""
        dtype = choose_dtype(precision, self.device)
        index = torch.arange(len(documents), device=self.device).unsqueeze(0)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            lists, _ = self.scores([query], documents, index, every=False)
        scores: np.ndarray = lists[0].cpu().numpy()
        return scores

    # -- saving

    def identity(self) -> dict[str, Any]:
        """As `Student.identity`, with the settings."""
        return super().identity() | self.settings()

    def _write(self, folder: Path) -> None:
        """Write weights (safetensors), tokenizer and settings (JSON)."""
        self._save_weights(folder)
        write_json(folder / STUDENT_FILE, {"kind": self.kind, **self.settings()})

    @abstractmethod
    def _save_weights(self, folder: Path) -> None:
        """Write weights and tokenizer."""

    @classmethod
    def _is_saved_student(cls, name: str) -> bool:
        saved: dict[str, Any] = read_model_json(name, STUDENT_FILE) or {}
        return saved.get("kind") == cls.kind

    def _keeps(self, options: StudentOptions) -> bool:
        return True

    def _saved_options(self) -> dict[str, Any]:
        """The options with which the student was built."""
        saved = self.settings()
        return saved | {"max_length": saved.pop("max_document_length")}

    def _apply_to_saved(self, options: StudentOptions) -> None:
        """Refuse other options than those of the saved student, whose states may be stored."""
        saved = self._saved_options()
        for name, value in options.changed().items():
            if name in saved and value != saved[name]:
                raise OptionError(
                    f"{name}={value!r} was given, but the backbone {self.source!r} is a saved"
                    f" {self.kind} student with {name}={saved[name]!r}, which cannot change; leave"
                    f" {name} out, or start from an encoder."
                )

    @classmethod
    def _saved(cls, name: str, revision: str | None) -> dict[str, Any]:
        """The settings of a saved student, after checking that all its files exist.

        Raises:
            ModelError: the folder or repository is not a saved student of this kind.
        """
        resolve_model(name)
        files = [
            find_model_file(name, file, revision) for file in (STUDENT_FILE, *cls.weight_files)
        ]
        saved = read_json(files[0]) if files[0] is not None else {}
        if saved.get("kind") != cls.kind or None in files:
            raise ModelError(
                f"the model {name!r} is no saved {cls.kind} student (a {STUDENT_FILE} that says so,"
                f" and {' and '.join(cls.weight_files)}, were expected); to begin with an encoder,"
                f" build one: {cls.__name__}(encoder)."
            )
        return saved


class _Packed:
    """States of several texts in one tensor, from which chunks of pairs are gathered."""

    def __init__(self, texts: Sequence[Tensor]) -> None:
        self.flat = torch.cat(list(texts))
        self.lengths = np.array([len(states) for states in texts], dtype=np.int64)
        self.starts = np.cumsum(self.lengths) - self.lengths

    def padded(self, rows: np.ndarray) -> PaddedStates:
        """The texts at these places, padded to the longest of them."""
        steps = np.arange(self.lengths[rows].max())
        mask = steps < self.lengths[rows][:, None]
        places = np.where(mask, self.starts[rows][:, None] + steps, 0)
        device = self.flat.device
        # an embedding look-up, because its gradients are summed in the same order every time
        return PaddedStates(
            F.embedding(torch.from_numpy(places).to(device), self.flat),
            torch.from_numpy(mask).to(device),
        )
