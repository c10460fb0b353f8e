"""Vectors of words that are added to a query's vector, so that it matches words as BM25 does.

Saved models contain a copy of this file, so it imports nothing of irdistill.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import Module
from torch import Tensor, nn
from transformers import AutoTokenizer

_WORDS, _WEIGHTS = "words.json", "model.safetensors"
_WORD = re.compile(r"(?u)\b\w\w+\b")


class WordVectors(Module):
    """A sentence-transformers module: ``q + sum_w e_w / sqrt(m)`` over the m words of a query.

    Only known words count, as often as they occur. The spread of a sum of m parts grows with the
    square root of m; divided by it, words have equal weight in short and long queries. Forms of a
    word, such as its plural, share a vector.

    The module follows pooling, reads ``sentence_embedding`` (n, D) and the token ids, and writes
    ``sentence_embedding``. Words are decoded from the token ids without the prompt, so encoding a
    query needs no extra input. The vectors are not trained by gradients.

    Args:
        tokenizer: of the preceding transformer.
        words: the forms in lower case of each of the V words.
        weight: (V, D) their vectors, in float32.
    """

    def __init__(self, tokenizer: Any, words: Sequence[Sequence[str]], weight: Tensor) -> None:
        super().__init__()
        if weight.ndim != 2 or len(words) != len(weight):
            raise ValueError(
                f"{len(words)} words and vectors of shape {tuple(weight.shape)} were given; one"
                " vector for each word was expected."
            )
        self.tokenizer = tokenizer
        self.words: list[Any] = [list(forms) for forms in words]
        self.weight = nn.Parameter(weight.detach().float(), requires_grad=False)
        self._places = {form: place for place, forms in enumerate(words) for form in forms}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add the vectors of known words to ``sentence_embedding``."""
        vectors = features["sentence_embedding"]
        places = self.places(features)
        if any(places):
            flat = torch.tensor(
                [place for row in places for place in row], device=self.weight.device
            )
            starts = torch.tensor(
                [0, *(len(row) for row in places[:-1])], device=self.weight.device
            ).cumsum(0)
            counts = torch.tensor([[max(1, len(row))] for row in places], device=self.weight.device)
            with torch.autocast(self.weight.device.type, enabled=False):
                vectors = (
                    vectors.float()
                    + F.embedding_bag(flat, self.weight, starts, mode="sum") / counts.sqrt()
                )
        features["sentence_embedding"] = vectors
        return features

    def places(self, features: dict[str, Any]) -> list[list[int]]:
        """The places of the known words of each query, with repetitions."""
        ids, masks = (features[name].tolist() for name in ("input_ids", "attention_mask"))
        prompt = int(features.get("prompt_length") or 0)
        rows = [
            [token for token, real in zip(row, mask, strict=True) if real][prompt:]
            for row, mask in zip(ids, masks, strict=True)
        ]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [self.text_places(text) for text in texts]

    def text_places(self, text: str) -> list[int]:
        """The places of the known words of a text, with repetitions."""
        return [self._places[word] for word in _WORD.findall(text.lower()) if word in self._places]

    def get_config_dict(self) -> dict[str, Any]:
        """The shape of the vectors."""
        return {"shape": list(self.weight.shape)}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write config, words, vectors and tokenizer to a folder.

        Vectors that float16 holds without rounding are stored in it.
        """
        folder = Path(output_path)
        self.save_config(output_path)
        (folder / _WORDS).write_text(json.dumps(self.words, ensure_ascii=False), encoding="utf-8")
        weight = self.weight.detach().cpu().contiguous()
        half = weight.half()
        save_file(
            {"weight": half if torch.equal(half.float(), weight) else weight},
            str(folder / _WEIGHTS),
        )
        self.tokenizer.save_pretrained(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> WordVectors:
        """Open what `save` wrote."""
        names = ("token", "cache_folder", "revision", "local_files_only")
        from_hub = {name: kwargs[name] for name in names if name in kwargs}
        place = cls.load_dir_path(model_name_or_path, subfolder=subfolder, **from_hub)
        folder = Path(place or model_name_or_path)
        words = json.loads((folder / _WORDS).read_text(encoding="utf-8"))
        weight = load_file(folder / _WEIGHTS)["weight"]
        return cls(AutoTokenizer.from_pretrained(folder), words, weight)
