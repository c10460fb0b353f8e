"""The cross-encoder student: a compact reranker of pairs (Nogueira and Cho 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers import CrossEncoder
from torch import Tensor, nn

from irdistill.errors import ModelError, OptionError
from irdistill.modeling.hardware import best_device
from irdistill.modeling.model_revisions import model_revision
from irdistill.students.decoder_backbone import is_decoder, write_decoder
from irdistill.students.layers import keep_layers
from irdistill.students.model_kinds import ModelDescription, describe_model
from irdistill.students.pair_classifier import check_segments
from irdistill.students.pair_similarity import PairSimilarity
from irdistill.students.student_base import Student
from irdistill.students.student_loading import load_encoder, load_transformer
from irdistill.students.student_options import StudentOptions
from irdistill.students.tower_model import TextKind
from irdistill.students.towers import set_lengths


class CrossEncoderStudent(Student):
    """A CrossEncoder of sentence-transformers with one output, the raw logit.

    It scores the pairs of the lists only, so losses with in-batch negatives are refused. It is
    saved without an activation: ``CrossEncoder.predict`` returns the scores it was trained on. A
    backbone that is a reranker with one output keeps its head. With ``head="similarity"`` the
    score begins as the similarity of both texts, see `PairSimilarity`. A causal language model
    gets a new head on its last token.

    Examples:
        >>> import irdistill as ird
        >>> backbone = "microsoft/MiniLM-L12-H384-uncased"
        >>> student = ird.CrossEncoderStudent(backbone, layers=4)  # doctest: +SKIP
        >>> pair = ("delete a folder", "shutil.rmtree removes a directory tree")
        >>> student.predict([pair])  # doctest: +SKIP
    """

    kind = "cross-encoder"
    sides = ("pair",)
    library = CrossEncoder
    representation_names = frozenset({"pairs"})

    def _set_model(self, model: Any, source: str, revision: str) -> None:
        super()._set_model(model, source, revision)
        if model.num_labels != 1:
            raise ModelError(_several_outputs(source, model.num_labels))
        model.activation_fn = nn.Identity()
        for layer in self._heads()[-1:]:
            layer.register_forward_hook(_in_float32)

    def _build(self, backbone: str, options: StudentOptions, device: str | None, seed: int) -> None:
        description = describe_model(backbone, options.revision)
        if description.classifier_outputs not in (None, 1):
            raise ModelError(_several_outputs(backbone, description.classifier_outputs))
        similarity = _needs_similarity(description, options.head)
        build = _with_similarity if similarity else _with_classifier
        if is_decoder(description):
            with TemporaryDirectory() as folder:
                write_decoder(backbone, Path(folder), options, similarity)
                model = build(folder, options, device, seed)
        else:
            model = build(backbone, options, device, seed)
        self._set_model(model, backbone, model_revision(backbone, options.revision))
        modules = self._transformers("pair")
        if options.layers is not None and not is_decoder(description):
            for module in modules:
                keep_layers(module.model, options.layers)
        set_lengths((), modules, options.max_length)

    @property
    def similarity(self) -> str:
        """``logit``."""
        return "logit"

    def _prompt(self, kind: TextKind) -> str | None:
        """The saved default prompt, put before the query as in ``CrossEncoder.predict``."""
        name = self.model.default_prompt_name
        return None if name is None else self.model.prompts.get(name)

    def embed(self, features: Mapping[str, Any], kind: TextKind = "pair") -> Tensor:
        """Logits (n,) of pairs with gradients.

        With ``keep_representations`` (n, 1 + H): the pooled state, which is the input of the last
        linear layer, follows the logit.
        """
        result: Tensor = super().embed(features, kind)
        return result

    def _embed(self, features: Mapping[str, Any], kind: TextKind) -> Tensor:
        if not self.keep_representations:
            return self._logits(features)
        states: list[Tensor] = []
        hook = self._last_layer().register_forward_pre_hook(
            lambda module, inputs: states.append(inputs[0])
        )
        try:
            logits = self._logits(features)
        finally:
            hook.remove()
        if len(states) != 1 or states[0].shape[:-1] != logits.shape:
            raise ModelError(
                f"the model {self.source!r} pools behind its last linear layer, so it has no pooled"
                " state."
            )
        return torch.cat([logits.unsqueeze(1), states[0].float()], dim=1)

    def _logits(self, features: Mapping[str, Any]) -> Tensor:
        scores: Tensor = self.model({**features, "modality": "text"})["scores"]
        return scores.float().reshape(-1)

    def _last_layer(self) -> nn.Module:
        """The linear layer that makes the logit."""
        layers = self._heads()
        if not layers:
            raise ModelError(
                f"the model {self.source!r} has no linear layer with one output at its end."
            )
        return layers[-1]

    def _heads(self) -> list[nn.Linear]:
        """The linear layers with one output, in order."""
        return [
            module
            for module in self.model.modules()
            if isinstance(module, nn.Linear) and module.out_features == 1
        ]

    def scores(
        self, queries: Any, documents: Any, index: Tensor, every: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Not available: a cross-encoder has no vectors of queries and documents."""
        raise OptionError(
            "a cross-encoder does not encode queries and documents separately; score pairs with"
            " embed."
        )

    @torch.inference_mode()
    def predict(self, pairs: Sequence[tuple[str, str]], batch_size: int = 32) -> Tensor:
        """Logits (n,) of pairs of texts, as ``CrossEncoder.predict`` gives them."""
        logits: Tensor = self.model.predict(
            list(pairs), batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False
        )
        return logits.float().cpu()


