"""A function is a teacher: it takes queries and documents and returns one score per pair."""

from small_corpus import temporary_collection

import irdistill as ird


def word_overlap(queries: list[str], documents: list[str]) -> list[float | None]:
    """The share of the query's words that the document contains. None: not scored."""
    scores: list[float | None] = []
    for query, document in zip(queries, documents, strict=True):
        words = set(query.lower().split())
        shared = words & set(document.lower().split())
        scores.append(len(shared) / len(words) if words else None)
    return scores


collection = ird.load_collection(f"{temporary_collection()}#test")
candidates = ird.retrieve(collection, "bm25", k=20)
scores = ird.score(collection, candidates, teacher=word_overlap)
print(ird.evaluate(collection, {"BM25": candidates, "overlap": scores}, baseline="BM25"))
