"""The sparse student: a weight for each word of the vocabulary (SPLADE, Formal et al. 2021,
arXiv:2109.10086).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix, vstack
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from torch import Tensor, nn

from irdistill.console.progress import ProgressCallback
from irdistill.errors import IrdistillError
from irdistill.modeling.batching import TokenBudget
from irdistill.modeling.hardware import Precision
from irdistill.modeling.model_files import model_revision
from irdistill.students.base import Kind, Student, Tokens
from irdistill.students.encoding import encode_batches
from irdistill.students.layers import keep_layers
from irdistill.students.model_kinds import retriever_type
from irdistill.students.student_loading import load_encoder, load_transformer
from irdistill.students.towers import copy_tower, one_tower, set_lengths, two_towers


class SparseStudent(Student):
    """A SparseEncoder of sentence-transformers: the score is the dot product of two sparse vectors.

    A word's weight is the largest ``log(1 + relu(logit))`` that a token gives it through the
    masked-language-model head. Queries may do without a model: then each of their tokens has a
    weight of its own, which is learnt, and encoding a query is looking them up (Geng et al. 2024,
    arXiv:2411.04403).
    """

    kind = "sparse"
    inputs = (Transformer, SparseStaticEmbedding)
    tokens_cpu, tokens_gpu = 2048, 32_768  # a token takes a row of the vocabulary's size

    def _check_similarity(self) -> None:
        if self.model.similarity_fn_name not in ("cosine", "dot"):
            raise IrdistillError(
                f"the model {self.source!r} compares vectors by {self.model.similarity_fn_name!r};"
                " dot and cosine are supported."
            )
        if self.model.max_active_dims is not None:
            raise IrdistillError(
                f"the model {self.source!r} keeps only {self.model.max_active_dims} dimensions of a"
                " vector; a sparse student is trained without such a cut. Set max_active_dims to"
                " null in its config_sentence_transformers.json."
            )

    @classmethod
    def build(
        cls,
        backbone: str,
        layers: int | Sequence[int] | None = None,
        query_layers: int | Sequence[int] | None = None,
        freeze_documents: bool = False,
        *,
        query_backbone: str | None = None,
        inference_free: bool = False,
        max_length: int | None = None,
        max_query_length: int | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
        seed: int = 0,
    ) -> SparseStudent:
        """Make a student out of a masked language model, or of a sparse model.

        Args:
            backbone: model folder, ``package:`` path or hub id. Where it was saved without its
                masked-language-model head, the head's transformation begins at random (its last
                layer is the word embeddings), and needs long training.
            layers: keep this many encoder layers, evenly spaced, or exactly those of a list.
            query_layers: give queries a tower of their own, a copy of the backbone with these
                layers; documents keep the backbone, which is then frozen.
            freeze_documents: freeze the document side; queries have a tower of their own then,
                whatever it is.
            query_backbone: another model with the same vocabulary as the query tower; documents are
                frozen then.
            inference_free: a learnt weight for each token in place of the query tower; all weights
                begin at 1.
            max_length: truncate texts to so many tokens.
            max_query_length: truncate queries to so many tokens.
            seed: of weights that the backbone lacks.

        Raises:
            IrdistillError: the backbone cannot be loaded or shortened so, the vocabularies differ,
                or a length is out of its range.
        """
        if inference_free and (query_layers is not None or query_backbone is not None):
            raise IrdistillError(
                "inference_free was given with query_layers or query_backbone; it leaves queries no"
                " layers."
            )
        shared: dict[str, Any] = {
            "trust_remote_code": trust_remote_code,
            "device": device,
            "seed": seed,
        }
        model = _encoder(backbone, revision=revision, **shared)
        first: Any = one_tower(model, "the backbone")[0]
        if layers is not None:
            keep_layers(first.model, layers)
        queries: list[nn.Module] | None = None
        if inference_free:
            ones = torch.ones(first.model.config.vocab_size)
            queries = [
                SparseStaticEmbedding(_copy_tokenizer(first, max_query_length or max_length), ones)
            ]
        elif query_backbone is not None:
            other = _encoder(query_backbone, **shared)
            if other.tokenizer.get_vocab() != model.tokenizer.get_vocab():
                raise IrdistillError(
                    f"the vocabularies of {query_backbone!r} and {backbone!r} differ, so their"
                    " sparse vectors cannot be compared; give a query_backbone with the same"
                    " vocabulary."
                )
            queries = copy_tower(other, query_layers)
        elif query_layers is not None or freeze_documents:
            queries = copy_tower(model, query_layers)
        own: Any = first if queries is None else queries[0]
        set_lengths(
            [own] if isinstance(own, Transformer) else [],
            [first],
            max_length,
            None if inference_free else max_query_length,
        )
        student = cls(
            model if queries is None else two_towers(model, queries),
            backbone,
            model_revision(backbone, revision),
        )
        if queries is not None and (freeze_documents or not inference_free):
            student._freeze("document")
        return student

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
    ) -> SparseStudent:
        """Open a saved student, or any SparseEncoder of sentence-transformers.

        Raises:
            IrdistillError: it cannot be loaded, or compares or cuts vectors in a way that is not
                supported.
        """
        name = str(model)
        encoder = load_encoder(
            name,
            revision=revision,
            trust_remote_code=trust_remote_code,
            device=device,
            library=SparseEncoder,
        )
        student = cls(encoder, name, model_revision(name, revision))
        student.restore_frozen()
        return student

    @property
    def dimension(self) -> int:
        """The number of words that can have a weight."""
        last: Any = self.tower("document")[-1]
        return int(
            last.get_embedding_dimension()  # SpladePooling need not know
            or self._transformers("document")[0].model.config.vocab_size
        )

    @property
    def similarity(self) -> str:
        return "cosine" if self.model.similarity_fn_name == "cosine" else "dot"

    def max_length(self, kind: Kind) -> int:
        first = self._first(kind)
        return (
            super().max_length(kind)
            if isinstance(first, Transformer)
            else int(first.tokenizer.model_max_length)
        )

    def tokenize(self, texts: Sequence[str], kind: Kind) -> Tokens:
        """As `Student.tokenize`; where queries have no model, their tokens stand without the
        special ones.
        """
        first = self._first(kind)
        if isinstance(first, Transformer):
            return super().tokenize(texts, kind)
        prompt = self._prompt(kind) or ""
        coded = first.tokenizer(
            [prompt + text for text in texts],
            truncation=True,
            padding=False,
            add_special_tokens=False,
        )
        self._count(coded, kind, 0)
        return dict(coded)

    def _embed(self, features: Mapping[str, Any], kind: Kind) -> Tensor:
        """Weights (n, V) with gradients."""
        with nullcontext() if self.learns(kind) else torch.no_grad():
            given = {**features, "task": kind, "modality": "text"}
            *before, last = self.tower(kind)
            if not isinstance(last, SpladePooling) or last.pooling_strategy != "max":
                return self.model(given, task=kind)["sentence_embedding"]
            for module in before:
                given = module(given)
            return _max_pool(
                given["token_embeddings"], given["attention_mask"], last.activation_function
            )

    def scores(
        self, queries: Tensor, documents: Tensor, index: Tensor, every: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Dot products (or cosines) of the lists (B, N) and of each query with each document (B,
        U), in float32.
        """
        with torch.autocast(queries.device.type, enabled=False):
            queries, documents = queries.float(), documents.float()
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
    ) -> csr_matrix:
        """Weights (n, V) float32 of texts, in their order, as compressed sparse rows with terms in
        ascending order.

        Args:
            precision, budget: see ``encode_batches``.
            normalize: make every vector of length 1 (one that is all zero stays so).

        Raises:
            IrdistillError: a weight is not finite.
        """
        parts: list[csr_matrix] = []
        order: list[np.ndarray] = [np.empty(0, dtype=np.int64)]

        def take(rows: np.ndarray, weights: Tensor) -> bool:
            weights = F.normalize(weights.float(), dim=-1) if normalize else weights.float()
            owners, words = weights.nonzero(as_tuple=True)
            values = weights[owners, words].cpu().numpy()
            starts = np.searchsorted(owners.cpu().numpy(), np.arange(len(rows) + 1))
            parts.append(
                csr_matrix((values, words.cpu().numpy(), starts), shape=tuple(weights.shape))
            )
            order.append(rows)
            return bool(np.isfinite(values).all())

        encode_batches(self, texts, kind, precision, budget, show_progress, take)
        if not parts:
            return csr_matrix((0, self.dimension), dtype=np.float32)
        return vstack(parts, format="csr")[np.argsort(np.concatenate(order))]

    def search_vectors(
        self,
        texts: Sequence[str],
        kind: Kind,
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        done: ProgressCallback | None = None,
    ) -> csr_matrix:
        return self.encode(
            texts,
            kind,
            precision,
            budget,
            show_progress=done or False,
            normalize=self.similarity == "cosine",
        )


