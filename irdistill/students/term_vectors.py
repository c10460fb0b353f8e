"""Term vectors in the form in which earlier versions saved them: stems instead of words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer

from irdistill.errors import DamagedError, InputError
from irdistill.modeling.stemming import NAME, StemTokenizer
from irdistill.modeling.weights import fill, read_weights
from irdistill.students.word_vectors import WordVectors

_WORDS, _WEIGHTS = "words.json", "model.safetensors"


class TermVectors(WordVectors):
    """As `WordVectors`, for the stems of a query. Only this package can open it.

    Args:
        tokenizer: of the preceding transformer.
        words: the V stems.
        weight: (V, D) their vectors, in float32.
    """

    def __init__(self, tokenizer: Any, words: Sequence[str], weight: Tensor) -> None:
        super().__init__(tokenizer, [[word] for word in words], weight)
        self.words = list(words)
        self._stems = StemTokenizer()

    def text_places(self, text: str) -> list[int]:
        """The places of the known stems of a text, with repetitions."""
        return [self._places[stem] for stem in self._stems(text) if stem in self._places]

    def get_config_dict(self) -> dict[str, Any]:
        """The way words are cut, and the shape of the vectors."""
        return {"words": NAME, **super().get_config_dict()}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write config, words, vectors and tokenizer to a folder."""
        folder = Path(output_path)
        self.save_config(output_path)
        (folder / _WORDS).write_text(json.dumps(self.words, ensure_ascii=False), encoding="utf-8")
        save_file({"weight": self.weight.detach().cpu().contiguous()}, str(folder / _WEIGHTS))
        self.tokenizer.save_pretrained(output_path)

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
