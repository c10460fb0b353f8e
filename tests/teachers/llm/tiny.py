"""A tiny random language model over bytes, made in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

CONTROL = ["<s>", "</s>", "<|turn|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|turn|>{{ message['role'] }}\n{{"
    " message['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n{%"
    " endif %}"
)


def tiny_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """One token a byte, and three control tokens."""
    vocabulary = {
        token: number
        for number, token in enumerate([*CONTROL, *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|turn|>"],
    )
    wrapped.chat_template = template
    return wrapped


def tiny_lm(
    folder: Path, family: str = "llama", template: str | None = TEMPLATE, **settings: Any
) -> Path:
    """A causal model of two layers with grouped key and value heads; weights large enough that
    every token matters.
    """
    tokenizer = tiny_tokenizer(template)
    arguments: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    torch.manual_seed(5)
    network = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, **(arguments | settings))
    )
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.dim() > 1:
                weight.mul_(6.0 if "embed" in name else 4.0)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
