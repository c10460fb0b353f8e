"""The split cross-encoder student: query and document are read separately in the lower layers."""

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

from irdistill.errors import ModelError, OptionError
from irdistill.modeling.hardware import best_device
from irdistill.modeling.model_files import find_model_file
from irdistill.modeling.model_revisions import model_revision
from irdistill.modeling.truncation import Truncation
from irdistill.modeling.weights import fill, read_weights
from irdistill.storage.files import atomic_path
from irdistill.students.inputs import position_limit
from irdistill.students.interaction_layers import InteractionStudent, PaddedStates
from irdistill.students.layers import find_layers, keep_layers
from irdistill.students.saving import save_tokenizer
from irdistill.students.student_loading import load_transformer, same_new_weights
from irdistill.students.student_options import StudentOptions
from irdistill.students.tower_model import TextKind, TokenColumns
from irdistill.students.towers import set_lengths

#: Encoders whose layers take only a state and a mask, and whose positions are added before the
#: first layer.
FAMILIES = ("bert", "distilbert", "electra", "roberta", "xlm-roberta", "camembert")
_SPLIT, _QUERY_LENGTH = 3, 32
_HEAD = "head.safetensors"


class SplitHead(nn.Module):
    """The layers after the backbone: the score of the first token, and an optional compression.

    Args:
        size: of the backbone's states.
        dimension: size of a stored document state (the paper's compression: a linear layer with
            GELU, and one back with a layer norm); None stores states as they are.
        split_layer: number of lower layers in which query and document are separate.
    """

    def __init__(self, size: int, dimension: int | None, split_layer: int) -> None:
        super().__init__()
        self.split_layer = split_layer
        self.score = nn.Linear(size, 1)
        self.compress: nn.Linear | None = None
        self.expand: nn.Sequential | None = None
        if dimension is not None:
            self.compress = nn.Linear(size, dimension)
            self.expand = nn.Sequential(nn.Linear(dimension, size), nn.LayerNorm(size))