def _needs_similarity(backbone: ModelDescription, head: str | None) -> bool:
    """Whether a new `PairSimilarity` is put on a backbone.

    Raises:
        OptionError: the backbone has a trained head of another kind.
    """
    saved = None
    if backbone.reads_pairs:
        saved = "similarity" if PairSimilarity.__name__ in backbone.modules else "classifier"
    if saved is not None and head not in (None, saved):
        raise OptionError(
            f"head={head!r} was given, but the backbone {backbone.name!r} is a cross-encoder with a"
            f" trained {saved} head; leave head out to keep it, or start from an encoder."
        )
    return saved is None and head == "similarity"


def _with_classifier(
    backbone: str, options: StudentOptions, device: str | None, seed: int
) -> CrossEncoder:
    """A cross-encoder with the head of its backbone, or a new one."""
    model: CrossEncoder = load_encoder(
        backbone,
        revision=options.revision,
        trust_remote_code=options.trust_remote_code,
        device=device,
        library=CrossEncoder,
        new_head=True,
        seed=seed,
        num_labels=1,
    )
    return model


def _with_similarity(
    backbone: str, options: StudentOptions, device: str | None, seed: int
) -> CrossEncoder:
    """A cross-encoder of an encoder's layers and a new `PairSimilarity`."""
    first = load_transformer(
        backbone, revision=options.revision, trust_remote_code=options.trust_remote_code
    )
    check_segments(first.tokenizer, backbone)
    first.model.config.num_labels = 1
    head = PairSimilarity(first.get_embedding_dimension())
    model = CrossEncoder(modules=[first, head], device=device or str(best_device()))
    return model.float().eval()


def _in_float32(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    """The logits (n, 1) in float32, also where the other layers compute in bfloat16.

    A logit of bfloat16 has 8 significant bits, which gives many candidates of a list the same
    score.
    """
    if output.dtype == torch.float32:
        return None
    assert isinstance(layer, nn.Linear)
    bias = None if layer.bias is None else layer.bias.float()
    with torch.autocast(output.device.type, enabled=False):
        return F.linear(inputs[0].float(), layer.weight.float(), bias)


def _several_outputs(model: str, outputs: int | None) -> str:
    return (
        f"the model {model!r} has {outputs} outputs; a cross-encoder student needs one, the score."
        " Start from a plain encoder, or a reranker with one output. (A teacher may have two, for"
        " the log-odds, or more, with --label.)"
    )
