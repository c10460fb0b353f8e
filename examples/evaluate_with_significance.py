"""Evaluate runs of any origin: tested differences, confidence intervals, and a table."""

from small_corpus import temporary_collection

import irdistill as ird

collection = ird.load_collection(f"{temporary_collection()}#test")
bm25 = ird.retrieve(collection, "bm25", k=50)
reversed_run = {
    query: {document: -score for document, score in documents.items()}
    for query, documents in bm25.to_dict().items()
}
evaluation = ird.evaluate(
    collection,
    {"BM25": bm25, "reversed": reversed_run},
    measures="nDCG@10 RR@10 R@50",
    baseline="BM25",
)
print(evaluation)
print(evaluation.to_pandas())
