"""Texts without tokens teach nothing and are not found, and copies of a positive are no negatives,
in any batch.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from irdistill.collections import Collection, Query
from irdistill.losses import parse_loss
from irdistill.runs import RankedList, RunIdentity, compile_run, write_run
from irdistill.search import RetrieveOptions, retrieve
from irdistill.search.vectors.vector_store import VectorStore
from irdistill.students import build_student
from irdistill.students.student_base import Student
from irdistill.teachers import (
    LateInteractionTeacher,
    RetrieverTeacher,
    TextPair,
    score,
    score_pairs,
)
from irdistill.training import TrainOptions, train
from irdistill.training.data.collate import make_collator
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.data.list_source import SamplerOptions
from irdistill.training.objectives.batch_scores import encode_batch, score_batch
from irdistill.training.objectives.encode import Encoder
from irdistill.training.processes import Processes
from tests.students.tiny import tiny_backbone
from tests.teachers.families import tiny_decoder

DOCUMENTS = {
    "d0": "cat sat mat",
    "d1": "",
    "d2": "dog bird fish",
    "d3": "rain snow blue",
    "d4": "",
    "d5": "heart lung cell wing",
}
QUERIES = {"q0": "cat mat", "q1": "rain", "q2": ""}
KINDS = ("dense", "late-interaction", "kernel")


@pytest.fixture
def collection() -> Collection:
    made = Collection.from_dicts(
        "holes",
        DOCUMENTS,
        {"q0": "cat mat", "q1": "rain", "q2": "x"},
        {"q0": {"d0": 1}, "q1": {"d3": 1}, "q2": {"d5": 1}},
    )
    return replace(
        made, queries={name: Query(name, text) for name, text in QUERIES.items()}
    )  # no file has an empty query


def student_of(kind: str, folder: Path) -> Student:
    return build_student(kind, str(tiny_decoder(folder / "decoder")), device="cpu")


def scores_run(folder: Path, collection: Collection) -> Any:
    scores = np.linspace(3, -2, len(DOCUMENTS)).astype(np.float32)
    lists = [RankedList(query, list(DOCUMENTS), scores, None) for query in QUERIES]
    return write_run(
        folder, RunIdentity("teacher", {"model": "made up"}, collection.describe(), None, {}), lists
    )


def batch_of(
    collection: Collection, student: Student, run: Any, vectors: Any = None
) -> tuple[Any, Any]:
    relevant = {
        query: {collection.corpus.row(doc): grade for doc, grade in judged.items()}
        for query, judged in collection.qrels.items()
    }
    sampler = ListSampler(
        [compile_run(run, collection.corpus)],
        relevant,
        SamplerOptions(batch_size=len(collection.queries), list_size=9, seed=1, scored=False),
    )
    collator = make_collator(collection, sampler, student, vectors, Processes())
    return collator(0), sampler


@pytest.mark.parametrize("kind", KINDS)
def test_in_training_they_stand_in_no_loss(
    kind: str, collection: Collection, tmp_path: Path
) -> None:
    student = student_of(kind, tmp_path)
    batch, sampler = batch_of(collection, student, scores_run(tmp_path / "run", collection))
    scores = score_batch(Encoder(student, torch.float32), batch, in_batch=True)
    texts = [
        [DOCUMENTS[f"d{row}"] if row >= 0 else "" for row in rows]
        for rows in sampler(0).rows.tolist()
    ]
    queries = [QUERIES[sampler.query_ids[number]] for number in sampler(0).queries.tolist()]
    expected = [
        [bool(query and text) for text in line] for query, line in zip(queries, texts, strict=True)
    ]
    assert scores.mask.tolist() == expected and sum(map(sum, expected)) == 8
    for expression in (
        "KL(tau=0.05)",
        "InfoNCE(tau=0.05)",
        'InfoNCE(tau=0.05, positive_by="teacher")',
        "MarginMSE",
        "CPRD",
        "Hinge",
        "ListMLE",
        "MSE",
        "RankNet",
        "ApproxNDCG",
    ):
        loss = parse_loss(expression)(scores)
        assert torch.isfinite(loss) and float(loss) < 200, expression
    # the same as without them: their scores, whatever they are, count nowhere
    absent = ~scores.mask
    changed = score_batch(Encoder(student, torch.float32), batch, in_batch=True)
    with torch.no_grad():
        changed.student[absent] = 1e4
        changed.in_batch[
            :,
            [
                place
                for place in range(scores.in_batch.shape[1])
                if bool(scores.positives[:, place].all())
            ],
        ] = 1e4
    for expression in ("KL", "InfoNCE", "MarginMSE", "CPRD", "ListMLE"):
        assert torch.allclose(parse_loss(expression)(scores), parse_loss(expression)(changed)), (
            expression
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_with_them_has_ordinary_losses(
    kind: str, collection: Collection, tmp_path: Path
) -> None:
    run = scores_run(tmp_path / "run", collection)
    train(
        collection,
        run,
        student_of(kind, tmp_path),
        "KL(tau=0.1) + 0.1*InfoNCE(tau=0.1)",
        tmp_path / "out",
        TrainOptions(steps=3, batch_size=2, list_size=6, checkpoint_every=0),
    )
    losses = [
        json.loads(line)["loss"]
        for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()
    ]
    assert len(losses) == 3 and all(0 <= value < 100 for value in losses)


def test_documents_and_queries_without_tokens_find_and_are_found_in_no_search(
    collection: Collection, tmp_path: Path
) -> None:
    for kind, indexes in (
        ("dense", ("flat", "hnsw", "sq8")),
        ("late-interaction", ("flat", "hnsw")),
    ):
        student = student_of(kind, tmp_path / kind)
        for index in indexes:
            run: Any = retrieve(
                collection,
                student,
                tmp_path / kind / index,
                6,
                RetrieveOptions(index=index),
                work=tmp_path / "work",
            )  # type: ignore[arg-type]
            for query in ("q0", "q1"):
                assert sorted(run[query].doc_ids) == ["d0", "d2", "d3", "d5"], (kind, index)
            assert run["q2"].doc_ids == []


def test_a_batch_of_nothing_else(collection: Collection, tmp_path: Path) -> None:
    dense, late, kernel = (student_of(kind, tmp_path / kind) for kind in KINDS)
    assert not dense.search_vectors(["", ""], "document").any()  # type: ignore[attr-defined]
    assert [tokens.shape for tokens in late.search_vectors(["", ""], "document")] == [(0, 128)] * 2
    assert [len(states) for states in kernel.encode(["", ""], "document")] == [0, 0]  # type: ignore[attr-defined]
    mixed = dense.search_vectors(["", "cat dog", ""], "query")
    assert not mixed[0].any() and np.allclose(
        mixed[1], dense.search_vectors(["cat dog"], "query")[0], atol=1e-5
    )


@torch.no_grad()
def test_expanded_queries_and_sparse_query_words(tmp_path: Path) -> None:
    late = build_student(
        "late-interaction", str(tiny_decoder(tmp_path / "decoder")), device="cpu", expand_queries=8
    )
    assert [len(tokens) for tokens in late.search_vectors(["", "cat dog"], "query")] == [0, 8]
    sparse = build_student(
        "sparse", str(tiny_backbone(tmp_path / "bert")), device="cpu", inference_free=True
    )
    assert (
        sparse.search_vectors(["", ""], "query").nnz == 0
        and sparse.search_vectors(["", "cat"], "query").nnz == 1
    )


def test_teachers_leave_them_unscored_with_a_flag(collection: Collection, tmp_path: Path) -> None:
    dense, late = (
        student_of("dense", tmp_path / "a"),
        student_of("late-interaction", tmp_path / "b"),
    )
    late.save(tmp_path / "late")
    for teacher in (
        RetrieverTeacher(dense, collection.corpus, tmp_path / "work"),  # type: ignore[arg-type]
        LateInteractionTeacher(str(tmp_path / "late"), device="cpu"),
    ):
        pairs = [
            TextPair(collection.queries[query], row, text)
            for query in QUERIES
            for row, text in enumerate(DOCUMENTS.values())
        ]
        scored = score_pairs(teacher, pairs)[0]
        expected = [not (pair.query.text and pair.text) for pair in pairs]
        assert np.isnan(scored.values).tolist() == expected
        assert scored.flags == [("no tokens" if none else None) for none in expected]
        run = score(
            collection,
            scores_run(tmp_path / f"c{id(teacher)}", collection),
            teacher,
            tmp_path / f"s{id(teacher)}",
        )
        assert (
            run["q2"].flags.count("empty query") == 4 and run["q2"].flags.count("empty text") == 2
        )  # type: ignore[union-attr]
        assert np.isnan(run["q2"].scores).all() and np.isnan(run["q0"].scores).sum() == 2


def test_the_store_knows_them(collection: Collection, tmp_path: Path) -> None:
    store = VectorStore.build(collection.corpus, student_of("dense", tmp_path), tmp_path / "store")
    assert store.absent_rows.tolist() == [1, 4]


# -- copies
# --------------------------------------------------------------------------------------------------

COPIES = {
    "d0": "cat sat mat",
    "d1": "dog bird",
    "d2": "cat  sat mat ",
    "d3": "rain snow",
    "d4": "rain snow",
    "d5": "heart lung",
}


@pytest.mark.parametrize("frozen", [False, True])
def test_a_copy_of_the_positive_under_another_id_is_no_negative(
    frozen: bool, tmp_path: Path
) -> None:
    """Of q0 the positive is d0; d2 is a copy in the list of q1, and in its own list; d4 is one of
    q1's positive.
    """
    collection = Collection.from_dicts(
        "copies", COPIES, {"q0": "cat", "q1": "rain"}, {"q0": {"d0": 1}, "q1": {"d3": 1}}
    )
    student = build_student(
        "dense", str(tiny_backbone(tmp_path / "bert")), device="cpu", freeze_documents=frozen
    )
    lists = [
        RankedList("q0", ["d0", "d1", "d2"], np.array([3, 1, 3], np.float32), None),
        RankedList("q1", ["d3", "d2", "d5"], np.array([3, 1, 0], np.float32), None),
    ]
    run = write_run(
        tmp_path / "run",
        RunIdentity("teacher", {"model": "made up"}, collection.describe(), None, {}),
        lists,
    )
    vectors = VectorStore.build(collection.corpus, student, tmp_path / "store") if frozen else None
    batch, sampler = batch_of(collection, student, run, vectors)
    encoder = Encoder(student, torch.float32)
    with torch.no_grad():
        scores = score_batch(encoder, batch, in_batch=True, encoded=encode_batch(encoder, batch))
    order = [sampler.query_ids[number] for number in sampler(0).queries.tolist()]
    assert scores.in_batch.shape == (2, 4)  # cat, dog, rain, heart
    first = order.index("q0")
    assert scores.positives[first].sum() == 1 and scores.positives[1 - first].sum() == 1
    by_text = {
        text: float(value)
        for text, value in zip(("cat", "dog", "rain", "heart"), scores.in_batch[first], strict=True)
    }
    tau = 0.05
    for positive_by in ("label", "teacher"):
        loss = parse_loss(f'InfoNCE(tau={tau}, positive_by="{positive_by}")')
        alone = loss(scores.one_list(first))
        expected = (
            np.log(sum(np.exp(by_text[text] / tau) for text in by_text)) - by_text["cat"] / tau
        )
        assert float(alone) == pytest.approx(expected, rel=1e-3), positive_by


def test_a_copy_of_a_positive_that_is_in_no_list_is_known_too(tmp_path: Path) -> None:
    collection = Collection.from_dicts(
        "copies", COPIES, {"q0": "cat", "q1": "rain"}, {"q0": {"d0": 1}, "q1": {"d3": 1}}
    )
    student = build_student("dense", str(tiny_backbone(tmp_path / "bert")), device="cpu")
    lists = [
        RankedList("q0", ["d2", "d1"], np.array([3, 1], np.float32), None),
        RankedList("q1", ["d4", "d2"], np.array([3, 1], np.float32), None),
    ]
    run = write_run(
        tmp_path / "run",
        RunIdentity("teacher", {"model": "made up"}, collection.describe(), None, {}),
        lists,
    )
    batch, _ = batch_of(collection, student, run)
    assert batch.positives.sum(dim=1).tolist() == [1, 1]
