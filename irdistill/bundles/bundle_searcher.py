"""Open a bundle and search it, with everything kept in memory between questions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from irdistill.bundles.bundle_manifest import (
    DOCUMENTS,
    INDEX,
    MODEL,
    OFFSETS,
    QUERY_TOWER,
    Bundle,
)
from irdistill.bundles.bundle_search import (
    FAISS_FILE,
    POSTINGS,
    TERM_STARTS,
    TOKEN_STARTS,
    TOKENS,
    WEIGHTS,
    FaissSearch,
    InvertedSearch,
    MaxSimSearch,
    RowSearch,
)
from irdistill.errors import InputError, OptionError

if TYPE_CHECKING:
    from irdistill.students.exported_encoder import ExportedEncoder

_EXTRA = 32
"""Rows beyond k, so that ties at the cut-off are ordered by document id."""
_PASSAGES = 4
"""Passages fetched per document at first; more if too few documents are among them."""


@dataclass(frozen=True)
class SearchHit:
    """A document that a search returned.

    Attributes:
        rank: from 1.
        text: of the document, or of its best passage; empty if the bundle holds no texts.
        title: of the document.
        passage: number of the best passage in its document, from 0; None for a whole document.
    """

    rank: int
    doc_id: str
    score: float
    text: str
    title: str = ""
    passage: int | None = None


class Searcher:
    """Searches a bundle of `irdistill package`; the model stays loaded.

    The first query loads what it needs. A bundle that holds the query tower as an ONNX network is
    searched without torch.

    Args:
        bundle: the bundle, or its folder. Its files are compared with their checksums when they are
            opened.

    Raises:
        NotFoundError: the folder is no package.
        OptionError: it holds files for a search engine.
        DamagedError: a file is damaged.

    Examples:
        >>> import irdistill as ird
        >>> searcher = ird.Searcher("bundle")  # doctest: +SKIP
        >>> for hit in searcher.search("how do I reset the device", k=3):  # doctest: +SKIP
        ...     print(hit.rank, hit.doc_id, round(hit.score, 3), hit.title)
    """

    def __init__(self, bundle: str | Path | Bundle) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self.bundle.require_index()
        self._facts = self.bundle.contents

    @property
    def uses_torch(self) -> bool:
        """Whether queries are encoded by sentence-transformers, which takes seconds to load."""
        return not self._facts["query_tower"] or find_spec("onnxruntime") is None

    @overload
    def search(self, query: str, k: int = 10) -> list[SearchHit]: ...  # type: ignore[overload-overlap]

    @overload
    def search(self, query: Sequence[str], k: int = 10) -> list[list[SearchHit]]: ...

    def search(
        self, query: str | Sequence[str], k: int = 10
    ) -> list[SearchHit] | list[list[SearchHit]]:
        """The k best documents of a query, or of each of several queries.

        Ties are ordered by document id, descending, as in runs. A passage index returns each
        document once, with its best passage.

        Raises:
            OptionError: a query is empty, or k is below 1.
            InputError: a query is not a text, or holds bytes that are not UTF-8.
        """
        if k < 1:
            raise OptionError(f"k is {k}; expected at least 1 document.")
        if isinstance(query, str):
            return self._search([query], k)[0]
        return self._search(list(query), k)

    def _search(self, queries: list[str], k: int) -> list[list[SearchHit]]:
        check_questions(queries)
        if not queries:
            return []
        vectors = self._encode(queries)
        rows = (k * _PASSAGES if self._facts["passages"] else k) + _EXTRA
        results = []
        for place, (scores, neighbors) in enumerate(self._index.top(vectors, rows)):
            hits, limit = self._hits(scores, neighbors, k), rows
            while len(hits) < k and len(neighbors) >= limit and limit < self._index.rows:
                limit *= 4  # too few documents among the passages
                ((scores, neighbors),) = self._index.top(vectors[place : place + 1], limit)
                hits = self._hits(scores, neighbors, k)
            results.append(hits)
        return results

    def _hits(self, scores: np.ndarray, rows: np.ndarray, k: int) -> list[SearchHit]:
        documents = [self._document(row) for row in rows.tolist()]
        values = scores.tolist()
        order = sorted(range(len(rows)), key=lambda at: documents[at]["id"], reverse=True)
        order.sort(key=lambda at: -values[at])
        hits: dict[str, SearchHit] = {}
        for at in order:
            document = documents[at]
            if document["id"] not in hits and len(hits) < k:
                hits[document["id"]] = SearchHit(
                    len(hits) + 1,
                    document["id"],
                    values[at],
                    document.get("text", ""),
                    document.get("title", ""),
                    document.get("passage"),
                )
        return list(hits.values())

    def rows_of(self, doc_id: str) -> list[int]:
        """The rows of a document, or of its passages; empty if the bundle does not have it."""
        stream, offsets = self._documents
        key = f'{{"id": {json.dumps(doc_id, ensure_ascii=False)}'.encode()
        rows = []
        with mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
            place = content.find(key)
            while place >= 0:
                row = int(np.searchsorted(offsets, place))
                if offsets[row] == place and content[place + len(key)] in b",}":
                    rows.append(row)
                place = content.find(key, place + 1)
        return rows

    def vectors_of(self, rows: Sequence[int]) -> list[np.ndarray]:
        """What the index holds of some rows: vectors (D,), weights (V,) or tokens (n, D)."""
        return [self._index.vector(row) for row in rows]

    def query_vector(self, query: str) -> np.ndarray:
        """The vector (D,) or (V,) of a query, or (tokens, D), as `search` compares it."""
        return np.asarray(self._encode([query])[0])

    def fields_of(self, rows: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The fields of some rows: ``id``, and ``passage``, ``title`` and ``text`` if known."""
        return map(self._document, rows)

    def load_model(self) -> Any:
        """The model of the bundle as a student."""
        return self._student

    def _document(self, row: int) -> dict[str, Any]:
        stream, offsets = self._documents
        stream.seek(int(offsets[row]))
        document: dict[str, Any] = json.loads(stream.read(int(offsets[row + 1] - offsets[row])))
        return document

    def _encode(self, queries: list[str]) -> Any:
        if self.uses_torch:
            vectors = self._student.search_vectors(queries, "query", "float32")
            return vectors.toarray() if hasattr(vectors, "toarray") else vectors
        return self._tower.encode(queries, "query")

    @cached_property
    def _tower(self) -> ExportedEncoder:
        from irdistill.students.exported_encoder import ExportedEncoder

        for name in self.bundle.names(f"{QUERY_TOWER}/"):
            self.bundle.checked(name)
        return ExportedEncoder(self.bundle.path / QUERY_TOWER)

    @cached_property
    def _student(self) -> Any:
        from irdistill.students import load_student

        for name in self.bundle.names(f"{MODEL}/"):
            self.bundle.checked(name)
        facts = self._facts
        dimension = facts["dimension"] if facts["truncated"] else None
        folder = self.bundle.path / MODEL
        return load_student(folder, kind=facts["kind"], dimension=dimension)

    @cached_property
    def _index(self) -> RowSearch:
        folder, kind = self.bundle.path / INDEX, self._facts["kind"]
        if kind == "dense":
            return FaissSearch(self.bundle.checked(f"{INDEX}/{FAISS_FILE}"))
        names = (TERM_STARTS, POSTINGS, WEIGHTS) if kind == "sparse" else (TOKEN_STARTS, TOKENS)
        for name in names:
            self.bundle.checked(f"{INDEX}/{name}")
        if kind == "sparse":
            return InvertedSearch(folder, self._facts["rows"])
        return MaxSimSearch(folder, self._facts["similarity"] == "meanmaxsim")

    @cached_property
    def _documents(self) -> tuple[Any, np.ndarray]:
        offsets = np.load(self.bundle.checked(OFFSETS), mmap_mode="r")
        return open(self.bundle.checked(DOCUMENTS), "rb"), offsets

    def __len__(self) -> int:
        """The number of rows of the index: documents, or passages."""
        return int(self._facts["rows"])

    def __repr__(self) -> str:
        rows = "passages" if self._facts["passages"] else "documents"
        runtime = "sentence-transformers" if self.uses_torch else "without torch"
        return (
            f"Searcher({str(self.bundle.path)!r}: {self._facts['kind']} model, {len(self)} {rows},"
            f" queries encoded {'by ' if self.uses_torch else ''}{runtime})"
        )


def check_questions(questions: Sequence[object]) -> None:
    """Refuse what cannot be searched for.

    Raises:
        OptionError: a question is empty.
        InputError: a question is not a text, or holds bytes that are not UTF-8.
    """
    for question in questions:
        if not isinstance(question, str):
            raise InputError("a query is not a text; give a text, or a list of texts.")
        if not question.strip():
            raise OptionError("the query is empty; give some words to search for.")
        try:
            question.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"the query {question[:80]!r} holds bytes that are not UTF-8. Set the terminal, or"
                " convert the file of questions, to UTF-8."
            ) from error
