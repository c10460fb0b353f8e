"""Cross-encoders saved by Lightning IR (monoELECTRA of Rank-DistiLLM, Schlatt et al. 2025,
arXiv:2405.07920).

Such a model is an encoder with one linear layer on its first token. The sequence classifiers of
transformers have another layer in between, so none of them can load it, and transformers does not
know the type of its configuration.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, NamedTuple

from torch import Tensor, nn

from irdistill.errors import ModelError
from irdistill.modeling.library_output import quiet_libraries
from irdistill.modeling.model_files import find_model_file, read_model_json, resolve_model
from irdistill.modeling.truncation import Truncation
from irdistill.modeling.weights import fill, read_weights

_ARCHITECTURE = re.compile(r"(CrossEncoder|Mono)\w+Model")


class LightningIrModel(NamedTuple):
    """A loaded model, and the numbers of tokens to which queries and documents are truncated."""

    tokenizer: Any
    network: MonoEncoder
    query_length: int
    document_length: int


class MonoEncoder(nn.Module):
    """An encoder and a linear layer on its first token, with the interface of a sequence
    classifier.
    """

    def __init__(self, backbone: Any, bias: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.linear = nn.Linear(backbone.config.hidden_size, 1, bias=bias)
        self.config = backbone.config
        self.config.num_labels = 1

    def forward(self, **features: Tensor) -> SimpleNamespace:
        """``logits`` (n, 1)."""
        return SimpleNamespace(
            logits=self.linear(self.backbone(**features).last_hidden_state[:, 0])
        )


def is_lightning_ir(model: str, revision: str | None = None) -> bool:
    """Whether a model's configuration is that of a cross-encoder of Lightning IR."""
    config = read_model_json(model, "config.json", revision) or {}
    return "backbone_model_type" in config and any(
        map(_ARCHITECTURE.fullmatch, config.get("architectures") or [])
    )


def load_lightning_ir(model: str, revision: str | None = None) -> LightningIrModel:
    """Load a model for which `is_lightning_ir` is true."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    config: dict[str, Any] = read_model_json(model, "config.json", revision)
    weights = find_model_file(model, "model.safetensors", revision)
    if (
        weights is None
        or config.get("pooling_strategy", "first") != "first"
        or config.get("scoring_strategy", "rank") != "rank"
    ):
        raise ModelError(
            f"the Lightning IR model {model!r} cannot be loaded: expected model.safetensors, the"
            " pooling strategy 'first' and the scoring strategy 'rank', but it has the strategies"
            f" {config.get('pooling_strategy')!r} and {config.get('scoring_strategy')!r}."
        )
    family = config["backbone_model_type"]
    inner = {
        key: value
        for key, value in config.items()
        if key not in ("model_type", "architectures", "backbone_model_type")
    }
    network = MonoEncoder(
        AutoModel.from_config(AutoConfig.for_model(family, **inner)).float(),
        bool(config.get("linear_bias")),
    )
    stored = {
        (
            name if name.startswith("linear.") else "backbone." + name.removeprefix(family + ".")
        ): value.float()
        for name, value in read_weights(weights).items()
    }
    unused = {
        name: value
        for name, value in network.state_dict().items()
        if name.startswith("backbone.pooler.")
    }
    positions = {
        name for name in stored if name.endswith("position_ids")
    } - network.state_dict().keys()
    fill(
        network,
        {name: value for name, value in (unused | stored).items() if name not in positions},
        weights,
    )
    with quiet_libraries():
        tokenizer = AutoTokenizer.from_pretrained(resolve_model(model, revision), revision=revision)
    return LightningIrModel(
        tokenizer,
        network.eval(),
        int(config.get("query_length") or 512),
        int(config.get("doc_length") or 512),
    )


def cut_texts(tokenizer: Any, texts: list[str], length: int, truncation: Truncation) -> list[str]:
    """Truncate each text to a number of tokens, and count what is cut off."""
    coded = tokenizer(
        texts,
        add_special_tokens=False,
        truncation=True,
        max_length=length,
        return_offsets_mapping=True,
    )
    truncation.count(coded, length)
    return [
        text[: places[-1][1]] if places else text
        for text, places in zip(texts, coded["offset_mapping"], strict=True)
    ]
