"""Learning linear maps to short codes from stored vectors: the model's own float scores."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irdistill.console.progress_bars import with_progress
from irdistill.search.vectors.brute_force import exact_search
from irdistill.storage.checksums import CheckedArray
from irdistill.training.code_maps import Affine, CodeMaps
from irdistill.training.compress_options import CompressOptions
from irdistill.training.objectives.quantization import straight_through

_CENTERING = 0.5
"""Share of the mean query that is subtracted from queries at the start."""
_SIGN_QUERIES = 0.2
"""Weight of the scores between signs of queries and documents, which find the candidates."""
_WARMUP = 0.1
_SCALING_QUERIES = 256


class StoredVectors(NamedTuple):
    """Vectors that the maps learn from.

    Attributes:
        documents: (N, D) of the corpus.
        queries: (n, D) of queries.
    """

    documents: np.ndarray | CheckedArray
    queries: np.ndarray

    def nearest(self, count: int) -> np.ndarray:
        """(n, count) rows of the documents with the largest inner product with each query."""
        device = torch.device("cpu")
        return exact_search(self.documents, [self.queries], count, device=device)[0][1]


class _Maps(nn.Module):
    """The maps that are learned, and the scales of the scores at each dimension."""

    def __init__(self, start: CodeMaps, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.documents, self.queries = _layer(start.documents), _layer(start.queries)
        self.scales = nn.Parameter(torch.zeros(2, len(sizes)))

    def result(self) -> CodeMaps:
        """The maps as arrays."""
        return CodeMaps(*(_affine(layer) for layer in (self.documents, self.queries)))


def learn_maps(stored: StoredVectors, start: CodeMaps, options: CompressOptions) -> CodeMaps:
    """Learn maps whose codes give the float scores of the stored vectors.

    At each of the dimensions the loss of a step is the KL divergence from the softmax of the float
    scores to that of the scores of float queries and codes, over the nearest documents of all
    queries of the step and some random ones. For binary codes a part of it is of the signs of the
    queries. Gradients pass the rounding unchanged.

    Args:
        start: maps to begin with, such as `rotate_for_signs`.
    """
    sizes = options.sizes
    mean = stored.queries.mean(axis=0)
    queries = Affine(
        start.queries.weight, start.queries.bias - _CENTERING * mean @ start.queries.weight
    )
    maps = _Maps(CodeMaps(start.documents, queries), sizes)
    nearest = stored.nearest(options.nearest)
    random = np.random.default_rng(options.seed)
    _set_scales(maps, stored, options)
    parameters: list[dict[str, Any]] = [
        {"params": [*maps.documents.parameters(), *maps.queries.parameters()]},
        {"params": [maps.scales], "lr": 10 * options.learning_rate},
    ]
    optimizer = torch.optim.Adam(parameters, lr=options.learning_rate)
    for step in with_progress(range(options.steps), "steps", "learn codes"):
        warmup = min(1.0, (step + 1) / max(1.0, _WARMUP * options.steps))
        optimizer.param_groups[0]["lr"] = (
            options.learning_rate * warmup * (1 - step / options.steps)
        )
        chosen = random.permutation(len(nearest))[: options.batch_size]
        extra = random.integers(0, len(stored.documents), options.random_documents)
        rows = np.unique(np.concatenate([nearest[chosen].ravel(), extra]))
        spread_rows = np.searchsorted(rows, np.unique(extra))
        loss = _loss(maps, _tensors(stored, chosen, rows), spread_rows, options)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return maps.result()


def _tensors(stored: StoredVectors, queries: np.ndarray, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    documents = np.array(stored.documents[rows], dtype=np.float32)
    return torch.from_numpy(stored.queries[queries]), torch.from_numpy(documents)


def _loss(
    maps: _Maps,
    batch: tuple[Tensor, Tensor],
    spread_rows: np.ndarray,
    options: CompressOptions,
) -> Tensor:
    """The loss of a step; ``spread_rows`` are the places of the random documents."""
    queries, documents = batch
    target = F.softmax(queries @ documents.T / options.tau, dim=1)
    total = queries.new_zeros(())
    for place, (mapped, codes) in enumerate(_cuts(maps, batch, options)):
        scales = maps.scales[:, place].exp() / options.tau
        total = total + _divergence(mapped @ codes.T * scales[0], target)
        if options.vectors == "binary":
            signs = straight_through(mapped, "binary")
            total = total + _SIGN_QUERIES * _divergence(signs @ codes.T * scales[1], target)
        if options.spread_out:
            total = total + options.spread_out * _spread(codes[spread_rows])
    return total


def _cuts(
    maps: _Maps, batch: tuple[Tensor, Tensor], options: CompressOptions
) -> list[tuple[Tensor, Tensor]]:
    """Float queries and codes of documents at each dimension."""
    queries, documents = maps.queries(batch[0]), maps.documents(batch[1])
    cuts = []
    for size in options.sizes:
        codes = documents[:, :size]
        if options.vectors != "float":
            codes = straight_through(codes, options.vectors)
        cuts.append((queries[:, :size], codes))
    return cuts


def _divergence(scores: Tensor, target: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(scores, dim=1), target, reduction="batchmean")


def _spread(codes: Tensor) -> Tensor:
    """Mean squared cosine of different documents times D: 1 for random directions."""
    unit = F.normalize(codes, dim=1)
    cosines = (unit @ unit.T).square()
    pairs = max(1, len(codes) * (len(codes) - 1))
    return codes.shape[1] * (cosines.sum() - cosines.diagonal().sum()) / pairs


@torch.no_grad()
def _set_scales(maps: _Maps, stored: StoredVectors, options: CompressOptions) -> None:
    """Begin with scores that spread as far as the float scores."""
    queries = np.arange(min(_SCALING_QUERIES, len(stored.queries)))
    count = min(len(stored.documents), 2048)
    rows = np.unique(np.linspace(0, len(stored.documents) - 1, count).astype(np.int64))
    batch = _tensors(stored, queries, rows)
    float_spread = (batch[0] @ batch[1].T).std(dim=1).mean()
    for place, (mapped, codes) in enumerate(_cuts(maps, batch, options)):
        for kind, vectors in enumerate((mapped, straight_through(mapped, "binary"))):
            spread = (vectors @ codes.T).std(dim=1).mean().clamp_min(1e-9)
            maps.scales[kind, place] = (float_spread / spread).log()


def _layer(affine: Affine) -> nn.Linear:
    layer = nn.Linear(*affine.weight.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(affine.weight.T.copy()))
        layer.bias.copy_(torch.from_numpy(np.asarray(affine.bias, np.float32)))
    return layer


def _affine(layer: nn.Linear) -> Affine:
    return Affine(
        np.ascontiguousarray(layer.weight.detach().numpy().T), layer.bias.detach().numpy().copy()
    )
