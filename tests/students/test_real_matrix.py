"""Every student with every score loss on a real collection: thirty steps lower its own loss and
raise its nDCG@10.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from irdistill.collections import Collection, load_collection
from irdistill.evaluation import per_query
from irdistill.losses import Loss, parse_loss
from irdistill.runs import RankedList, RunIdentity, compile_run, open_run, write_run
from irdistill.search.lexical.bm25 import BM25
from irdistill.students import KINDS, build_student
from irdistill.students.student_base import Student
from irdistill.training.data.collate import make_collator
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.data.list_source import SamplerOptions
from irdistill.training.objectives.batch_scores import score_batch
from irdistill.training.objectives.encode import Encoder
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from tests.students.test_matrix import LOSSES as WRITTEN
from tests.students.test_matrix import SETTINGS

DEPTH, WORDS = 10, 800
#: By label, with one relevant document in six, binary cross-entropy learns in thirty steps that
#: most are not.
LOSSES = [loss.replace("BCE(", 'BCE(by="teacher", ') for loss in WRITTEN]
#: Of each kind of student, for all losses. Scores of a sparse student are never below 0: a large
#: step ends in empty vectors. A kernel student begins as a count of exact matches, near what BM25,
#: the teacher, ranks by: with 8 lists a step some losses gained a third and cost places. A split
#: cross-encoder's cross-entropy with soft targets ends near their entropy, and needs them too.
CHANGED: dict[str, dict[str, Any]] = {
    "sparse": {"learning_rate": 1e-3},
    "kernel": {"learning_rate": 3e-3, "batch_size": 32},
    "split-cross-encoder": {"batch_size": 32},
}
OPTIONS = TrainOptions(
    steps=30,
    batch_size=8,
    list_size=6,
    learning_rate=4e-3,
    precision="float32",
    seed=3,
    checkpoint_every=0,
    log_every=30,
    dropout=False,
)


@pytest.fixture(scope="module")
def adi(adi_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return load_collection(str(adi_folder), cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, adi: Collection) -> Path:
    """A backbone of random weights that knows the collection's commonest words, and a teacher
    better than BM25.

    The teacher is BM25 standardised within each list, and 3 more for a relevant document.
    """
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("real")
    collection = adi
    lists = []
    for result in BM25(collection.corpus).search(list(collection.queries.values()), DEPTH):
        judged = collection.qrels[result.query_id]
        documents = list(dict.fromkeys([*result.doc_ids, *list(judged)[:2]]))
        bm25 = np.array(
            [*result.scores, *[result.scores.min()] * (len(documents) - len(result.doc_ids))],
            np.float32,
        )
        scores = (bm25 - bm25.mean()) / (bm25.std() + 1e-6) + np.array(
            [3.0 * (doc in judged) for doc in documents], np.float32
        )
        lists.append(RankedList(result.query_id, documents, scores.astype(np.float32), None))
    identity = RunIdentity(
        "teacher", {"model": "BM25 and the judgments"}, collection.describe(), None, {}
    )
    write_run(folder / "scores", identity, lists)

    texts = [
        *collection.corpus.texts(range(len(collection.corpus))),
        *(query.text for query in collection.queries.values()),
    ]
    counted = Counter(word for text in texts for word in re.findall(r"[a-z]+", text.lower()))
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *(word for word, _ in counted.most_common(WORDS)),
    ]
    tokenizer = BertTokenizerFast(
        vocab={word: number for number, word in enumerate(vocabulary)}, model_max_length=32
    )
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
        )
    ).save_pretrained(folder / "backbone")
    tokenizer.save_pretrained(folder / "backbone")
    return folder


def judge(student: Student, loss: Loss, collection: Collection, place: Path) -> tuple[float, float]:
    """The loss over one list of every query, and nDCG@10 of these lists reranked."""
    compiled = compile_run(open_run(place / "scores", collection), collection.corpus)
    corpus = collection.corpus
    relevant = {
        query: {corpus.row(doc): grade for doc, grade in judged.items()}
        for query, judged in collection.qrels.items()
    }
    sampler = ListSampler(
        [compiled],
        relevant,
        SamplerOptions(
            batch_size=len(collection.queries), list_size=DEPTH + 2, seed=0, max_positives=99
        ),
    )
    lists = sampler(0)
    student.model.eval()
    with torch.no_grad():
        batch = score_batch(
            Encoder(student, torch.float32),
            make_collator(collection, sampler, student, None).collate(lists),
            loss.uses_in_batch,
        )
        value = float(loss(batch))
    reranked = {
        sampler.query_ids[query]: {
            corpus.id(row): score for row, score in zip(rows, scores, strict=True) if row >= 0
        }
        for query, rows, scores in zip(
            lists.queries.tolist(), lists.rows.tolist(), batch.student.tolist(), strict=True
        )
    }
    return value, float(per_query(collection.qrels, reranked, "nDCG@10").values["nDCG@10"].mean())


def written(loss: str, kind: str) -> str:
    """With the numbers that fit the range of the student's scores; negatives of the list alone, as
    it is what is ranked.
    """
    tau, scale = {"dense": (0.2, 6), "sparse": (4, 1)}.get(kind, (1, 1))
    return loss.format(tau=tau, scale=scale, negatives="list")


@pytest.mark.parametrize(
    "loss", [LOSSES[0], *(pytest.param(loss, marks=pytest.mark.slow) for loss in LOSSES[1:])]
)
@pytest.mark.parametrize("kind", KINDS)
def test_thirty_steps_improve_loss_and_ranking(
    kind: str, loss: str, place: Path, tmp_path: Path, adi: Collection
) -> None:
    settings: dict[str, Any] = SETTINGS.get(kind, {})
    student = build_student(kind, str(place / "backbone"), device="cpu", **settings)
    expression, collection = parse_loss(written(loss, kind)), adi
    before = judge(student, expression, collection, place)
    options = replace(OPTIONS, **CHANGED.get(kind, {}))
    train(collection, place / "scores", student, expression, tmp_path / "out", options)
    after = judge(student, expression, collection, place)
    logged = [
        json.loads(line)["loss"]
        for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()
    ]
    assert len(logged) == 30 and np.isfinite([*logged, *before, *after]).all()
    assert after[0] < before[0] and after[1] > before[1], (before, after)