class SplitCrossEncoderStudent(InteractionStudent):
    """A reranker whose document states at layer ``split_layer`` can be stored (PreTTR).

    MacAvaney et al. 2020, arXiv:2004.14255, for encoders of the BERT family. Up to that layer
    ``[CLS] query [SEP]`` and ``document [SEP]`` do not attend to each other; above it they are one
    sequence, as in a cross-encoder, and a linear head on the first token's last state gives the
    score. The document has the segment of a pair's second text, and its positions begin after the
    longest query's, so its lower states depend on the document alone.

    Examples:
        >>> import irdistill as ird
        >>> backbone = "bert-base-uncased"
        >>> student = ird.SplitCrossEncoderStudent(backbone, split_layer=9)  # doctest: +SKIP
    """

    kind = "split-cross-encoder"
    weight_files = ("model.safetensors", "config.json", _HEAD)

    def _set_model(self, model: Any, source: str, revision: str) -> None:
        super()._set_model(model, source, revision)
        self._layers = find_layers(self.backbone)[2]
        if not 0 <= self.split_layer < len(self._layers):
            raise OptionError(
                f"split_layer={self.split_layer} was given, but the backbone has"
                f" {len(self._layers)} layers; give 0 to {len(self._layers) - 1}."
            )
        first = self._first("query")
        self._first_position = first._infer_flatten_position_offset()
        self._prefix = len(first.tokenizer("")["input_ids"])

    def _build(self, backbone: str, options: StudentOptions, device: str | None, seed: int) -> None:
        first = _open_backbone(backbone, options.revision, options.trust_remote_code)
        if options.layers is not None:
            keep_layers(first.model, options.layers)
        set_lengths((first,), (first,), options.max_length, options.max_query_length)
        _share_positions(first, options.max_length)
        split = options.split_layer
        if split is None:
            split = min(_SPLIT, int(first.model.config.num_hidden_layers) - 1)
        with same_new_weights(seed):
            head = SplitHead(first.get_embedding_dimension(), options.dimension, split)
        revision = model_revision(backbone, options.revision)
        self._set_model(_assembled(first, head, device), backbone, revision)

    @classmethod
    def _open(
        cls, name: str, revision: str | None, trust_remote_code: bool, device: str | None
    ) -> nn.Sequential:
        saved = cls._saved(name, revision)
        first = _open_backbone(name, revision, trust_remote_code)
        first.query_length = saved["max_query_length"]
        first.max_seq_length = saved["max_document_length"]
        head = SplitHead(first.get_embedding_dimension(), saved["dimension"], saved["split_layer"])
        path = find_model_file(name, _HEAD, revision)
        assert path is not None
        fill(head, read_weights(path), path)
        return _assembled(first, head, device)

    def _save_weights(self, folder: Path) -> None:
        self.backbone.save_pretrained(str(folder))
        save_tokenizer(self._first("query").tokenizer, folder)
        with atomic_path(folder / _HEAD) as temporary:
            save_file(self._head.state_dict(), temporary)

    def settings(self) -> dict[str, Any]:
        """Split layer, compression, and lengths."""
        compress = self._head.compress
        return {
            "split_layer": self.split_layer,
            "dimension": None if compress is None else compress.out_features,
            "max_query_length": self.max_length("query"),
            "max_document_length": self.max_length("document"),
        }

    def _saved_options(self) -> dict[str, Any]:
        layers = int(self.backbone.config.num_hidden_layers)
        return super()._saved_options() | {"layers": layers}

    @property
    def split_layer(self) -> int:
        """Number of lower layers in which query and document are separate."""
        return self._head.split_layer

    @property
    def backbone(self) -> Any:
        """The encoder of transformers."""
        return self._first("query").model

    @property
    def _head(self) -> SplitHead:
        return self.model[1]

    @property
    def head(self) -> list[nn.Parameter]:
        """The parameters of the layers after the backbone."""
        return list(self._head.parameters())

    @property
    def dimension(self) -> int:
        """The size of a stored document state."""
        compress = self._head.compress
        return int(self._head.score.in_features if compress is None else compress.out_features)

    def tokenize(self, texts: Sequence[str], kind: TextKind) -> TokenColumns:
        """Token ids of each text: a query alone, a document as the second text of a pair."""
        tokenizer, length = self._first(kind).tokenizer, self.max_length(kind)
        if kind == "query":
            coded = tokenizer(list(texts), truncation=True, max_length=length, padding=False)
            self._count(coded, kind, tokenizer.num_special_tokens_to_add(False))
            ids = coded["input_ids"]
        else:
            # pairs with an empty query, whose special tokens are removed and not counted
            limit = length + self._prefix
            pairs = tokenizer(
                [""] * len(texts),
                list(texts),
                truncation="only_second",
                max_length=limit,
                padding=False,
            )
            special = tokenizer.num_special_tokens_to_add(True)
            self.truncation.setdefault(kind, Truncation()).count(pairs, limit, special)
            ids = [row[self._prefix :] for row in pairs["input_ids"]]
        return {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}

    def states(self, features: Mapping[str, Tensor], kind: TextKind) -> Tensor:
        """States (n, L, H) at layer ``split_layer``; compressed document states are (n, L, D)."""
        ids, mask = features["input_ids"], features["attention_mask"]
        places = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0).expand_as(ids)
        offset = self._first_position + (self.max_length("query") if kind == "document" else 0)
        # padding would exceed the last position; its states are never read
        inputs = {"input_ids": ids, "position_ids": places * mask + offset}
        segments = getattr(self.backbone.embeddings, "token_type_embeddings", None)
        if segments is not None:
            segment = min(1, segments.num_embeddings - 1) if kind == "document" else 0
            inputs["token_type_ids"] = torch.full_like(ids, segment)
        states = self.backbone.embeddings(**inputs)
        if hasattr(self.backbone, "embeddings_project"):  # of a small ELECTRA
            states = self.backbone.embeddings_project(states)
        states = self._run(states, mask, 0, self.split_layer)
        if kind == "document" and self._head.compress is not None:
            states = F.gelu(self._head.compress(states))
        return states

    def match(self, queries: PaddedStates, documents: PaddedStates) -> Tensor:
        """Logits (p,) of pairs: the layers above the split over both texts, then the head."""
        expand = self._head.expand
        expanded = documents.states if expand is None else expand(documents.states)
        mask = torch.cat([queries.mask, documents.mask], dim=1)
        states = torch.cat([queries.states, expanded], dim=1)
        states = self._run(states, mask, self.split_layer, len(self._layers))
        with torch.autocast(states.device.type, enabled=False):
            return self._head.score(states[:, 0].float()).squeeze(1)

    def _run(self, states: Tensor, mask: Tensor, first: int, end: int) -> Tensor:
        """Run the layers from ``first`` to before ``end``; ``mask`` (n, L) marks real tokens."""
        attention = create_bidirectional_mask(
            config=self.backbone.config, inputs_embeds=states, attention_mask=mask
        )
        for layer in self._layers[first:end]:
            states = layer(states, attention)
        return states


def _open_backbone(model: str, revision: str | None, trust_remote_code: bool) -> Transformer:
    """The encoder without its pooler, which is not used.

    Raises:
        ModelError: it cannot be loaded, or its family cannot be split.
    """
    first = load_transformer(model, revision=revision, trust_remote_code=trust_remote_code)
    family = first.model.config.model_type
    if family not in FAMILIES:
        raise ModelError(
            f"the backbone {model!r} is of the family {family!r}, whose layers cannot be run apart;"
            f" a split-cross-encoder student needs one of {', '.join(FAMILIES)}."
        )
    if getattr(first.model, "pooler", None) is not None:
        first.model.pooler = None
    first.tokenizer.padding_side = "right"
    return first


def _share_positions(first: Transformer, max_length: int | None) -> None:
    """Set the lengths that were not given so that query and document share the positions.

    Raises:
        OptionError: the given lengths exceed the positions.
    """
    limit = position_limit(first.model) or int(first.model.config.max_position_embeddings)
    if first.query_length is None:
        first.query_length = min(_QUERY_LENGTH, max(3, limit // 4))
    if max_length is None:
        first.max_seq_length = min(int(first.max_seq_length or limit), limit - first.query_length)
    if first.query_length + first.max_seq_length > limit:
        raise OptionError(
            f"max_query_length={first.query_length} and max_length={first.max_seq_length} were"
            f" given; together they may be {limit}, the positions of the backbone."
        )


def _assembled(first: Transformer, head: SplitHead, device: str | None) -> nn.Sequential:
    """Both modules as one model in float32 and eval mode."""
    return nn.Sequential(first, head).float().eval().to(device or best_device())
