"""Folders of `irdistill export` as encoders, to search with them and to measure their rankings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irdistill.errors import MissingExtraError, ModelError
from irdistill.modeling.truncation import Truncation
from irdistill.storage.files import file_sha256
from irdistill.students.exported_model import SETTINGS, ExportedModel

if TYPE_CHECKING:
    import torch

    from irdistill.console.progress_bars import ProgressCallback
    from irdistill.modeling.batching import TokenBudget
    from irdistill.modeling.hardware import Precision
    from irdistill.students.tower_model import TextKind

_BLOCK = 256
"""Texts that are sorted by length together; sparse vectors of a block are dense in memory."""


def is_exported(model: object) -> bool:
    """Whether this is the path of a folder that `irdistill export` wrote."""
    return isinstance(model, str | Path) and (Path(model) / SETTINGS).is_file()


class ExportedEncoder:
    """An exported model, where a model that encodes texts is expected.

    It runs on the processor, in float32 or in the format of the export, and cannot be trained.

    Args:
        folder: a dense, sparse or late-interaction model.

    Raises:
        ModelError: it is a cross-encoder.
        MissingExtraError: the library that runs its networks is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.source, self.model = str(folder), ExportedModel(folder)
        settings = self.model.settings
        self.kind, self.similarity = str(settings["kind"]), str(settings["similarity"])
        if "query" not in settings["sides"]:
            raise ModelError(
                f"{folder} is an exported {self.kind}, which reads query and document together and"
                " cannot search. Rerank with the model that it was exported from: irdistill score."
            )
        what, openvino = f"the exported model {folder}", settings["format"] == "openvino"
        if openvino and find_spec("openvino") is None:
            raise MissingExtraError("openvino", "openvino", what)
        if not openvino and find_spec("onnxruntime") is None:
            raise MissingExtraError("onnxruntime", "onnx", what)

    def __repr__(self) -> str:
        return f"ExportedEncoder({self.source!r})"

    @property
    def device(self) -> torch.device:
        """The processor, on which vectors are compared."""
        import torch

        return torch.device("cpu")

    @cached_property
    def dimension(self) -> int:
        """The length of the vectors."""
        return int(self.encode(["a"], "query")[0].shape[-1])

    @property
    def truncation(self) -> dict[str, Truncation]:
        """Counts of texts and tokens that exceed the limits, by kind of text."""
        return {side: Truncation(*counts) for side, counts in self.model.counts.items()}

    def max_length(self, kind: TextKind) -> int:
        """The number of tokens to which a text of this kind is truncated; 0 without a limit."""
        return int(self.model.settings["sides"][kind]["max_length"] or 0)

    def longer_model(self, kind: TextKind) -> None:
        """None: vectors are not made of longer ones here."""

    def tower_identity(self, kind: TextKind) -> dict[str, Any]:
        """All that determines the vectors of the texts of a kind."""
        settings = self.model.settings["sides"][kind]
        return {
            "files": self._checksums[settings["folder"]],
            "settings": settings,
            "similarity": self.similarity,
            "dimension": self.dimension,
        }

    def document_identity(self) -> dict[str, Any]:
        """All that determines the vectors of documents."""
        return self.tower_identity("document")

    def identity(self) -> dict[str, Any]:
        """All that determines the scores, for manifests."""
        settings = self.model.settings
        return {
            "model": self.source,
            "kind": self.kind,
            "format": settings["format"],
            "files": self._checksums,
            "similarity": self.similarity,
            "sides": settings["sides"],
        }

    @cached_property
    def _checksums(self) -> dict[str, dict[str, str]]:
        """SHA-256 of the files in each folder of a network."""
        folders = {side["folder"] for side in self.model.settings["sides"].values()}
        return {
            name: {
                path.name: file_sha256(path)
                for path in sorted((self.model.folder / name).iterdir())
                if path.is_file()
            }
            for name in sorted(folders)
        }

    def encode(self, texts: Sequence[str], kind: TextKind) -> Any:
        """Vectors (n, D) float32, of length 1 for cosine, or a list of (tokens, D) for late
        interaction.
        """
        of_queries = kind == "query"
        vectors = (self.model.encode_query if of_queries else self.model.encode_document)(texts)
        return unit_length(vectors) if self.similarity == "cosine" else vectors

    def search_vectors(
        self,
        texts: Sequence[str],
        kind: TextKind,
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        done: ProgressCallback | None = None,
    ) -> Any:
        """As `Student.search_vectors`.

        Args:
            precision, budget: ignored; the networks decide.
            done: called with the number of texts that were encoded.
        """
        from scipy.sparse import csr_matrix, vstack

        blocks: list[Any] = []
        for start in range(0, len(texts), _BLOCK):
            vectors = self.encode(texts[start : start + _BLOCK], kind)
            blocks.append(csr_matrix(vectors) if self.kind == "sparse" else vectors)
            if done is not None:
                done(len(vectors))
        if self.kind == "late-interaction":
            return [tokens for block in blocks for tokens in block]
        none = (0, self.dimension)
        if self.kind == "sparse":
            return vstack([csr_matrix(none, dtype=np.float32), *blocks], format="csr")
        return np.concatenate([np.empty(none, np.float32), *blocks])


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Vectors scaled to length 1; a zero vector stays zero.

    Examples:
        >>> unit_length(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)
