"""The dense student: one vector a text, over a sentence-transformers model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import xxhash
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router, Transformer
from torch import Tensor, nn

from irdistill.batching import TokenBudget, run_batches
from irdistill.errors import IrdistillError
from irdistill.files import make_folder, read_json, write_json
from irdistill.hardware import Precision, choose_dtype
from irdistill.models import model_revision
from irdistill.progress import progress
from irdistill.students.layers import keep_layers
from irdistill.students.loading import load_encoder
from irdistill.students.towers import add_query_tower, set_lengths

logger = logging.getLogger(__name__)

Kind = Literal["query", "document"]
Similarity = Literal["cosine", "dot"]
Tokens = dict[str, list[Any]]
_SIDE_FILE = "irdistill_student.json"
_TOKENS_CPU, _TOKENS_GPU = 8192, 65536


class DenseStudent:
    """A SentenceTransformer with the three things distillation needs: gradients, batches and an identity.

    Attributes:
        model: the sentence-transformers model, single or with a Router of a query and a document tower.
        source: the name it was built or loaded from.
        revision: hub commit, or digest of the weight files, of ``source``.
    """

    def __init__(self, model: SentenceTransformer, source: str = "in memory", revision: str = "none") -> None:
        self.model = model
        self.source = source
        self.revision = revision
        if model.similarity_fn_name not in ("cosine", "dot"):
            raise IrdistillError(
                f"the model {source!r} compares vectors by {model.similarity_fn_name!r}; cosine and dot are "
                "supported. Set similarity_fn_name in its config_sentence_transformers.json."
            )
        for kind in ("query", "document"):
            first = type(self.tower(kind)[0])
            if not issubclass(first, Transformer):
                raise IrdistillError(
                    f"the {kind} side of {source!r} begins with {first.__name__}; a dense student needs a "
                    "sentence-transformers Transformer module there."
                )

    # -- making, loading and saving -------------------------------------------------------------------------

    @classmethod
    def build(cls, backbone: str, layers: int | Sequence[int] | None = None,
              query_layers: int | Sequence[int] | None = None, freeze_documents: bool = False, *,
              max_length: int | None = None, max_query_length: int | None = None,
              similarity: Similarity | None = None, revision: str | None = None,
              trust_remote_code: bool = False, device: str | None = None) -> DenseStudent:
        """Make a student out of a backbone.

        Args:
            backbone: model folder, ``package:`` path or hub id; a plain encoder gets mean pooling.
            layers: keep this many encoder layers, evenly spaced with the first and the last among them, or
                exactly those of a list.
            query_layers: give queries a tower of their own, a copy of the (already shortened) backbone with
                these layers; documents keep the backbone, which is then frozen.
            freeze_documents: freeze the document side; without ``query_layers`` the query tower is a whole
                copy.
            max_length: truncate texts to so many tokens.
            max_query_length: truncate queries to so many tokens.
            similarity: ``cosine`` or ``dot``; default is what the backbone states, else cosine.

        Raises:
            IrdistillError: the backbone cannot be loaded or shortened so, or a length is out of its range.
        """
        model = load_encoder(backbone, revision=revision, trust_remote_code=trust_remote_code, device=device)
        student = cls(model, backbone, model_revision(backbone, revision))
        if layers is not None:
            for module in student._transformers("document"):
                keep_layers(module.model, layers)
        if query_layers is not None or freeze_documents:
            student = cls(add_query_tower(model, query_layers), student.source, student.revision)
            student._freeze("document")
        if similarity is not None:
            student.model.similarity_fn_name = similarity
        set_lengths(student._transformers("query"), student._transformers("document"),
                    max_length, max_query_length)
        return student

    @classmethod
    def load(cls, model: str | Path, *, revision: str | None = None, trust_remote_code: bool = False,
             device: str | None = None) -> DenseStudent:
        """Open a saved student, or any dense sentence-transformers model.

        Raises:
            IrdistillError: it cannot be loaded, or is of a kind that gives no single vector.
        """
        name = str(model)
        encoder = load_encoder(name, revision=revision, trust_remote_code=trust_remote_code, device=device)
        student = cls(encoder, name, model_revision(name, revision))
        side = Path(name) / _SIDE_FILE
        if side.is_file():
            for kind in read_json(side).get("frozen", []):
                student._freeze(kind)
        return student

    def save(self, path: str | Path) -> None:
        """Write the model as sentence-transformers does (safetensors), and which towers are frozen."""
        folder = make_folder(path)
        self.model.save(str(folder), create_model_card=False)
        if isinstance(self.model[0], Router):
            frozen = [kind for kind in ("query", "document")
                      if not any(p.requires_grad for module in self.tower(kind) for p in module.parameters())]
            write_json(folder / _SIDE_FILE, {"frozen": frozen})

    def _freeze(self, kind: Kind) -> None:
        for module in self.tower(kind):
            module.requires_grad_(False)

    # -- what it is -----------------------------------------------------------------------------------------

    def tower(self, kind: Kind) -> list[nn.Module]:
        """The modules that a query or a document goes through, in order."""
        first = self.model[0]
        if not isinstance(first, Router):
            return list(self.model)
        return [*first.sub_modules[first._resolve_route(task=kind, modality="text")], *list(self.model)[1:]]

    def _transformers(self, kind: Kind) -> list[Transformer]:
        return [module for module in self.tower(kind) if isinstance(module, Transformer)]

    @property
    def device(self) -> torch.device:
        """Where the model's weights lie."""
        return next(self.model.parameters()).device

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return int(self.model.get_embedding_dimension())

    @property
    def similarity(self) -> Similarity:
        """How two vectors are compared."""
        return "cosine" if self.model.similarity_fn_name == "cosine" else "dot"

    def max_length(self, kind: Kind) -> int:
        """The number of tokens to which a text of this kind is truncated."""
        first = self._transformers(kind)[0]
        own = first.query_length if kind == "query" else first.document_length
        return int(own or first.max_seq_length or 512)

    def size(self) -> dict[str, int]:
        """Parameters and layers of the query tower, parameters of the document tower and of both, the bytes."""
        def count(modules: Iterable[nn.Module]) -> int:
            return sum(p.numel() for p in {id(p): p for m in modules for p in m.parameters()}.values())

        return {
            "query_parameters": count(self.tower("query")),
            "query_layers": sum(module.model.config.num_hidden_layers for module in self._transformers("query")),
            "document_parameters": count(self.tower("document")),
            "parameters": count([self.model]),
            "bytes": sum(p.numel() * p.element_size() for p in self.model.parameters()),
        }

    def weights_digest(self, kind: Kind | None = None) -> str:
        """A fingerprint of the weights as they are now, whatever file they came from.

        Of one tower alone where ``kind`` is given: students that share a frozen document tower share its
        vectors and indexes.
        """
        modules = list(self.model) if kind is None else self.tower(kind)
        state = xxhash.xxh3_128()
        for place, module in enumerate(modules):
            for name, value in sorted(module.state_dict().items()):
                state.update(f"{place}.{name} {value.dtype} {tuple(value.shape)}".encode())
                state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return state.hexdigest()[:16]

    def identity(self) -> dict[str, Any]:
        """What determines the vectors; goes into manifests."""
        return {
            "model": self.source, "revision": self.revision, "weights": self.weights_digest(),
            "dimension": self.dimension, "similarity": self.similarity,
            "max_length": self.max_length("document"), "max_query_length": self.max_length("query"),
            "prompts": {kind: self._prompt(kind) or "" for kind in ("query", "document")},
        }

    def train_parameters(self) -> list[nn.Parameter]:
        """The parameters that learn: all but the frozen ones."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    # -- from texts to vectors ------------------------------------------------------------------------------

    def _prompt(self, kind: Kind) -> str | None:
        names = [kind] if kind == "query" else ["document", "passage", "corpus"]
        name = next((name for name in names if name in self.model.prompts), self.model.default_prompt_name)
        return self.model.prompts.get(name) if name else None

    def tokenize(self, texts: Sequence[str], kind: Kind) -> Tokens:
        """Token ids of each text, truncated and not padded: ``{"input_ids": [[...], ...], ...}``."""
        module = self._transformers(kind)[0]
        inputs = module.modality_config
        if module.tokenizer is None or "text" not in inputs or "message" in inputs:
            raise IrdistillError(
                f"the model {self.source!r} takes no plain text; a dense student needs a text encoder."
            )
        prompt = self._prompt(kind) or ""
        return dict(module.tokenizer(
            [prompt + text for text in texts] if prompt else list(texts),
            truncation="longest_first", max_length=self.max_length(kind), padding=False,
        ))

    def pad(self, tokens: Mapping[str, Sequence[Any]], kind: Kind,
            rows: Sequence[int] | np.ndarray | None = None,
            device: torch.device | None = None) -> dict[str, Any]:
        """Tensors for ``embed``, of all tokenised texts or of some rows, padded to the longest of them."""
        module = self._transformers(kind)[0]
        if rows is not None:
            tokens = {key: [values[int(row)] for row in rows] for key, values in tokens.items()}
        padded = module.tokenizer.pad(dict(tokens), padding=True, return_tensors="pt")
        features: dict[str, Any] = {key: value.to(device or self.device) for key, value in padded.items()}
        prompt = self._prompt(kind)
        if prompt:
            features["prompt_length"] = module._get_prompt_length(prompt)
        return features

    def embed(self, features: Mapping[str, Any], kind: Kind) -> Tensor:
        """Vectors (n, D) with gradients; ``features`` from ``pad`` (tensors) or from ``tokenize`` (lists)."""
        if not isinstance(features["input_ids"], Tensor):
            features = self.pad(features, kind)
        with nullcontext() if self._learns(kind) else torch.no_grad():
            output = self.model({**features, "task": kind, "modality": "text"}, task=kind)
        vectors = output["sentence_embedding"]
        return vectors if self.model.truncate_dim is None else vectors[..., : self.model.truncate_dim]

    def _learns(self, kind: Kind) -> bool:
        return any(p.requires_grad for module in self.tower(kind) for p in module.parameters())

    def scores(self, query_vectors: Tensor, document_vectors: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """List and in-batch scores, in float32.

        Args:
            query_vectors: (B, D).
            document_vectors: (U, D), the batch's unique documents.
            index: (B, N) row in ``document_vectors`` of each list entry; negative where a list is padded.

        Returns:
            (B, N) scores of the lists (those of padding mean nothing) and (B, U) of each query with each
            document.
        """
        with torch.autocast(query_vectors.device.type, enabled=False):
            queries, documents = query_vectors.float(), document_vectors.float()
            if self.similarity == "cosine":
                queries, documents = F.normalize(queries, dim=-1), F.normalize(documents, dim=-1)
            in_batch = queries @ documents.T
        return in_batch.gather(1, index.clamp_min(0)), in_batch

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], kind: Kind = "document", precision: Precision = "auto",
               budget: int | TokenBudget | None = None, show_progress: bool = True,
               normalize: bool = False) -> np.ndarray:
        """Vectors (n, D) float32 of texts, in their order.

        Texts are tokenised once, sorted by length and cut into batches of a token budget, which is halved
        when memory runs out. The model is in eval mode meanwhile.

        Args:
            precision: ``auto`` is bfloat16 where the device has instructions for it, else float32.
            budget: padded tokens a batch; a TokenBudget remembers a halving.
            normalize: make every vector of length 1.
        """
        device = self.device
        if not isinstance(budget, TokenBudget):
            budget = TokenBudget(budget or (_TOKENS_CPU if device.type == "cpu" else _TOKENS_GPU))
        result = np.empty((len(texts), self.dimension), dtype=np.float32)
        if not len(texts):
            return result
        dtype = choose_dtype(precision, device)
        tokens = self.tokenize(texts, kind)
        lengths = np.array([len(ids) for ids in tokens["input_ids"]])
        was_training = self.model.training
        self.model.eval()
        try:
            with progress(len(texts), "texts", f"encode {kind}s") as bar:
                bar.disable = bar.disable or not show_progress

                def forward(rows: np.ndarray) -> None:
                    features = self.pad(tokens, kind, rows, device)
                    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                        vectors = self.embed(features, kind)
                    vectors = vectors.float()
                    result[rows] = (F.normalize(vectors, dim=-1) if normalize else vectors).cpu().numpy()
                    bar.update(len(rows))

                run_batches(lengths, budget, forward)
        finally:
            self.model.train(was_training)
        if not np.isfinite(result).all():
            bad = int((~np.isfinite(result).all(axis=1)).sum())
            raise IrdistillError(
                f"{bad} of {len(texts)} vectors of {self.source!r} are not finite in {dtype}; "
                "use precision='float32'."
            )
        return result
