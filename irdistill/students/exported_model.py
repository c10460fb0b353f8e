"""Exported models: texts to vectors or scores with ONNX Runtime or OpenVINO.

Exported folders contain a copy of this file as `encode.py`. It needs numpy, tokenizers, and
onnxruntime or openvino; nothing of irdistill, torch or sentence-transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

SETTINGS = "irdistill_export.json"
_WORD = re.compile(r"(?u)\b\w\w+\b")

Arrays = list[np.ndarray]


class ExportedModel:
    """A model that `irdistill export` wrote.

    Attributes:
        settings: kind, similarity, and how texts of each side are read.
        counts: by side, the numbers of texts that were read, of those that were truncated, and of
            tokens that the network read and did not read. Pairs are not counted.

    Examples:
        >>> model = ExportedModel("out/student-onnx")  # doctest: +SKIP
        >>> vectors = model.encode_query(["how to delete a folder"])  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path = Path(__file__).parent) -> None:
        self.folder = Path(folder)
        self.settings = json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
        self.counts: dict[str, list[int]] = {}
        self._sides: dict[str, _Side] = {}
        self._networks: dict[str, Callable[[Mapping[str, np.ndarray]], Arrays]] = {}

    def encode_query(self, texts: Sequence[str], batch_size: int = 32) -> Any:
        """Vectors of queries: (n, D) float32, or a list of (tokens, D) for late interaction."""
        return self._encode(texts, "query", batch_size)

    def encode_document(self, texts: Sequence[str], batch_size: int = 32) -> Any:
        """Vectors of documents, as `encode_query`."""
        return self._encode(texts, "document", batch_size)

    def predict(self, pairs: Sequence[tuple[str, str]], batch_size: int = 32) -> np.ndarray:
        """Scores (n,) float32 of pairs of query and document, of a cross-encoder."""
        return np.asarray(self._encode(pairs, "pair", batch_size), np.float32)

    def _encode(self, texts: Sequence[Any], side: str, batch_size: int) -> Any:
        if side not in self.settings["sides"]:
            raise ValueError(
                f"this {self.settings['kind']} model reads"
                f" {' and '.join(self.settings['sides'])}, not {side}."
            )
        settings = self.settings["sides"][side]
        if side not in self._sides:
            self._sides[side] = _Side(self.folder / settings["folder"], settings)
            self.counts[side] = self._sides[side].counts
            if settings["folder"] not in self._networks:
                path = self.folder / settings["folder"] / settings["network"]
                self._networks[settings["folder"]] = open_network(path, settings["inputs"])
        reader, network = self._sides[side], self._networks[settings["folder"]]
        result: list[Any] = [None] * len(texts)
        order = sorted(range(len(texts)), key=lambda row: -len("".join(texts[row])))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            inputs, scored = reader.read([texts[row] for row in rows])
            outputs = network({name: inputs[name] for name in settings["inputs"]})[0]
            for row, output, mask in zip(rows, outputs, scored, strict=True):
                result[row] = output[mask] if output.ndim == 2 else output
        return result if self.settings["kind"] == "late-interaction" else np.array(result)


class _Side:
    """The tokens of queries, of documents or of pairs."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.settings, self.counts = settings, [0, 0, 0, 0]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        if settings["max_length"] is not None:
            self.tokenizer.enable_truncation(
                settings["max_length"], direction=settings["truncation_side"]
            )
        self.words: dict[str, int] = {}
        if settings["words"]:
            forms = json.loads((folder / "words.json").read_text(encoding="utf-8"))
            self.words = {form: place for place, each in enumerate(forms) for form in each}

    def read(self, texts: Sequence[Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The inputs of the network for texts, and which tokens are scored (n, L)."""
        prompt = self.settings["prompt"]
        coded = self.tokenizer.encode_batch(
            [
                prompt + text if isinstance(text, str) else (prompt + text[0], text[1])
                for text in texts
            ],
            add_special_tokens=self.settings["special_tokens"],
        )
        if isinstance(texts[0], str):
            self._count(coded)
        expansion = self.settings["expansion"]
        least = expansion["length"] if expansion else 1
        width = max(least, *(len(each.ids) for each in coded))
        shape, fill = (len(texts), width), self.settings["fill"]
        inputs = {
            "input_ids": np.full(shape, fill["input_ids"], np.int64),
            "token_type_ids": np.full(shape, fill["token_type_ids"], np.int64),
            "attention_mask": np.zeros(shape, np.int64),
        }
        for row, each in enumerate(coded):
            size = len(each.ids)
            place = slice(width - size, width) if self.settings["left"] else slice(0, size)
            inputs["input_ids"][row, place] = each.ids
            inputs["token_type_ids"][row, place] = each.type_ids
            inputs["attention_mask"][row, place] = 1
        scored = inputs["attention_mask"].astype(bool)
        if expansion:
            added = ~scored & (np.arange(width) < least)
            inputs["input_ids"][added] = expansion["token"]
            if expansion["attend"]:
                inputs["attention_mask"][added] = 1
            scored = scored | added
        scored &= ~np.isin(inputs["input_ids"], self.settings["unscored"])
        if self.settings["scored"]:
            scored &= np.isin(inputs["input_ids"], self.settings["scored"])
        places = [self._places(each.ids) for each in coded]
        most = max(1, *(len(row) for row in places))
        inputs["words"] = np.zeros((len(texts), most), np.int64)
        inputs["word_mask"] = np.zeros((len(texts), most), np.int64)
        for row, known in enumerate(places):
            inputs["words"][row, : len(known)] = known
            inputs["word_mask"][row, : len(known)] = 1
        return inputs, scored

    def _count(self, coded: Sequence[Any]) -> None:
        for each in coded:
            lost = sum(map(_words, each.overflowing))
            more = (1, int(lost > 0), _words(each), lost)
            self.counts[:] = [count + new for count, new in zip(self.counts, more, strict=True)]

    def _places(self, ids: list[int]) -> list[int]:
        """The places of the known words of a query, without its prompt."""
        if not self.words:
            return []
        text = self.tokenizer.decode(ids[self.settings["prompt_tokens"] :])
        return [self.words[word] for word in _WORD.findall(text.lower()) if word in self.words]


def _words(encoding: Any) -> int:
    """The number of tokens that are not special."""
    return len(encoding.ids) - sum(encoding.special_tokens_mask)


def open_network(path: Path, inputs: Sequence[str]) -> Callable[[Mapping[str, np.ndarray]], Arrays]:
    """A function that runs a network in ONNX Runtime or OpenVINO, by the ending of its file."""
    if path.suffix == ".xml":
        import openvino

        compiled = openvino.Core().compile_model(
            str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        return lambda arrays: [np.array(compiled([arrays[name] for name in inputs])[0])]
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # threads that wait actively would use more processor time than one query takes
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda arrays: list(session.run(None, dict(arrays)))
