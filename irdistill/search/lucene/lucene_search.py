"""BM25 by Lucene, through Pyserini (Lin et al. 2021, arXiv:2102.10073): the figures of Anserini's
baselines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irdistill.collections import Corpus, Query
from irdistill.errors import IrdistillError
from irdistill.search.lucene.jvm import anserini_version, java_class, java_errors
from irdistill.search.lucene.lucene_index import LuceneIndex, write_texts
from irdistill.storage.files import digest, file_sha256

if TYPE_CHECKING:
    from irdistill.runs import RankedList

_FIELD = "contents"


class LuceneBM25:
    """BM25 over a corpus as Anserini computes it: English stop words, Porter's stemmer, lengths
    kept in one byte.

    The index serves every k1 and b. It is built on first use; a build that is stopped begins anew.

    Attributes:
        settings: what determines the scores.
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
            cache: the folder for indexes; the user's cache folder where None.
            index: take this one instead of building: a folder, or the name of a prebuilt index of
                Anserini, which is then downloaded. Its documents have to be those of the corpus.

        Raises:
            IrdistillError: k1 or b are out of range, Java or Pyserini is missing, or the index
                cannot be had.
        """
        if k1 < 0 or not 0 <= b <= 1:
            raise IrdistillError(
                f"k1={k1} and b={b} were given; k1 must be at least 0 and b from 0 to 1."
            )
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
            self._index = LuceneIndex(index if Path(index).is_dir() else fetch_prebuilt(index))
            self.settings["index"] = {
                "name": index if not Path(index).is_dir() else Path(index).name,
                "documents": self._index.documents,
                "segments": _segments(self._index.files),
            }
        with java_errors("preparing BM25"):
            self._index.searcher.setSimilarity(
                java_class("org.apache.lucene.search.similarities.BM25Similarity")(k1, b)
            )
            self._analyzer = java_class(
                "io.anserini.analysis.DefaultEnglishAnalyzer"
            ).newDefaultInstance()
            self._queries = java_class("io.anserini.search.query.BagOfWordsQueryGenerator")()

    def _write(self, folder: Path) -> None:
        documents = ((doc.id, f"{doc.title} {doc.text}") for doc in self.corpus.documents())
        write_texts(folder, documents, len(self.corpus))

    @property
    def bytes(self) -> int:
        """The size of the index on disk."""
        return self._index.nbytes

    def identity(self) -> dict[str, Any]:
        """What goes into the manifest of a run."""
        return {"model": "lucene", "revision": f"pyserini-{anserini_version()}", **self.settings}

    def search(self, queries: Sequence[Query], k: int = 100) -> Iterator[RankedList]:
        """The k best documents of each query, equal scores by document id descending; none that
        shares no word with it.

        Raises:
            IrdistillError: an index that was given holds a document that the corpus lacks.
        """
        from irdistill.runs import RankedList

        for query in queries:
            with java_errors(f"reading the query {query.id!r}"):
                words = self._queries.buildQuery(_FIELD, self._analyzer, query.text)
            ids, scores = self._index.hits(words, k)
            if "index" in self.settings:
                self.corpus.rows(ids)
            yield RankedList(query.id, ids, scores, None)


def fetch_prebuilt(name: str) -> str:
    """The folder of one of Anserini's prebuilt indexes, downloaded on first use.

    Raises:
        IrdistillError: there is none of this name, or it cannot be downloaded.
    """
    try:
        with java_errors(f"fetching the prebuilt index {name!r}"):
            found = java_class("io.anserini.util.PrebuiltIndexHandler").get(name)
            if found is None:
                raise IrdistillError("it has no such index.")
            found.fetch()
            return str(found.getIndexPath().toString())
    except IrdistillError as error:
        raise IrdistillError(
            f"{name!r} is neither the folder of a Lucene index nor a prebuilt one that Anserini can"
            f" give ({error}). The names are in Pyserini's documentation, as msmarco-v1-passage and"
            " beir-v1.0.0-scifact.flat; fetching one needs the network."
        ) from error


def _segments(files: Path) -> str:
    """What tells two states of an index apart."""
    return digest([[path.name, file_sha256(path)] for path in sorted(files.glob("segments_*"))])