def _max_pool(logits: Tensor, mask: Tensor, activation: str) -> Tensor:
    """What SpladePooling makes (n, V) of logits (n, L, V), with the maximum first.

    The activation rises, so the result is the same, and only the places of the maxima are kept for
    the gradients instead of two arrays of the size of the logits. (In eval mode SpladePooling
    itself overwrites what its gradients need.)
    """
    vectors = logits.masked_fill(mask.unsqueeze(-1) == 0, 0.0).max(dim=1).values.relu().log1p()
    return vectors.log1p() if activation == "log1p_relu" else vectors


def _encoder(
    backbone: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool,
    device: str | None,
    seed: int,
) -> Any:
    """A sparse model as it is, or a masked language model with max pooling."""
    given: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    if retriever_type(backbone, revision) == "sparse":
        return load_encoder(backbone, device=device, library=SparseEncoder, **given)
    first = load_transformer(backbone, task="fill-mask", new_head=True, seed=seed, **given)
    pooling = SpladePooling("max", embedding_dimension=first.model.config.vocab_size)
    return (
        SparseEncoder(modules=[first, pooling], device=device, similarity_fn_name="dot")
        .float()
        .eval()
    )


def _copy_tokenizer(first: Transformer, length: int | None) -> Any:
    """A tokenizer of its own for queries: two modules that share one would share its settings."""
    import copy

    tokenizer = copy.deepcopy(first.tokenizer)
    tokenizer.model_max_length = length or first.max_seq_length or 512
    return tokenizer
