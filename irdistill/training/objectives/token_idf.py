"""The inverse document frequency of a corpus's tokens, for sparse students."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irdistill.console.progress_bars import progress
from irdistill.storage.build_cache import open_or_build
from irdistill.storage.checksums import read_sealed, write_sealed
from irdistill.storage.files import cache_folder, digest
from irdistill.students.fingerprints import tokenizer_digest

if TYPE_CHECKING:
    from irdistill.collections import Corpus

_FILE = "counts.json"
_LEAST = 0.1
"""Least IDF in `TokenIdf.costs`, as a share of the mean: a token in every document has an IDF near
0, and its cost would exceed the gradients of all others.
"""


@dataclass(frozen=True)
class TokenIdf:
    """In how many documents each token of a vocabulary occurs, and what follows from it.

    Attributes:
        frequencies: (V,) int64, the documents that contain each token.
        documents: documents of the corpus.

    Examples:
        >>> idf = TokenIdf(np.array([3, 1]), 3)
        >>> [round(float(weight), 2) for weight in idf.weights]
        [0.13, 0.98]
        >>> [round(float(cost), 2) for cost in idf.costs]
        [2.59, 0.35]
    """

    frequencies: np.ndarray
    documents: int

    @property
    def weights(self) -> np.ndarray:
        """(V,) float32, ``log(1 + (N - n + 0.5) / (n + 0.5))`` as in BM25.

        A token that no document contains has the largest weight.
        """
        n = self.frequencies
        return np.log1p((self.documents - n + 0.5) / (n + 0.5)).astype(np.float32)

    @property
    def costs(self) -> np.ndarray:
        """(V,) float32, what a weight of each token costs in a penalty: ``mean / IDF``, at most 10.

        The mean is over the distinct tokens of documents, so the penalty of an average document
        stays about the same.
        """
        weights = self.weights.astype(np.float64)
        mean = np.average(weights, weights=self.frequencies) if self.frequencies.any() else 1.0
        return (mean / np.maximum(weights, _LEAST * mean)).astype(np.float32)


def corpus_idf(corpus: Corpus, tokenizer: Any, size: int) -> TokenIdf:
    """Count the documents of each token. The counts are kept in the cache folder.

    Documents are not truncated. Special tokens are not added.

    Args:
        tokenizer: of transformers.
        size: the number of tokens V, at least that of the tokenizer.
    """
    identity = {
        "corpus": corpus.fingerprint,
        "tokenizer": tokenizer_digest(tokenizer),
        "size": size,
    }

    def build(folder: Path) -> None:
        counts = _count(corpus, tokenizer, size).tolist()
        write_sealed(folder / _FILE, {"identity": identity, "frequencies": counts})

    def read(folder: Path) -> np.ndarray:
        return np.array(read_sealed(folder / _FILE)["frequencies"], np.int64)

    frequencies = open_or_build(cache_folder() / "token_idf" / digest(identity), build, read)
    return TokenIdf(frequencies, len(corpus))


def _count(corpus: Corpus, tokenizer: Any, size: int) -> np.ndarray:
    counts = np.zeros(size, np.int64)
    with progress(len(corpus), "texts", "count tokens") as bar:
        for texts in corpus.text_batches():
            coded = tokenizer(
                texts,
                add_special_tokens=False,
                truncation=False,
                padding=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )
            for ids in coded["input_ids"]:
                counts[np.unique(ids).astype(np.int64)] += 1
            bar.update(len(texts))
    return counts
