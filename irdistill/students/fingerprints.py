"""Fingerprints of tokenizers and of the settings of modules."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from irdistill.storage.files import digest, file_sha256

#: Settings of a network that do not change its numbers.
_WITHOUT_EFFECT = {
    "_name_or_path",
    "transformers_version",
    "architectures",
    "dtype",
    "torch_dtype",
    "use_cache",
    "id2label",
    "label2id",
    "problem_type",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
}


def tokenizer_digest(tokenizer: Any) -> str:
    """16 hexadecimal digits of all that determines the tokens of a text, except its limit."""
    if not hasattr(getattr(tokenizer, "backend_tokenizer", tokenizer), "to_str"):
        return _slow_digest(tokenizer)
    return digest([backend_digest(tokenizer), *_roles(tokenizer)])


def backend_digest(tokenizer: Any) -> str:
    """Fingerprint of a fast tokenizer: normalizer, splits, vocabulary, added tokens, templates."""
    return _state_digest(getattr(tokenizer, "backend_tokenizer", tokenizer).to_str())


@lru_cache(maxsize=8)
def _state_digest(state: str) -> str:
    """Fingerprint of a tokenizer's JSON, which takes 0.1 s for 30,000 words and is needed often."""
    return digest(
        {
            key: value
            for key, value in json.loads(state).items()
            if key not in ("truncation", "padding", "version")
        }
    )


def _slow_digest(tokenizer: Any) -> str:
    """Fingerprint of a Python tokenizer: its class, vocabulary files and settings."""
    with tempfile.TemporaryDirectory() as folder:
        files = tokenizer.save_vocabulary(folder)
        digests = {Path(path).name: file_sha256(path) for path in files}
    settings = {
        key: value
        for key, value in tokenizer.init_kwargs.items()
        if isinstance(value, bool | int | float | str)
        and key not in ("name_or_path", "vocab_file", "model_max_length")
    }
    return digest([type(tokenizer).__name__, digests, settings, *_roles(tokenizer)])


def _roles(tokenizer: Any) -> list[Any]:
    special = getattr(tokenizer, "special_tokens_map", {})
    return [
        {name: str(token) for name, token in special.items()},
        getattr(tokenizer, "truncation_side", None),
        getattr(tokenizer, "padding_side", None),
        getattr(tokenizer, "chat_template", None),
    ]


def modules_digest(modules: Iterable[nn.Module]) -> str:
    """16 hexadecimal digits of the classes and settings of modules and of their networks."""
    return digest(describe_modules(modules))


def describe_modules(modules: Iterable[nn.Module]) -> list[list[Any]]:
    """The class, the settings and the words, if any, of each module, as JSON values."""
    described: list[list[Any]] = []
    for module in modules:
        config = dict(getattr(module, "get_config_dict", dict)())
        network = getattr(getattr(module, "model", None), "config", None)
        if network is not None:
            config["network"] = {
                key: value for key, value in network.to_dict().items() if key not in _WITHOUT_EFFECT
            }
        words = getattr(module, "words", None)
        described.append(
            [type(module).__name__, config, words if isinstance(words, list) else None]
        )
    plain: list[list[Any]] = json.loads(json.dumps(described, default=str))
    return plain
