"""Tiny random models of many families, with tokenizers of the right make, made in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    DebertaV2Tokenizer,
    GPT2Tokenizer,
    Qwen2Tokenizer,
    RobertaTokenizer,
    T5Tokenizer,
    XLMRobertaTokenizer,
)

from tests.students.tiny import WORDS, tiny_backbone

PLAIN = [*WORDS, "yes", "no", "true", "false", "query", "document"]
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def pieces(*special: str) -> list[tuple[str, float]]:
    """A unigram vocabulary of whole words and single letters."""
    letters = [chr(code) for code in range(33, 127)]
    words = [("▁", -6.0), *(("▁" + word, -3.0) for word in PLAIN)]
    return [*((name, 0.0) for name in special), *words, *((one, -9.0) for one in letters)]


def bytes_and_merges(*special: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level vocabulary in which whole words, with a space before them or not, are tokens."""
    merges: dict[tuple[str, str], None] = {}
    for word in [space + word for space in ("Ġ", "") for word in PLAIN]:
        for end in range(1, len(word)):
            merges[(word[:end], word[end])] = None
    tokens = dict.fromkeys(
        [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    )
    return {token: number for number, token in enumerate(tokens)}, list(merges)


def tokenizer_for(family: str) -> Any:
    """A tokenizer of the class that a family's models come with."""
    if family == "deberta-v2":
        return DebertaV2Tokenizer(
            vocab=pieces("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), model_max_length=64
        )
    if family == "xlm-roberta":
        return XLMRobertaTokenizer(
            vocab=pieces("<s>", "<pad>", "</s>", "<unk>", "<mask>"), model_max_length=64
        )
    if family in ("t5", "mt5"):
        return T5Tokenizer(
            vocab=pieces("<pad>", "</s>", "<unk>"), extra_ids=20, model_max_length=512
        )
    if family == "roberta":
        vocab, merges = bytes_and_merges("<s>", "<pad>", "</s>", "<unk>", "<mask>")
        return RobertaTokenizer(vocab=vocab, merges=merges, model_max_length=64)
    vocab, merges = bytes_and_merges("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer = Qwen2Tokenizer(
        vocab=vocab, merges=merges, pad_token="<|endoftext|>", model_max_length=512
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


def tiny_classifier(folder: Path, family: str) -> Path:
    """A sequence classifier with one output."""
    if family in ("bert", "electra", "modernbert", "distilbert"):
        from transformers import AutoTokenizer

        tiny_backbone(folder, family, layers=2)
        tokenizer, config = (
            AutoTokenizer.from_pretrained(folder),
            AutoConfig.from_pretrained(folder, num_labels=1),
        )
    else:
        tokenizer = tokenizer_for(family)
        sizes: dict[str, Any] = {
            "max_position_embeddings": 66,
            "pad_token_id": tokenizer.pad_token_id,
        }
        if family == "deberta-v2":
            sizes |= {
                "relative_attention": True,
                "position_buckets": 16,
                "norm_rel_ebd": "layer_norm",
                "share_att_key": True,
                "pos_att_type": ["p2c", "c2p"],
                "position_biased_input": False,
                "type_vocab_size": 0,
                "max_position_embeddings": 64,
            }
        if family == "qwen2":
            sizes |= {"num_key_value_heads": 1, "max_position_embeddings": 512}
        config = AutoConfig.for_model(
            family, vocab_size=len(tokenizer), num_labels=1, **_SIZES, **sizes
        )
    torch.manual_seed(5)
    return _save(AutoModelForSequenceClassification.from_config(config), tokenizer, folder)


def tiny_lightning_ir(folder: Path) -> Path:
    """A cross-encoder in the layout of Lightning IR: an ELECTRA, a linear layer, and a
    configuration of its own type.
    """
    tiny_backbone(folder, "electra", layers=2)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "cross-encoder",
        "backbone_model_type": "electra",
        "architectures": ["CrossEncoderElectraModel"],
        "query_length": 4,
        "doc_length": 9,
        "pooling_strategy": "first",
    }
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(5)
    save_file(weights | {"linear.weight": torch.randn(1, 32)}, folder / "model.safetensors")
    return folder


def tiny_t5(folder: Path, family: str = "t5", tied: bool = True) -> Path:
    """An encoder-decoder; T5 ties its head to its embeddings and scales what goes in, mT5 and T5
    1.1 do not.
    """
    tokenizer = tokenizer_for(family)
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer) + 7,
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        tie_word_embeddings=tied,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(5)
    return _save(AutoModelForSeq2SeqLM.from_config(config), tokenizer, folder)


def tiny_causal(folder: Path, family: str = "qwen2", **settings: Any) -> Path:
    """A causal language model."""
    tokenizer = tokenizer_for(family)
    sizes = (
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 512}
        if family == "gpt2"
        else {**_SIZES, "num_key_value_heads": 1, "max_position_embeddings": 512}
    )
    sizes |= {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    config = AutoConfig.for_model(family, **sizes | settings)
    torch.manual_seed(5)
    return _save(AutoModelForCausalLM.from_config(config), tokenizer, folder)


def tiny_decoder(folder: Path, family: str = "gpt2", classifier: bool = False) -> Path:
    """A decoder, as an encoder or with a score, whose tokenizer has no padding token and puts
    nothing around a text.
    """
    vocab, merges = bytes_and_merges("<|endoftext|>")
    tokenizer = GPT2Tokenizer(vocab=vocab, merges=merges, model_max_length=128)
    sizes = (
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
        if family == "gpt2"
        else {**_SIZES, "num_key_value_heads": 1, "max_position_embeddings": 128}
    )
    sizes |= {
        "vocab_size": len(tokenizer),
        "pad_token_id": None,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "num_labels": 1,
    }
    torch.manual_seed(5)
    auto = AutoModelForSequenceClassification if classifier else AutoModel
    return _save(auto.from_config(AutoConfig.for_model(family, **sizes)), tokenizer, folder)


def tiny_roberta(folder: Path, head: str = "") -> Path:
    """A RoBERTa that takes 64 tokens, whose table has 66 positions and whose tokenizer states no
    limit.
    """
    tokenizer = tokenizer_for("roberta")
    tokenizer.model_max_length = 1 << 40
    config = AutoConfig.for_model(
        "roberta",
        vocab_size=len(tokenizer),
        num_labels=1,
        max_position_embeddings=66,
        pad_token_id=1,
        **_SIZES,
    )
    torch.manual_seed(5)
    auto = {
        "": AutoModel,
        "classifier": AutoModelForSequenceClassification,
        "masked": AutoModelForMaskedLM,
    }[head]
    return _save(auto.from_config(config), tokenizer, folder)


def _save(network: Any, tokenizer: Any, folder: Path) -> Path:
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.25)  # so that what is read matters
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
