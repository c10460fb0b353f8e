"""The scoring loop: parts, resume, shards, and what stops it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill import IrdistillError
from irdistill.collections import Collection
from irdistill.modeling.batching import TokenBudget
from irdistill.runs import MemoryRun, RankedList, RunIdentity, merge, verify
from irdistill.teachers import (
    CrossEncoderTeacher,
    ScoreOptions,
    TeacherScores,
    TextPair,
    score,
    score_pairs,
)
from tests.teachers.tiny import tiny_cross_encoder

WORDS = ["cat", "dog", "sat", "mat", "bird", "fish", "heart", "lung", "cell", "wing", "air", "flow"]
DOCS = {f"d{n:02}": " ".join(WORDS[: n % 12 + 1]) for n in range(30)}
QUERIES = {f"q{n:02}": f"what is {WORDS[n % 12]} {n}" for n in range(20)}


def collection() -> Collection:
    return Collection.from_dicts("small", DOCS, QUERIES, {query: {"d00": 1} for query in QUERIES})


def candidates(held: Collection, depth: int = 8) -> MemoryRun:
    names = list(DOCS)
    lists = [
        RankedList(
            query,
            [names[(place * 3 + n) % 30] for n in range(depth)],
            np.arange(depth, 0, -1, dtype=np.float32),
        )
        for place, query in enumerate(QUERIES)
    ]
    return MemoryRun(RunIdentity("first-stage", {"model": "made up"}, held.describe()), lists)


class Counting:
    """Scores by lengths; can fail, or give a number of its own, at the n-th pair."""

    token_budget = 64

    def __init__(self, fail_at: int | None = None, value: float = 0.0) -> None:
        self.seen, self.fail_at, self.value = 0, fail_at, value

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "counting"}

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        values = np.array(
            [len(pair.text) + 0.01 * len(pair.query.text) + 0.001 * pair.row for pair in pairs],
            np.float32,
        )
        self.seen += len(pairs)
        if self.fail_at is not None and self.seen > self.fail_at:
            if self.value == 0.0:
                raise KeyboardInterrupt
            values[-1] = self.value
        return TeacherScores(values)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.suffix in (".json", ".parquet")
    }


def test_scores_every_candidate(tmp_path: Path) -> None:
    held = collection()
    run = score(held, candidates(held), Counting(), tmp_path / "run", ScoreOptions(k=5))
    assert len(run) == 20 and run.num_rows == 100 and run.manifest.nulls == 0
    found = run["q03"]
    assert sorted(found.doc_ids) == ["d09", "d10", "d11", "d12", "d13"]
    for doc, value in zip(found.doc_ids, found.scores.tolist(), strict=True):
        expected = len(DOCS[doc]) + 0.01 * len(QUERIES["q03"]) + 0.001 * held.corpus.row(doc)
        assert value == np.float32(expected)
    assert run.manifest.usage["pairs"] == 100
    assert verify(tmp_path / "run") == []


@pytest.mark.parametrize("fail_at", [0, 17, 40, 90])
def test_stopped_and_started_again_it_ends_with_the_same_bytes(
    tmp_path: Path, fail_at: int
) -> None:
    held = collection()
    score(held, candidates(held), Counting(), tmp_path / "whole", ScoreOptions(part_queries=2))
    with pytest.raises(KeyboardInterrupt):
        score(
            held,
            candidates(held),
            Counting(fail_at),
            tmp_path / "cut",
            ScoreOptions(part_queries=2),
        )
    again = Counting()
    score(held, candidates(held), again, tmp_path / "cut", ScoreOptions(part_queries=2))
    assert again.seen == 160 - fail_at // 16 * 16
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_shards_join_to_the_whole(tmp_path: Path) -> None:
    held = collection()
    whole = score(
        held, candidates(held), Counting(), tmp_path / "whole", ScoreOptions(part_queries=3)
    )
    for place in (1, 2, 3):
        score(
            held,
            candidates(held),
            Counting(),
            tmp_path / f"s{place}",
            ScoreOptions(shard=f"{place}/{3}", part_queries=3),
        )
    assert (
        merge([tmp_path / f"s{place}" for place in (1, 2, 3)], tmp_path / "merged").fingerprint
        == whole.fingerprint
    )


def test_the_same_pair_is_scored_once(tmp_path: Path) -> None:
    held = Collection.from_dicts(
        "twice", {"a": "one", "b": "two"}, {"q1": "same words", "q2": "same words"}, {}
    )
    lists = [
        RankedList(query, ["a", "b"], np.array([2.0, 1.0], np.float32)) for query in ("q1", "q2")
    ]
    teacher = Counting()
    run = score(
        held,
        MemoryRun(RunIdentity("first-stage", {}, held.describe()), lists),
        teacher,
        tmp_path / "run",
    )
    assert teacher.seen == 2
    assert run["q1"].scores.tolist() == run["q2"].scores.tolist()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_stops_and_what_was_written_stays(
    tmp_path: Path, value: float
) -> None:
    held = collection()
    with pytest.raises(IrdistillError, match=r"query 'q0[45]' and document .*(nan|inf)"):
        score(
            held,
            candidates(held),
            Counting(40, value),
            tmp_path / "run",
            ScoreOptions(part_queries=2),
        )
    again = Counting()
    score(held, candidates(held), again, tmp_path / "run", ScoreOptions(part_queries=2))
    assert again.seen == 160 - 32


def test_another_teacher_does_not_continue_a_run(tmp_path: Path) -> None:
    held = collection()
    score(held, candidates(held), Counting(), tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(IrdistillError, match=r"settings\.k"):
        score(held, candidates(held), Counting(), tmp_path / "run", ScoreOptions(k=3))
    assert contents(tmp_path / "run") == before


def test_candidates_of_another_collection_stop(tmp_path: Path) -> None:
    held = collection()
    other = Collection.from_dicts("other", DOCS | {"more": "a text"}, QUERIES, {})
    with pytest.raises(IrdistillError, match="collection"):
        score(other, candidates(held), Counting(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(IrdistillError, match="k is 0"):
        score(held, candidates(held), Counting(), tmp_path / "run", ScoreOptions(k=0))


def test_parts_do_not_depend_on_each_other_with_a_real_model(tmp_path: Path) -> None:
    held = collection()
    teacher = CrossEncoderTeacher(
        str(tiny_cross_encoder(tmp_path / "ce")), backend="torch", device="cpu"
    )
    one = score(held, candidates(held), teacher, tmp_path / "one", ScoreOptions(part_queries=5))
    for place in (2, 1):
        score(
            held,
            candidates(held),
            teacher,
            tmp_path / f"s{place}",
            ScoreOptions(shard=f"{place}/{2}", part_queries=5),
        )
    assert merge([tmp_path / "s1", tmp_path / "s2"], tmp_path / "m").fingerprint == one.fingerprint
    assert one.manifest.usage["tokens"] > 0


def test_memory_running_out_halves_the_budget(tmp_path: Path) -> None:
    held = collection()
    teacher = CrossEncoderTeacher(
        str(tiny_cross_encoder(tmp_path / "ce")), precision="float32", backend="torch", device="cpu"
    )
    pairs = [
        TextPair(query, row, held.corpus.text(row))
        for query in held.queries.values()
        for row in range(4)
    ]
    plain, _ = score_pairs(teacher, pairs)
    forward = teacher.forward
    sizes = []

    def small(tokens: Any, rows: np.ndarray) -> np.ndarray:
        if len(rows) > 10:
            raise RuntimeError("CUDA out of memory")
        sizes.append(len(rows))
        return forward(tokens, rows)

    teacher.forward = small  # type: ignore[method-assign]
    budget = TokenBudget(8192)
    found, _ = score_pairs(teacher, pairs, budget)
    assert found.values == pytest.approx(plain.values, abs=1e-5)
    assert max(sizes) <= 10 and budget.tokens < 8192
