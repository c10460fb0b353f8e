"""The cross-encoder student: a compact reranker that reads query and document together (Nogueira
and Cho 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from torch import Tensor, nn

from irdistill.errors import IrdistillError
from irdistill.modeling.model_files import model_revision, read_model_json
from irdistill.students.base import Kind, Student
from irdistill.students.layers import keep_layers
from irdistill.students.model_kinds import reads_pairs
from irdistill.students.student_loading import load_encoder
from irdistill.students.towers import set_lengths


class CrossEncoderStudent(Student):
    """A CrossEncoder of sentence-transformers with one output, the raw logit.

    It scores the pairs of the lists and nothing else: losses that compare a query with the
        documents of other lists are
    refused. It is saved without an activation, so that ``CrossEncoder.predict`` gives the scores it
    was trained on.
    """

    kind = "cross-encoder"
    sides = ("pair",)
    representation_names = frozenset({"pairs"})

    def __init__(
        self, model: CrossEncoder, source: str = "in memory", revision: str = "none"
    ) -> None:
        super().__init__(model, source, revision)
        if model.num_labels != 1:
            raise IrdistillError(_several_outputs(source, model.num_labels))
        model.activation_fn = nn.Identity()

    @classmethod
    def build(
        cls,
        backbone: str,
        layers: int | Sequence[int] | None = None,
        *,
        max_length: int | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
        seed: int = 0,
    ) -> CrossEncoderStudent:
        """Make a reranker out of an encoder or another reranker, which keeps its head.

        Args:
            backbone: model folder, ``package:`` path or hub id.
            layers: keep this many encoder layers, evenly spaced, or exactly those of a list.
            max_length: truncate query and document together to so many tokens, the longer one
                first.
            seed: of the head's weights, where the backbone has none.

        Raises:
            IrdistillError: the backbone cannot be loaded or shortened so, has a head with several
                outputs, or a length is out of its range.
        """
        outputs = _trained_outputs(backbone, revision)
        if outputs not in (None, 1):
            raise IrdistillError(_several_outputs(backbone, outputs))
        model = load_encoder(
            backbone,
            revision=revision,
            trust_remote_code=trust_remote_code,
            device=device,
            library=CrossEncoder,
            new_head=True,
            seed=seed,
            num_labels=1,
        )
        student = cls(model, backbone, model_revision(backbone, revision))
        modules = student._transformers("pair")
        if layers is not None:
            for module in modules:
                keep_layers(module.model, layers)
        set_lengths((), modules, max_length, None)
        return student

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
    ) -> CrossEncoderStudent:
        """Open a saved student, or any CrossEncoder of sentence-transformers with one output.

        Raises:
            IrdistillError: it cannot be loaded, or has more outputs.
        """
        name = str(model)
        encoder = load_encoder(
            name,
            revision=revision,
            trust_remote_code=trust_remote_code,
            device=device,
            library=CrossEncoder,
        )
        return cls(encoder, name, model_revision(name, revision))

    @property
    def similarity(self) -> str:
        return "logit"

    def _prompt(self, kind: Kind) -> str | None:
        """The default prompt that the model was saved with; it stands before the query, as in
        ``CrossEncoder.predict``.
        """
        name = self.model.default_prompt_name
        return None if name is None else self.model.prompts.get(name)

    def embed(self, features: Mapping[str, Any], kind: Kind = "pair") -> Tensor:
        """Logits (n,) with gradients of pairs; (n, 1 + H) with
        ``keep_representations``: behind the logit
        stands the pooled state, which is what the last linear layer is given.
        """
        found: Tensor = super().embed(features, kind)
        return found

    def _embed(self, features: Mapping[str, Any], kind: Kind) -> Tensor:
        if not self.keep_representations:
            scores: Tensor = self.model({**features, "modality": "text"})["scores"]
            return scores.float().reshape(-1)
        seen: list[Tensor] = []
        hook = self._head().register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        try:
            scores = self.model({**features, "modality": "text"})["scores"].float().reshape(-1, 1)
        finally:
            hook.remove()
        if len(seen) != 1 or seen[0].shape[:-1] != (len(scores),):
            raise IrdistillError(
                f"the model {self.source!r} pools behind its last linear layer, so it has no pooled"
                " state."
            )
        return torch.cat([scores, seen[0].float()], dim=1)

    def _head(self) -> nn.Module:
        """The last linear layer, which makes the logit."""
        found = [
            module
            for module in self.model.modules()
            if isinstance(module, nn.Linear) and module.out_features == 1
        ]
        if not found:
            raise IrdistillError(
                f"the model {self.source!r} has no linear layer with one output at its end."
            )
        return found[-1]

    def scores(
        self, queries: Any, documents: Any, index: Tensor, every: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        raise IrdistillError(
            "a cross-encoder encodes no query and no document by itself; score pairs with embed."
        )

    @torch.inference_mode()
    def predict(self, pairs: Sequence[tuple[str, str]], batch_size: int = 32) -> Tensor:
        """Logits (n,) of pairs of texts, as ``CrossEncoder.predict`` gives them."""
        found: Tensor = self.model.predict(
            list(pairs), batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False
        )
        return found.float().cpu()


def _trained_outputs(model: str, revision: str | None) -> int | None:
    """How many outputs the trained head of a classifier has; None where it has none."""
    if not reads_pairs(model, revision):
        return None
    config: dict[str, Any] = read_model_json(model, "config.json", revision) or {}
    if "num_labels" in config:
        return int(config["num_labels"])
    return len(config.get("id2label") or config.get("label2id") or {0: "", 1: ""})


def _several_outputs(model: str, outputs: int | None) -> str:
    return (
        f"the model {model!r} has {outputs} outputs; a cross-encoder student needs one, the score."
        " Start from a plain encoder, or a reranker with one output. (A teacher may have two, for"
        " the log-odds, or more, with --label.)"
    )
