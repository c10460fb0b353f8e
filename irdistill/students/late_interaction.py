"""The late-interaction student: a vector for each token (ColBERT, Khattab and Zaharia 2020, arXiv:2004.12832)."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from torch import Tensor, nn

from irdistill.errors import IrdistillError
from irdistill.losses.states import States, padded_tokens
from irdistill.models import model_revision
from irdistill.students.base import Kind, Student, Tokens
from irdistill.students.layers import keep_layers
from irdistill.students.loading import load_encoder, load_transformer, same_new_weights
from irdistill.students.towers import set_lengths

#: Floats that one chunk of token vectors and their similarities may take: 64 MiB.
_CHUNK = 1 << 24


class LateInteractionStudent(Student):
    """A MultiVectorEncoder of sentence-transformers: the score is MaxSim.

    For each query token the largest similarity to a token of the document, summed over the query tokens (or their mean,
    where the model says ``meanmaxsim``).
    """

    kind = "late-interaction"
    states = frozenset({"query_tokens", "document_tokens"})

    def __init__(self, model: MultiVectorEncoder, source: str = "in memory", revision: str = "none") -> None:
        super().__init__(model, source, revision)
        if isinstance(model[0], Router):
            raise IrdistillError(
                f"the model {source!r} has two towers; a late-interaction student has one for queries and documents."
            )

    @classmethod
    def build(cls, backbone: str, layers: int | Sequence[int] | None = None, *, dimension: int = 128,
              expand_queries: int | None = None, mask_punctuation: bool = True, max_length: int | None = None,
              max_query_length: int | None = None, revision: str | None = None, trust_remote_code: bool = False,
              device: str | None = None, seed: int = 0) -> LateInteractionStudent:
        """Make a student out of an encoder (to continue from a late-interaction model, `load` it).

        Args:
            backbone: model folder, ``package:`` path or hub id.
            layers: keep this many encoder layers, evenly spaced, or exactly those of a list.
            dimension: of a token's vector; a new linear layer makes it.
            expand_queries: fill queries up to so many tokens with mask tokens, which are scored too (32 in ColBERT).
            mask_punctuation: leave the punctuation of documents out of the score.
            max_length: truncate texts to so many tokens.
            max_query_length: truncate queries to so many tokens.
            seed: of the new layer's weights.

        Raises:
            IrdistillError: the backbone cannot be loaded or shortened so, or a length is out of its range.
        """
        if dimension < 1 or (expand_queries is not None and expand_queries < 3):
            raise IrdistillError(
                f"dimension={dimension} and expand_queries={expand_queries} were given; at least 1 and 3 were expected."
            )
        first = load_transformer(backbone, revision=revision, trust_remote_code=trust_remote_code)
        if layers is not None:
            keep_layers(first.model, layers)
        set_lengths((first,), (first,), max_length, None)
        if max_query_length is not None:
            set_lengths((first,), (), None, max_query_length)
        if expand_queries is not None:
            first.query_expansion = {"strategy": "fixed", "attend": False, "length": expand_queries}
        with same_new_weights(seed):
            projection = Dense(first.get_embedding_dimension(), dimension, bias=False, activation_function=nn.Identity(),
                               module_input_name="token_embeddings")
        known = first.tokenizer.get_vocab()
        words = [mark for mark in string.punctuation if mark in known] if mask_punctuation else []
        model = MultiVectorEncoder(modules=[first, projection, MultiVectorMask(skiplist_words=words),
                                            Normalize(module_input_name="token_embeddings")], device=device)
        return cls(model.float().eval(), backbone, model_revision(backbone, revision))

    @classmethod
    def load(cls, model: str | Path, *, revision: str | None = None, trust_remote_code: bool = False,
             device: str | None = None) -> LateInteractionStudent:
        """Open a saved student, or any MultiVectorEncoder with one tower (ColBERT and PyLate checkpoints among them).

        Raises:
            IrdistillError: it cannot be loaded.
        """
        name = str(model)
        encoder = load_encoder(name, revision=revision, trust_remote_code=trust_remote_code, device=device,
                               library=MultiVectorEncoder)
        return cls(encoder, name, model_revision(name, revision))

    @property
    def similarity(self) -> str:
        return str(self.model.similarity_fn_name)

    def identity(self) -> dict[str, Any]:
        marks = [module for module in self.model if isinstance(module, MultiVectorMask)]
        return super().identity() | {"query_expansion": self._expansion("query"),
                                     "skiplist": [word for mark in marks for word in mark.skiplist_words]}

    def _expansion(self, kind: Kind) -> dict[str, Any] | None:
        first = self._first(kind)
        found: Any = first.query_expansion if kind == "query" and isinstance(first, Transformer) else None
        return None if found is None else dict(found)

    def max_length(self, kind: Kind) -> int:
        own, expansion = super().max_length(kind), self._expansion(kind)
        if expansion is None:
            return own
        asked = self._first(kind).query_length
        return int(expansion["length"] if expansion["strategy"] == "fixed" else max(asked or own, expansion["length"]))

    def tokenize(self, texts: Sequence[str], kind: Kind) -> Tokens:
        """As `Student.tokenize`; expanded queries get their mask tokens here, marked in ``query_expansion_positions``."""
        tokens = super().tokenize(texts, kind)
        expansion = self._expansion(kind)
        if expansion is None:
            return tokens
        tokenizer = self._first(kind).tokenizer
        filler = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.eos_token_id
        if expansion["token"] is not None:
            filler = tokenizer.convert_tokens_to_ids(expansion["token"])
        missing = [max(0, expansion["length"] - len(ids)) for ids in tokens["input_ids"]]
        fill = {"input_ids": filler, "attention_mask": 1}
        expanded = {key: [[*row, *[fill.get(key, 0)] * more] for row, more in zip(rows, missing, strict=True)]
                    for key, rows in tokens.items()}
        expanded["query_expansion_positions"] = [[0] * (len(ids) - more) + [1] * more
                                                 for ids, more in zip(expanded["input_ids"], missing, strict=True)]
        return expanded

    def pad(self, tokens: Mapping[str, Sequence[Any]], kind: Kind, rows: Any = None,
            device: torch.device | None = None) -> dict[str, Any]:
        positions = tokens.get("query_expansion_positions")
        padded = super().pad({key: value for key, value in tokens.items() if key != "query_expansion_positions"}, kind,
                             rows, device)
        if positions is not None:
            chosen = positions if rows is None else [positions[int(row)] for row in rows]
            marks = torch.zeros_like(padded["input_ids"])
            for place, row in enumerate(chosen):
                marks[place, : len(row)] = torch.tensor(row)
            padded["query_expansion_positions"] = marks
        return padded

    def embed(self, features: Mapping[str, Any], kind: Kind) -> list[Tensor]:
        """Vectors (tokens, D) of each text with gradients, of the tokens that are scored."""
        if not isinstance(features["input_ids"], Tensor):
            features = self.pad(features, kind)
        given = {**features, "task": kind, "modality": "text"}
        expansion = self._expansion(kind)
        if expansion is not None:
            marks = features["query_expansion_positions"].bool()
            given["query_expansion_positions"] = marks
            if not expansion["attend"]:  # the added tokens see the query, and the query does not see them
                given["attention_mask"] = features["attention_mask"].masked_fill(marks, 0)
        with nullcontext() if self._learns(kind) else torch.no_grad():
            output = self.model(given, task=kind)
        return [vectors[mask] for vectors, mask in
                zip(output["token_embeddings"], output["attention_mask"].bool(), strict=True)]

    def join(self, parts: Sequence[Any], order: Tensor) -> list[Tensor]:
        found = [vectors.float() for vectors in chain.from_iterable(parts)]
        return [found[place] for place in order.tolist()]

    def represent(self, queries: Any, documents: Any) -> States:
        return States(query_tokens=padded_tokens(queries), document_tokens=padded_tokens(documents))

    def scores(self, queries: Sequence[Tensor], documents: Sequence[Tensor], index: Tensor,
               every: bool = True) -> tuple[Tensor, Tensor | None]:
        """MaxSim of the lists (B, N) and, where ``every``, of each query with each document (B, U), in float32.

        Token similarities are made chunk by chunk; only the place of each maximum is kept for the gradients.
        """
        with torch.autocast(index.device.type, enabled=False):
            if every:
                in_batch: Tensor = self.model.similarity(list(queries), list(documents), chunk_elements=_CHUNK)
                return in_batch.gather(1, index.clamp_min(0)), in_batch
            rows = []
            for query, places in zip(queries, index.clamp_min(0).tolist(), strict=True):
                own = list(dict.fromkeys(places))
                found = self.model.similarity([query], [documents[place] for place in own], chunk_elements=_CHUNK)[0]
                rows.append(found[[own.index(place) for place in places]])
            return torch.stack(rows), None
