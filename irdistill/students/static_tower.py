"""Query towers without a transformer: the mean of the vectors of a query's tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import (
    Pooling,
    StaticEmbedding,
    WordEmbeddings,
)
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BatchEncoding

from irdistill.errors import ModelError
from irdistill.modeling.padding import TOKENLESS, TokenRow
from irdistill.students.towers import two_towers

if TYPE_CHECKING:
    from irdistill.students.dense_student import DenseStudent

_NO_LIMIT = 2**31 - 1
_HALF = 3e-5
"""Probability at which a token has half the largest weight. 1e-3, 1e-4 and 3e-5 gave nDCG@10 of
0.266, 0.328, 0.379 (cranfield) and 0.260, 0.272, 0.293 (cystic-fibrosis) before any training.
"""


def static_modules(tokenizer: Tokenizer, weight: Tensor, normalize: bool) -> list[nn.Module]:
    """The modules of a static tower, as plain sentence-transformers loads them.

    Args:
        tokenizer: adds no special tokens; its truncation is the token limit of queries.
        weight: (V, D) a vector for each token id. Cosine compares directions only, so the weight of
            a token is the length of its vector.
        normalize: scale the mean to length 1.
    """
    embedding = StaticEmbedding(tokenizer, embedding_weights=weight.detach().float())
    return [embedding, Normalize()] if normalize else [embedding]


def summed_modules(tower: Sequence[nn.Module], tokenizer: Any, weight: Tensor) -> list[nn.Module]:
    """The modules of a tower whose vector q becomes ``q / |q| + sum_t e_t / sqrt(n)``, of length 1.

    The sum is over the n tokens after the prompt, special ones included. All modules are those of
    plain sentence-transformers: the vectors of the tokens replace the tower's token states, the
    tower's vector takes the place of the first token's, and a linear layer adds both.

    Args:
        tower: modules up to ``sentence_embedding``; the first is a transformer.
        tokenizer: of the transformer.
        weight: (V, D) the vector e of each token id; zeros for special tokens.
    """
    dimension = weight.shape[1]
    same = torch.eye(dimension)
    copied = linear(same)
    copied.module_output_name = "cls_token_embeddings"
    added = linear(torch.cat([same, same], dim=1))
    start = list(tower[:-1]) if isinstance(tower[-1], Normalize) else list(tower)
    return [
        *start,
        Normalize(),
        WordEmbeddings(tokenizer, weight.detach().float()),
        copied,
        Pooling(dimension, pooling_mode=("cls", "mean_sqrt_len_tokens"), include_prompt=False),
        added,
        Normalize(),
    ]


def linear(weight: Tensor) -> Dense:
    """A linear layer ``x -> weight x`` without bias, of ``sentence_embedding``."""
    layer = Dense(weight.shape[1], weight.shape[0], bias=False, activation_function=nn.Identity())
    with torch.no_grad():
        layer.linear.weight.copy_(weight)
    return layer


def new_static_model(student: DenseStudent) -> Any:
    """The model of a student whose queries get a static tower that has not been trained.

    A token's vector is that of the token read alone as a query, less the mean of these vectors,
    times a weight by the rank of its id. Without the mean, which all of them share, nDCG@10 on
    cranfield is 0.104 instead of 0.379.

    Raises:
        ModelError: its tokenizer is written in Python.
    """
    tokenizer = query_tokenizer(student)
    vectors = token_vectors(student, token_texts(tokenizer))
    return static_model(student, tokenizer, vectors * rank_weights(len(vectors))[:, None])


def static_model(student: DenseStudent, tokenizer: Tokenizer, weight: np.ndarray) -> Any:
    """The model of a student with another query tower: these vectors (V, D) of its tokens.

    The query prompt is left out: it would be read with every query and add the same vector.
    """
    normalize = any(isinstance(module, Normalize) for module in student.tower("query"))
    queries = static_modules(tokenizer, torch.from_numpy(weight), normalize)
    prompt = "" if student._prompt("query") else None
    return two_towers(student.model, queries, prompt)


def summed_model(student: DenseStudent, weight: np.ndarray) -> Any:
    """The model of a student to whose query vectors token vectors (V, D) are added."""
    tower = student.tower("query")
    queries = summed_modules(tower, student._first("query").tokenizer, torch.from_numpy(weight))
    return two_towers(student.model, queries)


def query_tokenizer(student: DenseStudent) -> Tokenizer:
    """A copy of the tokenizer of a student's query tower, with its token limit, for a static tower.

    Raises:
        ModelError: it is a tokenizer written in Python, which sentence-transformers' static module
            cannot use.
    """
    tokenizer = student._first("query").tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(backend, Tokenizer):
        raise ModelError(
            f"the tokenizer of {student.source!r} is a {type(tokenizer).__name__} in Python; a"
            " static query tower needs a fast tokenizer (tokenizer.json). Use query_layers=1."
        )
    copied = copy.deepcopy(backend)
    copied.no_padding()
    copied.enable_truncation(student.max_length("query"))
    return copied


def token_texts(tokenizer: Tokenizer) -> list[str]:
    """The text of each token id; empty for special tokens and ids without a token."""
    special = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return [
        ""
        if number in special or tokenizer.id_to_token(number) is None
        else tokenizer.decode([number]).removeprefix("##").strip()
        for number in range(tokenizer.get_vocab_size())
    ]


def token_vectors(student: DenseStudent, texts: Sequence[str]) -> np.ndarray:
    """(V, D) float32: each token read alone as a query, scaled to length 1, less their mean.

    Empty texts get zeros.
    """
    vectors = np.zeros((len(texts), student.dimension), np.float32)
    rows = [row for row, text in enumerate(texts) if text]
    vectors[rows] = student.encode([texts[row] for row in rows], "query", normalize=True)
    return centered(vectors, texts)


def centered(vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Vectors (V, D) less their mean; zeros where the text is empty."""
    present = np.array([bool(text) for text in texts])
    mean = vectors[present].mean(axis=0)
    return np.where(present[:, None], vectors - mean, np.float32(0))


