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
from sentence_transformers.base.modules import Normalize, Router
from torch import Tensor, nn

from irdistill.console.progress import ProgressCallback
from irdistill.errors import IrdistillError
from irdistill.losses.representations import BatchRepresentations
from irdistill.modeling.batching import TokenBudget
from irdistill.modeling.hardware import Precision
from irdistill.modeling.model_files import model_revision
from irdistill.students.base import Kind, Student
from irdistill.students.encoding import encode_batches
from irdistill.students.layers import keep_layers
from irdistill.students.student_loading import load_encoder
from irdistill.students.towers import copy_tower, projection, set_lengths, set_pooling, two_towers

logger = logging.getLogger(__name__)

Similarity = Literal["cosine", "dot"]


class DenseStudent(Student):
    """A SentenceTransformer with the three things distillation needs: gradients, batches and an
    identity.
    """

    kind = "dense"
    representation_names = frozenset({"queries", "documents"})

    def _check_similarity(self) -> None:
        if self.model.similarity_fn_name not in ("cosine", "dot"):
            raise IrdistillError(
                f"the model {self.source!r} compares vectors by {self.model.similarity_fn_name!r};"
                " cosine and dot are supported. Set similarity_fn_name in its"
                " config_sentence_transformers.json."
            )

    # -- making, loading and saving
    # -------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        backbone: str,
        layers: int | Sequence[int] | None = None,
        query_layers: int | Sequence[int] | None = None,
        freeze_documents: bool = False,
        *,
        query_backbone: str | None = None,
        max_length: int | None = None,
        max_query_length: int | None = None,
        similarity: Similarity | None = None,
        pooling: str | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
        seed: int = 0,
    ) -> DenseStudent:
        """Make a student out of a backbone.

        Args:
            backbone: model folder, ``package:`` path or hub id; a plain encoder gets mean pooling.
            layers: keep this many encoder layers, evenly spaced with the first and the last among
                them, or exactly those of a list.
            query_layers: give queries a tower of their own, a copy of the (already shortened)
                backbone with these layers; documents keep the backbone, which is then frozen.
            freeze_documents: freeze the document side; without ``query_layers`` the query tower is
                a whole copy.
            query_backbone: another model as the query tower, a smaller one; documents keep the
                backbone, which is then frozen. Where the lengths of their vectors differ, queries
                get a new linear layer.
            max_length: truncate texts to so many tokens.
            max_query_length: truncate queries to so many tokens.
            similarity: ``cosine`` or ``dot``; default is what the backbone states, else cosine.
            seed: of the new layer's weights.
            pooling: how a text's token vectors become one: ``mean``, ``cls``, ``max``,
                ``lasttoken``, ``weightedmean`` or ``mean_sqrt_len_tokens``; default is what the
                backbone states, else the mean.
            query_prompt, document_prompt: are put before each text, as ``"query: "``.

        Raises:
            IrdistillError: the backbone cannot be loaded or shortened so, or a length is out of its
                range.
        """
        model = load_encoder(
            backbone, revision=revision, trust_remote_code=trust_remote_code, device=device
        )
        student = cls(model, backbone, model_revision(backbone, revision))
        if pooling is not None:
            set_pooling(model, pooling)
        if layers is not None:
            for module in student._transformers("document"):
                keep_layers(module.model, layers)
        if query_backbone is not None:
            other = load_encoder(query_backbone, trust_remote_code=trust_remote_code, device=device)
            queries = _query_modules(model, other, query_layers, seed)
            student = cls(
                two_towers(model, queries, other.prompts.get("query")),
                student.source,
                student.revision,
            )
        elif query_layers is not None or freeze_documents:
            student = cls(
                two_towers(model, copy_tower(model, query_layers)), student.source, student.revision
            )
        if isinstance(student.model[0], Router):
            student._freeze("document")
        else:
            student.restore_frozen()
        if similarity is not None:
            if similarity not in ("cosine", "dot"):
                raise IrdistillError(
                    f"similarity={similarity!r} was given; cosine or dot was expected."
                )
            student.model.similarity_fn_name = similarity
        prompts = {"query": query_prompt, "document": document_prompt}
        student.model.prompts.update(
            {kind: prompt for kind, prompt in prompts.items() if prompt is not None}
        )
        set_lengths(
            student._transformers("query"),
            student._transformers("document"),
            max_length,
            max_query_length,
        )
        return student

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
        dimension: int | None = None,
    ) -> DenseStudent:
        """Open a saved student, or any dense sentence-transformers model.

        Args:
            dimension: cut vectors to their first so many numbers, for which a Matryoshka student is
                trained.

        Raises:
            IrdistillError: it cannot be loaded, is of a kind that gives no single vector, or its
                vectors are shorter.
        """
        name = str(model)
        encoder = load_encoder(
            name, revision=revision, trust_remote_code=trust_remote_code, device=device
        )
        student = cls(encoder, name, model_revision(name, revision))
        student.restore_frozen()
        if dimension is not None:
            if not 1 <= dimension <= student.dimension:
                raise IrdistillError(
                    f"dimension={dimension} was given; the vectors of {name!r} have 1 to"
                    f" {student.dimension}."
                )
            encoder.truncate_dim = dimension
        return student

    # -- what it is
    # -----------------------------------------------------------------------------------------

    @property
    def similarity(self) -> Similarity:
        """How two vectors are compared."""
        return "cosine" if self.model.similarity_fn_name == "cosine" else "dot"

    def identity(self) -> dict[str, Any]:
        """What determines the vectors; goes into manifests."""
        return {
            "model": self.source,
            "revision": self.revision,
            "weights": self.weights_digest(),
            "kind": self.kind,
            "dimension": self.dimension,
            "similarity": self.similarity,
            "max_length": self.max_length("document"),
            "max_query_length": self.max_length("query"),
            "prompts": {kind: self._prompt(kind) or "" for kind in ("query", "document")},
            **self.settings_digests(),
        }

    # -- from texts to vectors
    # ------------------------------------------------------------------------------

    def _embed(self, features: Mapping[str, Any], kind: Kind) -> Tensor:
        """Vectors (n, D) with gradients."""
        with nullcontext() if self.learns(kind) else torch.no_grad():
            output = self.model({**features, "task": kind, "modality": "text"}, task=kind)
        vectors = output["sentence_embedding"]
        return (
            vectors if self.model.truncate_dim is None else vectors[..., : self.model.truncate_dim]
        )

    def representations(self, queries: Any, documents: Any) -> BatchRepresentations:
        return BatchRepresentations(queries=queries, documents=documents)

    def scores(
        self, query_vectors: Tensor, document_vectors: Tensor, index: Tensor, every: bool = True
    ) -> tuple[Tensor, Tensor]:
        """List and in-batch scores, in float32.

        Args:
            query_vectors: (B, D).
            document_vectors: (U, D), the batch's unique documents.
            index: (B, N) row in ``document_vectors`` of each list entry; negative where a list is
                padded.
            every: changes nothing here: the in-batch scores are one matrix product.

        Returns:
            (B, N) scores of the lists (those of padding mean nothing) and (B, U) of each query with
            each document.
        """
        with torch.autocast(query_vectors.device.type, enabled=False):
            queries, documents = query_vectors.float(), document_vectors.float()
            if self.similarity == "cosine":
                queries, documents = F.normalize(queries, dim=-1), F.normalize(documents, dim=-1)
            in_batch = queries @ documents.T
        return in_batch.gather(1, index.clamp_min(0)), in_batch

    def encode(
        self,
        texts: Sequence[str],
        kind: Kind = "document",
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        show_progress: bool | ProgressCallback = True,
        normalize: bool = False,
    ) -> np.ndarray:
        """Vectors (n, D) float32 of texts, in their order.

        Args:
            precision, budget: see ``encode_batches``.
            normalize: make every vector of length 1.

        Raises:
            IrdistillError: a vector is not finite.
        """
        result = np.empty((len(texts), self.dimension), dtype=np.float32)

        def take(rows: np.ndarray, vectors: Tensor) -> bool:
            vectors = vectors.float()
            result[rows] = (F.normalize(vectors, dim=-1) if normalize else vectors).cpu().numpy()
            return bool(np.isfinite(result[rows]).all())

        encode_batches(self, texts, kind, precision, budget, show_progress, take)
        return result

    def search_vectors(
        self,
        texts: Sequence[str],
        kind: Kind,
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        done: ProgressCallback | None = None,
    ) -> np.ndarray:
        return self.encode(
            texts,
            kind,
            precision,
            budget,
            show_progress=done or False,
            normalize=self.similarity == "cosine",
        )


def _query_modules(
    model: Any, other: Any, layers: int | Sequence[int] | None, seed: int
) -> list[nn.Module]:
    """The modules of another model, made to give vectors like those of ``model``."""
    modules = [module for module in copy_tower(other, layers) if not isinstance(module, Normalize)]
    before, after = other.get_embedding_dimension(), model.get_embedding_dimension()
    if before != after:
        modules.append(projection(before, after, "sentence_embedding", seed))
    return [*modules, *(Normalize() for module in model if isinstance(module, Normalize))]
