"""One vector for each document that is split, learned from the scores of its passages.

The vector of a document learns the log-sum-exp of its passages' scores, by weighted least squares
over passages of the corpus that serve as queries. This is the retrieval form of the cross-level
distillation of multiple instances: a bag (the document) learns from its instances (the passages).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from irdistill.collections import Corpus
from irdistill.collections.passage_corpus import Passages
from irdistill.errors import InputError, OptionError
from irdistill.modeling.hardware import Precision
from irdistill.search.array_shards import ShardOptions, read_part, write_arrays
from irdistill.search.passage_ranking import Aggregation
from irdistill.search.vectors.text_encoder import TextEncoder
from irdistill.search.vectors.vector_store import VectorStore
from irdistill.storage.files import digest

VECTOR_TAU = 0.02
"""Default temperature of the log-sum-exp that a document's vector learns."""
_SHARD_DOCUMENTS = 512
_BLOCK_DOCUMENTS = 64
_BLOCK_PASSAGES, _BLOCK_QUERIES = 2048, 2048


@dataclass(frozen=True)
class DocumentFit:
    """How the vectors of documents are fitted.

    Attributes:
        tau: temperature of the log-sum-exp over the passages of a document.
        queries: most passages of the corpus that serve as queries.
        nearest: queries with the highest scores for a document, which count more.
        weight: weight of the mean squared error of the nearest queries; that of all queries is 1.
        ridge: weight of the squared distance from the mean of the passages' vectors.
        seed: random seed of the choice of queries.
    """

    tau: float = VECTOR_TAU
    queries: int = 32768
    nearest: int = 100
    weight: float = 0.1
    ridge: float = 1e-4
    seed: int = 42


def fit_document_vectors(
    corpus: Corpus,
    store: VectorStore,
    encoder: TextEncoder,
    fit: DocumentFit | None = None,
    precision: Precision = "auto",
) -> VectorStore:
    """The vectors of the documents of a corpus, fitted on first use, in the folder of a store.

    A document with one passage has the vector of its passage. The vectors are compared by dot
    product. An interrupted job resumes.

    Args:
        corpus: the documents, with their passages.
        store: the vectors of the passages.
        encoder: encodes the passages that serve as queries, unless its towers are the same.

    Raises:
        InputError: no passage has a vector.
    """
    passages, fit = corpus.passages, fit or DocumentFit()
    assert passages is not None
    identity = {
        "format": VectorStore.format,
        "kind": "dense",
        "corpus": corpus.fingerprint,
        "storage": store.identity["storage"],
        "similarity": "dot",
        "dimension": store.dimension,
        "passages": store.fingerprint,
        "query_tower": encoder.tower_identity("query"),
        "fit": asdict(fit),
        "shard_rows": _SHARD_DOCUMENTS,
    }
    fitting: list[VectorFitting] = []

    def arrays(start: int, end: int) -> Mapping[str, np.ndarray]:
        if not fitting:  # only if a shard is missing
            queries = _queries(passages, store, encoder, fit, precision)
            fitting.append(VectorFitting(queries, fit, encoder.device))
        return VectorStore.arrays(_fitted(passages, store, fitting[0], start, end))

    folder = store.folder / f"documents-{digest(identity)}"
    layout = VectorStore.layout(store.dimension, identity["storage"])
    label = ShardOptions(label="fit document vectors")
    rows = len(passages.starts) - 1
    write_arrays(folder, identity, layout, rows, _SHARD_DOCUMENTS, arrays, label)
    return VectorStore(folder)


def check_dense(encoder: TextEncoder) -> None:
    """Check that a model has one vector for each text.

    Raises:
        OptionError: it is another kind of model.
    """
    if encoder.kind != "dense":
        raise OptionError(
            f"aggregate is vector, which is for dense models, and {encoder.source!r} is a"
            f" {encoder.kind} model; choose --aggregate maxp."
        )


def _queries(
    passages: Passages,
    store: VectorStore,
    encoder: TextEncoder,
    fit: DocumentFit,
    precision: Precision,
) -> np.ndarray:
    """Vectors (n, D) of passages of the corpus as queries."""
    present = np.setdiff1d(np.arange(len(store)), store.absent_rows)
    if not len(present):
        raise InputError(
            "no passage has a token that the model reads; there is nothing to learn from. Choose"
            " another model, or --aggregate maxp."
        )
    count = min(fit.queries, len(present))
    rows = np.sort(np.random.default_rng(fit.seed).choice(present, count, replace=False))
    if encoder.tower_identity("query") == encoder.tower_identity("document"):
        return store.take(rows).values.numpy()
    vectors = encoder.search_vectors(passages.corpus.texts(rows.tolist()), "query", precision)
    return np.asarray(vectors, np.float32)