def rank_weights(count: int) -> np.ndarray:
    """Weights (V,) of tokens in order of frequency, where no counts are known.

    ``a / (a + p)`` as in SIF (Arora et al., ICLR 2017), with p by Zipf's law.

    Examples:
        >>> (rank_weights(3) * 1e5).round(1).tolist()
        [5.5, 11.0, 16.5]
    """
    shares = 1 / np.arange(1, count + 1)
    shares /= shares.sum()
    return (_HALF / (_HALF + shares)).astype(np.float32)


def static_length(module: StaticEmbedding) -> int:
    """The token limit of a static tower, which is in its tokenizer."""
    truncation = module.tokenizer.truncation
    return int(truncation["max_length"]) if truncation else _NO_LIMIT


def tokenize_bags(module: StaticEmbedding, texts: Sequence[str]) -> BatchEncoding:
    """Token ids of texts, truncated and without special tokens."""
    encodings = module.tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return BatchEncoding({"input_ids": [encoding.ids for encoding in encodings]}, encodings)


def join_bags(rows: Sequence[TokenRow], device: torch.device) -> dict[str, Tensor]:
    """The features of some tokenized texts: all token ids in a row, and where each text begins."""
    lengths = np.array([len(row["input_ids"]) for row in rows], dtype=np.int64)
    ids = np.concatenate([np.asarray(row["input_ids"], dtype=np.int64) for row in rows])
    features = {
        "input_ids": torch.from_numpy(ids).to(device),
        "offsets": torch.from_numpy(np.cumsum(lengths) - lengths).to(device),
    }
    if not lengths.all():
        features[TOKENLESS] = torch.from_numpy(lengths == 0).to(device)
    return features
