"""The states of a corpus's tokens in one memory-mapped file: what a split cross-encoder or kernel student keeps of documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from irdistill.collections import Corpus
from irdistill.errors import IrdistillError
from irdistill.files import atomic_path, cache_folder, digest, exclusive, make_folder
from irdistill.hardware import Precision, choose_dtype
from irdistill.progress import progress
from irdistill.search.vectors import Storage, VectorStore, unfinished_shards, write_shards
from irdistill.students.interaction import InteractionStudent

_STARTS = "starts.bin"


class TokenStates(VectorStore):
    """A `VectorStore` with a vector a token: ``matrix`` holds the states of document 0, then those of document 1, and so on."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder)
        path = self.folder / _STARTS
        if not path.is_file() or path.stat().st_size % 8 or path.stat().st_size < 8:
            raise IrdistillError(f"{path} is missing or cut off; delete {self.folder} and build again.")
        self.starts = np.memmap(path, dtype=np.int64, mode="r")
        self._states = self.matrix

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, row: int) -> torch.Tensor:
        """States (tokens, D) float32 of a document."""
        return torch.from_numpy(np.array(self._states[self.starts[row] : self.starts[row + 1]], dtype=np.float32))

    @classmethod
    def build_for(cls, corpus: Corpus, student: InteractionStudent, folder: str | Path, *, shard_rows: int = 512,
                  precision: Precision = "auto", storage: Storage = "float32") -> TokenStates:
        """Encode every document up to where it meets a query, or go on where an earlier call was stopped.

        Raises:
            IrdistillError: the folder holds something else, another process writes there, a state is not finite in
                ``storage``, or the disk is full.
        """
        folder = make_folder(folder)
        identity = states_identity(corpus, student, precision, storage) | {"shard_rows": shard_rows}
        with exclusive(folder):
            done = unfinished_shards(folder, identity, overwrite=False)
            if done is None:
                return cls(folder)
            if not done:
                with atomic_path(folder / _STARTS) as temporary:
                    _starts(corpus, student, shard_rows).tofile(temporary)
            starts = np.fromfile(folder / _STARTS, dtype=np.int64)

            def encode(start: int, end: int) -> np.ndarray:
                states = torch.cat(student.encode(corpus.texts(range(start, end)), "document", precision)).cpu().numpy()
                kept = states.astype(storage)
                if not np.isfinite(kept).all():
                    raise IrdistillError(
                        f"states of {student.source!r} are not finite in {storage}; keep them in float32 (storage: float32)."
                    )
                return kept

            write_shards(folder, identity, done, starts, student.state_size, encode)
        return cls(folder)


def states_identity(corpus: Corpus, student: InteractionStudent, precision: Precision, storage: Storage) -> dict[str, object]:
    """All that decides a corpus's states."""
    return {
        "format": 1, "corpus": corpus.fingerprint, "weights": student.weights_digest(), "kind": student.kind, **student.settings(),
        "precision": str(choose_dtype(precision, student.device)).removeprefix("torch."), "storage": storage,
    }


def _starts(corpus: Corpus, student: InteractionStudent, shard_rows: int) -> np.ndarray:
    """(N + 1,) int64: where each document's tokens begin, and how many there are in all."""
    lengths = [np.zeros(1, dtype=np.int64)]
    with progress(len(corpus), "documents", "tokenise") as bar:
        for start in range(0, len(corpus), shard_rows):
            rows = range(start, min(start + shard_rows, len(corpus)))
            tokens = student.tokenize(list(corpus.texts(rows)), "document")
            lengths.append(np.array([len(ids) for ids in tokens["input_ids"]], dtype=np.int64))
            bar.update(len(rows))
    return np.concatenate(lengths).cumsum()


def corpus_states(corpus: Corpus, student: InteractionStudent, work: str | Path | None = None, precision: Precision = "auto",
                  storage: Storage = "float32") -> TokenStates:
    """The states of a corpus, built on first use, in a folder named by all that decides them.

    Args:
        work: the folder of such folders; the cache folder where None.
    """
    base = Path(work) if work is not None else cache_folder() / "states"
    key = digest(states_identity(corpus, student, precision, storage))
    return TokenStates.build_for(corpus, student, base / key, precision=precision, storage=storage)
