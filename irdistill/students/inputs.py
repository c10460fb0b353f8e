"""Preparing tokenizers and token limits of a network for batches of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sentence_transformers.base.modules import Transformer
from torch import nn

from irdistill.errors import ModelError

#: Settings of a tokenizer that do not change the tokens of a text.
_WITHOUT_EFFECT = {
    "padding",
    "padding_side",
    "pad_to_multiple_of",
    "return_tensors",
    "return_attention_mask",
}

#: Endings of the names of modules that hold absolute positions.
_POSITIONS = ("position_embeddings", "position_embedding", "embed_positions", "wpe")


def position_limit(network: Any) -> int | None:
    """The number of tokens of a text that have a position; None without a limit.

    RoBERTa counts positions from after the padding token and OPT and BART from 2, so they take
    fewer tokens than the table has rows and than ``max_position_embeddings`` says.
    """
    limits = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Embedding) and name.endswith(_POSITIONS):
            before = (
                module.padding_idx + 1
                if module.padding_idx is not None
                else int(getattr(module, "offset", 0))
            )
            limits.append(module.num_embeddings - before)
    config = _text_config(network)
    stated = getattr(config, "max_position_embeddings", None)
    if isinstance(stated, int) and stated > 0:
        limits.append(stated)
    return min(limits, default=None)


def _text_config(network: Any) -> Any:
    config = network.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def prepare_inputs(model: Any, name: str) -> None:
    """Set the padding token, padding on the right and token limits of a loaded model.

    Padding on the right is exact for every network: tokens keep their positions, and a causal
    network never attends to later ones. Modules that generate text are left alone:
    sentence-transformers pads them on the left and reads the last token.

    Args:
        model: a model of sentence-transformers, or one of its Transformer modules.
        name: of the model, for errors.

    Raises:
        ModelError: its tokenizer has no token to pad with.
    """
    for module in model.modules():
        if not isinstance(module, Transformer) or module.tokenizer is None:
            continue
        ensure_padding_token(module.tokenizer, name)
        if getattr(module, "transformer_task", None) not in ("text-generation", "any-to-any"):
            module.tokenizer.padding_side = "right"
        _match_padding(module.model, module.tokenizer)
        limit = position_limit(module.model)
        if limit is None:
            continue
        if not module.max_seq_length or module.max_seq_length > limit:
            module.max_seq_length = limit
        for side in ("query_length", "document_length"):
            length = getattr(module, side, None)
            if length is not None and length > limit:
                setattr(module, side, limit)


def check_processing(model: Any, name: str) -> None:
    """Refuse a model with saved ``processing_kwargs`` that change its tokens.

    Args:
        model: a model of sentence-transformers, or one of its Transformer modules.
        name: of the model, for errors.

    Raises:
        ModelError: it has such settings, because they are not applied here.
    """
    for module in model.modules():
        settings = (
            getattr(module, "processing_kwargs", None) if isinstance(module, Transformer) else None
        )
        changes = [
            f"{part}.{key}={value!r}"
            for part in ("common", "text", "chat_template")
            for key, value in ((settings or {}).get(part) or {}).items()
            if key not in _WITHOUT_EFFECT
        ]
        if changes:
            raise ModelError(
                f"the model {name!r} was saved with processing_kwargs that change its tokens"
                f" ({', '.join(changes)}), which are not applied here. Take them out of its"
                " sentence_bert_config.json; a length belongs into max_seq_length."
            )


def ensure_padding_token(tokenizer: Any, name: str) -> None:
    """Let a tokenizer without a padding token pad with a special token; padding is masked anyway.

    The token that ends each text is used only if there is no other.

    Raises:
        ModelError: the tokenizer has no special token.
    """
    if tokenizer.pad_token is not None:
        return
    written = tokenizer("a")["input_ids"]
    tokens = [
        token
        for token in (
            tokenizer.unk_token,
            tokenizer.eos_token,
            tokenizer.bos_token,
            *tokenizer.all_special_tokens,
        )
        if token is not None
    ]
    if not tokens:
        raise ModelError(
            f"the tokenizer of {name!r} has no padding token, and no special token that could serve"
            " as one. Add one and save it beside the model:"
            ' tokenizer.add_special_tokens({"pad_token": "[PAD]"}).'
        )
    last = written[-1] if written else None
    tokenizer.pad_token = next(
        (token for token in tokens if tokenizer.convert_tokens_to_ids(token) != last), tokens[0]
    )


def _match_padding(network: Any, tokenizer: Any) -> None:
    """Set the padding token of a classifier that reads the last token before the padding."""
    if not type(network).__name__.endswith("ForSequenceClassification"):
        return
    config = _text_config(network)
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    elif config.pad_token_id != tokenizer.pad_token_id and 0 <= config.pad_token_id < len(
        tokenizer
    ):
        token = tokenizer.convert_ids_to_tokens(config.pad_token_id)
        if token in tokenizer.all_special_tokens:
            tokenizer.pad_token = token


def unused_token(rows: Sequence[Sequence[int]]) -> int:
    """The smallest token id that is in no row."""
    used = set().union(*rows)
    return next(token for token in range(len(used) + 1) if token not in used)
