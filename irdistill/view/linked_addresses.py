"""The address of the page that explains why a document is in a ranking."""

from __future__ import annotations

from urllib.parse import urlencode

WHY = "/why"


def why_address(
    doc_id: str, *, at: str = "", collection: str = "", query_id: str = "", query: str = ""
) -> str:
    """The address that explains a document for a query.

    Args:
        at: key of what ranked the document: a run, a bundle, or a system of the page Ask. Its
            collection is explained.
        collection: id of a collection of the viewed runs and trainings; needed without ``at``.
        query_id: id of a query of the collection.
        query: text of another query.

    Examples:
        >>> why_address("d 1", at="out/bm25", query_id="q7")
        '/why?at=out%2Fbm25&query_id=q7&doc=d+1'
    """
    values = {"at": at, "collection": collection, "query_id": query_id, "query": query}
    chosen = {name: value for name, value in values.items() if value}
    return f"{WHY}?{urlencode({**chosen, 'doc': doc_id})}"
