"""Text that models do not read is counted to the token and reported by every command that encodes."""

from __future__ import annotations

import json
import logging
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from irdistill.collections import Collection
from irdistill.modeling.truncation import Truncation
from irdistill.runs import RankedList, Run, RunIdentity, write_run
from irdistill.search import retrieve
from irdistill.search.vectors.vector_store import VectorStore, corpus_vectors
from irdistill.students import DenseStudent, build_student
from irdistill.teachers import CrossEncoderTeacher, ScoreOptions, load_teacher, score
from irdistill.teachers.llm.prompt_templates import cut_usage
from irdistill.teachers.pair_prompts import PairTemplate
from irdistill.teachers.scoring_reports import run_truncation, truncation_shares
from irdistill.training import TrainOptions, train
from tests.students.tiny import WORDS, tiny_backbone
from tests.teachers.families import tiny_lightning_ir
from tests.teachers.tiny import tiny_cross_encoder

LIMIT = 16


def text(words: int, seed: int = 0) -> str:
    """Words that are one token each."""
    return " ".join(random.Random(seed).choice(WORDS) for _ in range(words))


def long_collection() -> Collection:
    """Ten documents of 5 words, and ten of 30, of which 14 fit beside two special tokens."""
    docs = {f"d{number}": text(30 if number % 2 else 5, number) for number in range(20)}
    return Collection.from_dicts(
        "long", docs, {"q1": text(3), "q2": text(40)}, {"q1": {"d1": 1}, "q2": {"d2": 1}}
    )


def candidates(folder: Path, stored: Collection, depth: int = 20) -> Run:
    docs = [f"d{number}" for number in range(depth)]
    lists = [
        RankedList(query, docs, np.arange(depth, 0, -1, dtype=np.float32))
        for query in stored.queries
    ]
    return write_run(
        folder, RunIdentity("first-stage", {"model": "made up"}, stored.describe()), lists
    )


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> DenseStudent:
    folder = tmp_path_factory.mktemp("dense")
    return DenseStudent(
        str(tiny_backbone(folder / "backbone", layers=1)), max_length=LIMIT, device="cpu"
    )


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pairs", [False, True])
def test_counts_are_those_of_the_whole_text(pairs: bool, side: str, dense: DenseStudent) -> None:
    tokenizer = dense.model[0].tokenizer
    draw = random.Random(3)
    texts = [
        [text(draw.choice([0, 1, 5, 30, 90]), number) for number in range(60)]
        for _ in range(1 + pairs)
    ]
    special = tokenizer.num_special_tokens_to_add(pairs)
    whole = [len(ids) for ids in tokenizer(*texts, add_special_tokens=False)["input_ids"]]
    tokenizer.truncation_side = side
    counts = Truncation()
    counts.count(tokenizer(*texts, truncation="longest_first", max_length=LIMIT), LIMIT, special)
    tokenizer.truncation_side = "right"
    assert (counts.read, counts.cut) == (60, sum(length + special > LIMIT for length in whole))
    assert counts.tokens + counts.tokens_cut == sum(whole)
    assert counts.tokens == sum(min(length, LIMIT - special) for length in whole)


