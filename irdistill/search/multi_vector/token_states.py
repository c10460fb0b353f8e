"""The states of a corpus's tokens in memory-mapped files: what a split cross-encoder or kernel
student keeps of documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irdistill.collections import Corpus
from irdistill.console.progress import ProgressRelay
from irdistill.errors import IrdistillError
from irdistill.modeling.hardware import Precision, choose_dtype
from irdistill.modeling.truncation import Truncation, changes, snapshot
from irdistill.search.array_shards import TRUNCATION, Arrays, write_arrays
from irdistill.search.retrieve_options import Storage
from irdistill.search.vectors.vector_store import report_cut_documents
from irdistill.storage.files import cache_folder, digest
from irdistill.students.interaction_layers import InteractionStudent


class TokenStates(Arrays):
    """The states of document 0, then those of document 1, and so on."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        self._states = self.array("states")
        self._starts = np.concatenate(
            [[0], np.cumsum(np.asarray(self.array("lengths")), dtype=np.int64)]
        )

    def of(self, row: int) -> torch.Tensor:
        """States (tokens, D) float32 of a document."""
        return torch.from_numpy(
            np.array(self._states[self._starts[row] : self._starts[row + 1]], dtype=np.float32)
        )

    @classmethod
    def build(
        cls,
        corpus: Corpus,
        student: InteractionStudent,
        folder: str | Path,
        *,
        shard_rows: int = 512,
        precision: Precision = "auto",
        storage: Storage = "float32",
    ) -> TokenStates:
        """Encode every document up to where it meets a query, or go on where an earlier call was
        stopped.

        Raises:
            IrdistillError: the folder holds something else, another process writes there, a state
                is not finite in ``storage``, or the disk is full.
        """
        identity = states_identity(corpus, student, precision, storage) | {"shard_rows": shard_rows}

        relay = ProgressRelay()

        def encode(start: int, end: int) -> Mapping[str, np.ndarray]:
            before = snapshot(student)
            found = student.encode(
                corpus.texts(range(start, end)), "document", precision, show_progress=relay
            )
            counts = changes(snapshot(student), before).get("document", Truncation())
            states = torch.cat(found).cpu().numpy().astype(storage)
            if not np.isfinite(states).all():
                raise IrdistillError(
                    f"states of {student.source!r} are not finite in {storage}; keep them in"
                    " float32 (storage: float32)."
                )
            return {
                "lengths": np.array([len(one) for one in found]),
                "states": states,
                TRUNCATION: counts.to_array(),
            }

        layout = {"lengths": ("int32", ()), "states": (storage, (student.dimension,))}
        write_arrays(folder, identity, layout, len(corpus), shard_rows, encode, relay=relay)
        return cls(folder)


def states_identity(
    corpus: Corpus, student: InteractionStudent, precision: Precision, storage: Storage
) -> dict[str, Any]:
    """All that decides a corpus's states."""
    return {
        "format": 1,
        "corpus": corpus.fingerprint,
        "weights": student.weights_digest(),
        "kind": student.kind,
        **student.settings(),
        **student.settings_digests(),
        "precision": str(choose_dtype(precision, student.device)).removeprefix("torch."),
        "storage": storage,
    }


def corpus_states(
    corpus: Corpus,
    student: InteractionStudent,
    work: str | Path | None = None,
    precision: Precision = "auto",
    storage: Storage = "float32",
) -> TokenStates:
    """The states of a corpus, built on first use, in a folder named by all that decides them.

    Args:
        work: the folder of such folders; the cache folder where None.
    """
    base = Path(work) if work is not None else cache_folder() / "states"
    key = digest(states_identity(corpus, student, precision, storage))
    states = TokenStates.build(corpus, student, base / key, precision=precision, storage=storage)
    report_cut_documents(states, student)
    return states
