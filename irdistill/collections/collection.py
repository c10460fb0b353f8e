"""Queries with their conversations, and the collection of a corpus, queries and judgments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Self

from irdistill.collections.corpus import Corpus
from irdistill.collections.document_table import Document
from irdistill.collections.foreign_tables import html_table
from irdistill.collections.load_report import LoadReport
from irdistill.collections.qrels import Qrels
from irdistill.console.terminal import counted
from irdistill.errors import InputError
from irdistill.storage.files import digest


@dataclass(frozen=True)
class Turn:
    """One earlier utterance of a conversation; ``role`` is ``user`` or ``assistant``."""

    role: str
    text: str


@dataclass(frozen=True)
class Query:
    """A query, and the conversation before it.

    Attributes:
        text: the query; in a conversation, its last turn.
        history: the turns before it.
        rewrite: the query as a question that can be understood without the history, if known.
        excluded: ids of documents that are never results of this query, in search and in
            evaluation: the passage that the query was cut from, or ``excluded_ids`` of BRIGHT.
    """

    id: str
    text: str
    history: tuple[Turn, ...] = ()
    rewrite: str | None = None
    excluded: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """All fields; without ``excluded`` if it is empty."""
        return {key: value for key, value in asdict(self).items() if key != "excluded" or value}


@dataclass
class Collection:
    """A corpus, the queries of one split and their judgments.

    Use `load_collection` for files, and `from_dicts` for data in memory.

    Attributes:
        queries: query id -> query, in the order of the file. Only the judged queries if the split
            has judgments, as in BEIR.
        report: the problems tolerated while loading.
        origin: the fingerprint of the queries of another collection, if the queries are rewrites
            of those. Runs of one collection can then be used with the other.

    Examples:
        >>> Collection.from_dicts("demo", {"d1": "a cat"}, {"q1": "cats"}, {"q1": {"d1": 1}})
        Collection('demo', 1 document, 1 query, 1 judgment)
    """

    id: str
    corpus: Corpus
    queries: dict[str, Query]
    qrels: Qrels
    report: LoadReport = field(default_factory=LoadReport)
    origin: str = ""

    @classmethod
    def from_dicts(
        cls,
        id: str,
        docs: Mapping[str, str | tuple[str, str]],
        queries: Mapping[str, str | Query],
        qrels: Mapping[str, Mapping[str, int]] | None = None,
    ) -> Self:
        """Make a collection in memory.

        Args:
            docs: document id -> text, or (title, text).
            queries: query id -> text, or `Query`.
            qrels: query id -> document id -> grade.

        Raises:
            InputError: a query is empty, its key differs from its id, or a grade is not a whole
                number.
        """
        corpus = Corpus.in_memory(
            Document(doc_id, "", value) if isinstance(value, str) else Document(doc_id, *value)
            for doc_id, value in docs.items()
        )
        by_id = {key: q if isinstance(q, Query) else Query(key, q) for key, q in queries.items()}
        for key, query in by_id.items():
            if query.id != key:
                raise InputError(
                    f"the query under the key {key!r} has the id {query.id!r}; key and id must be"
                    " the same."
                )
            if not query.text.strip():
                raise InputError(f"the query {key!r} of {id} has an empty text; add it or remove.")
        judgments = Qrels(qrels or {})
        report = LoadReport(len(corpus), len(by_id), judgments.judgments)
        return cls(id, corpus, by_id, judgments, report)

    @cached_property
    def queries_fingerprint(self) -> str:
        """16 hexadecimal digits of all fields of the queries, in order."""
        return digest([query.identity() for query in self.queries.values()])

    @cached_property
    def query_fingerprints(self) -> dict[str, str]:
        """Query id -> 16 hexadecimal digits of all fields of the query."""
        return {query_id: digest(query.identity()) for query_id, query in self.queries.items()}

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of corpus, queries and judgments."""
        parts = [self.corpus.fingerprint, self.queries_fingerprint, self.qrels.fingerprint]
        passages = self.corpus.passages
        return digest(parts if passages is None else [*parts, passages.fingerprint])

    def describe(self) -> dict[str, Any]:
        """What the manifest of a run stores: id, fingerprints of corpus and queries, and origin and
        fingerprint of the passages if there are any.
        """
        description = {
            "id": self.id,
            "corpus": self.corpus.fingerprint,
            "queries": self.queries_fingerprint,
        }
        if self.origin:
            description["origin"] = self.origin
        if self.corpus.passages is not None:
            description["passages"] = self.corpus.passages.fingerprint
        return description

    def to_json(self) -> dict[str, Any]:
        """Counts, source, fingerprint and the problems of loading, as plain values."""
        passages = self.corpus.passages
        return {
            **self.report.to_json(),
            "id": self.id,
            "documents": len(self.corpus),
            **({} if passages is None else {"passages": len(passages)}),
            "queries": len(self.queries),
            "judgments": self.qrels.judgments,
            "fingerprint": self.fingerprint,
            "corpus_folder": str(self.corpus.folder) if self.corpus.folder else None,
        }

    def __repr__(self) -> str:
        passages = self.corpus.passages
        split = "" if passages is None else f" {counted(len(passages), 'passage')},"
        return (
            f"Collection({self.id!r}, {counted(len(self.corpus), 'document')},{split}"
            f" {counted(len(self.queries), 'query')},"
            f" {counted(self.qrels.judgments, 'judgment')})"
        )

    def _repr_html_(self) -> str:
        passages = self.corpus.passages
        return html_table(
            f"Collection {self.id}",
            {
                "documents": len(self.corpus),
                **({} if passages is None else {"passages": len(passages)}),
                "queries": len(self.queries),
                "judgments": self.qrels.judgments,
                "corpus": self.corpus.folder or "in memory",
                "problems while loading": "; ".join(self.report.lines()[1:]) or "none",
            },
        )


def collection_mismatch(first: Mapping[str, Any], second: Mapping[str, Any]) -> str | None:
    """What prevents runs of two collections from being compared.

    Queries that are rewrites of each other do not: one collection is the origin of the other, or
    both have the same origin.

    Args:
        first, second: what `Collection.describe` returned.

    Returns:
        ``corpus``, ``queries`` or None.
    """
    if first.get("corpus") != second.get("corpus"):
        return "corpus"
    names = [{it.get("queries"), it.get("origin") or it.get("queries")} for it in (first, second)]
    return None if names[0] & names[1] else "queries"
