"""The sparse student: a weight for each word of the vocabulary (SPLADE, Formal et al. 2021, arXiv:2109.10086)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from torch import Tensor

from irdistill.errors import IrdistillError
from irdistill.models import model_revision
from irdistill.students.base import Kind, Student, Tokens
from irdistill.students.layers import keep_layers
from irdistill.students.loading import load_encoder, load_transformer
from irdistill.students.towers import set_lengths


class SparseStudent(Student):
    """A SparseEncoder of sentence-transformers: the score is the dot product of two sparse vectors.

    A word's weight is the largest ``log(1 + relu(logit))`` that a token gives it through the masked-language-model head.
    Queries may do without a model: then each of their tokens has a weight of its own, which is learnt, and encoding a query
    is looking them up (Geng et al. 2024, arXiv:2411.04403).
    """

    kind = "sparse"
    inputs = (Transformer, SparseStaticEmbedding)

    def _check_similarity(self) -> None:
        if self.model.similarity_fn_name not in ("cosine", "dot"):
            raise IrdistillError(
                f"the model {self.source!r} compares vectors by {self.model.similarity_fn_name!r}; dot and cosine are supported."
            )
        if self.model.max_active_dims is not None:
            raise IrdistillError(
                f"the model {self.source!r} keeps only {self.model.max_active_dims} dimensions of a vector; a sparse student is "
                "trained without such a cut. Set max_active_dims to null in its config_sentence_transformers.json."
            )

    @classmethod
    def build(cls, backbone: str, layers: int | Sequence[int] | None = None, *, inference_free: bool = False,
              max_length: int | None = None, max_query_length: int | None = None, revision: str | None = None,
              trust_remote_code: bool = False, device: str | None = None, seed: int = 0) -> SparseStudent:
        """Make a student out of a masked language model (to continue from a sparse model, `load` it).

        Args:
            backbone: model folder, ``package:`` path or hub id. Where it was saved without its masked-language-model head, the
                head's transformation begins at random (its last layer is the word embeddings), and needs long training.
            layers: keep this many encoder layers, evenly spaced, or exactly those of a list.
            inference_free: a learnt weight for each token in place of the query tower; all weights begin at 1.
            max_length: truncate texts to so many tokens.
            max_query_length: truncate queries to so many tokens.
            seed: of weights that the backbone lacks.

        Raises:
            IrdistillError: the backbone cannot be loaded or shortened so, or a length is out of its range.
        """
        first = load_transformer(backbone, revision=revision, trust_remote_code=trust_remote_code, task="fill-mask", seed=seed)
        if layers is not None:
            keep_layers(first.model, layers)
        set_lengths((first,), (first,), max_length, None)
        if max_query_length is not None and not inference_free:
            set_lengths((first,), (), None, max_query_length)
        modules: list[Any] = [first, SpladePooling("max", embedding_dimension=first.model.config.vocab_size)]
        if inference_free:
            ones = torch.ones(first.model.config.vocab_size)
            words = SparseStaticEmbedding(_copy_tokenizer(first, max_query_length or max_length), ones)
            modules = [Router.for_query_document(query_modules=[words], document_modules=modules)]
        model = SparseEncoder(modules=modules, device=device, similarity_fn_name="dot")
        return cls(model.float().eval(), backbone, model_revision(backbone, revision))

    @classmethod
    def load(cls, model: str | Path, *, revision: str | None = None, trust_remote_code: bool = False,
             device: str | None = None) -> SparseStudent:
        """Open a saved student, or any SparseEncoder of sentence-transformers.

        Raises:
            IrdistillError: it cannot be loaded, or compares or cuts vectors in a way that is not supported.
        """
        name = str(model)
        encoder = load_encoder(name, revision=revision, trust_remote_code=trust_remote_code, device=device,
                               library=SparseEncoder)
        student = cls(encoder, name, model_revision(name, revision))
        student.restore_frozen()
        return student

    @property
    def similarity(self) -> str:
        return "cosine" if self.model.similarity_fn_name == "cosine" else "dot"

    def max_length(self, kind: Kind) -> int:
        first = self._first(kind)
        return super().max_length(kind) if isinstance(first, Transformer) else int(first.tokenizer.model_max_length)

    def tokenize(self, texts: Sequence[str], kind: Kind) -> Tokens:
        """As `Student.tokenize`; where queries have no model, their tokens stand without the special ones."""
        first = self._first(kind)
        if isinstance(first, Transformer):
            return super().tokenize(texts, kind)
        prompt = self._prompt(kind) or ""
        return dict(first.tokenizer([prompt + text for text in texts], truncation=True, padding=False, add_special_tokens=False))

    def pad(self, tokens: Mapping[str, Sequence[Any]], kind: Kind, rows: Any = None,
            device: torch.device | None = None) -> dict[str, Any]:
        if isinstance(self._first(kind), Transformer):
            return super().pad(tokens, kind, rows, device)
        chosen = tokens if rows is None else {key: [values[int(row)] for row in rows] for key, values in tokens.items()}
        padded = self._first(kind).tokenizer.pad(dict(chosen), padding=True, return_tensors="pt")
        return {key: value.to(device or self.device) for key, value in padded.items()}

    def embed(self, features: Mapping[str, Any], kind: Kind) -> Tensor:
        """Weights (n, V) with gradients; ``features`` from ``pad`` (tensors) or from ``tokenize`` (lists)."""
        if not isinstance(features["input_ids"], Tensor):
            features = self.pad(features, kind)
        with nullcontext() if self.learns(kind) else torch.no_grad():
            given = {**features, "task": kind, "modality": "text"}
            *before, last = self.tower(kind)
            if not isinstance(last, SpladePooling) or last.pooling_strategy != "max":
                return self.model(given, task=kind)["sentence_embedding"]
            for module in before:
                given = module(given)
            return _max_pool(given["token_embeddings"], given["attention_mask"], last.activation_function)

    def scores(self, queries: Tensor, documents: Tensor, index: Tensor, every: bool = True) -> tuple[Tensor, Tensor | None]:
        """Dot products (or cosines) of the lists (B, N) and of each query with each document (B, U), in float32."""
        with torch.autocast(queries.device.type, enabled=False):
            queries, documents = queries.float(), documents.float()
            if self.similarity == "cosine":
                queries, documents = F.normalize(queries, dim=-1), F.normalize(documents, dim=-1)
            in_batch = queries @ documents.T
        return in_batch.gather(1, index.clamp_min(0)), in_batch


def _max_pool(logits: Tensor, mask: Tensor, activation: str) -> Tensor:
    """What SpladePooling makes (n, V) of logits (n, L, V), with the maximum first.

    The activation rises, so the result is the same, and only the places of the maxima are kept for the gradients instead
    of two arrays of the size of the logits. (In eval mode SpladePooling itself overwrites what its gradients need.)
    """
    vectors = logits.masked_fill(mask.unsqueeze(-1) == 0, 0.0).max(dim=1).values.relu().log1p()
    return vectors.log1p() if activation == "log1p_relu" else vectors


def _copy_tokenizer(first: Transformer, length: int | None) -> Any:
    """A tokenizer of its own for queries: two modules that share one would share its settings."""
    import copy

    tokenizer = copy.deepcopy(first.tokenizer)
    tokenizer.model_max_length = length or first.max_seq_length or 512
    return tokenizer
