"""A Lucene index on disk: built, opened, and searched with any Lucene query."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from irdistill.console.progress_bars import progress
from irdistill.errors import IrdistillError, NotFoundError
from irdistill.search.lucene.jvm import anserini_version, as_class, java_class, java_errors
from irdistill.storage.build_cache import open_or_build
from irdistill.storage.checksums import (
    UNCHECKED_BYTES,
    open_files,
    read_sealed,
    verify_file,
    write_sealed,
)
from irdistill.storage.files import cache_folder, digest

FORMAT = 1
_MANIFEST, _FILES = "manifest.json", "lucene"
_BLOCK = 1000
_CLAUSES = 1 << 16
"""Most terms of a query; Lucene's limit of 1024 is too low for conversations and documents."""
Write = Callable[[Path], None]


class LuceneIndex:
    """An index whose documents have the field ``id``.

    Attributes:
        folder: folder with a manifest and Lucene's files, or an index built by Pyserini or
            Anserini.
        documents: number of documents.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open an index."""
        self.folder = Path(folder)
        files = self.folder
        if (self.folder / _MANIFEST).is_file():
            files = self.folder / _FILES
            for file in open_files(
                self.folder, read_sealed(self.folder / _MANIFEST)["files"]
            ).values():
                verify_file(file)
        if not list(files.glob("segments_*")):
            raise NotFoundError(
                f"{self.folder} contains no Lucene index; give a folder that Pyserini or Anserini"
                " has written."
            )
        self.files = files
        with java_errors(f"opening {self.folder}"):
            directory = java_class("org.apache.lucene.store.FSDirectory").open(_path(files))
            self._reader = java_class("org.apache.lucene.index.DirectoryReader").open(directory)
            size = sum(path.stat().st_size for path in files.iterdir())
            if files is self.folder and size <= UNCHECKED_BYTES:
                for leaf in self._reader.leaves():  # without our checksums: Lucene checks its own
                    as_class("org.apache.lucene.index.LeafReader", leaf.reader()).checkIntegrity()
            reader = as_class("org.apache.lucene.index.IndexReader", self._reader)
            searchers = java_class("org.apache.lucene.search.IndexSearcher")
            searchers.setMaxClauseCount(_CLAUSES)
            self.searcher = searchers(reader)
            self.documents = int(self._reader.numDocs())
        fields = java_class("org.apache.lucene.search.SortField")
        by_id = fields("id", java_class("org.apache.lucene.search.SortField$Type").STRING_VAL, True)
        self._order = java_class("org.apache.lucene.search.Sort")(fields.FIELD_SCORE, by_id)
        self._hits = java_class("io.anserini.search.ScoredDocs")

    @classmethod
    def build(cls, identity: dict[str, Any], write: Write, cache: Path | None = None) -> Self:
        """The index with this identity, built on first use.

        Args:
            identity: everything that determines the index, as JSON values.
            write: writes Lucene's files to an empty folder.
            cache: folder of indexes (default: in the cache folder).
        """
        whole = {"format": FORMAT, "pyserini": anserini_version(), **identity}

        def fill(folder: Path) -> None:
            files = folder / _FILES
            files.mkdir()
            write(files)
            names = [
                f"{_FILES}/{path.name}"
                for path in sorted(files.iterdir())
                if path.name != "write.lock"
            ]
            write_sealed(folder / _MANIFEST, {"identity": whole}, names)

        return open_or_build(
            (cache if cache is not None else cache_folder() / "lucene") / digest(whole), fill, cls
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the index."""
        return sum(path.stat().st_size for path in self.files.iterdir())

    def hits(self, query: Any, k: int, by_id: bool = True) -> tuple[list[str], np.ndarray]:
        """Top k documents of a Lucene query: ids and scores (k,) float32.

        Args:
            by_id: order ties by descending id in Lucene, so that it holds at the cut-off too.
        """
        k = min(k, max(1, self.documents))
        with java_errors("searching"):
            order = (self._order, True) if by_id else ()
            top = self._hits.fromTopDocs(self.searcher.search(query, k, *order), self.searcher)
            return list(top.docids or []), np.array(top.scores or [], dtype=np.float32)


def index_texts(
    folder: Path, documents: Iterable[tuple[str, str]], total: int, *options: str
) -> None:
    """Index (id, text) pairs as Anserini's JsonCollection does, without empty documents.

    Args:
        total: number of documents, for the progress bar.
        options: more options of Anserini's IndexCollection, such as ``-impact``.
    """
    arguments = ["-input", "", "-index", str(folder), "-collection", "JsonCollection"]
    with java_errors("building an index"), progress(total, "documents", "Lucene index") as bar:
        writer = java_class("io.anserini.index.SimpleIndexer")(
            [*arguments, "-threads", "1", *options]
        )
        try:
            for block in _blocks(documents):
                lines = [
                    json.dumps({"id": doc_id, "contents": text})
                    for doc_id, text in block
                    if text.strip()
                ]
                if lines and (added := int(writer.addRawDocuments(lines))) != len(lines):
                    raise IrdistillError(
                        f"Lucene indexed {added} of {len(lines)} documents from {block[0][0]!r} on;"
                        " see its log."
                    )
                bar.update(len(block))
        finally:
            writer.close()


@contextmanager
def index_writer(folder: Path) -> Iterator[Any]:
    """Lucene's IndexWriter with its default settings; committed on success."""
    with java_errors("building an index"):
        directory = java_class("org.apache.lucene.store.FSDirectory").open(_path(folder))
        writer = java_class("org.apache.lucene.index.IndexWriter")(
            directory, java_class("org.apache.lucene.index.IndexWriterConfig")()
        )
        try:
            yield writer
            writer.commit()
        finally:
            writer.close()


def _path(folder: Path) -> Any:
    return java_class("java.io.File")(str(folder)).toPath()


def _blocks(documents: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    iterator = iter(documents)
    while block := list(islice(iterator, _BLOCK)):
        yield block
