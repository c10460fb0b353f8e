"""The dense student: one vector for each text."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import Tensor, nn

from irdistill.console.progress_bars import ProgressCallback
from irdistill.errors import OptionError
from irdistill.losses.representations import BatchRepresentations
from irdistill.modeling.batching import TokenBudget
from irdistill.modeling.hardware import Precision
from irdistill.modeling.model_revisions import model_revision
from irdistill.modeling.padding import TokenRow
from irdistill.students.encoding import encode_batches
from irdistill.students.layers import keep_layers
from irdistill.students.model_kinds import describe_model
from irdistill.students.single_vector import SingleVectorStudent
from irdistill.students.static_tower import (
    join_bags,
    new_static_model,
    static_length,
    tokenize_bags,
)
from irdistill.students.student_base import Shortened
from irdistill.students.student_loading import load_encoder
from irdistill.students.student_options import Layers, StudentOptions
from irdistill.students.tower_model import TextKind, TokenColumns, with_prompt
from irdistill.students.towers import (
    copy_tower,
    projection,
    separate_towers,
    set_lengths,
    set_pooling,
    two_towers,
    with_modules,
    with_route,
)

logger = logging.getLogger(__name__)


class DenseStudent(SingleVectorStudent):
    """A SentenceTransformer: the score is the cosine or the dot product of two vectors.

    A backbone without sentence-transformers modules gets mean pooling. With ``query_layers``,
    ``query_backbone`` or ``freeze_documents`` queries get a tower of their own and the document
    tower is frozen. If the towers' vectors differ in length, queries get a new linear layer. With
    ``query_layers=0`` a query is the mean of its tokens' vectors, a table look-up.

    Examples:
        >>> import irdistill as ird
        >>> backbone = "sentence-transformers/all-MiniLM-L6-v2"
        >>> student = ird.DenseStudent(backbone, query_layers=2)  # doctest: +SKIP
        >>> student.encode(["how to delete a folder"], "query").shape  # doctest: +SKIP
        (1, 384)
    """

    kind = "dense"
    representation_names = frozenset({"queries", "documents"})
    inputs = (Transformer, StaticEmbedding)

    def _build(self, backbone: str, options: StudentOptions, device: str | None, seed: int) -> None:
        trust = options.trust_remote_code
        model = separate_towers(
            load_encoder(
                backbone, revision=options.revision, trust_remote_code=trust, device=device
            )
        )
        revision = model_revision(backbone, options.revision)
        self._set_model(model, backbone, revision)
        if options.pooling is not None:
            set_pooling(model, options.pooling)
        if options.layers is not None:
            for module in self._transformers("document"):
                keep_layers(module.model, options.layers)
        if options.query_layers == 0:
            if options.query_backbone is not None:
                raise OptionError(
                    "query_layers=0 was given with query_backbone; a static query tower has no"
                    " backbone, so leave out query_backbone."
                )
            self._set_model(new_static_model(self), backbone, revision)
        elif options.query_backbone is not None:
            other = load_encoder(options.query_backbone, trust_remote_code=trust, device=device)
            queries = _query_modules(model, other, options.query_layers, seed)
            routed = two_towers(model, queries, other.prompts.get("query"))
            self._set_model(routed, backbone, revision)
        elif options.query_layers is not None or options.freeze_documents:
            routed = two_towers(model, copy_tower(model, options.query_layers))
            self._set_model(routed, backbone, revision)
        if self.has_two_towers:
            self._freeze("document")
        self._shape_static(options)
        if options.similarity is not None:
            self.model.similarity_fn_name = options.similarity
        prompts = {"query": options.query_prompt, "document": options.document_prompt}
        before = self.prompts()
        self.model.prompts.update(
            {kind: prompt for kind, prompt in prompts.items() if prompt is not None}
        )
        if describe_model(backbone, options.revision).has_modules:
            _warn_of_other_prompts(backbone, before, self.prompts())
        set_lengths(
            self._transformers("query"),
            self._transformers("document"),
            options.max_length,
            options.max_query_length,
        )

    def _shape_static(self, options: StudentOptions) -> None:
        """Set the token limits of static towers, and refuse options that they lack."""
        for kind in self.sides:
            first = self._first(kind)
            if not _is_static(first):
                continue
            if options.lora_rank is not None:
                raise OptionError(
                    f"lora_rank={options.lora_rank} was given, but the {kind} tower is static and"
                    " has no linear layers for adapters; leave out lora_rank."
                )
            length = options.max_length
            if kind == "query" and self.has_two_towers:
                length = options.max_query_length or length
            if length is not None:
                first.tokenizer.enable_truncation(length)

    def max_length(self, kind: TextKind) -> int:
        """As `Student.max_length`; of a static tower the limit of the tokenizer."""
        first = self._first(kind)
        return static_length(first) if _is_static(first) else super().max_length(kind)

    def tokenize(self, texts: Sequence[str], kind: TextKind) -> TokenColumns:
        """As `Student.tokenize`; a static tower has no special tokens."""
        first = self._first(kind)
        if not _is_static(first):
            return super().tokenize(texts, kind)
        prompt = self._prompt(kind) or ""
        coded = tokenize_bags(first, [with_prompt(prompt, text) for text in texts])
        self._count(coded, kind, 0)
        return dict(coded)

    def pad_rows(
        self, rows: Sequence[TokenRow], kind: TextKind, device: torch.device | None = None
    ) -> dict[str, Any]:
        """As `Student.pad_rows`; the tokens for a static tower are joined without padding."""
        if not _is_static(self._first(kind)):
            return super().pad_rows(rows, kind, device)
        return join_bags(rows, device or self.device)

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
        dimension: int | None = None,
    ) -> Self:
        """Open a saved student, or any dense model of sentence-transformers.

        Args:
            dimension: truncate vectors to their first numbers, for Matryoshka students.

        Raises:
            ModelError: it cannot be loaded, or is of another kind.
            OptionError: its vectors are shorter than ``dimension``.
        """
        student = super().load(
            model, revision=revision, trust_remote_code=trust_remote_code, device=device
        )
        if dimension is not None:
            if not 1 <= dimension <= student.dimension:
                raise OptionError(
                    f"dimension={dimension} was given; the vectors of {str(model)!r} have 1 to"
                    f" {student.dimension}."
                )
            student.model.truncate_dim = dimension
        return student

    def identity(self) -> dict[str, Any]:
        """All that determines the vectors, for manifests."""
        return {
            "model": self.source,
            "revision": self.revision,
            "weights": self.weights_digest(),
            "kind": self.kind,
            "dimension": self.dimension,
            "similarity": self.similarity,
            "max_length": self.max_length("document"),
            "max_query_length": self.max_length("query"),
            "prompts": self.prompts(),
            **self.settings_digests(),
        }

    def set_route(self, kind: TextKind, modules: Sequence[nn.Module]) -> None:
        """Replace the modules of a tower, or those of both if they are the same."""
        frozen = [side for side in self.sides if not self.learns(side)]
        self._set_model(with_route(self.model, kind, modules), self.source, self.revision)
        for side in frozen:
            self._freeze(side)

    def longer_model(self, kind: TextKind) -> Shortened | None:
        """As `Student.longer_model`: without truncation, and without a last linear layer behind
        normalized vectors.
        """
        modules, cut = self.tower(kind), self.model.truncate_dim
        layer: Any = modules[-1].linear if _is_last_layer(modules) else None
        if layer is None and cut is None:
            return None
        longer = with_modules(self.model, modules if layer is None else modules[:-1])
        longer.truncate_dim = None
        if layer is not None:
            longer.similarity_fn_name = "cosine"
        normalized = self.similarity == "cosine"

        def shorten(vectors: np.ndarray) -> np.ndarray:
            present = vectors.any(axis=1, keepdims=True)
            if layer is not None:
                weight, bias = layer.weight.detach().cpu().numpy(), layer.bias
                vectors = vectors @ weight.T
                vectors = vectors if bias is None else vectors + bias.detach().cpu().numpy()
            vectors = vectors[:, :cut]
            if normalized:
                lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
                vectors = vectors / np.maximum(lengths, 1e-12)
            return np.asarray(vectors * present, dtype=np.float32)

        return Shortened(DenseStudent.from_model(longer, self.source, self.revision), shorten)

    def _embed(self, features: Mapping[str, Any], kind: TextKind) -> Tensor:
        """Vectors (n, D) with gradients."""
        with self._gradients(kind):
            output = self.model({**features, "task": kind, "modality": "text"}, task=kind)
        vectors: Tensor = output["sentence_embedding"]
        return vectors[..., : self.model.truncate_dim]

    def representations(self, queries: Any, documents: Any) -> BatchRepresentations:
        """The vectors themselves."""
        return BatchRepresentations(queries=queries, documents=documents)

    def encode(
        self,
        texts: Sequence[str],
        kind: TextKind = "document",
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        show_progress: bool | ProgressCallback = True,
        normalize: bool = False,
    ) -> np.ndarray:
        """Vectors (n, D) float32; see `SingleVectorStudent.encode`."""
        result = np.empty((len(texts), self.dimension), dtype=np.float32)

        def take(rows: np.ndarray, vectors: Tensor) -> bool:
            vectors = vectors.float()
            result[rows] = (F.normalize(vectors, dim=-1) if normalize else vectors).cpu().numpy()
            return bool(np.isfinite(result[rows]).all())

        encode_batches(self, texts, kind, precision, budget, show_progress, take)
        return result


def _is_last_layer(modules: Sequence[nn.Module]) -> bool:
    """Whether a tower ends with a linear layer behind a normalization."""
    last = modules[-1]
    return (
        len(modules) > 2
        and isinstance(modules[-2], Normalize)
        and isinstance(last, Dense)
        and isinstance(last.activation_function, nn.Identity)
        and (last.module_input_name, last.module_output_name) == ("sentence_embedding",) * 2
        and not last.use_residual
    )


def _is_static(module: nn.Module) -> bool:
    return isinstance(module, StaticEmbedding)


def _query_modules(model: Any, other: Any, layers: Layers | None, seed: int) -> list[nn.Module]:
    """The modules of another model, with a projection to the dimension of ``model`` if needed."""
    modules = [module for module in copy_tower(other, layers) if not isinstance(module, Normalize)]
    before, after = other.get_embedding_dimension(), model.get_embedding_dimension()
    if before != after:
        modules.append(projection(before, after, "sentence_embedding", seed))
    return [*modules, *(Normalize() for module in model if isinstance(module, Normalize))]


def _warn_of_other_prompts(
    model: str, saved: Mapping[str, str], prompts: Mapping[str, str]
) -> None:
    """Log the prompts with which a trained model was not trained."""
    for kind, prompt in prompts.items():
        if prompt != saved[kind]:
            logger.warning(
                "the %s prompt of the student is %r, and %s was saved with %r; a student keeps more"
                " of what its backbone learned if the prompts stay the same",
                kind,
                prompt,
                model,
                saved[kind],
            )
