"""The split cross-encoder student: query and document apart in the lower layers, together above
(PreTTR, MacAvaney et al. 2020, arXiv:2004.14255).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sentence_transformers.base.modules import Transformer
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask

from irdistill.errors import IrdistillError
from irdistill.modeling.hardware import best_device
from irdistill.modeling.model_files import find_model_file, model_revision
from irdistill.modeling.truncation import Truncation
from irdistill.modeling.weights import fill, read_weights
from irdistill.storage.files import atomic_path
from irdistill.students.base import Kind, Tokens
from irdistill.students.inputs import position_limit
from irdistill.students.interaction_layers import InteractionStudent, Padded
from irdistill.students.layers import find_layers, keep_layers
from irdistill.students.saving import save_tokenizer
from irdistill.students.student_loading import load_transformer, same_new_weights
from irdistill.students.towers import set_lengths

#: Encoders whose layers take a state and a mask and nothing else, and whose positions are added
#: before the first of them.
FAMILIES = ("bert", "distilbert", "electra", "roberta", "xlm-roberta", "camembert")
_SPLIT, _QUERY_LENGTH = 3, 32
_HEAD = "head.safetensors"


class SplitHead(nn.Module):
    """What stands behind the backbone: the score of the first token's state, and between the parts
    a narrow place if asked for.

    Args:
        size: of the backbone's states.
        dimension: to which a document token's state is brought before it is stored (the compression
            layer of the paper: a linear layer with GELU, and one back with a layer norm); None
            stores it as it is.
    """

    def __init__(self, size: int, dimension: int | None) -> None:
        super().__init__()
        self.score = nn.Linear(size, 1)
        self.compress = nn.Linear(size, dimension) if dimension is not None else None
        self.expand = (
            nn.Sequential(nn.Linear(dimension, size), nn.LayerNorm(size))
            if dimension is not None
            else None
        )


class SplitCrossEncoderStudent(InteractionStudent):
    """A reranker out of any encoder of the BERT kind, whose document states at layer
    ``split_layer`` can be stored.

    Up to that layer ``[CLS] query [SEP]`` and ``document [SEP]`` do not see each other; above it
    they are one sequence, as in a cross-encoder, and a linear head on the first token's last state
    gives the score. The document has the segment that it has in a pair, and its positions begin
    after the longest query's, whatever the query: so its lower states depend on it alone.
    """

    kind = "split-cross-encoder"
    weight_files = ("model.safetensors", "config.json", _HEAD)

    def __init__(
        self,
        model: nn.Sequential,
        split_layer: int,
        source: str = "in memory",
        revision: str = "none",
    ) -> None:
        super().__init__(model, source, revision)
        self._layers = find_layers(self.backbone)[2]
        if not 0 <= split_layer < len(self._layers):
            raise IrdistillError(
                f"split_layer={split_layer} was given, and the backbone has {len(self._layers)}"
                f" layers; give 0 to {len(self._layers) - 1}."
            )
        self.split_layer = split_layer
        self._first_position = self._first("query")._infer_flatten_position_offset()
        self._before = len(self._first("query").tokenizer("")["input_ids"])

    @classmethod
    def build(
        cls,
        backbone: str,
        layers: int | Sequence[int] | None = None,
        *,
        split_layer: int | None = None,
        dimension: int | None = None,
        max_length: int | None = None,
        max_query_length: int | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
        seed: int = 0,
    ) -> SplitCrossEncoderStudent:
        """Make a student out of an encoder.

        Args:
            backbone: model folder, ``package:`` path or hub id.
            layers: keep this many encoder layers, evenly spaced, or exactly those of a list.
            split_layer: layers in which query and document are apart; 3 where None, or all but the
                last of fewer. With 0 it is a cross-encoder.
            dimension: of the compressed states; None does not compress.
            max_length: truncate documents to so many tokens; what the query leaves of the positions
                where None.
            max_query_length: truncate queries to so many tokens; 32 where None. Stored states are
                for one such length.
            seed: of the new layers' weights.

        Raises:
            IrdistillError: the backbone cannot be loaded, shortened or split so, or a length is out
                of its range.
        """
        if dimension is not None and dimension < 1:
            raise IrdistillError(f"dimension={dimension} was given; at least 1 was expected.")
        first = _open(backbone, revision, trust_remote_code)
        if layers is not None:
            keep_layers(first.model, layers)
        set_lengths((first,), (first,), max_length, max_query_length)
        _share_positions(first, max_length)
        with same_new_weights(seed):
            head = SplitHead(first.get_embedding_dimension(), dimension)
        total = int(first.model.config.num_hidden_layers)
        split = min(_SPLIT, total - 1) if split_layer is None else split_layer
        return cls(
            _assembled(first, head, device), split, backbone, model_revision(backbone, revision)
        )

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
    ) -> SplitCrossEncoderStudent:
        """Open a saved student.

        Raises:
            IrdistillError: it cannot be loaded, or is none.
        """
        name = str(model)
        saved = cls._saved(name, revision)
        first = _open(name, revision, trust_remote_code)
        first.query_length, first.max_seq_length = (
            saved["max_query_length"],
            saved["max_document_length"],
        )
        head = SplitHead(first.get_embedding_dimension(), saved["dimension"])
        path = find_model_file(name, _HEAD, revision)
        assert path is not None
        fill(head, read_weights(path), path)
        return cls(
            _assembled(first, head, device),
            saved["split_layer"],
            name,
            model_revision(name, revision),
        )

    def _save_weights(self, folder: Path) -> None:
        self.backbone.save_pretrained(str(folder))
        save_tokenizer(self._first("query").tokenizer, folder)
        with atomic_path(folder / _HEAD) as temporary:
            save_file(self._head.state_dict(), temporary)

    def settings(self) -> dict[str, Any]:
        """Where it is split, how states are compressed, and lengths."""
        compress = self._head.compress
        return {
            "split_layer": self.split_layer,
            "dimension": None if compress is None else compress.out_features,
            "max_query_length": self.max_length("query"),
            "max_document_length": self.max_length("document"),
        }

    @property
    def backbone(self) -> Any:
        """The encoder of transformers."""
        return self._first("query").model

    @property
    def _head(self) -> SplitHead:
        return self.model[1]

    @property
    def head(self) -> list[nn.Parameter]:
        return list(self._head.parameters())

    @property
    def dimension(self) -> int:
        compress = self._head.compress
        return int(self._head.score.in_features if compress is None else compress.out_features)

    def tokenize(self, texts: Sequence[str], kind: Kind) -> Tokens:
        """Token ids of each text: a query as it stands alone, a document as it follows a query."""
        tokenizer, length = self._first(kind).tokenizer, self.max_length(kind)
        if kind == "query":
            coded = tokenizer(list(texts), truncation=True, max_length=length, padding=False)
            self._count(coded, kind, tokenizer.num_special_tokens_to_add(False))
            found = coded["input_ids"]
        else:  # behind an empty query, which is then taken away
            pairs = tokenizer(
                [""] * len(texts),
                list(texts),
                truncation="only_second",
                max_length=length + self._before,
                padding=False,
            )
            # of a pair with an empty query the special tokens before the document are more than the
            # limit allows for
            self.truncation.setdefault(kind, Truncation()).count(
                pairs, length + self._before, tokenizer.num_special_tokens_to_add(True)
            )
            found = [ids[self._before :] for ids in pairs["input_ids"]]
        return {"input_ids": found, "attention_mask": [[1] * len(ids) for ids in found]}

    def states(self, features: Mapping[str, Tensor], kind: Kind) -> Tensor:
        """States (n, L, H) at layer ``split_layer``; of documents compressed (n, L, D), where they
        are.
        """
        ids, mask = features["input_ids"], features["attention_mask"]
        places = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0).expand_as(ids)
        offset = self._first_position + (self.max_length("query") if kind == "document" else 0)
        # places of padding may lie behind the last position; nothing looks at them
        given = {"input_ids": ids, "position_ids": places * mask + offset}
        segments = getattr(self.backbone.embeddings, "token_type_embeddings", None)
        if segments is not None:
            segment = min(1, segments.num_embeddings - 1) if kind == "document" else 0
            given["token_type_ids"] = torch.full_like(ids, segment)
        states = self.backbone.embeddings(**given)
        if hasattr(self.backbone, "embeddings_project"):  # of a small ELECTRA
            states = self.backbone.embeddings_project(states)
        states = self._run(states, mask, 0, self.split_layer)
        if kind == "document" and self._head.compress is not None:
            states = F.gelu(self._head.compress(states))
        return states

    def match(self, queries: Padded, documents: Padded) -> Tensor:
        """Logits (p,) of pairs: the layers above the split over both, then the head."""
        expanded = (
            documents.states if self._head.expand is None else self._head.expand(documents.states)
        )
        mask = torch.cat([queries.mask, documents.mask], dim=1)
        states = self._run(
            torch.cat([queries.states, expanded], dim=1), mask, self.split_layer, len(self._layers)
        )
        with torch.autocast(states.device.type, enabled=False):
            return self._head.score(states[:, 0].float()).squeeze(1)

    def _run(self, states: Tensor, mask: Tensor, first: int, end: int) -> Tensor:
        """The layers from ``first`` to before ``end``, with every token seeing those that ``mask``
        (n, L) names.
        """
        seen = create_bidirectional_mask(
            config=self.backbone.config, inputs_embeds=states, attention_mask=mask
        )
        for layer in self._layers[first:end]:
            states = layer(states, seen)
        return states


def _open(model: str, revision: str | None, trust_remote_code: bool) -> Transformer:
    """The encoder, if it can be split; without its pooler, which nothing uses.

    Raises:
        IrdistillError: it cannot be loaded, or is of another family.
    """
    first = load_transformer(model, revision=revision, trust_remote_code=trust_remote_code)
    family = first.model.config.model_type
    if family not in FAMILIES:
        raise IrdistillError(
            f"the backbone {model!r} is of the family {family!r}, whose layers cannot be run apart;"
            f" a split-cross-encoder student needs one of {', '.join(FAMILIES)}."
        )
    if getattr(first.model, "pooler", None) is not None:
        first.model.pooler = None
    first.tokenizer.padding_side = "right"
    return first


def _share_positions(first: Transformer, asked: int | None) -> None:
    """Set the lengths of queries and documents that were not asked for, so that both have
    positions.

    Raises:
        IrdistillError: both together have not.
    """
    limit = position_limit(first.model) or int(first.model.config.max_position_embeddings)
    if first.query_length is None:
        first.query_length = min(_QUERY_LENGTH, max(3, limit // 4))
    if asked is None:
        first.max_seq_length = min(int(first.max_seq_length or limit), limit - first.query_length)
    if first.query_length + first.max_seq_length > limit:
        raise IrdistillError(
            f"max_query_length={first.query_length} and max_length={first.max_seq_length} were"
            f" given; together they may be {limit}, the positions of the backbone."
        )


def _assembled(first: Transformer, head: SplitHead, device: str | None) -> nn.Sequential:
    """Both modules as one model in float32 and eval mode."""
    return nn.Sequential(first, head).float().eval().to(device or best_device())
