"""Cross-encoders: a sequence classifier that reads query and document together (Nogueira and Cho
2019).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from torch import Tensor, nn

from irdistill.errors import IrdistillError, ModelError, OptionError, one_line
from irdistill.modeling.hardware import Precision, best_device, choose_dtype
from irdistill.modeling.model_files import resolve_model
from irdistill.modeling.model_revisions import model_identity
from irdistill.modeling.padding import pad_rows
from irdistill.modeling.truncation import Truncation
from irdistill.modeling.weights import complete_weights
from irdistill.students.inputs import check_processing, position_limit, unused_token
from irdistill.students.pair_classifier import PairSimilarityClassifier
from irdistill.students.pair_similarity import PairSimilarity
from irdistill.students.student_loading import model_loader
from irdistill.teachers.backends import Backend, OpenVinoBackend, TorchBackend, has_openvino
from irdistill.teachers.control_tokens import BROKEN_UP
from irdistill.teachers.lightning_ir import cut_texts, is_lightning_ir, load_lightning_ir
from irdistill.teachers.pair_prompts import TRUNCATION, PairTemplate, chat_template
from irdistill.teachers.protocol import TextPair

logger = logging.getLogger(__name__)

BackendName = Literal["auto", "torch", "openvino"]
_TOKENS_CPU, _TOKENS_GPU = 8192, 131_072


class CrossEncoderTeacher:
    """A sequence classifier of Hugging Face, loaded as sentence-transformers' CrossEncoder loads
    it, that scores with raw logits.

    Models of Lightning IR (monoELECTRA) are supported too.

    The activation that the model was saved with is not applied: a sigmoid compresses the scores of
    good documents, and students learn from margins. The last linear layer is always computed in
    float32: in bfloat16 a logit has 8 bits, so that many documents would be tied.

    Attributes:
        max_length: tokens of query and document together; the longer of the two is truncated first.
        template: of a model that was saved with a chat template for the roles query and document,
            such as a classifier on a causal model; then only the document is truncated.
        prompt: the default prompt that the model was saved with; it stands before the query or is
            the system message.
        cuts: of a model of Lightning IR, the numbers of tokens to which query and document are
            truncated.
        truncation: what the model did not read so far.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        max_length: int | None = None,
        precision: Precision = "auto",
        backend: BackendName = "auto",
        label: int | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
    ) -> None:
        """Load a model.

        Args:
            max_length: tokens of query and document together (default: the model's).
            precision: ``auto`` is bfloat16 if the device has instructions for it, else float32.
            backend: ``torch``, or ``openvino`` for CPUs; ``auto`` uses openvino on CPUs if it is
                installed.
            label: the output that means *relevant*, for models with more than two; with two, the
                score is the log-odds.
        """
        device = device or str(best_device())
        self.template: PairTemplate | None = None
        self.truncation = {"pair": Truncation()}
        self.cuts: tuple[int, int] | None = None
        if is_lightning_ir(model, revision):
            self.tokenizer, network, *cuts = load_lightning_ir(model, revision)
            self.cuts, longest = (cuts[0], cuts[1]), sum(cuts) + 3
            self.prompt = ""
        else:
            encoder, network = _load(model, revision, trust_remote_code, device)
            self.prompt = encoder.prompts.get(encoder.default_prompt_name) or ""
            self.tokenizer, longest = encoder.tokenizer, int(encoder.max_seq_length or 512)
            self.template = _template(model, encoder, self.prompt)
        self.model_name, self.pinned = model, model_identity(model, revision)
        self.max_length = _length(model, max_length, longest, network)
        # Without a padding token, each batch is padded with a token that none of its texts has, so
        # that scores do not depend on the batch.
        self._config: Any = (
            network.config.get_text_config()
            if hasattr(network.config, "get_text_config")
            else network.config
        )
        self._known_padding = self._config.pad_token_id is not None
        self.labels = int(network.config.num_labels)
        self.label = _label(model, self.labels, label)
        self.head, body = take_head(network, self.labels)
        self.device = torch.device(device)
        self.dtype = choose_dtype(precision, self.device)
        self.backend = self._backend(backend, body)

    def _backend(self, name: BackendName, body: nn.Module) -> Backend:
        if name == "auto":
            suits = self.template is None and self._known_padding
            name = "openvino" if self.device.type == "cpu" and has_openvino() and suits else "torch"
        if name == "openvino" and not self._known_padding:
            raise OptionError(
                f"the model {self.model_name!r} has no padding token, which openvino needs. Use"
                " --backend torch."
            )
        if name == "openvino":
            example = self.tokenizer([["a query", "a document"], ["another", "one that is longer"]])
            return OpenVinoBackend(body, self.dtype, self._padded(dict(example)))
        if name != "torch":
            raise OptionError(
                f"the back end {name!r} is unknown; expected auto, torch or openvino."
            )
        return TorchBackend(body, self.dtype, self.device)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the scores, with back end and precision, which change the last digits."""
        return {
            "kind": "cross-encoder",
            **self.pinned,
            "max_length": self.max_length,
            "prompt": self.prompt,
            **self._truncation(),
            "activation": "none (raw logits)",
            "label": self.label if self.labels != 2 or self.label is not None else "log-odds",
            "backend": self.backend.name,
            "precision": str(self.dtype).removeprefix("torch."),
        }

    def _truncation(self) -> dict[str, Any]:
        if self.template is not None:
            return {
                "template": self.template.text,
                "truncation": TRUNCATION,
                "control_tokens": BROKEN_UP,
            }
        cuts = (
            {"query_length": self.cuts[0], "document_length": self.cuts[1]}
            if self.cuts is not None
            else {}
        )
        return {
            **cuts,
            "truncation": "longest_first",
            "truncation_side": self.tokenizer.truncation_side,
        }

    @property
    def token_budget(self) -> int:
        """Padded tokens per forward pass; on CPUs, 8192 was as fast as any larger budget, with less
        memory.
        """
        return _TOKENS_CPU if self.device.type == "cpu" else _TOKENS_GPU

    def tokenize(self, pairs: Sequence[TextPair]) -> tuple[dict[str, list[list[int]]], np.ndarray]:
        """Token ids of each pair, truncated and not padded, and their lengths."""
        if self.template is not None:
            ids, lengths = self.template.encode(
                self.tokenizer,
                [(pair.query.text, pair.text) for pair in pairs],
                self.max_length,
                special_tokens=False,
                truncation=self.truncation["pair"],
            )
            return {"input_ids": ids}, lengths
        queries = [self.prompt + pair.query.text for pair in pairs]
        documents = [pair.text for pair in pairs]
        if self.cuts is not None:
            queries = cut_texts(self.tokenizer, queries, self.cuts[0], Truncation())
            documents = cut_texts(self.tokenizer, documents, self.cuts[1], self.truncation["pair"])
        coded = self.tokenizer(
            queries,
            documents,
            truncation="longest_first",
            max_length=self.max_length,
            padding=False,
        )
        if self.cuts is None:
            self.truncation["pair"].count(
                coded, self.max_length, self.tokenizer.num_special_tokens_to_add(True)
            )
        tokens = dict(coded)
        return tokens, np.array([len(ids) for ids in tokens["input_ids"]], dtype=np.int64)

    def forward(self, tokens: dict[str, list[list[int]]], rows: np.ndarray) -> np.ndarray:
        """(n,) float32 raw logits of the pairs ``rows``."""
        return self.logits(self.features(tokens, rows))

    def features(self, tokens: dict[str, list[list[int]]], rows: np.ndarray) -> np.ndarray:
        """(n, H) float32 input of the last linear layer: the pooled last state of the pairs
        ``rows``.
        """
        batch = {key: [values[row] for row in rows.tolist()] for key, values in tokens.items()}
        return self.backend(self._padded(batch))

    def _padded(self, columns: dict[str, list[list[int]]]) -> dict[str, Tensor]:
        if not self._known_padding:  # the network looks for the last token before the padding
            self._config.pad_token_id = unused_token(columns["input_ids"])
        fill = {
            "input_ids": self._config.pad_token_id,
            "token_type_ids": self.tokenizer.pad_token_type_id,
        }
        rows = zip(*columns.values(), strict=True)
        return pad_rows([dict(zip(columns, row, strict=True)) for row in rows], fill)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(n,) float32 raw logits of pooled states (n, H)."""
        logits = features if self.head is None else features @ self.head[0].T + self.head[1]
        if self.labels == 1:
            return logits[:, 0]
        return logits[:, 1] - logits[:, 0] if self.label is None else logits[:, self.label]


