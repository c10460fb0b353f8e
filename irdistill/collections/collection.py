"""What is searched and asked: turns, queries, judgments and the collection that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Self

from irdistill.collections.corpus import Corpus
from irdistill.collections.document_table import Document
from irdistill.collections.load_report import LoadReport
from irdistill.collections.qrels import Qrels
from irdistill.errors import IrdistillError
from irdistill.storage.files import digest


@dataclass(frozen=True)
class Turn:
    """One earlier utterance of a conversation; ``role`` is ``user`` or ``assistant``."""

    role: str
    text: str


@dataclass(frozen=True)
class Query:
    """A question: its text (the last turn), the turns before it, and perhaps a standalone rewrite.

    Attributes:
        excluded: ids of documents that are no answer to it and are left out of every search, and of
            what is evaluated: the passage that a query was cut out of, word for word, or what a
            collection such as BRIGHT gives as ``excluded_ids``.
    """

    id: str
    text: str
    history: tuple[Turn, ...] = ()
    rewrite: str | None = None
    excluded: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """All there is of it; without ``excluded`` where that is empty."""
        return {key: value for key, value in asdict(self).items() if key != "excluded" or value}


@dataclass
class Collection:
    """A corpus, the queries of one split and their judgments.

    Attributes:
        queries: in the order of the file; the judged ones only where the split has judgments, as
            BEIR does.
        report: what was found and put up with on loading.
        origin: where the queries ask in other words what those of another collection ask, the
            fingerprint of those.
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
        """A collection held in memory: documents are texts or (title, text) pairs, queries texts or
        Query.

        Raises:
            IrdistillError: a query is empty, its key differs from its id, or a grade is not a whole
                number.
        """
        documents = (
            Document(doc_id, "", value) if isinstance(value, str) else Document(doc_id, *value)
            for doc_id, value in docs.items()
        )
        corpus = Corpus.in_memory(documents)
        asked = {key: q if isinstance(q, Query) else Query(key, q) for key, q in queries.items()}
        for key, query in asked.items():
            if query.id != key:
                raise IrdistillError(
                    f"the query under the key {key!r} has the id {query.id!r}; key and id must be"
                    " the same."
                )
            if not query.text.strip():
                raise IrdistillError(
                    f"the query {key!r} of {id} has an empty text; give it one or leave it out."
                )
        judged = Qrels(qrels or {})
        report = LoadReport(documents=len(corpus), queries=len(asked), judgments=judged.judgments)
        return cls(id, corpus, asked, judged, report)

    @cached_property
    def queries_fingerprint(self) -> str:
        """16 hexadecimal digits over ids, texts, histories, rewrites and excluded documents, in
        order.
        """
        return digest([query.identity() for query in self.queries.values()])

    @cached_property
    def query_fingerprints(self) -> dict[str, str]:
        """Query id -> 16 hexadecimal digits over its id, text, history, rewrite and excluded
        documents.
        """
        return {query_id: digest(query.identity()) for query_id, query in self.queries.items()}

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over corpus, queries and judgments."""
        return digest([self.corpus.fingerprint, self.queries_fingerprint, self.qrels.fingerprint])

    def describe(self) -> dict[str, Any]:
        """What the manifest of a run stores: the id, and the fingerprints of corpus and queries;
        the origin where it has one.
        """
        told = {
            "id": self.id,
            "corpus": self.corpus.fingerprint,
            "queries": self.queries_fingerprint,
        }
        return told | ({"origin": self.origin} if self.origin else {})

    def __repr__(self) -> str:
        return (
            f"Collection({self.id!r}, {len(self.corpus)} documents, {len(self.queries)} queries, "
            f"{self.qrels.judgments} judgments)"
        )


def collection_mismatch(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """What keeps runs of two collections, as `Collection.describe` tells of them, apart:
    ``corpus``, ``queries`` or nothing.

    Queries that ask the same in other words (one is the origin of the other, or both have the same)
    are no difference.
    """
    if one.get("corpus") != other.get("corpus"):
        return "corpus"
    names = [
        {told.get("queries"), told.get("origin") or told.get("queries")} for told in (one, other)
    ]
    return None if names[0] & names[1] else "queries"
