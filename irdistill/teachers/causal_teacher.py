"""Rerankers that are causal language models: bge-reranker-v2-gemma, Qwen3-Reranker, mxbai-rerank-v2
and others.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from irdistill.errors import OptionError
from irdistill.modeling.hardware import Precision
from irdistill.modeling.model_files import read_model_json
from irdistill.students.model_kinds import describe_model
from irdistill.teachers.pair_prompts import PairTemplate, chat_template
from irdistill.teachers.prompted_teacher import PromptedTeacher


class CausalTeacher(PromptedTeacher):
    """A causal language model that was trained to answer one question, read from the logits of the
    answer's first token.

    sentence-transformers loads such models as a CrossEncoder with a ``LogitScore`` module. What
    such a model was saved with (a chat template for the roles query and document, and the two
    tokens) is used if the card does not set it, and gives the same scores. There are three
    differences. The head is computed here in float32 for two tokens, there in the model's precision
    for the whole vocabulary. A prompt that is too long loses tokens of the document here; there its
    last tokens are overwritten by the template's end. And batches by token budget need the tokens
    before the model.

    Prompts are padded on the right and read at their last token. This is exact, also with learned
    positions, because a causal model does not see what comes after.
    """

    kind = "causal"
    architectures = ("ForCausalLM", "LMHeadModel")
    special_tokens = False
    usual_length = 1024

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        template: str | None = None,
        instruction: str = "",
        positive: str | None = None,
        negative: str | None = None,
        max_length: int | None = None,
        precision: Precision = "auto",
        trust_remote_code: bool = False,
        device: str | None = None,
    ) -> None:
        """Load a model.

        Args:
            template: the whole prompt with its special tokens, ``{query}`` and ``{document}``; the
                tokenizer adds none. Default: the model's chat template.
            instruction: replaces ``{instruction}``.
            positive: token as the vocabulary writes it; without ``negative`` its logit is the
                score. Default: the tokens that the model was saved with.
            negative: token as the vocabulary writes it.
            max_length: tokens of the prompt (default: 1024, or the model's number of positions).
            precision: ``auto`` is bfloat16 if the device has instructions for it, else float32.
        """
        super().__init__(model, revision, max_length, precision, trust_remote_code, device)
        description = describe_model(model, revision)
        applies = template is None and description.saved_as == "CrossEncoder"
        self.prompt = description.default_prompt if applies else ""
        template = template or chat_template(self.tokenizer, self.prompt)
        if template is None:
            raise OptionError(
                f"the model {model!r} has no chat template for the roles query and document. Set"
                " the prompt it was trained with in a card (settings: template, positive,"
                " negative), as teachers/qwen3-reranker-0.6b.yaml does."
            )
        if positive is None:
            if negative is not None:
                raise OptionError(
                    f"the model {model!r} got negative={negative!r} without positive. Set both."
                )
            positive, negative = self._saved_tokens(revision)
        self._ask(PairTemplate(template, instruction), positive, negative or None)

    def _saved_tokens(self, revision: str | None) -> tuple[str, str | None]:
        for module in read_model_json(self.model_name, "modules.json", revision) or []:
            if str(module["type"]).endswith(".LogitScore"):
                saved = (
                    read_model_json(self.model_name, f"{module['path']}/config.json", revision)
                    or {}
                )
                numbers = [saved.get("true_token_id"), saved.get("false_token_id")]
                names = [
                    None if number is None else self.tokenizer.convert_ids_to_tokens(number)
                    for number in numbers
                ]
                if names[0] is not None:
                    return names[0], names[1]
        raise OptionError(
            f"the model {self.model_name!r} does not state which tokens mean relevant and not"
            " relevant. Set them in a card (settings: positive, negative)."
        )

    @classmethod
    def auto_class(cls) -> Any:
        """``AutoModelForCausalLM``."""
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM

    def answer(self, ids: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Logits at each prompt's last token."""
        logits: Tensor = self.network(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits[torch.arange(len(ids), device=ids.device), lengths - 1]
