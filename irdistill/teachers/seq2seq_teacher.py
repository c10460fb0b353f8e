"""Encoder-decoder rerankers: monoT5 (Nogueira et al. 2020, arXiv:2003.06713) and RankT5 (Zhuang et
al. 2022, arXiv:2210.10634).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from irdistill.modeling.hardware import Precision
from irdistill.teachers.pair_prompts import PairTemplate
from irdistill.teachers.prompted_teacher import PromptedTeacher

MONO_T5 = "Query: {query} Document: {document} Relevant:"


class Seq2SeqTeacher(PromptedTeacher):
    """A T5-like model whose encoder reads the prompt and whose decoder takes one step.

    monoT5 answers *true* or *false*. Its score is the difference of the two logits, which is the
    log-odds of the probability that the paper ranks by. RankT5 is trained on the logit of one spare
    token, ``<extra_id_10>``.

    The authors' programs truncate the whole prompt at its end. Here a document that is too long is
    truncated inside the prompt, so that the model always reads the words after it.
    """

    kind = "seq2seq"
    architectures = ("ForConditionalGeneration", "WithLMHeadModel")
    special_tokens = True
    usual_length = 512

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        template: str = MONO_T5,
        positive: str = "▁true",
        negative: str | None = "▁false",
        max_length: int | None = None,
        precision: Precision = "auto",
        trust_remote_code: bool = False,
        device: str | None = None,
    ) -> None:
        """Load a model.

        Args:
            template: the prompt, with ``{query}`` and ``{document}``.
            positive: token as the vocabulary writes it.
            negative: token as the vocabulary writes it; if empty, the score is the logit of
                ``positive``.
            max_length: tokens of the prompt (default: 512).
            precision: ``auto`` is bfloat16 if the device has instructions for it, else float32. T5
                overflows in float16.
        """
        super().__init__(model, revision, max_length, precision, trust_remote_code, device)
        self._ask(PairTemplate(template), positive, negative or None)
        self.start = int(self.network.config.decoder_start_token_id or 0)

    @classmethod
    def auto_class(cls) -> Any:
        """``AutoModelForSeq2SeqLM``."""
        from transformers import AutoModelForSeq2SeqLM

        return AutoModelForSeq2SeqLM

    def answer(self, ids: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Logits at the decoder's first position."""
        start = torch.full((len(ids), 1), self.start, dtype=torch.long, device=ids.device)
        logits: Tensor = self.network(
            input_ids=ids, attention_mask=mask, decoder_input_ids=start, use_cache=False
        ).logits
        return logits[:, 0]
