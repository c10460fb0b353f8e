"""What search needs of a model: vectors of texts, and what determines them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from irdistill.console.progress_bars import ProgressCallback
from irdistill.modeling.batching import TokenBudget
from irdistill.modeling.hardware import Precision
from irdistill.students.tower_model import TextKind


class TextEncoder(Protocol):
    """A model that encodes queries and documents: a student, or a model behind a server."""

    @property
    def kind(self) -> str:
        """``dense``, ``sparse`` or ``late-interaction``."""
        ...

    @property
    def source(self) -> str:
        """Its name, for messages."""
        ...

    @property
    def device(self) -> torch.device:
        """Where vectors are compared."""
        ...

    @property
    def dimension(self) -> int:
        """The length of the vectors."""
        ...

    @property
    def similarity(self) -> str:
        """How vectors are compared."""
        ...

    def max_length(self, kind: TextKind) -> int:
        """The number of tokens to which a text of this kind is truncated."""
        ...

    def identity(self) -> dict[str, Any]:
        """All that determines the scores."""
        ...

    def tower_identity(self, kind: TextKind) -> dict[str, Any]:
        """All that determines the vectors of the texts of a kind."""
        ...

    def document_identity(self) -> dict[str, Any]:
        """All that determines the vectors of documents."""
        ...

    def longer_model(self, kind: TextKind) -> Any:
        """See `Student.longer_model`; None if there is none."""
        ...

    def search_vectors(
        self,
        texts: Sequence[str],
        kind: TextKind,
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        done: ProgressCallback | None = None,
    ) -> Any:
        """Vectors for an index; see `Student.search_vectors`."""
        ...
