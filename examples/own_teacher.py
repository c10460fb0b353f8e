"""A function is a teacher: here one that counts the query's words in the document."""

import sys

import irdistill as ird

train, test, _ = sys.argv[1:] or ("pydocs/train", "pydocs/test", "")


@ird.teacher(name="word-overlap", version="1")  # change the version when the scores change
def word_overlap(queries: list[str], documents: list[str]) -> list[float]:
    """The share of the query's words that are in the document."""
    scores = []
    for query, document in zip(queries, documents, strict=True):
        words = set(query.lower().split())
        scores.append(len(words & set(document.lower().split())) / max(1, len(words)))
    return scores


candidates = ird.retrieve(test, "bm25", k=50)
reranked = ird.score(test, candidates, word_overlap, out="out/word-overlap")
runs = {"BM25": candidates, "overlap": reranked, "both": ird.fuse([candidates, reranked])}
print(ird.evaluate(test, runs, baseline="BM25").to_markdown())
