"""BM25 in Lucene with Pyserini (Lin et al. 2021, arXiv:2102.10073), as in Anserini."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irdistill.collections import Corpus, Query
from irdistill.errors import IrdistillError, NotFoundError, OptionError
from irdistill.search.lucene.jvm import anserini_version, java_class, java_errors
from irdistill.search.lucene.lucene_index import LuceneIndex, index_texts
from irdistill.storage.files import digest, file_sha256

if TYPE_CHECKING:
    from irdistill.runs import RankedList

_FIELD = "contents"


class LuceneBM25:
    """BM25 as Anserini computes it: English stop words, Porter stemmer, lengths in one byte.

    The index serves every k1 and b. It is built on first use.

    Attributes:
        settings: everything that determines the scores.
    """

    def __init__(
        self,
        corpus: Corpus,
        k1: float = 0.9,
        b: float = 0.4,
        cache: Path | None = None,
        index: str | None = None,
    ) -> None:
        """Open or build the index.

        Args:
            k1: saturation of the term frequency, at least 0.
            b: length normalization, from 0 to 1.
            cache: folder of indexes (default: in the cache folder).
            index: an existing index of the same documents: a folder, or the name of a prebuilt
                index of Anserini, which is downloaded.
        """
        if k1 < 0 or not 0 <= b <= 1:
            raise OptionError(f"k1 is {k1} and b is {b}; expected k1 >= 0 and b from 0 to 1.")
        self.corpus = corpus
        self.settings: dict[str, Any] = {
            "k1": float(k1),
            "b": float(b),
            "analyzer": "anserini-english",
        }
        if index is None:
            identity = {"corpus": corpus.fingerprint, "analyzer": self.settings["analyzer"]}
            self._index = LuceneIndex.build(identity, self._write, cache)
        else:
            is_folder = Path(index).is_dir()
            self._index = LuceneIndex(index if is_folder else fetch_prebuilt(index))
            self.settings["index"] = {
                "name": Path(index).name if is_folder else index,
                "documents": self._index.documents,
                "segments": _segments_digest(self._index.files),
            }
        self.bytes = self._index.nbytes
        with java_errors("preparing BM25"):
            similarity = java_class("org.apache.lucene.search.similarities.BM25Similarity")
            self._index.searcher.setSimilarity(similarity(k1, b))
            analyzer = java_class("io.anserini.analysis.DefaultEnglishAnalyzer")
            self._analyzer = analyzer.newDefaultInstance()
            self._queries = java_class("io.anserini.search.query.BagOfWordsQueryGenerator")()

    def _write(self, folder: Path) -> None:
        documents = ((doc.id, f"{doc.title} {doc.text}") for doc in self.corpus.documents())
        index_texts(folder, documents, len(self.corpus))

    def identity(self) -> dict[str, Any]:
        """Everything that determines the scores, for the manifest of a run."""
        return {"model": "lucene", "revision": f"pyserini-{anserini_version()}", **self.settings}

    def search(self, queries: Sequence[Query], k: int = 100) -> Iterator[RankedList]:
        """Top k documents of each query that share a term with it, ties by descending id."""
        from irdistill.runs import RankedList

        for query in queries:
            with java_errors(f"reading the query {query.id!r}"):
                terms = self._queries.buildQuery(_FIELD, self._analyzer, query.text)
            ids, scores = self._index.hits(terms, k)
            if "index" in self.settings:
                self.corpus.rows(ids)  # raises for an unknown document
            yield RankedList(query.id, ids, scores, None)


def fetch_prebuilt(name: str) -> str:
    """Folder of a prebuilt index of Anserini, downloaded on first use."""
    try:
        with java_errors(f"fetching the prebuilt index {name!r}"):
            index = java_class("io.anserini.util.PrebuiltIndexHandler").get(name)
            if index is None:
                raise NotFoundError("it has no such index.")
            index.fetch()
            return str(index.getIndexPath().toString())
    except IrdistillError as error:
        raise NotFoundError(
            f"{name!r} is neither the folder of a Lucene index nor a prebuilt one that Anserini can"
            f" provide ({error}). Pyserini's documentation lists the names, such as"
            " msmarco-v1-passage; the download needs network access."
        ) from error


def _segments_digest(files: Path) -> str:
    """Hash that tells two states of an index apart."""
    return digest([[path.name, file_sha256(path)] for path in sorted(files.glob("segments_*"))])
