"""Rerankers that are causal language models: bge-reranker-v2-gemma, Qwen3-Reranker, mxbai-rerank-v2
and their like.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from irdistill.errors import IrdistillError
from irdistill.modeling.hardware import Precision
from irdistill.modeling.model_files import read_model_json
from irdistill.students.model_kinds import describe_model
from irdistill.teachers.pair_prompts import PairTemplate, chat_template
from irdistill.teachers.prompted_teacher import PromptedTeacher


class CausalTeacher(PromptedTeacher):
    """A causal language model that was trained to answer one question, by the logits of the
    answer's first token.

    sentence-transformers loads such models as a CrossEncoder with a ``LogitScore`` module. What
    such a model was saved with (a chat template for the roles query and document, and the two
    tokens) is taken from there where the card is silent, and gives the same scores. The rest is
    done here, for three reasons: its head is computed in the model's precision, for the whole
    vocabulary, where this one is float32 and two rows; it makes room for a template's end by
    overwriting the last tokens of a cut prompt, where this one leaves out tokens of the document
    alone; and batches by token budget need the tokens before the model.

    Prompts are padded on the right and read at their last token: a causal model does not see what
        comes after, so that
    this is exact, for learned positions as well.
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
            model: folder, ``package:`` path or hub id.
            template: the whole prompt with its special tokens, ``{query}`` and ``{document}``; the
                tokenizer adds none. Where None, the model's own chat template.
            instruction: put in place of ``{instruction}``.
            positive, negative: tokens as they stand in the vocabulary; ``positive`` alone gives its
                logit. Where both are None, those the model was saved with.
            max_length: 1024 tokens where None, or as many as the model knows positions.
            precision: ``auto`` is bfloat16 where the device has instructions for it, else float32.

        Raises:
            IrdistillError: the model cannot be loaded or is of another kind, or template or tokens
                are missing or do not fit.
        """
        super().__init__(model, revision, max_length, precision, trust_remote_code, device)
        description = describe_model(model, revision)
        applies = template is None and description.saved_as == "CrossEncoder"
        self.prompt = description.default_prompt if applies else ""
        template = template or chat_template(self.tokenizer, self.prompt)
        if template is None:
            raise IrdistillError(
                f"the model {model!r} has no chat template for the roles query and document; give"
                " the prompt it was trained with in a card (settings: template, positive,"
                " negative), as teachers/qwen3-reranker-0.6b.yaml does."
            )
        if positive is None:
            if negative is not None:
                raise IrdistillError(
                    f"of {model!r} the token negative={negative!r} was given without positive; give"
                    " both."
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
        raise IrdistillError(
            f"the model {self.model_name!r} does not say which tokens mean relevant and not"
            " relevant; give them in a card (settings: positive, negative)."
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
