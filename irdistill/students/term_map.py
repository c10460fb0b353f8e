"""The terms of a sparse vector in another vocabulary.

Saved models contain a copy of this file, so it imports nothing of irdistill.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import Module

_PAIRS = "terms.safetensors"


class TermMap(Module):
    """A sentence-transformers module: term weights (n, V) as weights (n, W) of other terms.

    Another term gets the largest weight of the terms that name it, and 0 if none does. The largest
    and not the sum: weights stay in the range that the model gives to a term, and a term that many
    others name does not outweigh the rest.

    The module reads and writes ``sentence_embedding``, and has nothing to train.

    Args:
        pairs: (E, 2) int64: a term, and a term of the other vocabulary that it names.
        size: W, of the other vocabulary.

    Examples:
        >>> module = TermMap(torch.tensor([[0, 1], [1, 1], [1, 2]]), 4)
        >>> module({"sentence_embedding": torch.tensor([[0.5, 2.0, 7.0]])})["sentence_embedding"]
        tensor([[0., 2., 2., 0.]])
    """

    pairs: torch.Tensor

    def __init__(self, pairs: torch.Tensor, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("pairs", pairs)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Replace ``sentence_embedding``."""
        features["sentence_embedding"] = self.weights(features["sentence_embedding"])
        return features

    def weights(self, weights: torch.Tensor) -> torch.Tensor:
        """Weights (n, W) of the other terms."""
        terms, others = self.pairs.unbind(1)
        result = weights.new_zeros(len(weights), self.size)
        return result.scatter_reduce(1, others.expand(len(weights), -1), weights[:, terms], "amax")

    def get_embedding_dimension(self) -> int:
        """W."""
        return self.size

    def get_config_dict(self) -> dict[str, Any]:
        """The size of the vocabulary."""
        return {"size": self.size}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write config and pairs to a folder."""
        self.save_config(output_path)
        save_file({"pairs": self.pairs.cpu().contiguous()}, str(Path(output_path) / _PAIRS))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> TermMap:
        """Open what `save` wrote."""
        names = ("token", "cache_folder", "revision", "local_files_only")
        from_hub = {name: kwargs[name] for name in names if name in kwargs}
        config = cls.load_config(model_name_or_path, subfolder=subfolder, **from_hub)
        folder = cls.load_dir_path(model_name_or_path, subfolder=subfolder, **from_hub)
        pairs = load_file(Path(folder or model_name_or_path) / _PAIRS)["pairs"]
        return cls(pairs, int(config["size"]))