def test_vectors_remember_what_was_cut(
    dense: DenseStudent, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stored = long_collection()
    store = corpus_vectors(stored.corpus, dense, tmp_path)
    assert store.truncation == Truncation(20, 10, 10 * 5 + 10 * 14, 10 * 16)
    line = "10 of 20 documents (50.0%) are longer than the 16 tokens that"
    assert (
        caplog.text.count(line) == 1
        and "45.7% of all document tokens never reach the model; collect --passage-tokens splits"
        in caplog.text
    )
    caplog.clear()
    assert corpus_vectors(stored.corpus, dense, tmp_path).truncation == store.truncation
    assert line not in caplog.text  # once a process is enough
    parts = VectorStore.build(stored.corpus, dense, tmp_path / "parts", shard_rows=7)
    assert parts.truncation == store.truncation


def test_a_search_names_documents_and_queries(
    dense: DenseStudent, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run = retrieve(long_collection(), dense, tmp_path / "run", 5, work=tmp_path)
    assert Truncation.from_usage(run.manifest.usage, "document") == Truncation(20, 10, 190, 160)
    assert Truncation.from_usage(run.manifest.usage, "query") == Truncation(2, 1, 17, 26)
    assert "1 of 2 queries (50.0%) are longer than the 16 tokens" in caplog.text
    short = replace(long_collection(), queries={"q1": long_collection().queries["q1"]})
    assert (
        "queries_cut"
        not in retrieve(short, dense, tmp_path / "short", 5, work=tmp_path).manifest.usage
    )


@pytest.mark.parametrize("kind", ["sparse", "late-interaction", "split-cross-encoder", "kernel"])
def test_every_kind_of_student_counts(kind: str, tmp_path: Path) -> None:
    backbone = tiny_backbone(tmp_path / "backbone", layers=2)
    student = build_student(kind, str(backbone), max_length=LIMIT)
    student.tokenize([text(30), text(3)], "document")
    counts = student.truncation["document"]
    assert (counts.read, counts.cut, counts.tokens + counts.tokens_cut) == (2, 1, 33)


def test_a_teacher_counts_pairs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Query 1 has 3 words: 13 of 30 are too many beside three special tokens; query 2 has 40, and
    is cut, too.
    """
    stored = long_collection()
    teacher = CrossEncoderTeacher(
        str(tiny_cross_encoder(tmp_path / "model")), max_length=26, backend="torch", device="cpu"
    )
    run = score(
        stored,
        candidates(tmp_path / "candidates", stored),
        teacher,
        tmp_path / "run",
        ScoreOptions(part_queries=1),
    )
    counts = run_truncation(run)["pair"]
    whole = sum(3 + words for words in (5, 30) for _ in range(10)) + sum(
        40 + words for words in (5, 30) for _ in range(10)
    )
    assert (counts.read, counts.cut) == (40, 30)
    assert counts.tokens_cut == whole - 10 * 8 - 30 * 23
    assert "30 of 40 pairs (75.0%) are longer than the tokens that" in caplog.text
    assert truncation_shares(run)["pairs cut"] == 0.75
    again = score(
        stored, tmp_path / "candidates", teacher, tmp_path / "again", ScoreOptions(part_queries=2)
    )
    assert run_truncation(again)["pair"].tokens_cut == counts.tokens_cut


def test_a_retriever_as_teacher_counts(dense: DenseStudent, tmp_path: Path) -> None:
    stored = long_collection()
    dense.save(tmp_path / "model")
    inputs = candidates(tmp_path / "candidates", stored)
    teacher = load_teacher(
        str(tmp_path / "model"), stored.corpus, work=tmp_path, kind="retriever", device="cpu"
    )
    assert score(stored, inputs, teacher, tmp_path / "dense").manifest.usage["queries_cut"] == 1
    tiny_backbone(tmp_path / "backbone", layers=1)
    build_student("late-interaction", str(tmp_path / "backbone"), max_length=LIMIT).save(
        tmp_path / "late"
    )
    late = load_teacher(str(tmp_path / "late"), stored.corpus, kind="retriever", device="cpu")
    assert run_truncation(score(stored, inputs, late, tmp_path / "late-run"))[
        "document"
    ] == Truncation(20, 10, 190, 160)


def test_lightning_ir_cuts_documents_by_themselves(tmp_path: Path) -> None:
    teacher = CrossEncoderTeacher(
        str(tiny_lightning_ir(tmp_path / "model")), backend="torch", device="cpu"
    )
    assert teacher.cuts is not None
    stored = Collection.from_dicts("c", {"d0": text(teacher.cuts[1] + 7)}, {"q": text(3)})
    run = score(stored, candidates(tmp_path / "candidates", stored, 1), teacher, tmp_path / "run")
    assert (run.manifest.usage["pairs_cut"], run.manifest.usage["pairs_tokens_cut"]) == (1, 7)


def test_prompts_count_what_they_leave_out(dense: DenseStudent) -> None:
    counts = Truncation()
    template = PairTemplate("what {query} is {document}")
    template.encode(
        dense.model[0].tokenizer, [(text(2), text(30)), (text(2), text(3))], 14, False, counts
    )
    assert counts == Truncation(2, 1, 14 + 7, 20)
    assert (
        cut_usage([text(5), text(30)], 10) == {"passages_cut": 1} and cut_usage([text(5)], 10) == {}
    )


def test_a_training_says_what_it_did_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = long_collection()
    student = DenseStudent(
        str(tiny_backbone(tmp_path / "backbone", layers=1)), max_length=LIMIT, device="cpu"
    )
    options = TrainOptions(steps=3, batch_size=2, list_size=4, precision="float32")
    train(stored, candidates(tmp_path / "scores", stored), student, "KL", tmp_path / "out", options)
    entries = [
        json.loads(line) for line in (tmp_path / "out/journal.jsonl").read_text().splitlines()
    ]
    counts = entries[-1]["truncation"]
    assert (
        counts["query"] == {"read": 2, "cut": 1, "tokens": 17, "tokens_cut": 26}
        and counts["document"]["cut"] > 0
    )
    assert (
        "queries (50.0%) are longer than the 16 tokens" in caplog.text
        and "documents (" in caplog.text
    )
