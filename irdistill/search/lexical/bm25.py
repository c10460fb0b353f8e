"""BM25 over a corpus, with scores precomputed in the index and equal to those of bm25s.

Lucene's variant (Kamphuis et al. 2020, "Which BM25 do you mean?"; bm25s: Lù 2024,
arXiv:2407.03618), English stop words and the Snowball stemmer for English.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csc_matrix

from irdistill.collections import Corpus, Query
from irdistill.errors import OptionError
from irdistill.modeling.stemming import NAME, StemTokenizer
from irdistill.search.lexical.bm25_build import MEMORY, build_index
from irdistill.search.ranking import best_rows
from irdistill.storage.build_cache import open_or_build
from irdistill.storage.checksums import npy_array, open_files, read_sealed, write_sealed
from irdistill.storage.files import MappedPages, cache_folder, digest, read_json, write_text

if TYPE_CHECKING:
    from irdistill.runs import RankedList

FORMAT = 1
_ARRAYS = ("data", "indices", "indptr")
_MAPPED_BYTES = 1 << 30
"""Bytes of postings that are read before their pages are released."""


@dataclass(frozen=True)
class TermScore:
    """What a term of a query adds to the score of a document.

    Attributes:
        stem: the term.
        count: how often it is in the query.
        documents: how many documents it is in.
        score: 0.0 if it is not in the document.
    """

    stem: str
    count: int
    documents: int
    score: float


class BM25:
    """A BM25 index, built on first use, then memory-mapped from the cache.

    Attributes:
        folder: folder of the index, named by corpus and settings.
        settings: everything that determines the scores.

    Examples:
        >>> import tempfile
        >>> from irdistill.collections import Collection
        >>> texts = {"a": "merge two dictionaries", "b": "sort a list"}
        >>> corpus = Collection.from_dicts("two", texts, {}).corpus
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     bm25 = BM25(corpus, cache=Path(folder))
        ...     query = Query("q", "merging dictionaries")
        ...     [ranked.doc_ids for ranked in bm25.search([query], k=2)]
        [['a']]
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
            k1: saturation of the term frequency, at least 0.
            b: length normalization, from 0 to 1.
            cache: folder of indexes (default: in the cache folder).
            memory: bytes of postings in memory during a build, in addition to 16 per document and
                the vocabulary.
        """
        if k1 < 0 or not 0 <= b <= 1:
            raise OptionError(f"k1 is {k1} and b is {b}; expected k1 >= 0 and b from 0 to 1.")
        self.corpus = corpus
        self.settings: dict[str, Any] = {
            "k1": float(k1),
            "b": float(b),
            "method": "lucene",
            "tokenizer": NAME,
        }
        self._memory, self._tokenizer = memory, StemTokenizer()
        key = digest({"format": FORMAT, "corpus": corpus.fingerprint, **self.settings})
        self.folder = (Path(cache) if cache is not None else cache_folder() / "bm25") / key
        open_or_build(self.folder, self._build, self._open)

    def _build(self, folder: Path) -> None:
        k1, b = self.settings["k1"], self.settings["b"]
        stems = build_index(self.corpus, k1, b, folder, self._memory)
        write_text(folder / "vocabulary.json", json.dumps(stems, ensure_ascii=False) + "\n")
        content = {
            "format": FORMAT,
            "corpus": self.corpus.fingerprint,
            "documents": len(self.corpus),
            "settings": self.settings,
        }
        names = ("vocabulary.json", *(f"{name}.npy" for name in _ARRAYS))
        write_sealed(folder / "manifest.json", content, names)

    def _open(self, folder: Path) -> None:
        files = open_files(folder, read_sealed(folder / "manifest.json")["files"])
        self._data, self._indices, indptr = (npy_array(files[f"{name}.npy"]) for name in _ARRAYS)
        self._indptr = np.asarray(indptr)
        self._pages = MappedPages(self._data.map, self._indices.map, limit=_MAPPED_BYTES)
        files["vocabulary.json"].check_all()
        stems = read_json(folder / "vocabulary.json")
        self._vocabulary = {stem: column for column, stem in enumerate(stems)}

    @property
    def bytes(self) -> int:
        """Bytes of the index."""
        return sum(path.stat().st_size for path in self.folder.iterdir())

    @property
    def stems(self) -> list[str]:
        """The V stems of the index, in order."""
        return list(self._vocabulary)

    @property
    def matrix(self) -> csc_matrix:
        """(N, V) score of each stem in each document, for one occurrence in the query."""
        content = (np.asarray(self._data), np.asarray(self._indices), self._indptr)
        return csc_matrix(content, shape=(len(self.corpus), len(self._vocabulary)))

    def identity(self) -> dict[str, Any]:
        """Everything that determines the scores, for the manifest of a run."""
        return {"model": "bm25", "revision": f"format-{FORMAT}", **self.settings}

    def words(self, text: str) -> list[str]:
        """Stems of a text in order, with repetitions."""
        return self._tokenizer(text)

    def _postings(self, text: str) -> Iterator[tuple[int, int]]:
        """Start and end of the postings of each stem of a text that is in the index."""
        for stem in self._tokenizer(text):
            if (term := self._vocabulary.get(stem)) is not None:
                yield int(self._indptr[term]), int(self._indptr[term + 1])

    def all_scores(self, text: str) -> np.ndarray:
        """Scores (N,) float32 of all documents; 0.0 without a common term."""
        scores = np.zeros(len(self.corpus), dtype=np.float32)
        for start, end in self._postings(text):
            scores[self._indices[start:end]] += self._data[start:end]
            self._pages.read(8 * (end - start))
        return scores

    def score(self, query_text: str, doc_rows: np.ndarray) -> np.ndarray:
        """Scores (n,) float32 of some documents; 0.0 without a common term.

        They equal those of `search`, at the cost of a binary search per term and document.
        """
        rows = np.asarray(doc_rows, dtype=np.int64)
        scores = np.zeros(len(rows), dtype=np.float32)
        for start, end in self._postings(query_text):
            documents = self._indices[start:end]
            places = np.minimum(np.searchsorted(documents, rows), max(0, len(documents) - 1))
            hits = documents[places] == rows if len(documents) else np.zeros(len(rows), dtype=bool)
            scores[hits] += self._data[start + places[hits]]
        return scores

    def term_scores(self, query_text: str, row: int) -> list[TermScore]:
        """The score of each term of a query in one document; their sum is that of `score`."""
        counts = Counter(self._tokenizer(query_text))
        result = []
        for stem, count in counts.items():
            term, documents, value = self._vocabulary.get(stem), 0, 0.0
            if term is not None:
                start, end = int(self._indptr[term]), int(self._indptr[term + 1])
                place = start + int(np.searchsorted(self._indices[start:end], row))
                documents = end - start
                if place < end and self._indices[place] == row:
                    value = float(self._data[place])
            result.append(TermScore(stem, count, documents, count * value))
        return result

    def search(self, queries: Sequence[Query], k: int = 100) -> Iterator[RankedList]:
        """Top k documents of each query, ties by descending id, without scores of zero."""
        from irdistill.runs import RankedList

        for query in queries:
            top = best_rows(self.corpus, self.all_scores(query.text), k, above=0.0)
            ids = [self.corpus.id(row) for row in top.rows.tolist()]
            yield RankedList(query.id, ids, top.scores, None)
