"""BM25 over a whole corpus: scores are worked out when the index is built, and are those of bm25s.

Lucene's variant (Kamphuis et al. 2020, "Which BM25 do you mean?"; bm25s: Lù 2024,
arXiv:2407.03618), English stop words and the Snowball stemmer for English.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csc_matrix

from irdistill.collections import Corpus, Query
from irdistill.errors import IrdistillError
from irdistill.modeling.stemming import NAME, Tokenizer
from irdistill.search.lexical.bm25_build import MEMORY, build_index
from irdistill.search.ranking import best_rows
from irdistill.storage.build_cache import open_or_build
from irdistill.storage.checksums import npy_array, open_files, read_sealed, write_sealed
from irdistill.storage.files import MappedPages, cache_folder, digest, read_json, write_text

if TYPE_CHECKING:
    from irdistill.runs import RankedList

FORMAT = 1
_ARRAYS = ("data", "indices", "indptr")
_MAPPED = 1 << 30
"""Bytes of postings that are read before their pages are given back to the system."""


class BM25:
    """A BM25 index, built on first use and kept in the cache, memory-mapped from then on.

    Attributes:
        folder: where the index lies, named by corpus and settings.
        settings: what determines the scores.
    """

    def __init__(
        self,
        corpus: Corpus,
        k1: float = 0.9,
        b: float = 0.4,
        cache: Path | None = None,
        memory: int = MEMORY,
    ) -> None:
        """Open or build the index.

        Args:
            cache: the folder for indexes; the user's cache folder where None.
            memory: bytes that building takes for postings, beside 16 for each document and the
                corpus's words.

        Raises:
            IrdistillError: k1 or b are out of range, or the cache cannot be written.
        """
        if k1 < 0 or not 0 <= b <= 1:
            raise IrdistillError(
                f"k1={k1} and b={b} were given; k1 must be at least 0 and b from 0 to 1."
            )
        self.corpus = corpus
        self.settings: dict[str, Any] = {
            "k1": float(k1),
            "b": float(b),
            "method": "lucene",
            "tokenizer": NAME,
        }
        self._memory = memory
        self._tokenizer = Tokenizer()
        key = digest({"format": FORMAT, "corpus": corpus.fingerprint, **self.settings})
        self.folder = (Path(cache) if cache is not None else cache_folder() / "bm25") / key
        open_or_build(self.folder, self._build, self._open)

    def _build(self, folder: Path) -> None:
        stems = build_index(
            self.corpus, self.settings["k1"], self.settings["b"], folder, self._memory
        )
        write_text(folder / "vocabulary.json", json.dumps(stems, ensure_ascii=False) + "\n")
        write_sealed(
            folder / "manifest.json",
            {
                "format": FORMAT,
                "corpus": self.corpus.fingerprint,
                "documents": len(self.corpus),
                "settings": self.settings,
            },
            ("vocabulary.json", *(f"{name}.npy" for name in _ARRAYS)),
        )

    def _open(self, folder: Path) -> None:
        files = open_files(folder, read_sealed(folder / "manifest.json")["files"])
        self._data, self._indices, indptr = (npy_array(files[f"{name}.npy"]) for name in _ARRAYS)
        self._indptr = np.asarray(indptr)
        self._pages = MappedPages(self._data.map, self._indices.map, limit=_MAPPED)
        files["vocabulary.json"].check_all()
        stems = read_json(folder / "vocabulary.json")
        self._vocabulary = {stem: place for place, stem in enumerate(stems)}

    @property
    def bytes(self) -> int:
        """The size of the index on disk."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    @property
    def stems(self) -> list[str]:
        """The V words of the index, in order."""
        return list(self._vocabulary)

    @property
    def matrix(self) -> csc_matrix:
        """(N, V) what each word adds to the score of each document that holds it, for one
        occurrence in the query.
        """
        shape = len(self.corpus), len(self._vocabulary)
        return csc_matrix(
            (np.asarray(self._data), np.asarray(self._indices), self._indptr), shape=shape
        )

    def identity(self) -> dict[str, Any]:
        """What goes into the manifest of a run."""
        return {"model": "bm25", "revision": f"format-{FORMAT}", **self.settings}

    def words(self, text: str) -> list[str]:
        """The stems of a text, in order, with repetitions."""
        return self._tokenizer(text)

    def _terms(self, text: str) -> list[int]:
        return [
            self._vocabulary[stem] for stem in self._tokenizer(text) if stem in self._vocabulary
        ]

    def all_scores(self, text: str) -> np.ndarray:
        """(N,) float32: the score of every document; 0.0 where no term is shared."""
        scores = np.zeros(len(self.corpus), dtype=np.float32)
        for term in self._terms(text):
            start, end = int(self._indptr[term]), int(self._indptr[term + 1])
            scores[self._indices[start:end]] += self._data[start:end]
            self._pages.read(8 * (end - start))
        return scores

    def score(self, query_text: str, doc_rows: np.ndarray) -> np.ndarray:
        """(n,) float32: the scores of any documents, by their row numbers; 0.0 where no term is
        shared.

        It is the same number as ``search`` gives, and costs a binary search a term and document.
        """
        rows = np.asarray(doc_rows, dtype=np.int64)
        scores = np.zeros(len(rows), dtype=np.float32)
        for term in self._terms(query_text):
            start, end = int(self._indptr[term]), int(self._indptr[term + 1])
            holders = self._indices[start:end]
            places = np.searchsorted(holders, rows)
            inside = np.minimum(places, max(0, len(holders) - 1))
            hit = holders[inside] == rows if len(holders) else np.zeros(len(rows), dtype=bool)
            scores[hit] += self._data[start + inside[hit]]
        return scores

    def search(self, queries: Sequence[Query], k: int = 100) -> Iterator[RankedList]:
        """The k best documents of each query, equal scores by document id descending, without zero
        scores.
        """
        from irdistill.runs import RankedList

        for query in queries:
            rows, scores = best_rows(self.corpus, self.all_scores(query.text), k, above=0.0)
            yield RankedList(query.id, [self.corpus.id(int(row)) for row in rows], scores, None)
