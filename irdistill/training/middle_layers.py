"""Pre-training on a middle layer of a teacher, on texts of which a share of the tokens is left out.

Masked autoencoders enable efficient knowledge distillers (DMAE, Bai et al. 2022, arXiv:2208.12256).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from irdistill.errors import ModelError, OptionError
from irdistill.students.layers import find_layers, keep_layers
from irdistill.students.student_loading import load_transformer


def default_layer(layers: int) -> int:
    """The layer at three quarters of the depth, as in the paper.

    Examples:
        >>> [default_layer(layers) for layers in (1, 2, 6, 12, 24)]
        [1, 1, 4, 9, 18]
    """
    return max(1, layers * 3 // 4)


def load_lower_layers(model: str, layer: int | None, tokenizer: Any) -> Any:
    """The network of a teacher up to a layer; the layers above are removed, so none of them runs.

    Args:
        layer: number of layers that run; three quarters of them by default.
        tokenizer: of the student, which gives both models their tokens.

    Raises:
        OptionError: the teacher has fewer layers.
        ModelError: it has another vocabulary than the student, or takes no positions.
    """
    transformer = load_transformer(model)
    if transformer.tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ModelError(
            f"the teacher {model!r} has another vocabulary than the backbone, and its layers read"
            " the backbone's tokens. Take a backbone with the teacher's tokenizer; --config and"
            " --random-init change its size."
        )
    network = transformer.model
    total = len(find_layers(network)[2])
    if layer is None:
        layer = default_layer(total)
    if layer > total:
        raise OptionError(
            f"teacher_layer is {layer}, and the teacher {model!r} has {total} layers."
        )
    keep_layers(network, list(range(layer)))
    check_positions(network, model)
    return network.eval().requires_grad_(False)


def check_positions(network: Any, model: str) -> None:
    """Refuse a network that cannot be told the positions of the tokens that are left.

    Raises:
        ModelError: it takes none.
    """
    if "position_ids" not in inspect.signature(network.forward).parameters:
        raise ModelError(
            f"{model!r} ({type(network).__name__}) takes no position_ids, and tokens are left out"
            " between others. Use a model such as BERT, RoBERTa, MPNet or ModernBERT."
        )


def first_position(network: Any) -> int:
    """The position of the first token: 0, or after the padding's in RoBERTa and MPNet."""
    embeddings = getattr(network, "embeddings", None)
    padding = getattr(embeddings, "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


def leave_out(
    rows: Sequence[Mapping[str, Any]], share: float, random: np.random.Generator, padding: int
) -> dict[str, Tensor]:
    """The tokens (B, L) that are left of some texts, with their positions in the whole texts.

    Special tokens stay, and at least one other token of each text.

    Args:
        rows: ``input_ids`` and ``special_tokens_mask`` of each text.
        share: of the tokens that are left out.
        padding: the id of the padding.

    Examples:
        >>> row = {"input_ids": [2, 7, 8, 9, 3], "special_tokens_mask": [1, 0, 0, 0, 1]}
        >>> left = leave_out([row], 0.66, np.random.default_rng(0), 0)
        >>> left["input_ids"].shape, left["position_ids"][0, [0, -1]].tolist()
        (torch.Size([1, 3]), [0, 4])
    """
    kept = []
    for row in rows:
        special = np.asarray(row["special_tokens_mask"], dtype=bool)
        places = np.flatnonzero(~special)
        left = max(min(1, len(places)), len(places) - round(share * len(places)))
        kept.append(np.sort(np.r_[np.flatnonzero(special), random.permutation(places)[:left]]))
    shape = len(rows), max(map(len, kept))
    tokens = np.full(shape, padding, dtype=np.int64)
    positions, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for i, (row, places) in enumerate(zip(rows, kept, strict=True)):
        tokens[i, : len(places)] = np.asarray(row["input_ids"])[places]
        positions[i, : len(places)] = places
        mask[i, : len(places)] = 1
    return {
        "input_ids": torch.from_numpy(tokens),
        "attention_mask": torch.from_numpy(mask),
        "position_ids": torch.from_numpy(positions),
    }


class MiddleLayerLoss(nn.Module):
    """``mean (P h - t)^2`` of the student's last states h and the states t of a teacher's layer.

    The mean goes over the tokens that are left and the dimensions of t. P is a linear layer that
    is trained with the student and not saved with it; the identity if the widths are equal. Both
    models read the same tokens.

    Args:
        student: a masked language model, whose head does not learn here.
        teacher: the network of `load_lower_layers`.
    """

    def __init__(self, student: Any, teacher: Any, device: torch.device, seed: int) -> None:
        super().__init__()
        self.student = student
        width, target = student.config.hidden_size, teacher.config.hidden_size
        torch.manual_seed(seed)
        self.projection = nn.Identity() if width == target else nn.Linear(width, target)
        # In a tuple it is no module of this one: it is neither trained nor stored in checkpoints.
        self._teacher = (teacher.to(device),)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor
    ) -> SimpleNamespace:
        """The loss of a batch (B, L), as the attribute ``loss``."""

        def states(network: Any) -> Tensor:
            """The states (tokens, width) of the tokens that are no padding."""
            output = network(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids + first_position(network),
            )
            return output.last_hidden_state[attention_mask.bool()]

        with torch.no_grad():
            target = states(self._teacher[0]).float()
        learned = self.projection(states(self.student.base_model)).float()
        return SimpleNamespace(loss=nn.functional.mse_loss(learned, target))
