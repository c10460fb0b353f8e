"""The late-interaction student: a vector for each token (ColBERT, arXiv:2004.12832)."""

from __future__ import annotations

import logging
import string
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
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

from irdistill.console.progress_bars import ProgressCallback
from irdistill.errors import ModelError, OptionError
from irdistill.losses.representations import BatchRepresentations, padded_tokens
from irdistill.modeling.batching import TokenBudget
from irdistill.modeling.hardware import Precision
from irdistill.modeling.model_revisions import model_revision
from irdistill.students.encoding import encode_batches
from irdistill.students.inputs import position_limit
from irdistill.students.layers import keep_layers
from irdistill.students.model_kinds import describe_model
from irdistill.students.student_base import Student
from irdistill.students.student_loading import load_encoder, load_transformer
from irdistill.students.student_options import StudentOptions
from irdistill.students.tower_model import TextKind, TokenColumns, with_prompt
from irdistill.students.towers import copy_tower, projection, set_lengths, tower_modules, two_towers

#: Default size of a token vector.
DIMENSION = 128
#: Floats of one chunk of token vectors and their similarities: 64 MiB.
_CHUNK = 1 << 24

logger = logging.getLogger(__name__)


class LateInteractionStudent(Student):
    """A MultiVectorEncoder of sentence-transformers: the score is MaxSim.

    MaxSim is, for each query token, the largest similarity to a document token, summed over the
    query tokens (or their mean, where the model says ``meanmaxsim``). A backbone that is a
    late-interaction model keeps its projection and its mask. ``token_pooling`` follows Clavié et
    al. 2024, arXiv:2409.14683.

    Examples:
        >>> import irdistill as ird
        >>> student = ird.LateInteractionStudent("bert-base-uncased")  # doctest: +SKIP
        >>> student.encode(["how to delete a folder"], "query")[0].shape  # doctest: +SKIP
        (32, 128)
    """

    kind = "late-interaction"
    library = MultiVectorEncoder
    representation_names = frozenset(
        {"query_tokens", "document_tokens", "query_spans", "document_spans"}
    )

    def _set_model(self, model: Any, source: str, revision: str) -> None:
        super()._set_model(model, source, revision)
        pool_without_autocast(model)

    @classmethod
    def _is_saved_student(cls, name: str) -> bool:
        return describe_model(name).saved_as == "MultiVectorEncoder"

    def _build(self, backbone: str, options: StudentOptions, device: str | None, seed: int) -> None:
        _check_expansion(options)
        model, new = _encoder(backbone, options, device, seed)
        first: Any = tower_modules(model, "document")[0]
        if options.layers is not None:
            keep_layers(first.model, options.layers)
        queries: list[nn.Module] | None = None
        if options.query_backbone is not None:
            small = StudentOptions(
                dimension=model.get_embedding_dimension(),
                mask_punctuation=False,
                trust_remote_code=options.trust_remote_code,
            )
            other, _ = _encoder(options.query_backbone, small, device, seed)
            queries = copy_tower(other, options.query_layers)
        elif options.query_layers is not None or options.freeze_documents:
            queries = copy_tower(model, options.query_layers)
        if options.token_pooling is not None:
            _set_token_pooling(model, options.token_pooling)
        query_first: Any = (queries or tower_modules(model, "query"))[0]
        set_lengths([query_first], [first], options.max_length, options.max_query_length)
        if options.expand_queries is not None:
            _expand_queries(query_first, options.expand_queries)
        routed = model if queries is None else two_towers(model, queries)
        self._set_model(routed, backbone, model_revision(backbone, options.revision))
        if queries is not None:
            if new:
                logger.warning(
                    "the frozen document tower ends in a new linear layer of random weights; better"
                    " start from a trained late-interaction model"
                )
            self._freeze("document")

    @property
    def similarity(self) -> str:
        """``maxsim`` or ``meanmaxsim``."""
        return str(self.model.similarity_fn_name)

    def identity(self) -> dict[str, Any]:
        """As `Student.identity`, with query expansion, masked words and token pooling."""
        documents = self.tower("document")
        masks = [module for module in documents if isinstance(module, MultiVectorMask)]
        facts = super().identity() | {
            "query_expansion": self._expansion("query"),
            "skiplist": [word for module in masks for word in module.skiplist_words],
        }
        for module in documents:
            if isinstance(module, HierarchicalTokenPooling):
                facts["token_pooling"] = module.pool_factor
        return facts

    def _expansion(self, kind: TextKind) -> dict[str, Any] | None:
        first = self._first(kind)
        if kind != "query" or not isinstance(first, Transformer):
            return None
        return dict(first.query_expansion) if first.query_expansion is not None else None

    def max_length(self, kind: TextKind) -> int:
        """As `Student.max_length`, or the length to which queries are expanded."""
        length, expansion = super().max_length(kind), self._expansion(kind)
        if expansion is None:
            return length
        if expansion["strategy"] == "fixed":
            return int(expansion["length"])
        return int(max(self._first(kind).query_length or length, expansion["length"]))

    def tokenize(self, texts: Sequence[str], kind: TextKind) -> TokenColumns:
        """As `Student.tokenize`; mask tokens that expand queries are added and marked.

        The marks are in ``query_expansion_positions``. A query without tokens is not expanded,
        because the added tokens would have nothing to attend to.
        """
        tokens = super().tokenize(texts, kind)
        expansion = self._expansion(kind)
        if expansion is None:
            return tokens
        tokenizer = self._first(kind).tokenizer
        filler = tokenizer.mask_token_id
        if expansion["token"] is not None:
            filler = tokenizer.convert_tokens_to_ids(expansion["token"])
        elif filler is None:
            filler = tokenizer.eos_token_id
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

    def token_offsets(self, texts: Sequence[str], kind: TextKind) -> list[np.ndarray]:
        """Start and end of the tokens that have a vector, (tokens, 2) int32 characters of a text.

        They are equal for tokens that are not of the text: special tokens, the prompt, and tokens
        that expand queries.

        Raises:
            ModelError: the tokenizer does not give them, or tokens are pooled.
        """
        first, prompt = self._first(kind), self._prompt(kind) or ""
        pooled = any(isinstance(module, BaseTokenPooling) for module in self.tower(kind))
        if pooled or not first.tokenizer.is_fast:
            reason = "pools its tokens" if pooled else "has a tokenizer without offsets"
            raise ModelError(
                f"the model {self.source!r} {reason}, so its token vectors have no place in the"
                " text. Use a model with a fast tokenizer and without token pooling."
            )
        tokens = self.tokenize(texts, kind)
        if not any(tokens["input_ids"]):
            return [np.empty((0, 2), np.int32) for _ in texts]
        features = self.pad(tokens, kind)
        for module in self.tower(kind):
            if isinstance(module, MultiVectorMask):
                features = module(features, task=kind)
        coded = first.tokenizer(
            [with_prompt(prompt, text) for text in texts],
            truncation="longest_first",
            max_length=self.max_length(kind),
            return_offsets_mapping=True,
        )
        result = []
        masks = features["attention_mask"].bool().cpu().numpy()
        for ids, places, mask in zip(
            tokens["input_ids"], coded["offset_mapping"], masks, strict=True
        ):
            offsets = np.zeros((len(ids), 2), np.int32)
            offsets[: len(places)] = np.asarray(places, np.int32).reshape(-1, 2) - len(prompt)
            result.append(offsets.clip(0)[mask[: len(ids)]])
        return result

    def scored_tokens(self, text: str, kind: TextKind) -> list[str]:
        """The names of the tokens of a text that have a vector, before any pooling of tokens."""
        features = self.pad(self.tokenize([text], kind), kind)
        for module in self.tower(kind):
            if isinstance(module, MultiVectorMask):
                features = module(features, task=kind)
        kept = features["input_ids"][features["attention_mask"].bool()]
        names: list[str] = self._first(kind).tokenizer.convert_ids_to_tokens(kept.tolist())
        return names

    def _embed(self, features: Mapping[str, Any], kind: TextKind) -> list[Tensor]:
        """Vectors (tokens, D) with gradients of the scored tokens of each text."""
        features = {**features, "task": kind, "modality": "text"}
        expansion = self._expansion(kind)
        if expansion is not None:
            marks = features["query_expansion_positions"].bool()
            features["query_expansion_positions"] = marks
            if not expansion["attend"]:  # the query does not attend to the added tokens
                features["attention_mask"] = features["attention_mask"].masked_fill(marks, 0)
        with self._gradients(kind):
            output = self.model(features, task=kind)
        masks = output["attention_mask"].bool()
        return [
            vectors[mask] for vectors, mask in zip(output["token_embeddings"], masks, strict=True)
        ]

    def join(self, parts: Sequence[Any], order: Tensor) -> list[Tensor]:
        """As `Student.join`, of lists of token vectors."""
        texts = [vectors.float() for vectors in chain.from_iterable(parts)]
        return [texts[place] for place in order.tolist()]

    def representations(self, queries: Any, documents: Any) -> BatchRepresentations:
        """The token vectors, padded."""
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
        """MaxSim of the lists (B, N) and, if ``every``, of all pairs (B, U), in float32.

        Token similarities are computed in chunks; gradients need only the places of the maxima.
        """
        maxsim = partial(self.model.similarity, chunk_elements=_CHUNK)
        with torch.autocast(index.device.type, enabled=False):
            if every:
                in_batch: Tensor = maxsim(list(queries), list(documents))
                return in_batch.gather(1, index.clamp_min(0)), in_batch
            rows = []
            for query, places in zip(queries, index.clamp_min(0).tolist(), strict=True):
                unique = list(dict.fromkeys(places))
                scores = maxsim([query], [documents[place] for place in unique])[0]
                rows.append(scores[[unique.index(place) for place in places]])
            return torch.stack(rows), None

    def encode(
        self,
        texts: Sequence[str],
        kind: TextKind = "document",
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        show_progress: bool | ProgressCallback = True,
    ) -> list[np.ndarray]:
        """Vectors (tokens, D) float32 of the scored tokens of each text, in the texts' order.

        Args:
            precision, budget: see `encode_batches`.
            show_progress: show a bar, or call a function with the number of encoded texts.

        Raises:
            ModelError: a vector is not finite.
        """
        result = [np.empty((0, self.dimension), dtype=np.float32)] * len(texts)

        def take(rows: np.ndarray, batch: list[Tensor]) -> bool:
            ends = np.cumsum([len(vectors) for vectors in batch])[:-1]
            flat = torch.cat([*batch, batch[0][:0]]).float().cpu().numpy()
            for row, vectors in zip(rows.tolist(), np.split(flat, ends), strict=True):
                result[row] = vectors
            return bool(np.isfinite(flat).all())

        encode_batches(self, texts, kind, precision, budget, show_progress, take)
        return result

    def search_vectors(
        self,
        texts: Sequence[str],
        kind: TextKind,
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        done: ProgressCallback | None = None,
    ) -> list[np.ndarray]:
        """As `Student.search_vectors`."""
        return self.encode(texts, kind, precision, budget, show_progress=done or False)


