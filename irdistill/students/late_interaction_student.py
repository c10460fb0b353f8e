"""The late-interaction student: a vector for each token (ColBERT, Khattab and Zaharia 2020,
arXiv:2004.12832).
"""

from __future__ import annotations

import logging
import string
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import (
    BaseTokenPooling,
    HierarchicalTokenPooling,
    MultiVectorMask,
)
from torch import Tensor, nn

from irdistill.console.progress import ProgressCallback
from irdistill.errors import IrdistillError
from irdistill.losses.representations import BatchRepresentations, padded_tokens
from irdistill.modeling.batching import TokenBudget
from irdistill.modeling.hardware import Precision
from irdistill.modeling.model_files import model_revision
from irdistill.students.base import Kind, Student, Tokens
from irdistill.students.encoding import encode_batches
from irdistill.students.inputs import position_limit
from irdistill.students.layers import keep_layers
from irdistill.students.model_kinds import retriever_type
from irdistill.students.student_loading import load_encoder, load_transformer
from irdistill.students.towers import copy_tower, one_tower, projection, set_lengths, two_towers

DIMENSION = 128
#: Floats that one chunk of token vectors and their similarities may take: 64 MiB.
_CHUNK = 1 << 24

logger = logging.getLogger(__name__)


class LateInteractionStudent(Student):
    """A MultiVectorEncoder of sentence-transformers: the score is MaxSim.

    For each query token the largest similarity to a token of the document, summed over the query
    tokens (or their mean, where the model says ``meanmaxsim``).
    """

    kind = "late-interaction"
    representation_names = frozenset({"query_tokens", "document_tokens"})

    def __init__(
        self, model: MultiVectorEncoder, source: str = "in memory", revision: str = "none"
    ) -> None:
        super().__init__(model, source, revision)
        pool_without_autocast(model)

    @classmethod
    def build(
        cls,
        backbone: str,
        layers: int | Sequence[int] | None = None,
        query_layers: int | Sequence[int] | None = None,
        freeze_documents: bool = False,
        *,
        query_backbone: str | None = None,
        dimension: int | None = None,
        expand_queries: int | None = None,
        mask_punctuation: bool = True,
        token_pooling: float | None = None,
        max_length: int | None = None,
        max_query_length: int | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
        seed: int = 0,
    ) -> LateInteractionStudent:
        """Make a student out of an encoder, or of a late-interaction model.

        Args:
            backbone: model folder, ``package:`` path or hub id. A late-interaction model keeps its
                projection and its mask.
            layers: keep this many encoder layers, evenly spaced, or exactly those of a list.
            query_layers: give queries a tower of their own, a copy of the backbone with these
                layers; documents keep the backbone, which is then frozen.
            freeze_documents: freeze the document side; without ``query_layers`` the query tower is
                a whole copy.
            query_backbone: another encoder as the query tower, with a linear layer of its own;
                documents are frozen then.
            dimension: of a token's vector, 128 where not given; a new linear layer makes it.
            expand_queries: fill queries up to so many tokens with mask tokens, which are scored too
                (32 in ColBERT).
            mask_punctuation: leave the punctuation of documents out of the score.
            token_pooling: keep about one in so many of a document's token vectors, the means of
                clusters (Clavié et al. 2024, arXiv:2409.14683).
            max_length: truncate texts to so many tokens.
            max_query_length: truncate queries to so many tokens.
            seed: of the new layers' weights.

        Raises:
            IrdistillError: the backbone cannot be loaded or shortened so, the lengths of the
                towers' vectors differ, or a setting is out of its range.
        """
        for name, value, least in (
            ("dimension", dimension, 1),
            ("expand_queries", expand_queries, 3),
            ("token_pooling", token_pooling, 1),
        ):
            if value is not None and not value >= least:
                raise IrdistillError(f"{name}={value} was given; at least {least} was expected.")
        if (
            expand_queries is not None
            and max_query_length is not None
            and max_query_length < expand_queries
        ):
            raise IrdistillError(
                f"expand_queries={expand_queries} and max_query_length={max_query_length} were"
                " given; queries cannot be cut to less than they are filled up to. Leave out"
                " max_query_length, or raise it."
            )
        shared: dict[str, Any] = {
            "trust_remote_code": trust_remote_code,
            "device": device,
            "seed": seed,
        }
        model, new = _encoder(backbone, dimension, mask_punctuation, revision=revision, **shared)
        first: Any = one_tower(model, "the backbone")[0]
        if layers is not None:
            keep_layers(first.model, layers)
        queries: list[nn.Module] | None = None
        if query_backbone is not None:
            other, _ = _encoder(query_backbone, model.get_embedding_dimension(), False, **shared)
            queries = copy_tower(other, query_layers)
        elif query_layers is not None or freeze_documents:
            queries = copy_tower(model, query_layers)
        if token_pooling is not None:
            pooling = next(
                (module for module in model if isinstance(module, HierarchicalTokenPooling)), None
            )
            if pooling is None:
                model.append(HierarchicalTokenPooling(token_pooling))
            else:
                pooling.pool_factor = token_pooling
        own: Any = first if queries is None else queries[0]
        set_lengths([own], [first], max_length, max_query_length)
        limit = position_limit(own.model)
        if expand_queries is not None and limit is not None and expand_queries > limit:
            raise IrdistillError(
                f"expand_queries={expand_queries} was given; this backbone takes 3 to {limit}"
                " tokens."
            )
        if expand_queries is not None:
            own.query_expansion = {"strategy": "fixed", "attend": False, "length": expand_queries}
        student = cls(
            model if queries is None else two_towers(model, queries),
            backbone,
            model_revision(backbone, revision),
        )
        if queries is not None:
            if new:
                logger.warning(
                    "the frozen document tower ends in a new linear layer of random weights; better"
                    " start from a trained late-interaction model"
                )
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
    ) -> LateInteractionStudent:
        """Open a saved student, or any MultiVectorEncoder (ColBERT and PyLate checkpoints among
        them).

        Raises:
            IrdistillError: it cannot be loaded.
        """
        name = str(model)
        encoder = load_encoder(
            name,
            revision=revision,
            trust_remote_code=trust_remote_code,
            device=device,
            library=MultiVectorEncoder,
        )
        student = cls(encoder, name, model_revision(name, revision))
        student.restore_frozen()
        return student

    @property
    def similarity(self) -> str:
        return str(self.model.similarity_fn_name)

    def identity(self) -> dict[str, Any]:
        documents = self.tower("document")
        skipped = [
            word
            for module in documents
            if isinstance(module, MultiVectorMask)
            for word in module.skiplist_words
        ]
        found = super().identity() | {
            "query_expansion": self._expansion("query"),
            "skiplist": skipped,
        }
        for module in documents:
            if isinstance(module, HierarchicalTokenPooling):
                found["token_pooling"] = module.pool_factor
        return found

    def _expansion(self, kind: Kind) -> dict[str, Any] | None:
        first = self._first(kind)
        found: Any = (
            first.query_expansion if kind == "query" and isinstance(first, Transformer) else None
        )
        return None if found is None else dict(found)

    def max_length(self, kind: Kind) -> int:
        own, expansion = super().max_length(kind), self._expansion(kind)
        if expansion is None:
            return own
        asked = self._first(kind).query_length
        return int(
            expansion["length"]
            if expansion["strategy"] == "fixed"
            else max(asked or own, expansion["length"])
        )

    def tokenize(self, texts: Sequence[str], kind: Kind) -> Tokens:
        """As `Student.tokenize`; expanded queries get their mask tokens here, marked in
        ``query_expansion_positions``.
        """
        tokens = super().tokenize(texts, kind)
        expansion = self._expansion(kind)
        if expansion is None:
            return tokens
        tokenizer = self._first(kind).tokenizer
        filler = (
            tokenizer.mask_token_id
            if tokenizer.mask_token_id is not None
            else tokenizer.eos_token_id
        )
        if expansion["token"] is not None:
            filler = tokenizer.convert_tokens_to_ids(expansion["token"])
        # a query without tokens stays so: there is nothing for the added tokens to look at
        missing = [
            max(0, expansion["length"] - len(ids)) if ids else 0 for ids in tokens["input_ids"]
        ]
        fill = {"input_ids": filler, "attention_mask": 1}
        expanded = {
            key: [
                [*row, *[fill.get(key, 0)] * more] for row, more in zip(rows, missing, strict=True)
            ]
            for key, rows in tokens.items()
        }
        expanded["query_expansion_positions"] = [
            [0] * (len(ids) - more) + [1] * more
            for ids, more in zip(expanded["input_ids"], missing, strict=True)
        ]
        return expanded

    def _embed(self, features: Mapping[str, Any], kind: Kind) -> list[Tensor]:
        """Vectors (tokens, D) of each text with gradients, of the tokens that are scored."""
        given = {**features, "task": kind, "modality": "text"}
        expansion = self._expansion(kind)
        if expansion is not None:
            marks = features["query_expansion_positions"].bool()
            given["query_expansion_positions"] = marks
            if not expansion[
                "attend"
            ]:  # the added tokens see the query, and the query does not see them
                given["attention_mask"] = features["attention_mask"].masked_fill(marks, 0)
        with nullcontext() if self.learns(kind) else torch.no_grad():
            output = self.model(given, task=kind)
        return [
            vectors[mask]
            for vectors, mask in zip(
                output["token_embeddings"], output["attention_mask"].bool(), strict=True
            )
        ]

    def join(self, parts: Sequence[Any], order: Tensor) -> list[Tensor]:
        found = [vectors.float() for vectors in chain.from_iterable(parts)]
        return [found[place] for place in order.tolist()]

    def representations(self, queries: Any, documents: Any) -> BatchRepresentations:
        return BatchRepresentations(
            query_tokens=padded_tokens(queries), document_tokens=padded_tokens(documents)
        )

    def scores(
        self,
        queries: Sequence[Tensor],
        documents: Sequence[Tensor],
        index: Tensor,
        every: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """MaxSim of the lists (B, N) and, where ``every``, of each query with each document (B, U),
        in float32.

        Token similarities are made chunk by chunk; only the place of each maximum is kept for the
        gradients.
        """
        with torch.autocast(index.device.type, enabled=False):
            if every:
                in_batch: Tensor = self.model.similarity(
                    list(queries), list(documents), chunk_elements=_CHUNK
                )
                return in_batch.gather(1, index.clamp_min(0)), in_batch
            rows = []
            for query, places in zip(queries, index.clamp_min(0).tolist(), strict=True):
                own = list(dict.fromkeys(places))
                found = self.model.similarity(
                    [query], [documents[place] for place in own], chunk_elements=_CHUNK
                )[0]
                rows.append(found[[own.index(place) for place in places]])
            return torch.stack(rows), None

    def encode(
        self,
        texts: Sequence[str],
        kind: Kind = "document",
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        show_progress: bool | ProgressCallback = True,
    ) -> list[np.ndarray]:
        """Vectors (tokens, D) float32 of the scored tokens of each text, in the texts' order.

        Args:
            precision, budget: see ``encode_batches``.

        Raises:
            IrdistillError: a vector is not finite.
        """
        result = [np.empty((0, self.dimension), dtype=np.float32)] * len(texts)

        def take(rows: np.ndarray, found: list[Tensor]) -> bool:
            lengths = [len(vectors) for vectors in found]
            together = torch.cat([*found, found[0][:0]]).float().cpu().numpy()
            for row, vectors in zip(
                rows.tolist(), np.split(together, np.cumsum(lengths)[:-1]), strict=True
            ):
                result[row] = vectors
            return bool(np.isfinite(together).all())

        encode_batches(self, texts, kind, precision, budget, show_progress, take)
        return result

    def search_vectors(
        self,
        texts: Sequence[str],
        kind: Kind,
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        done: ProgressCallback | None = None,
    ) -> list[np.ndarray]:
        return self.encode(texts, kind, precision, budget, show_progress=done or False)


def _encoder(
    backbone: str,
    dimension: int | None,
    mask_punctuation: bool,
    *,
    revision: str | None = None,
    trust_remote_code: bool,
    device: str | None,
    seed: int,
) -> tuple[MultiVectorEncoder, bool]:
    """A late-interaction model as it is, or an encoder with a new linear layer; and whether it is
    new.

    Raises:
        IrdistillError: the model has vectors of another length than was asked for.
    """
    given: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    if retriever_type(backbone, revision) == "late-interaction":
        model = load_encoder(backbone, device=device, library=MultiVectorEncoder, **given)
        own = model.get_embedding_dimension()
        if dimension not in (None, own):
            raise IrdistillError(
                f"{backbone!r} has token vectors of {own} numbers, and {dimension} were asked for."
            )
        return model, False
    first = load_transformer(backbone, **given)
    known = first.tokenizer.get_vocab()
    words = [mark for mark in string.punctuation if mark in known] if mask_punctuation else []
    modules = [
        first,
        projection(
            first.get_embedding_dimension(), dimension or DIMENSION, "token_embeddings", seed
        ),
        MultiVectorMask(skiplist_words=words),
        Normalize(module_input_name="token_embeddings"),
    ]
    return MultiVectorEncoder(modules=modules, device=device).float().eval(), True


def pool_without_autocast(model: MultiVectorEncoder) -> None:
    """Let the token pooling of a model cluster in float32 under autocast too; in half precision it
    would fail.
    """
    for module in model.modules():
        if isinstance(module, BaseTokenPooling):
            module.pool_one = partial(_pool_one, type(module).pool_one, module)


def _pool_one(
    inner: Callable[..., Tensor], module: BaseTokenPooling, embedding: Tensor, **given: Any
) -> Tensor:
    with torch.autocast(embedding.device.type, enabled=False):
        return inner(module, embedding, **given)
