"""Tiny random-weight backbones, made in a folder."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoConfig,
    AutoModel,
    BertTokenizerFast,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

_TEXT = """the a of in and cat dog sat mat bird fish heart lung cell wing air flow jet heat shock wave gene
protein what is how does why rain snow red blue green fast slow big small"""
WORDS = _TEXT.split()


def tiny_backbone(folder: Path, family: str = "bert", layers: int = 4) -> Path:
    """A backbone of one family with hidden size 32 and a WordPiece tokenizer of words and
    letters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(97, 123)]
    vocab = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
        *(c for c in letters if c not in WORDS),
        *("##" + c for c in letters),
    ]
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n")
    numbered = {word: index for index, word in enumerate(vocab)}
    tokenizer = BertTokenizerFast(vocab=numbered, model_max_length=64)
    common = {
        "vocab_size": len(vocab),
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 66,
        "pad_token_id": 0,
    }
    if family == "distilbert":
        common = {
            "vocab_size": len(vocab),
            "dim": 32,
            "n_layers": layers,
            "n_heads": 2,
            "hidden_dim": 64,
            "max_position_embeddings": 66,
        }
    if family == "electra":
        common["embedding_size"] = 32
    if family == "modernbert":
        common |= {
            "global_attn_every_n_layers": 3,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "cls_token_id": 2,
            "sep_token_id": 3,
            "local_attention": 4,
        }
    torch.manual_seed(7)
    model = AutoModel.from_config(AutoConfig.for_model(family, **common))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # so that every layer matters
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_decoder(folder: Path) -> Path:
    """A causal language model with a chat template, whose padding is the end of a text."""
    vocab = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", *WORDS])}
    rules = Tokenizer(WordLevel(vocab, unk_token="<unk>"))
    rules.pre_tokenizer = Whitespace()
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, **special)
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
