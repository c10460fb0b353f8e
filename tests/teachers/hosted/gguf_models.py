"""BERT models as GGUF files, for llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

#: BERT's pooler and classifier, as llama.cpp names the head of a reranker.
_HEAD = {"pooler.dense": "cls", "classifier": "cls.output"}


def write_bert_gguf(
    path: Path,
    config: Any,
    weights: Mapping[str, np.ndarray],
    words: list[str],
    reranker: bool = False,
) -> Path:
    """Write a BERT encoder with mean pooling, or a cross-encoder with one label.

    Args:
        config: of transformers.
        weights: float32, by the names of ``BertModel`` or ``BertForSequenceClassification``.
        words: the vocabulary of WordPiece in the order of ids.
    """
    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_name("test")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK if reranker else gguf.PoolingType.MEAN)
    if reranker:
        writer.add_array("bert.classifier.output_labels", ["relevance"])
    writer.add_tokenizer_model("bert")
    special = {
        f"[{name}]": number
        for name, number in (("PAD", 3), ("UNK", 2), ("CLS", 3), ("SEP", 3), ("MASK", 3))
    }
    writer.add_token_list([_token(word, special) for word in words])
    writer.add_token_types([special.get(word, 1) for word in words])
    writer.add_token_type_count(config.type_vocab_size)
    writer.add_unk_token_id(words.index("[UNK]"))
    writer.add_sep_token_id(words.index("[SEP]"))
    writer.add_pad_token_id(words.index("[PAD]"))
    writer.add_bos_token_id(words.index("[CLS]"))
    writer.add_mask_token_id(words.index("[MASK]"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config.num_hidden_layers)
    for name, values in weights.items():
        bare = name.removeprefix("bert.")
        stem, _, kind = bare.rpartition(".")
        if stem in _HEAD:
            if reranker:
                writer.add_tensor(f"{_HEAD[stem]}.{kind}", np.ascontiguousarray(values, np.float32))
        elif bare != "embeddings.position_ids":
            target = names.get_name(bare, try_suffixes=(".weight", ".bias"))
            assert target is not None, name
            writer.add_tensor(target, np.ascontiguousarray(values, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _token(word: str, special: Mapping[str, int]) -> str:
    if word in special:
        return word
    return word[2:] if word.startswith("##") else f"\u2581{word}"
