"""The kernel student: word embeddings, a thin layer of context, and a soft count of matches (TK,
Hofstätter et al. 2020, arXiv:2002.01854).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoTokenizer

from irdistill.errors import IrdistillError
from irdistill.modeling.hardware import best_device
from irdistill.modeling.model_files import (
    find_model_file,
    model_revision,
    quiet_libraries,
    resolve_model,
)
from irdistill.modeling.weights import fill, read_weights
from irdistill.storage.files import atomic_path
from irdistill.students.base import Kind, Tokens
from irdistill.students.inputs import ensure_padding_token
from irdistill.students.interaction_layers import InteractionStudent, Padded
from irdistill.students.saving import save_tokenizer
from irdistill.students.student_loading import load_transformer, same_new_weights

#: Centres and width of the kernels; the first counts exact matches.
MU, SIGMA = (1.0, 0.9, 0.7, 0.5, 0.3, 0.1, -0.1, -0.3, -0.5, -0.7, -0.9), 0.1
_LAYERS, _HEADS, _FEED_FORWARD, _QUERY_LENGTH, _DOCUMENT_LENGTH = 2, 10, 300, 30, 200
_LEAST = 1e-10
#: Documents' positions begin here, so that a query's are their own.
_DOCUMENT_POSITION = 500


def kernel_features(cosines: Tensor, query_mask: Tensor, document_mask: Tensor) -> Tensor:
    """What kernel pooling makes of term similarities.

    A kernel's activation ``exp(-(cosine - mu)² / (2 sigma²))`` is summed over the document's terms,
    which is a soft count of a query term's matches. Over the query's terms these counts are summed
    twice: as logarithms of base 2 (of no less than 1e-10), and divided by the document's length.

    Args:
        cosines: (p, Q, L) of query terms and document terms.
        query_mask: (p, Q) and document_mask: (p, L) bool, False on padding.

    Returns:
        (p, 2K) for K kernels: first the logarithms, then the parts of the length.
    """
    centres = torch.tensor(MU, dtype=cosines.dtype, device=cosines.device)
    activations = torch.exp((cosines.unsqueeze(-1) - centres).square() / (-2 * SIGMA**2))
    counts = (activations * document_mask[:, None, :, None]).sum(dim=2) * query_mask.unsqueeze(-1)
    logarithms = counts.clamp_min(_LEAST).log2() * query_mask.unsqueeze(-1)
    parts = counts / document_mask.sum(dim=1)[:, None, None]
    return torch.cat([logarithms.sum(dim=1), parts.sum(dim=1)], dim=1)


class Words(nn.Module):
    """The tokenizer, the embeddings of its tokens (V, D), and to how many tokens texts are cut."""

    def __init__(self, tokenizer: Any, size: int, query_length: int, document_length: int) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.query_length, self.document_length, self.max_seq_length = (
            query_length,
            document_length,
            document_length,
        )
        self.embeddings = nn.Embedding(len(tokenizer), size)


class Context(nn.Module):
    """Transformer layers over words and their positions, and what their result is mixed by."""

    def __init__(self, size: int, layers: int) -> None:
        super().__init__()
        heads = next(count for count in range(min(_HEADS, size), 0, -1) if size % count == 0)
        layer = nn.TransformerEncoderLayer(
            size, heads, _FEED_FORWARD, dropout=0.0, batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.alpha = nn.Parameter(torch.tensor(0.5))


class Kernels(nn.Module):
    """The learnt part of kernel pooling: one weight a feature."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Linear(2 * len(MU), 1, bias=False)
        nn.init.uniform_(
            self.weights.weight, -0.014, 0.014
        )  # small, because the features are sums over many terms