def take_head(
    network: nn.Module, labels: int
) -> tuple[tuple[np.ndarray, np.ndarray] | None, nn.Module]:
    """Cut off the last linear layer, which is computed in float32 whatever the precision of the
    rest.

    Returns:
        Its weight (labels, H) and bias (labels,), or None if there is no such layer; and the
        network without it.
    """
    linear_layers = [
        name
        for name, module in network.named_modules()
        if type(module) is nn.Linear and module.out_features == labels
    ]
    if not linear_layers:
        return None, network
    parent, _, attribute = linear_layers[-1].rpartition(".")
    layer = network.get_submodule(linear_layers[-1])
    assert isinstance(layer, nn.Linear)
    weight = layer.weight.detach().float().cpu().numpy().copy()
    bias = (
        layer.bias.detach().float().cpu().numpy().copy()
        if layer.bias is not None
        else np.zeros(labels, np.float32)
    )
    setattr(network.get_submodule(parent), attribute, nn.Identity())
    return (weight, bias), network


def _load(
    model: str, revision: str | None, trust_remote_code: bool, device: str
) -> tuple[CrossEncoder, Any]:
    resolved = resolve_model(model, revision)
    try:
        with complete_weights(model):
            encoder = model_loader(CrossEncoder, resolved)(
                resolved,
                revision=revision,
                trust_remote_code=trust_remote_code,
                device=device,
                local_files_only=Path(resolved).is_dir(),
                model_kwargs={"dtype": "float32"},
            )
            network = _classifier(model, encoder)
            check_processing(encoder, model)
    except IrdistillError:
        raise
    except Exception as error:
        raise ModelError(
            f"the cross-encoder {model!r} cannot be loaded: {one_line(error, 400)}."
        ) from error
    return encoder, network


