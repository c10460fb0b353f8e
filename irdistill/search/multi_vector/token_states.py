"""Stored token states of a corpus, for split cross-encoders and kernel students."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irdistill.collections import Corpus
from irdistill.console.progress_bars import ProgressRelay
from irdistill.errors import ModelError
from irdistill.modeling.hardware import Precision, choose_dtype
from irdistill.modeling.truncation import Truncation, changes, snapshot
from irdistill.search.array_shards import TRUNCATION, Arrays, ShardOptions, write_arrays
from irdistill.search.retrieve_options import Storage
from irdistill.search.vectors.vector_store import report_cut_texts
from irdistill.storage.files import cache_folder, digest
from irdistill.students.interaction_layers import InteractionStudent


class TokenStates(Arrays):
    """The token states of all documents, in corpus order."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        self._states = self.array("states")
        lengths = np.asarray(self.array("lengths"))
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    def of(self, row: int) -> torch.Tensor:
        """States (tokens, D) float32 of a document."""
        states = self._states[self._starts[row] : self._starts[row + 1]]
        return torch.from_numpy(np.array(states, dtype=np.float32))

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
        """Encode the documents with the lower layers. An interrupted job resumes."""
        identity = states_identity(corpus, student, precision, storage) | {"shard_rows": shard_rows}
        relay = ProgressRelay()

        def encode(start: int, end: int) -> Mapping[str, np.ndarray]:
            before = snapshot(student)
            texts = corpus.texts(range(start, end))
            encoded = student.encode(texts, "document", precision, show_progress=relay)
            truncation = changes(snapshot(student), before).get("document", Truncation())
            states = torch.cat(encoded).cpu().numpy().astype(storage)
            if not np.isfinite(states).all():
                raise ModelError(
                    f"states of {student.source!r} are not finite in {storage}; store them in"
                    " float32 (storage: float32)."
                )
            return {
                "lengths": np.array([len(tokens) for tokens in encoded]),
                "states": states,
                TRUNCATION: truncation.to_array(),
            }

        layout = {"lengths": ("int32", ()), "states": (storage, (student.dimension,))}
        options = ShardOptions(relay=relay)
        write_arrays(folder, identity, layout, len(corpus), shard_rows, encode, options)
        return cls(folder)


def states_identity(
    corpus: Corpus, student: InteractionStudent, precision: Precision, storage: Storage
) -> dict[str, Any]:
    """Everything that determines the states of a corpus."""
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
    """The states of a corpus, built on first use, in a folder named by their identity."""
    base = Path(work) if work is not None else cache_folder() / "states"
    folder = base / digest(states_identity(corpus, student, precision, storage))
    states = TokenStates.build(corpus, student, folder, precision=precision, storage=storage)
    report_cut_texts(states, student)
    return states
