"""Cross-encoders with `PairSimilarity` as sequence classifiers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from irdistill.errors import ModelError
from irdistill.students.pair_similarity import PairSimilarity


class PairSimilarityClassifier(nn.Module):
    """An encoder with `PairSimilarity` behind it, called as a sequence classifier."""

    def __init__(self, backbone: nn.Module, head: PairSimilarity) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.config: Any = backbone.config

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> SequenceClassifierOutput:
        """Logits (n, 1) of pairs."""
        states = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        logits = self.head.scores(states, attention_mask, token_type_ids)
        return SequenceClassifierOutput(logits=logits)


def check_segments(tokenizer: Any, model: str) -> None:
    """Refuse a tokenizer that does not mark the tokens of the second text.

    Raises:
        ModelError: it does not.
    """
    segments = tokenizer("a", "b").get("token_type_ids")
    if not segments or 1 not in segments:
        raise ModelError(
            f"the backbone {model!r} does not mark which of two texts a token belongs to"
            " (token_type_ids), which head='similarity' needs; use a backbone of the BERT family,"
            " or leave head out."
        )