def _classifier(model: str, encoder: CrossEncoder) -> Any:
    """The network of a cross-encoder, which must be a sequence classifier that was saved as one."""
    network: Any = encoder.model
    if isinstance(encoder[-1], PairSimilarity):
        return PairSimilarityClassifier(network, encoder[-1])
    if network is None or not type(network).__name__.endswith("ForSequenceClassification"):
        raise ModelError(
            f"the model {model!r} is a {type(network).__name__}; expected a sequence classifier."
        )
    architectures = network.config.architectures or []
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        raise ModelError(
            f"the model {model!r} has no trained classification head (its architecture is"
            f" {', '.join(architectures) or 'not stated'}), so its scores would be random. Use a"
            " reranker, or use a plain encoder as a retriever (kind: retriever)."
        )
    return network


def _template(model: str, encoder: CrossEncoder, prompt: str) -> PairTemplate | None:
    """The template that sentence-transformers uses for pairs, if any; scores would differ without
    it.
    """
    if "message" not in encoder[0].modality_config:
        return None
    text = chat_template(encoder.tokenizer, prompt)
    if text is None:
        raise ModelError(
            f"the model {model!r} takes chat messages, but its chat template does not use the roles"
            " query and document. Save it with a chat template that does."
        )
    return PairTemplate(text)


def _length(model: str, max_length: int | None, longest: int, network: nn.Module) -> int:
    most = min(longest, position_limit(network) or longest)
    if max_length is None:
        return most
    if not 8 <= max_length <= most:
        raise OptionError(
            f"max_length={max_length} does not fit {model!r}; expected a number from 8 to {most}."
        )
    return max_length


def _label(model: str, labels: int, label: int | None) -> int | None:
    if label is not None and not 0 <= label < labels:
        raise OptionError(
            f"label={label} does not fit {model!r}, which has the outputs 0 to {labels - 1}."
        )
    if label is None and labels > 2:
        raise OptionError(
            f"the model {model!r} has {labels} outputs. Set label to the index of the one that"
            f" means relevant (0 to {labels - 1})."
        )
    return label