def _fitted(
    passages: Passages, store: VectorStore, fitting: VectorFitting, start: int, end: int
) -> np.ndarray:
    """Vectors (end - start, D) of documents; zeros for a document whose passages have none."""
    vectors = np.zeros((end - start, store.dimension), np.float32)
    for first, last in _blocks(passages.starts, start, end):
        rows = np.arange(passages.starts[first], passages.starts[last])
        values = read_part(store.matrix, int(rows[0]), int(rows[-1]) + 1)
        kept = ~np.isin(rows, store.absent_rows)
        documents = passages.documents_of(rows[kept])
        with_vector, starts = np.unique(documents, return_index=True)
        if len(with_vector):
            vectors[with_vector - start] = fitting.fit(values[kept], starts)
    return vectors


def _blocks(starts: np.ndarray, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Documents from ``start`` up to ``end`` in blocks of bounded size, one at least."""
    first = start
    while first < end:
        last = int(np.searchsorted(starts, starts[first] + _BLOCK_PASSAGES, side="right")) - 1
        last = min(max(last, first + 1), first + _BLOCK_DOCUMENTS, end)
        yield first, last
        first = last


class VectorFitting:
    """Fits vectors of documents to the scores of their passages.

    The vector v of a document with passages p and the mean m of them minimizes::

        mean over queries x of (x·v - t(x))² + weight · mean over the nearest queries of the same
        + ridge · |v - m|²,  where t(x) = tau · log(sum over p of exp(x·p / tau))

    The nearest queries of a document are those with the largest t(x). The first and the last term
    have one matrix for all documents; the nearest queries correct their solution by a system of
    ``nearest`` equations.

    Args:
        queries: (n, D).

    Examples:
        >>> fitting = VectorFitting(np.eye(2, dtype=np.float32), DocumentFit(ridge=1e-9))
        >>> passages = np.array([[1, 0], [0, 1]], np.float32)
        >>> fitting.fit(passages, np.array([0])).round(3).tolist()
        [[1.0, 1.0]]
    """

    def __init__(
        self, queries: np.ndarray, fit: DocumentFit, device: torch.device | None = None
    ) -> None:
        self.settings, self.queries = fit, torch.from_numpy(queries).float().to(device)
        exact = torch.from_numpy(queries).double()
        moments = exact.T @ exact / len(exact)
        matrix = moments + fit.ridge * torch.eye(len(moments), dtype=torch.float64)
        inverse = torch.linalg.inv(matrix)
        self._solved = (exact @ inverse).float().to(device)

    def fit(self, passages: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Vectors (n, D) float32 of n documents.

        Args:
            passages: (P, D) vectors of their passages.
            starts: (n,) the first passage of each document, ascending.
        """
        counts = np.diff(np.append(starts, len(passages)))
        means = np.add.reduceat(passages, starts, axis=0) / counts[:, None].astype(np.float32)
        several = np.flatnonzero(counts > 1)
        if len(several):
            targets = torch.from_numpy(self._targets(passages, starts)[:, several])
            moved = self._offsets(torch.from_numpy(means[several]), targets)
            means[several] += moved.cpu().numpy()
        return means.astype(np.float32)

    def _targets(self, passages: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """(queries, documents): the log-sum-exp that the vectors learn."""
        aggregation = Aggregation("logsumexp", self.settings.tau)
        values = torch.from_numpy(passages).to(self.queries.device)
        parts = (
            aggregation.reduce((part @ values.T).cpu().numpy(), starts)
            for part in self.queries.split(_BLOCK_QUERIES)
        )
        return np.concatenate(list(parts))

    def _offsets(self, means: Tensor, targets: Tensor) -> Tensor:
        """(n, D): the fitted vectors minus the means."""
        settings, queries = self.settings, self.queries
        residuals = targets.to(queries.device) - queries @ means.to(queries.device).T
        count = min(settings.nearest, len(queries))
        offsets: Tensor = residuals.T @ self._solved / len(queries)
        if not settings.weight:
            return offsets
        rows = targets.to(queries.device).topk(count, dim=0).indices.T
        nearest, solved = queries[rows], self._solved[rows]  # (n, nearest, D)
        left = residuals.T.gather(1, rows) - torch.einsum("nkd,nd->nk", nearest, offsets)
        system = nearest @ solved.transpose(1, 2)
        system.diagonal(dim1=1, dim2=2).add_(count / settings.weight)
        correction = torch.linalg.solve(system, left)
        return offsets + torch.einsum("nkd,nk->nd", solved, correction)
