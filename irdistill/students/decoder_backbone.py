"""Causal language models as backbones of cross-encoders (RankLLaMA, Ma et al. 2023,
arXiv:2310.08319).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing

from irdistill.errors import IrdistillError, MissingExtraError, ModelError, one_line
from irdistill.modeling.library_output import quiet_libraries
from irdistill.modeling.model_files import resolve_model, split_gguf
from irdistill.modeling.weights import complete_weights
from irdistill.students.inputs import ensure_padding_token
from irdistill.students.layers import keep_layers
from irdistill.students.model_kinds import ModelDescription
from irdistill.students.student_options import StudentOptions


def is_decoder(backbone: ModelDescription) -> bool:
    """Whether a backbone is a causal language model without modules of sentence-transformers."""
    architectures = backbone.architectures
    causal = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures)
    return backbone.name.endswith(".gguf") or (causal and not backbone.has_modules)


def write_decoder(
    model: str,
    out: Path,
    options: StudentOptions,
    segments: bool = False,
) -> None:
    """Write the layers of a causal language model, and a tokenizer that separates two texts.

    A pair is read as *begin, query, end, document, end*, with the model's tokens for the beginning
    and the end of a text. The head of the language model is left out.

    Args:
        model: folder, hub id, or a GGUF file, whose weights are unpacked to float32.
        options: its revision, and the layers to keep.
        segments: mark the tokens of the second text, as `PairSimilarity` needs.

    Raises:
        ModelError: it cannot be loaded, or its tokenizer has no token for the end of a text.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place, file = split_gguf(resolve_model(model, options.revision))
    if file and find_spec("gguf") is None:
        raise MissingExtraError("gguf", "llm", f"the model {model!r}")
    arguments: dict[str, Any] = {
        "revision": options.revision,
        "trust_remote_code": options.trust_remote_code,
        "local_files_only": Path(place).is_dir(),
        **({"gguf_file": file} if file else {}),
    }
    try:
        with complete_weights(model):
            tokenizer = AutoTokenizer.from_pretrained(place, **arguments)
            network = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **arguments)
    except IrdistillError:
        raise
    except Exception as error:
        raise ModelError(
            f"the language model {model!r} cannot be loaded: {one_line(error, 400)}."
        ) from error
    tokenizer = _pair_tokenizer(tokenizer, model, segments)
    body = network.base_model
    if options.layers is not None:
        keep_layers(body, options.layers)
    body.config.architectures = [type(body).__name__]
    body.config.pad_token_id = tokenizer.pad_token_id
    if file:
        del body.config.quantization_config
    with quiet_libraries():
        body.save_pretrained(out)
        tokenizer.save_pretrained(out)


def _pair_tokenizer(tokenizer: Any, model: str, segments: bool) -> Any:
    """A tokenizer that puts tokens around and between two texts.

    It is of the general class: those of some models restore their own tokens when they are loaded.
    """
    from transformers import PreTrainedTokenizerFast

    begin, end = tokenizer.bos_token, tokenizer.eos_token
    if end is None or not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer of the language model {model!r} has no tokenizer.json or no token for"
            " the end of a text (eos_token), which separates query and document; use another"
            " backbone."
        )
    rules = tokenizer.backend_tokenizer
    start = "" if begin is None else f"{begin} "
    rules.post_processor = TemplateProcessing(
        single=f"{start}$A {end}",
        pair=f"{start}$A {end} $B:1 {end}:1",
        special_tokens=[
            (token, tokenizer.convert_tokens_to_ids(token))
            for token in dict.fromkeys((begin, end))
            if token is not None
        ],
    )
    # a classifier reads the last token that is not padding, so the end of a text is no padding
    padding = None if tokenizer.pad_token == end else tokenizer.pad_token
    plain = PreTrainedTokenizerFast(
        tokenizer_object=rules,
        bos_token=begin,
        eos_token=end,
        unk_token=tokenizer.unk_token,
        pad_token=padding,
        model_input_names=[
            "input_ids",
            *(["token_type_ids"] if segments else []),
            "attention_mask",
        ],
    )
    ensure_padding_token(plain, model)
    return plain
