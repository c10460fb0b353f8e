"""The dense student: one vector a text, over a sentence-transformers model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from irdistill.batching import TokenBudget, run_batches
from irdistill.errors import IrdistillError
from irdistill.hardware import Precision, choose_dtype
from irdistill.losses.states import States
from irdistill.models import model_revision
from irdistill.progress import progress
from irdistill.students.base import Kind, Student
from irdistill.students.layers import keep_layers
from irdistill.students.loading import load_encoder
from irdistill.students.towers import add_query_tower, set_lengths

logger = logging.getLogger(__name__)

Similarity = Literal["cosine", "dot"]
_TOKENS_CPU, _TOKENS_GPU = 8192, 65536


class DenseStudent(Student):
    """A SentenceTransformer with the three things distillation needs: gradients, batches and an identity."""

    kind = "dense"
    states = frozenset({"queries", "documents"})

    def _check_similarity(self) -> None:
        if self.model.similarity_fn_name not in ("cosine", "dot"):
            raise IrdistillError(
                f"the model {self.source!r} compares vectors by {self.model.similarity_fn_name!r}; cosine and dot are "
                "supported. Set similarity_fn_name in its config_sentence_transformers.json."
            )

    # -- making, loading and saving -------------------------------------------------------------------------

    @classmethod
    def build(cls, backbone: str, layers: int | Sequence[int] | None = None,
              query_layers: int | Sequence[int] | None = None, freeze_documents: bool = False, *,
              max_length: int | None = None, max_query_length: int | None = None,
              similarity: Similarity | None = None, revision: str | None = None,
              trust_remote_code: bool = False, device: str | None = None) -> DenseStudent:
        """Make a student out of a backbone.

        Args:
            backbone: model folder, ``package:`` path or hub id; a plain encoder gets mean pooling.
            layers: keep this many encoder layers, evenly spaced with the first and the last among them, or
                exactly those of a list.
            query_layers: give queries a tower of their own, a copy of the (already shortened) backbone with
                these layers; documents keep the backbone, which is then frozen.
            freeze_documents: freeze the document side; without ``query_layers`` the query tower is a whole
                copy.
            max_length: truncate texts to so many tokens.
            max_query_length: truncate queries to so many tokens.
            similarity: ``cosine`` or ``dot``; default is what the backbone states, else cosine.

        Raises:
            IrdistillError: the backbone cannot be loaded or shortened so, or a length is out of its range.
        """
        model = load_encoder(backbone, revision=revision, trust_remote_code=trust_remote_code, device=device)
        student = cls(model, backbone, model_revision(backbone, revision))
        if layers is not None:
            for module in student._transformers("document"):
                keep_layers(module.model, layers)
        if query_layers is not None or freeze_documents:
            student = cls(add_query_tower(model, query_layers), student.source, student.revision)
            student._freeze("document")
        if similarity is not None:
            student.model.similarity_fn_name = similarity
        set_lengths(student._transformers("query"), student._transformers("document"),
                    max_length, max_query_length)
        return student

    @classmethod
    def load(cls, model: str | Path, *, revision: str | None = None, trust_remote_code: bool = False,
             device: str | None = None) -> DenseStudent:
        """Open a saved student, or any dense sentence-transformers model.

        Raises:
            IrdistillError: it cannot be loaded, or is of a kind that gives no single vector.
        """
        name = str(model)
        encoder = load_encoder(name, revision=revision, trust_remote_code=trust_remote_code, device=device)
        student = cls(encoder, name, model_revision(name, revision))
        student.restore_frozen()
        return student

    # -- what it is -----------------------------------------------------------------------------------------

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return int(self.model.get_embedding_dimension())

    @property
    def similarity(self) -> Similarity:
        """How two vectors are compared."""
        return "cosine" if self.model.similarity_fn_name == "cosine" else "dot"

    def identity(self) -> dict[str, Any]:
        """What determines the vectors; goes into manifests."""
        return {
            "model": self.source, "revision": self.revision, "weights": self.weights_digest(),
            "dimension": self.dimension, "similarity": self.similarity,
            "max_length": self.max_length("document"), "max_query_length": self.max_length("query"),
            "prompts": {kind: self._prompt(kind) or "" for kind in ("query", "document")},
        }

    # -- from texts to vectors ------------------------------------------------------------------------------

    def embed(self, features: Mapping[str, Any], kind: Kind) -> Tensor:
        """Vectors (n, D) with gradients; ``features`` from ``pad`` (tensors) or from ``tokenize`` (lists)."""
        if not isinstance(features["input_ids"], Tensor):
            features = self.pad(features, kind)
        with nullcontext() if self._learns(kind) else torch.no_grad():
            output = self.model({**features, "task": kind, "modality": "text"}, task=kind)
        vectors = output["sentence_embedding"]
        return vectors if self.model.truncate_dim is None else vectors[..., : self.model.truncate_dim]

    def represent(self, queries: Any, documents: Any) -> States:
        return States(queries=queries, documents=documents)

    def scores(self, query_vectors: Tensor, document_vectors: Tensor, index: Tensor,
               every: bool = True) -> tuple[Tensor, Tensor]:
        """List and in-batch scores, in float32.

        Args:
            query_vectors: (B, D).
            document_vectors: (U, D), the batch's unique documents.
            index: (B, N) row in ``document_vectors`` of each list entry; negative where a list is padded.
            every: changes nothing here: the in-batch scores are one matrix product.

        Returns:
            (B, N) scores of the lists (those of padding mean nothing) and (B, U) of each query with each
            document.
        """
        with torch.autocast(query_vectors.device.type, enabled=False):
            queries, documents = query_vectors.float(), document_vectors.float()
            if self.similarity == "cosine":
                queries, documents = F.normalize(queries, dim=-1), F.normalize(documents, dim=-1)
            in_batch = queries @ documents.T
        return in_batch.gather(1, index.clamp_min(0)), in_batch

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], kind: Kind = "document", precision: Precision = "auto",
               budget: int | TokenBudget | None = None, show_progress: bool = True,
               normalize: bool = False) -> np.ndarray:
        """Vectors (n, D) float32 of texts, in their order.

        Texts are tokenised once, sorted by length and cut into batches of a token budget, which is halved
        when memory runs out. The model is in eval mode meanwhile.

        Args:
            precision: ``auto`` is bfloat16 where the device has instructions for it, else float32.
            budget: padded tokens a batch; a TokenBudget remembers a halving.
            normalize: make every vector of length 1.
        """
        device = self.device
        if not isinstance(budget, TokenBudget):
            budget = TokenBudget(budget or (_TOKENS_CPU if device.type == "cpu" else _TOKENS_GPU))
        result = np.empty((len(texts), self.dimension), dtype=np.float32)
        if not len(texts):
            return result
        dtype = choose_dtype(precision, device)
        tokens = self.tokenize(texts, kind)
        lengths = np.array([len(ids) for ids in tokens["input_ids"]])
        was_training = self.model.training
        self.model.eval()
        try:
            with progress(len(texts), "texts", f"encode {kind}s") as bar:
                bar.disable = bar.disable or not show_progress

                def forward(rows: np.ndarray) -> None:
                    features = self.pad(tokens, kind, rows, device)
                    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                        vectors = self.embed(features, kind)
                    vectors = vectors.float()
                    result[rows] = (F.normalize(vectors, dim=-1) if normalize else vectors).cpu().numpy()
                    bar.update(len(rows))

                run_batches(lengths, budget, forward)
        finally:
            self.model.train(was_training)
        if not np.isfinite(result).all():
            bad = int((~np.isfinite(result).all(axis=1)).sum())
            raise IrdistillError(
                f"{bad} of {len(texts)} vectors of {self.source!r} are not finite in {dtype}; "
                "use precision='float32'."
            )
        return result