class KernelStudent(InteractionStudent):
    """A reranker that needs no pre-trained encoder.

    A token's state is ``alpha * word + (1 - alpha) * context``, brought to length 1, with alpha
    learnt; the score is linear in `kernel_features` of the cosines between query and document
    tokens.
    """

    kind = "kernel"
    inputs = (Words,)

    @classmethod
    def build(
        cls,
        backbone: str,
        layers: int | None = None,
        *,
        dimension: int | None = None,
        max_length: int | None = None,
        max_query_length: int | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
        seed: int = 0,
    ) -> KernelStudent:
        """Make a student with a backbone's tokenizer and, to begin with, its word embeddings.

        Those are centred and scaled to a mean square of 1, so that word, position and context weigh
        alike.

        Args:
            backbone: model folder, ``package:`` path or hub id.
            layers: transformer layers that make the context; 2 where None.
            dimension: begin with random embeddings of this size, in place of the backbone's.
            max_length: truncate documents to so many tokens; 200 where None.
            max_query_length: truncate queries to so many tokens; 30 where None.
            seed: of the new layers' weights.

        Raises:
            IrdistillError: the backbone cannot be loaded, or a number is below 1.
        """
        for name, value in (
            ("layers", layers),
            ("dimension", dimension),
            ("max_length", max_length),
            ("max_query_length", max_query_length),
        ):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise IrdistillError(
                    f"{name}={value!r} was given; a kernel student takes a number of at least 1."
                )
        first: Any = load_transformer(
            backbone, revision=revision, trust_remote_code=trust_remote_code
        )
        known: Tensor = first.model.get_input_embeddings().weight.detach()
        with same_new_weights(seed):
            model = _assembled(
                first.tokenizer,
                dimension or known.shape[1],
                layers or _LAYERS,
                max_query_length or _QUERY_LENGTH,
                max_length or _DOCUMENT_LENGTH,
            )
        if dimension is None:
            words: Any = model[0]
            used = known[: len(first.tokenizer)]
            centred = used - used.mean(dim=0)
            with torch.no_grad():
                words.embeddings.weight[: len(used)] = centred / centred.square().mean().sqrt()
        return cls(
            model.eval().to(device or best_device()), backbone, model_revision(backbone, revision)
        )

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
    ) -> KernelStudent:
        """Open a saved student.

        Raises:
            IrdistillError: it cannot be loaded, or is none.
        """
        name = str(model)
        saved = cls._saved(name, revision)
        path = find_model_file(name, cls.weight_files[0], revision)
        assert path is not None
        with quiet_libraries():
            resolved = resolve_model(name, revision)
            tokenizer = AutoTokenizer.from_pretrained(
                resolved, revision=revision, trust_remote_code=trust_remote_code
            )
        made = _assembled(
            tokenizer,
            saved["dimension"],
            saved["layers"],
            saved["max_query_length"],
            saved["max_document_length"],
        )
        fill(made, read_weights(path), path)
        return cls(made.eval().to(device or best_device()), name, model_revision(name, revision))

    def _save_weights(self, folder: Path) -> None:
        save_tokenizer(self._first("query").tokenizer, folder)
        with atomic_path(folder / "model.safetensors") as temporary:
            save_file(self.model.state_dict(), temporary)

    def settings(self) -> dict[str, Any]:
        """Sizes and lengths."""
        return {
            "dimension": self.dimension,
            "layers": len(self.model[1].layers.layers),
            "max_query_length": self.max_length("query"),
            "max_document_length": self.max_length("document"),
        }

    def size(self) -> dict[str, int]:
        return super().size() | {"query_layers": len(self.model[1].layers.layers)}

    @property
    def head(self) -> list[nn.Parameter]:
        return list(self.model[2].parameters())

    @property
    def dimension(self) -> int:
        return int(self.model[0].embeddings.embedding_dim)

    def tokenize(self, texts: Sequence[str], kind: Kind) -> Tokens:
        """Token ids of each text without special tokens."""
        tokenizer = self._first(kind).tokenizer
        coded = tokenizer(
            list(texts),
            add_special_tokens=False,
            truncation=True,
            max_length=self.max_length(kind),
            padding=False,
        )
        self._count(coded, kind, 0)
        found = coded["input_ids"]
        return {"input_ids": found, "attention_mask": [[1] * len(ids) for ids in found]}

    def states(self, features: Mapping[str, Tensor], kind: Kind) -> Tensor:
        """States (n, L, D) of length 1."""
        mask = features["attention_mask"].bool()
        words = self.model[0].embeddings(features["input_ids"])
        places = torch.arange(words.shape[1], device=words.device) + (
            _DOCUMENT_POSITION if kind == "document" else 0
        )
        context: Context = self.model[1]
        seen = context.layers(
            words + _waves(places, words.shape[2]), src_key_padding_mask=~mask
        ).float()
        return F.normalize(context.alpha * words + (1 - context.alpha) * seen, dim=-1)

    def match(self, queries: Padded, documents: Padded) -> Tensor:
        """Scores (p,) of pairs; where there are gradients, the kernels' activations are computed
        again for them, not kept.
        """

        def score(query: Tensor, document: Tensor) -> Tensor:
            with torch.autocast(query.device.type, enabled=False):
                cosines = query.float() @ document.float().transpose(1, 2)
                return (
                    self.model[2]
                    .weights(kernel_features(cosines, queries.mask, documents.mask))
                    .squeeze(1)
                )

        if not torch.is_grad_enabled():
            return score(queries.states, documents.states)
        found: Tensor = checkpoint(
            score, queries.states, documents.states, use_reentrant=False, preserve_rng_state=False
        )
        return found


def _waves(places: Tensor, size: int) -> Tensor:
    """Sines and cosines (L, D) of positions, of wavelengths from 2 pi to 20000 pi (Vaswani et al.
    2017, arXiv:1706.03762).
    """
    half = (size + 1) // 2
    rates = torch.exp(
        torch.arange(half, device=places.device) * (-math.log(1e4) / max(1, half - 1))
    )
    angles = places.unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :size]


def _assembled(
    tokenizer: Any, size: int, layers: int, query_length: int, document_length: int
) -> nn.Sequential:
    tokenizer.padding_side = "right"
    ensure_padding_token(tokenizer, tokenizer.name_or_path)
    return nn.Sequential(
        Words(tokenizer, size, query_length, document_length), Context(size, layers), Kernels()
    )
