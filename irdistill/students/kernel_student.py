"""The kernel student: word embeddings, a thin layer of context, and a soft count of matches."""

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

from irdistill.errors import OptionError
from irdistill.modeling.hardware import best_device
from irdistill.modeling.library_output import quiet_libraries
from irdistill.modeling.model_files import find_model_file, resolve_model
from irdistill.modeling.model_revisions import model_revision
from irdistill.modeling.weights import fill, read_weights
from irdistill.storage.files import atomic_path
from irdistill.students.inputs import ensure_padding_token
from irdistill.students.interaction_layers import InteractionStudent, PaddedStates
from irdistill.students.saving import save_tokenizer
from irdistill.students.student_loading import load_transformer, same_new_weights
from irdistill.students.student_options import StudentOptions
from irdistill.students.tower_model import TextKind, TokenColumns

#: Centers and width of the kernels; the first counts exact matches.
MU, SIGMA = (1.0, 0.9, 0.7, 0.5, 0.3, 0.1, -0.1, -0.3, -0.5, -0.7, -0.9), 0.1
_LAYERS, _HEADS, _FEED_FORWARD, _QUERY_LENGTH, _DOCUMENT_LENGTH = 2, 10, 300, 30, 200
_LEAST = 1e-10
#: First position of documents, so that query positions are distinct.
_DOCUMENT_POSITION = 500


def kernel_features(cosines: Tensor, query_mask: Tensor, document_mask: Tensor) -> Tensor:
    """Kernel pooling of term similarities.

    The activation ``exp(-(cosine - mu)² / (2 sigma²))`` of a kernel is summed over the document's
    terms: a soft count of the matches of a query term. Over the query's terms these counts are
    summed twice: as base-2 logarithms (of at least 1e-10), and divided by the document's length.

    Args:
        cosines: (p, Q, L) of query terms and document terms.
        query_mask: (p, Q) and document_mask: (p, L) bool, False on padding.

    Returns:
        (p, 2K) for K kernels: first the logarithms, then the shares of the length.
    """
    centers = torch.tensor(MU, dtype=cosines.dtype, device=cosines.device)
    activations = torch.exp((cosines.unsqueeze(-1) - centers).square() / (-2 * SIGMA**2))
    counts = (activations * document_mask[:, None, :, None]).sum(dim=2) * query_mask.unsqueeze(-1)
    logarithms = counts.clamp_min(_LEAST).log2() * query_mask.unsqueeze(-1)
    shares = counts / document_mask.sum(dim=1)[:, None, None]
    return torch.cat([logarithms.sum(dim=1), shares.sum(dim=1)], dim=1)


class Words(nn.Module):
    """The tokenizer, embeddings of its tokens (V, D), and the token limits of texts."""

    def __init__(self, tokenizer: Any, size: int, query_length: int, document_length: int) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.query_length = query_length
        self.document_length = self.max_seq_length = document_length
        self.embeddings = nn.Embedding(len(tokenizer), size)


