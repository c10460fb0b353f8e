"""A Lucene index on disk: built whole or not at all, opened, and searched by any query of
Lucene.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from irdistill.console.progress import progress
from irdistill.errors import IrdistillError
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
"""Words that a query may have; Lucene's own limit of 1024 is less than a long document or a
conversation has.
"""
Write = Callable[[Path], None]


class LuceneIndex:
    """An index whose documents have the field ``id``.

    Attributes:
        folder: with a manifest beside Lucene's own files; or an index that Pyserini or Anserini
            built.
        documents: how many the index holds.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open an index.

        Raises:
            IrdistillError: there is none, it was damaged, or Lucene cannot read it.
        """
        self.folder = Path(folder)
        files = self.folder
        if (self.folder / _MANIFEST).is_file():
            files = self.folder / _FILES
            for file in open_files(
                self.folder, read_sealed(self.folder / _MANIFEST)["files"]
            ).values():
                verify_file(file)
        if not list(files.glob("segments_*")):
            raise IrdistillError(
                f"{self.folder} holds no Lucene index; give a folder that Pyserini or Anserini has"
                " filled."
            )
        self.files = files
        with java_errors(f"opening {self.folder}"):
            directory = java_class("org.apache.lucene.store.FSDirectory").open(_path(files))
            self._reader = java_class("org.apache.lucene.index.DirectoryReader").open(directory)
            if (
                files is self.folder
                and sum(path.stat().st_size for path in files.iterdir()) <= UNCHECKED_BYTES
            ):
                for leaf in (
                    self._reader.leaves()
                ):  # of an index without our checksums: Lucene compares its own
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
        """The index of this identity, built on first use.

        Args:
            identity: all that decides what the index holds, as JSON.
            write: fills an empty folder with Lucene's files.
            cache: the folder of such indexes; the user's cache folder where None.
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
        """The size of the index on disk."""
        return sum(path.stat().st_size for path in self.files.iterdir())

    def hits(self, query: Any, k: int, by_id: bool = True) -> tuple[list[str], np.ndarray]:
        """The k best documents of a Lucene query: ids and scores (k,) float32.

        Args:
            by_id: order equal scores by id descending, within Lucene, so that it holds at the
                cut-off too.
        """
        wanted = min(k, max(1, self.documents))
        with java_errors("searching"):
            best = (
                self.searcher.search(query, wanted, self._order, True)
                if by_id
                else self.searcher.search(query, wanted)
            )
            found = self._hits.fromTopDocs(best, self.searcher)
            return list(found.docids or []), np.array(found.scores or [], dtype=np.float32)


def write_texts(
    folder: Path, documents: Iterable[tuple[str, str]], total: int, *options: str
) -> None:
    """Index (id, text) pairs as Anserini's JsonCollection does.

    Args:
        options: more of Anserini's IndexCollection, as ``-impact``.

    Raises:
        IrdistillError: Lucene refused documents that have a text; those without one are left out.
    """
    with java_errors("building an index"), progress(total, "documents", "Lucene index") as bar:
        arguments = [
            "-input",
            "",
            "-index",
            str(folder),
            "-collection",
            "JsonCollection",
            "-threads",
            "1",
            *options,
        ]
        writer = java_class("io.anserini.index.SimpleIndexer")(arguments)
        try:
            for block in _blocks(documents):
                lines = [
                    json.dumps({"id": doc_id, "contents": text})
                    for doc_id, text in block
                    if text.strip()
                ]
                if lines and (added := int(writer.addRawDocuments(lines))) != len(lines):
                    raise IrdistillError(
                        f"Lucene took in {added} of {len(lines)} documents from {block[0][0]!r} on;"
                        " see its log."
                    )
                bar.update(len(block))
        finally:
            writer.close()


@contextmanager
def index_writer(folder: Path) -> Iterator[Any]:
    """Lucene's own IndexWriter with its default settings; committed on success."""
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
    block: list[tuple[str, str]] = []
    for document in documents:
        block.append(document)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block
