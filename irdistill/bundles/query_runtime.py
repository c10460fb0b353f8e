"""Encode queries without torch: a tokenizer, and an ONNX network or a table of vectors.

Starting takes a tenth of a second of processor time, where torch, transformers and
sentence-transformers take five.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.errors import MissingExtraError
from irdistill.storage.files import read_json

SETTINGS, TOKENIZER = "query.json", "tokenizer.json"
NETWORK, TABLE = "model.onnx", "table.npy"
WORDS, WORD_VECTORS = "words.json", "word_vectors.npy"
_WORD = re.compile(r"(?u)\b\w\w+\b")
_BATCH = 32
"""Queries per pass through the network, so that memory does not grow with their number."""


def has_runtime(folder: Path) -> bool:
    """Whether the libraries that run this tower are installed."""
    from importlib.util import find_spec

    network = (folder / NETWORK).is_file()
    return find_spec("tokenizers") is not None and (
        not network or find_spec("onnxruntime") is not None
    )


def open_query_tower(folder: Path) -> QueryTower:
    """The query tower in a folder.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
    """
    return QueryTower(folder, read_json(folder / SETTINGS))


class QueryTower:
    """Encodes queries as the model in the same bundle does.

    Attributes:
        settings: prompt, length, and how the vectors are made.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        from tokenizers import Tokenizer

        self.folder, self.settings = folder, settings
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        if settings["input"] != "static":
            self._tokenizer.enable_truncation(settings["max_length"])
        if settings["input"] == "network":
            self._session = _open_network(folder / NETWORK)
            self._inputs = [value.name for value in self._session.get_inputs()]
        else:
            self._table = np.load(folder / TABLE, mmap_mode="r")
        if "words" in settings:
            self._words = _WordTable(folder)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors (n, D) float32 of queries; zeros for a query without tokens."""
        prompt = self.settings["prompt"]
        special = self.settings["input"] == "network"
        tokens = self._tokenizer.encode_batch(
            [prompt + text for text in texts], add_special_tokens=special
        )
        if not tokens:
            return np.empty((0, self.settings["dimension"]), np.float32)
        make = {"network": self._run, "static": self._means, "weights": self._weights}
        vectors = np.concatenate(
            [
                make[self.settings["input"]](tokens[start : start + _BATCH])
                for start in range(0, len(tokens), _BATCH)
            ]
        ).astype(np.float32, copy=False)
        if self.settings["kind"] == "dense":
            vectors = vectors[:, : self.settings["dimension"]]
        return unit_length(vectors) if self.settings["normalize"] else vectors

    def _run(self, tokens: Sequence[Any]) -> np.ndarray:
        """Vectors of tokenized queries, by the network; shorter ones are padded."""
        longest = max(len(one) for one in tokens)
        columns = {
            "input_ids": np.full((len(tokens), longest), self.settings["pad"], np.int64),
            "attention_mask": np.zeros((len(tokens), longest), np.int64),
            "token_type_ids": np.zeros((len(tokens), longest), np.int64),
        }
        for row, one in enumerate(tokens):
            columns["input_ids"][row, : len(one)] = one.ids
            columns["attention_mask"][row, : len(one)] = 1
            columns["token_type_ids"][row, : len(one)] = one.type_ids
        inputs = {name: columns[name] for name in self._inputs}
        vectors: np.ndarray = self._session.run(None, inputs)[0]
        if "words" in self.settings:
            vectors = vectors + self._words.of([self._text(one) for one in tokens])
        return vectors

    def _text(self, tokens: Any) -> str:
        """The words of a query that its tokens hold, without the prompt."""
        kept = tokens.ids[self._prompt_length :]
        text: str = self._tokenizer.decode(kept, skip_special_tokens=True)
        return text

    @cached_property
    def _prompt_length(self) -> int:
        prompt = self.settings["prompt"]
        return len(self._tokenizer.encode(prompt).ids) - 1 if prompt else 0

    def _means(self, tokens: Sequence[Any]) -> np.ndarray:
        """The mean of the vectors of a query's tokens."""
        zeros = np.zeros(self._table.shape[1], np.float32)
        return np.stack([self._table[one.ids].mean(axis=0) if one.ids else zeros for one in tokens])

    def _weights(self, tokens: Sequence[Any]) -> np.ndarray:
        """The weight of each token that a query has."""
        vectors = np.zeros((len(tokens), len(self._table)), np.float32)
        for row, one in enumerate(tokens):
            vectors[row, one.ids] = self._table[one.ids]
        return vectors


class _WordTable:
    """The vectors of words that are added to a query, as `irdistill.students.word_vectors`."""

    def __init__(self, folder: Path) -> None:
        words = json.loads((folder / WORDS).read_text("utf-8"))
        self._places = {form: place for place, forms in enumerate(words) for form in forms}
        self._vectors = np.load(folder / WORD_VECTORS, mmap_mode="r")

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """The sum of the vectors of the m words of each text, divided by the root of m."""
        sums = np.zeros((len(texts), self._vectors.shape[1]), np.float32)
        for row, text in enumerate(texts):
            words = _WORD.findall(text.lower())
            places = [self._places[word] for word in words if word in self._places]
            if places:
                sums[row] = self._vectors[places].sum(axis=0) / np.sqrt(len(places))
        return sums


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Vectors scaled to length 1; a zero vector stays zero.

    Examples:
        >>> unit_length(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6, 0.8], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def _open_network(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", "search without torch") from error
    options = onnxruntime.SessionOptions()
    # threads that wait actively would use more processor time than one query takes
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
