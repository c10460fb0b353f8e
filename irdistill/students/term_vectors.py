"""Vectors of words that are added to a query's vector, so that it matches words as BM25 does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sentence_transformers.base.modules import Module
from torch import Tensor, nn
from transformers import AutoTokenizer

from irdistill.errors import DamagedError, InputError
from irdistill.modeling.stemming import NAME, StemTokenizer
from irdistill.modeling.weights import fill, read_weights
from irdistill.students.saving import save_tokenizer

_WORDS, _WEIGHTS = "words.json", "model.safetensors"


class TermVectors(Module):
    """A sentence-transformers module: ``q + sum_t e_t / sqrt(m)`` over the m stems t of a query.

    A stem counts as often as it occurs. The spread of a sum of m parts grows with the square root
    of m; divided by it, words have equal weight in short and long queries.

    The module follows pooling, reads ``sentence_embedding`` (n, D) and the token ids, and writes
    ``sentence_embedding``. Words are decoded from the token ids without the prompt, so encoding a
    query needs no extra input. The vectors are not trained by gradients:
    `irdistill.training.term_vector_fitting` computes them. Plain sentence-transformers loads the
    module with ``trust_remote_code=True`` if this package is installed.

    Args:
        tokenizer: of the preceding transformer.
        words: the V stems.
        weight: (V, D) their vectors, in float32.
    """

    def __init__(self, tokenizer: Any, words: Sequence[str], weight: Tensor) -> None:
        super().__init__()
        if weight.ndim != 2 or len(words) != len(weight):
            raise InputError(
                f"{len(words)} words and vectors of shape {tuple(weight.shape)} were given; one"
                " vector for each word was expected."
            )
        self.tokenizer = tokenizer
        self.words = list(words)
        self.weight = nn.Parameter(weight.detach().float(), requires_grad=False)
        self._places = {word: place for place, word in enumerate(self.words)}
        self._stems = StemTokenizer()

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add the vectors of known words to ``sentence_embedding``."""
        vectors = features["sentence_embedding"]
        places = self._word_places(features)
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

    def _word_places(self, features: dict[str, Any]) -> list[list[int]]:
        """The places of the known words of each query, with repetitions."""
        ids, masks = (features[name].tolist() for name in ("input_ids", "attention_mask"))
        prompt = int(features.get("prompt_length") or 0)
        rows = [
            [token for token, real in zip(row, mask, strict=True) if real][prompt:]
            for row, mask in zip(ids, masks, strict=True)
        ]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [
            [self._places[stem] for stem in self._stems(text) if stem in self._places]
            for text in texts
        ]

    def get_config_dict(self) -> dict[str, Any]:
        """The way words are cut, and the shape of the vectors."""
        return {"words": NAME, "shape": list(self.weight.shape)}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write config, words, vectors and tokenizer to a folder."""
        folder = Path(output_path)
        self.save_config(output_path)
        (folder / _WORDS).write_text(json.dumps(self.words, ensure_ascii=False), encoding="utf-8")
        save_file({"weight": self.weight.detach().cpu().contiguous()}, str(folder / _WEIGHTS))
        save_tokenizer(self.tokenizer, folder)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Self:
        """Open what `save` wrote.

        Raises:
            InputError: its words were cut in another way.
            DamagedError: a file is missing or damaged.
        """
        from_hub = {
            key: kwargs[key]
            for key in ("token", "cache_folder", "revision", "local_files_only")
            if key in kwargs
        }
        config = cls.load_config(model_name_or_path, subfolder=subfolder, **from_hub)
        folder = cls.load_dir_path(model_name_or_path, subfolder=subfolder, **from_hub)
        if config.get("words") != NAME or folder is None:
            raise InputError(
                f"{model_name_or_path}/{subfolder} has words of {config.get('words')!r}; {NAME!r}"
                " was expected."
            )
        try:
            words = json.loads((Path(folder) / _WORDS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            damage = f"holds term vectors that cannot be read: {error}"
            raise DamagedError(Path(folder), damage, "Save the model again.") from error
        path = Path(folder) / _WEIGHTS
        loaded = cls(
            AutoTokenizer.from_pretrained(folder),
            words,
            torch.zeros(config.get("shape") or (len(words), 0)),
        )
        fill(loaded, read_weights(path), path)
        return loaded


#: The name of the class in saved models.
REFERENCE = f"{TermVectors.__module__}.{TermVectors.__qualname__}"