class Context(nn.Module):
    """Transformer layers over words and positions, and the weight alpha of the words."""

    def __init__(self, size: int, layers: int) -> None:
        super().__init__()
        heads = next(count for count in range(min(_HEADS, size), 0, -1) if size % count == 0)
        layer = nn.TransformerEncoderLayer(
            size, heads, _FEED_FORWARD, dropout=0.0, batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.alpha = nn.Parameter(torch.tensor(0.5))


class Kernels(nn.Module):
    """The trained part of kernel pooling: one weight for each feature."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Linear(2 * len(MU), 1, bias=False)
        # small, because the features are sums over many terms
        nn.init.uniform_(self.weights.weight, -0.014, 0.014)


class KernelStudent(InteractionStudent):
    """A reranker without a pre-trained encoder (TK, Hofstätter et al. 2020, arXiv:2002.01854).

    A token's state is ``alpha * word + (1 - alpha) * context``, scaled to length 1, with a trained
    alpha. The score is linear in `kernel_features` of the cosines of query and document tokens. The
    tokenizer and the initial word embeddings are the backbone's; embeddings are centered and scaled
    to a mean square of 1, so that word, position and context have equal weight.

    Examples:
        >>> import irdistill as ird
        >>> student = ird.KernelStudent("bert-base-uncased", layers=2)  # doctest: +SKIP
    """

    kind = "kernel"
    inputs = (Words,)

    def _build(self, backbone: str, options: StudentOptions, device: str | None, seed: int) -> None:
        layers = _LAYERS if options.layers is None else options.layers
        if not isinstance(layers, int) or layers < 1:
            raise OptionError(
                f"layers={layers!r} was given; a kernel student takes a number of at least 1."
            )
        first: Any = load_transformer(
            backbone, revision=options.revision, trust_remote_code=options.trust_remote_code
        )
        known: Tensor = first.model.get_input_embeddings().weight.detach()
        with same_new_weights(seed):
            model = _assembled(
                first.tokenizer,
                options.dimension or known.shape[1],
                layers,
                options.max_query_length or _QUERY_LENGTH,
                options.max_length or _DOCUMENT_LENGTH,
            )
        if options.dimension is None:
            words: Any = model[0]
            used = known[: len(first.tokenizer)]
            centered = used - used.mean(dim=0)
            with torch.no_grad():
                words.embeddings.weight[: len(used)] = centered / centered.square().mean().sqrt()
        model = model.eval().to(device or best_device())
        self._set_model(model, backbone, model_revision(backbone, options.revision))

    @classmethod
    def _open(
        cls, name: str, revision: str | None, trust_remote_code: bool, device: str | None
    ) -> nn.Sequential:
        saved = cls._saved(name, revision)
        path = find_model_file(name, cls.weight_files[0], revision)
        assert path is not None
        with quiet_libraries():
            tokenizer = AutoTokenizer.from_pretrained(
                resolve_model(name, revision),
                revision=revision,
                trust_remote_code=trust_remote_code,
            )
        lengths = saved["max_query_length"], saved["max_document_length"]
        model = _assembled(tokenizer, saved["dimension"], saved["layers"], *lengths)
        fill(model, read_weights(path), path)
        return model.eval().to(device or best_device())

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
        """As `Student.size`; the layers are those of the context."""
        return super().size() | {"query_layers": len(self.model[1].layers.layers)}

    @property
    def head(self) -> list[nn.Parameter]:
        """The weights of the kernels."""
        return list(self.model[2].parameters())

    @property
    def dimension(self) -> int:
        """The size of a word embedding."""
        return int(self.model[0].embeddings.embedding_dim)

    def tokenize(self, texts: Sequence[str], kind: TextKind) -> TokenColumns:
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
        ids = coded["input_ids"]
        return {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}

    def states(self, features: Mapping[str, Tensor], kind: TextKind) -> Tensor:
        """States (n, L, D) of length 1."""
        mask = features["attention_mask"].bool()
        words = self.model[0].embeddings(features["input_ids"])
        places = torch.arange(words.shape[1], device=words.device) + (
            _DOCUMENT_POSITION if kind == "document" else 0
        )
        context: Context = self.model[1]
        mixed = context.layers(
            words + _waves(places, words.shape[2]), src_key_padding_mask=~mask
        ).float()
        return F.normalize(context.alpha * words + (1 - context.alpha) * mixed, dim=-1)

    def match(self, queries: PaddedStates, documents: PaddedStates) -> Tensor:
        """Scores (p,) of pairs. Gradients recompute the kernels' activations to save memory."""

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
        scores: Tensor = checkpoint(
            score, queries.states, documents.states, use_reentrant=False, preserve_rng_state=False
        )
        return scores


def _waves(places: Tensor, size: int) -> Tensor:
    """Sines and cosines (L, D) of positions, of wavelengths from 2 pi to 20000 pi.

    Vaswani et al. 2017, arXiv:1706.03762.
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
