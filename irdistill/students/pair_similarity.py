"""A head of cross-encoders whose score begins as the similarity of the two texts.

Saved models contain a copy of this file, so it imports nothing of irdistill.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import Module
from torch import Tensor, nn

_WEIGHTS = "model.safetensors"
#: Both similarities are at most 1, so scores begin between -20 and 20.
_SCALE = 10.0


class PairSimilarity(Module):
    """A sentence-transformers module: the score of a pair from its last states.

    The states are those of one sequence with both texts, so each token has attended to the other
    text. With the mean vectors ``u`` and ``v`` (H,) of the tokens of the first and of the second
    text, both of length 1, and the mean ``m`` over the first text's tokens of the largest cosine
    with a token of the second, the score is a linear layer on ``[u * v, m, state of the first
    token]``. The layer begins as ``10 (cos(u, v) + m)``: on the layers of an encoder of texts it
    ranks before the first step, while a new layer on the first token begins at random.

    The module reads ``token_embeddings`` (n, L, H), ``attention_mask`` and ``token_type_ids``, and
    writes ``scores`` (n, 1), in float32 whatever the precision of the states.

    Args:
        size: H, of the states.

    Examples:
        >>> module = PairSimilarity(2)
        >>> states = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
        >>> mask, second = torch.ones(1, 3), torch.tensor([[0, 0, 1]])
        >>> round(float(module.scores(states, mask, second)), 2)  # 10 (0.707 + 0.5)
        12.07
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.score = nn.Linear(2 * size + 1, 1)
        with torch.no_grad():
            self.score.weight.zero_()
            self.score.weight[:, : size + 1] = _SCALE
            self.score.bias.zero_()

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add ``scores`` to the features."""
        features["scores"] = self.scores(
            features["token_embeddings"], features["attention_mask"], features["token_type_ids"]
        )
        return features

    def scores(self, states: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
        """Scores (n, 1) of pairs.

        Args:
            states: (n, L, H).
            mask: (n, L), 1 on tokens and 0 on padding.
            segments: (n, L), 1 on the tokens of the second text.
        """
        with torch.autocast(states.device.type, enabled=False):
            states = states.float()
            second = (mask * segments).bool()
            first = mask.bool() & ~second
            means = _mean(states, first) * _mean(states, second)
            tokens = F.normalize(states, dim=-1)
            matches = (tokens @ tokens.transpose(1, 2)).masked_fill(~second.unsqueeze(1), -1.0)
            best = (matches.amax(dim=2) * first).sum(1, keepdim=True) / _count(first)
            scores: Tensor = self.score(torch.cat([means, best, states[:, 0]], dim=1))
            return scores

    def get_config_dict(self) -> dict[str, Any]:
        """The size of the states."""
        return {"size": (self.score.in_features - 1) // 2}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write config and weights to a folder."""
        self.save_config(output_path)
        weights = {name: value.cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, str(Path(output_path) / _WEIGHTS))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> PairSimilarity:
        """Open what `save` wrote.

        Raises:
            RuntimeError: weights are missing or of another size.
        """
        names = ("token", "cache_folder", "revision", "local_files_only")
        from_hub = {name: kwargs[name] for name in names if name in kwargs}
        config = cls.load_config(model_name_or_path, subfolder=subfolder, **from_hub)
        folder = cls.load_dir_path(model_name_or_path, subfolder=subfolder, **from_hub)
        loaded = cls(**config)
        loaded.load_state_dict(load_file(Path(folder or model_name_or_path) / _WEIGHTS))
        return loaded


def _mean(states: Tensor, chosen: Tensor) -> Tensor:
    """Means (n, H) of the chosen states, of length 1."""
    return F.normalize((states * chosen.unsqueeze(2)).sum(1) / _count(chosen), dim=-1)


def _count(chosen: Tensor) -> Tensor:
    return chosen.sum(1, keepdim=True).clamp_min(1)
