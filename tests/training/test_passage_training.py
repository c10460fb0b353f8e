"""Students learn from the passages that the runs name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill.collections import Collection
from irdistill.collections.split_collections import passage_view
from irdistill.errors import WrongCollectionError
from irdistill.runs import MemoryRun, RankedList, Run, RunIdentity
from irdistill.search import retrieve
from irdistill.search.vectors.vector_store import corpus_vectors
from irdistill.students import CrossEncoderStudent, DenseStudent
from irdistill.teachers import score, teacher
from irdistill.teachers.score_options import ScoreOptions
from irdistill.training import validation_sets
from irdistill.training.data.collate import make_collator
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.data.list_source import SamplerOptions
from irdistill.training.data.passage_lists import PassageLists
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from irdistill.training.validation_sets import MeasuredQueries, candidate_rows, sampled_corpus
from tests.search.passage_collection import passage_collection
from tests.students.tiny import tiny_backbone
from tests.training.support import digests, stopped_before

OPTIONS = TrainOptions(
    steps=4, batch_size=3, list_size=4, precision="float32", checkpoint_every=1, seed=5
)
LOSS = "KL(tau=0.2) + 0.1*InfoNCE(tau=0.2)"


@teacher(name="length", version="1")
def length(queries: list[str], documents: list[str]) -> list[float]:
    """Half of the number of letters."""
    return [len(text) / 2 for text in documents]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("passages")


@pytest.fixture(scope="module")
def collection(folder: Path) -> Collection:
    return passage_collection(folder)


@pytest.fixture(scope="module")
def scores(collection: Collection, folder: Path) -> Run:
    candidates = retrieve(collection, "bm25", folder / "bm25", 8)
    return score(
        collection, candidates, length, folder / "scores", ScoreOptions(score_passages="all")
    )


def new_student(folder: Path, **options: Any) -> DenseStudent:
    return DenseStudent(tiny_backbone(folder / "backbone", layers=1), **options)


def test_lists_have_the_named_passages(collection: Collection, scores: Run) -> None:
    lists = PassageLists(collection, [scores])
    compiled, passages = lists.compile(scores), lists.choice.passages
    for number, query_id in enumerate(compiled.query_ids):
        rows, values = compiled.list(number)
        ranked = scores[query_id]
        expected = passages.rows(collection.corpus.rows(ranked.doc_ids), ranked.passages)
        assert rows.tolist() == expected.tolist()
        assert values.tolist() == ranked.scores.tolist()


def test_runs_share_the_passage_of_the_first(collection: Collection, scores: Run) -> None:
    """A second run, which names another passage or none, gives scores for the same passages."""
    ranked = scores["q0"]
    last = [int(n) - 1 for n in lists_sizes(collection, ranked)]
    second = MemoryRun(scores.identity, [ranked._replace(passages=np.array(last, np.int32))])
    unnamed = MemoryRun(scores.identity, [ranked._replace(passages=None)])
    lists = PassageLists(collection, [scores, second])
    expected = lists.compile(scores).list(0)[0].tolist()
    assert lists.compile(second).list(0)[0].tolist() == expected
    assert lists.compile(unnamed).list(0)[0].tolist() == expected
    alone = PassageLists(collection, [second]).compile(second).list(0)[0]
    assert lists.choice.passages.numbers(alone).tolist() == last


def lists_sizes(collection: Collection, ranked: RankedList) -> np.ndarray:
    passages = collection.corpus.passages
    assert passages is not None
    return passages.counts(collection.corpus.rows(ranked.doc_ids))


def test_no_passage_of_a_relevant_document_is_a_negative(
    collection: Collection, scores: Run
) -> None:
    lists = PassageLists(collection, [scores])
    judgments, passages = lists.judgments(), lists.choice.passages
    for query_id, judged in collection.qrels.items():
        documents = passages.documents_of(np.array(list(judgments[query_id]), np.int64))
        assert collection.corpus.ids_at(documents) == list(judged)
    sampler = ListSampler(
        [lists.compile(scores)],
        judgments,
        SamplerOptions(batch_size=6, list_size=4, seed=1),
        siblings=lists.siblings,
    )
    batch = sampler(0)
    for query, rows in zip(batch.queries.tolist(), batch.not_negatives, strict=True):
        relevant = collection.corpus.rows(list(collection.qrels[sampler.query_ids[query]]))
        assert sorted(rows.tolist()) == sorted(passages.all_of(relevant).tolist())


def test_the_student_reads_passages(collection: Collection, scores: Run, folder: Path) -> None:
    """The texts of a batch are passages, and vectors of a frozen tower those of passages."""
    lists = PassageLists(collection, [scores])
    sampler = ListSampler(
        [lists.compile(scores)], {}, SamplerOptions(batch_size=2, list_size=3, seed=1)
    )
    student = new_student(folder, freeze_documents=True)
    batch = sampler(0)
    rows = np.unique(batch.rows[batch.rows >= 0])
    every = passage_view(collection).corpus.texts(rows)
    rows = rows[[every.index(text) for text in dict.fromkeys(every)]]  # copies are one document
    collator = make_collator(lists.view, sampler, student)
    tokens = collator.collate(batch).documents
    texts = passage_view(collection).corpus.texts(rows)
    expected = student.tokenize(texts, "document")["input_ids"]
    assert [row["input_ids"].tolist() for row in tokens.rows] == expected  # type: ignore[union-attr]
    store = corpus_vectors(lists.view.corpus, student, folder / "work", "float32")
    vectors = make_collator(lists.view, sampler, student, store).collate(batch).documents
    assert np.allclose(vectors.values, store.matrix[rows])  # type: ignore[union-attr]


@pytest.mark.parametrize("frozen", [True, False])
def test_a_stopped_training_ends_with_the_same_bytes(
    frozen: bool, collection: Collection, scores: Run, folder: Path
) -> None:
    def learn(name: str) -> None:
        student = new_student(folder, freeze_documents=frozen)
        options = replace(OPTIONS, mine_every=0 if frozen else 2, mine_depth=5)
        train(
            collection, scores, student, LOSS, folder / name, options,
            document_vectors="stored", work=folder / "work", validate=0.4,
        )  # fmt: skip

    learn(f"whole-{frozen}")
    with stopped_before(3):
        learn(f"stopped-{frozen}")
    learn(f"stopped-{frozen}")
    assert digests(folder / f"whole-{frozen}") == digests(folder / f"stopped-{frozen}")
    if not frozen:
        mined = folder / "whole-False" / "mined" / "2"
        assert mined.is_dir()


def test_a_reader_of_pairs_is_validated_on_passages(
    collection: Collection, scores: Run, folder: Path
) -> None:
    student = CrossEncoderStudent(tiny_backbone(folder / "backbone", layers=1))
    train(
        collection, scores, student, "RankNet", folder / "pairs",
        replace(OPTIONS, steps=2), validate=collection,
    )  # fmt: skip
    assert (folder / "pairs" / "model").is_dir()


def test_validation_reranks_the_best_passages(collection: Collection, scores: Run) -> None:
    queries = MeasuredQueries.of("docs", collection, list(collection.queries), ("nDCG@10",))
    passages = collection.corpus.passages
    assert passages is not None
    for source in (scores, None):
        for query, rows in zip(queries.queries, candidate_rows(queries, 5, source), strict=True):
            documents = collection.corpus.ids_at(passages.documents_of(rows))
            assert len(set(documents)) == 5
            if source is not None:
                ranked = scores[query.id]
                assert documents == ranked.doc_ids[:5]
                assert passages.numbers(rows).tolist() == ranked.passages[:5].tolist()  # type: ignore[index]
    sample = sampled_corpus(queries, candidate_rows(queries, 2, scores), 14, 3)
    assert sample.passages is not None and len(sample) >= 14
    for row in range(len(sample)):
        there = collection.corpus.row(sample.id(row))
        assert sample.passages.corpus.texts(sample.passages.all_of([row])) == (
            passages.corpus.texts(passages.all_of([there]))
        )
    assert validation_sets.reading_corpus(sample) is sample.passages.corpus


def test_scores_of_another_split_are_refused(collection: Collection, scores: Run) -> None:
    other = {**collection.describe(), "passages": "0" * 16}
    stale = MemoryRun(RunIdentity("teacher", {}, other), list(scores))
    with pytest.raises(WrongCollectionError, match="names passages"):
        PassageLists(collection, [stale])


def test_vectors_and_in_batch_scores_of_passages_are_learned(
    collection: Collection, scores: Run, folder: Path
) -> None:
    model = str(tiny_backbone(folder / "backbone", layers=1))
    vectors = score(
        collection, scores, model, folder / "vectors", ScoreOptions(representations="float32")
    )
    assert vectors.path is not None
    for loss in ("EmbeddingMSE", "KL(tau=0.2, negatives='batch')"):
        train(
            collection, vectors, new_student(folder), loss, folder / f"vectors-{loss[:2]}",
            replace(OPTIONS, steps=2), representations=vectors.path,
        )  # fmt: skip
    lexical = score(collection, scores, "bm25", folder / "lexical")
    train(
        collection, lexical, new_student(folder), "KL(tau=0.2, negatives='batch')",
        folder / "lexical-student", replace(OPTIONS, steps=2),
    )  # fmt: skip
    assert (folder / "lexical-student" / "model").is_dir()