def _check_expansion(options: StudentOptions) -> None:
    least, most = options.expand_queries, options.max_query_length
    if least is not None and most is not None and most < least:
        raise OptionError(
            f"expand_queries={least} and max_query_length={most} were given; queries cannot be cut"
            " to less than they are filled up to. Leave out max_query_length, or raise it."
        )


def _expand_queries(first: Any, length: int) -> None:
    limit = position_limit(first.model)
    if limit is not None and length > limit:
        raise OptionError(
            f"expand_queries={length} was given; this backbone takes 3 to {limit} tokens."
        )
    first.query_expansion = {"strategy": "fixed", "attend": False, "length": length}


def _set_token_pooling(model: MultiVectorEncoder, factor: float) -> None:
    for module in model:
        if isinstance(module, HierarchicalTokenPooling):
            module.pool_factor = factor
            return
    model.append(HierarchicalTokenPooling(factor))


def _encoder(
    backbone: str, options: StudentOptions, device: str | None, seed: int
) -> tuple[MultiVectorEncoder, bool]:
    """A late-interaction model as it is, or an encoder with a new linear layer, and which it is.

    Raises:
        OptionError: the model has vectors of another size than ``dimension``.
    """
    shared: dict[str, Any] = {
        "revision": options.revision,
        "trust_remote_code": options.trust_remote_code,
    }
    if describe_model(backbone, options.revision).retriever_type == "late-interaction":
        model = load_encoder(backbone, device=device, library=MultiVectorEncoder, **shared)
        size = model.get_embedding_dimension()
        if options.dimension not in (None, size):
            raise OptionError(
                f"dimension={options.dimension} was given, but {backbone!r} has token vectors of"
                f" {size} numbers; leave dimension out."
            )
        return model, False
    first = load_transformer(backbone, **shared)
    vocabulary = first.tokenizer.get_vocab()
    marks = string.punctuation if options.mask_punctuation else ""
    size = first.get_embedding_dimension()
    modules = [
        first,
        projection(size, options.dimension or DIMENSION, "token_embeddings", seed),
        MultiVectorMask(skiplist_words=[mark for mark in marks if mark in vocabulary]),
        Normalize(module_input_name="token_embeddings"),
    ]
    return MultiVectorEncoder(modules=modules, device=device).float().eval(), True


def pool_without_autocast(model: MultiVectorEncoder) -> None:
    """Let token pooling cluster in float32 under autocast; it fails in half precision."""
    for module in model.modules():
        if isinstance(module, BaseTokenPooling):
            module.pool_one = partial(_pool_one, type(module).pool_one, module)


def _pool_one(
    pool: Callable[..., Tensor], module: BaseTokenPooling, embedding: Tensor, **options: Any
) -> Tensor:
    with torch.autocast(embedding.device.type, enabled=False):
        return pool(module, embedding, **options)
