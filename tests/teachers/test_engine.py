"""The scoring loop: parts, resume, shards, and what stops it."""

from __future__ import annotations

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
    TextPair,
    score,
    score_pairs,
)
from tests.teachers.scoring_helpers import (
    DOCS,
    QUERIES,
    Counting,
    contents,
    make_candidates,
    make_collection,
)
from tests.teachers.tiny import tiny_cross_encoder


def test_scores_every_candidate(tmp_path: Path) -> None:
    data = make_collection()
    run = score(data, make_candidates(data), Counting(), tmp_path / "run", ScoreOptions(k=5))
    assert len(run) == 20 and run.num_rows == 100 and run.manifest.nulls == 0
    ranked = run["q03"]
    assert sorted(ranked.doc_ids) == ["d09", "d10", "d11", "d12", "d13"]
    for doc, value in zip(ranked.doc_ids, ranked.scores.tolist(), strict=True):
        expected = len(DOCS[doc]) + 0.01 * len(QUERIES["q03"]) + 0.001 * data.corpus.row(doc)
        assert value == np.float32(expected)
    assert run.manifest.usage["pairs"] == 100
    assert isinstance(run.manifest.usage["pairs"], int)  # written as 100, not as 100.0
    assert verify(tmp_path / "run") == []


@pytest.mark.parametrize("fail_at", [0, 17, 40, 90])
def test_a_resumed_job_ends_with_the_same_bytes(tmp_path: Path, fail_at: int) -> None:
    data = make_collection()
    score(data, make_candidates(data), Counting(), tmp_path / "whole", ScoreOptions(part_queries=2))
    with pytest.raises(KeyboardInterrupt):
        score(
            data,
            make_candidates(data),
            Counting(fail_at),
            tmp_path / "cut",
            ScoreOptions(part_queries=2),
        )
    again = Counting()
    score(data, make_candidates(data), again, tmp_path / "cut", ScoreOptions(part_queries=2))
    assert again.pair_count == 160 - fail_at // 16 * 16
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_shards_join_to_the_whole(tmp_path: Path) -> None:
    data = make_collection()
    whole = score(
        data, make_candidates(data), Counting(), tmp_path / "whole", ScoreOptions(part_queries=3)
    )
    for place in (1, 2, 3):
        score(
            data,
            make_candidates(data),
            Counting(),
            tmp_path / f"s{place}",
            ScoreOptions(shard=f"{place}/{3}", part_queries=3),
        )
    assert (
        merge([tmp_path / f"s{place}" for place in (1, 2, 3)], tmp_path / "merged").fingerprint
        == whole.fingerprint
    )


def test_the_same_pair_is_scored_once(tmp_path: Path) -> None:
    data = Collection.from_dicts(
        "twice", {"a": "one", "b": "two"}, {"q1": "same words", "q2": "same words"}, {}
    )
    lists = [
        RankedList(query, ["a", "b"], np.array([2.0, 1.0], np.float32)) for query in ("q1", "q2")
    ]
    teacher = Counting()
    run = score(
        data,
        MemoryRun(RunIdentity("first-stage", {}, data.describe()), lists),
        teacher,
        tmp_path / "run",
    )
    assert teacher.pair_count == 2
    assert run["q1"].scores.tolist() == run["q2"].scores.tolist()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_not_finite_stops_and_finished_parts_stay(
    tmp_path: Path, value: float
) -> None:
    data = make_collection()
    with pytest.raises(IrdistillError, match=r"query 'q0[45]' and document .*(nan|inf)"):
        score(
            data,
            make_candidates(data),
            Counting(40, value),
            tmp_path / "run",
            ScoreOptions(part_queries=2),
        )
    again = Counting()
    score(data, make_candidates(data), again, tmp_path / "run", ScoreOptions(part_queries=2))
    assert again.pair_count == 160 - 32


def test_other_settings_do_not_resume_a_run(tmp_path: Path) -> None:
    data = make_collection()
    score(data, make_candidates(data), Counting(), tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(IrdistillError, match=r"settings\.k"):
        score(data, make_candidates(data), Counting(), tmp_path / "run", ScoreOptions(k=3))
    assert contents(tmp_path / "run") == before


def test_candidates_of_another_collection_stop(tmp_path: Path) -> None:
    data = make_collection()
    other = Collection.from_dicts("other", DOCS | {"more": "a text"}, QUERIES, {})
    with pytest.raises(IrdistillError, match="collection"):
        score(other, make_candidates(data), Counting(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(IrdistillError, match="k is 0"):
        score(data, make_candidates(data), Counting(), tmp_path / "run", ScoreOptions(k=0))


def test_parts_do_not_depend_on_each_other_with_a_real_model(tmp_path: Path) -> None:
    data = make_collection()
    teacher = CrossEncoderTeacher(
        str(tiny_cross_encoder(tmp_path / "ce")), backend="torch", device="cpu"
    )
    one = score(
        data, make_candidates(data), teacher, tmp_path / "one", ScoreOptions(part_queries=5)
    )
    for place in (2, 1):
        score(
            data,
            make_candidates(data),
            teacher,
            tmp_path / f"s{place}",
            ScoreOptions(shard=f"{place}/{2}", part_queries=5),
        )
    assert merge([tmp_path / "s1", tmp_path / "s2"], tmp_path / "m").fingerprint == one.fingerprint
    assert one.manifest.usage["tokens"] > 0


def test_memory_running_out_halves_the_budget(tmp_path: Path) -> None:
    data = make_collection()
    teacher = CrossEncoderTeacher(
        str(tiny_cross_encoder(tmp_path / "ce")), precision="float32", backend="torch", device="cpu"
    )
    pairs = [
        TextPair(query, row, data.corpus.text(row))
        for query in data.queries.values()
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
    ranked, _ = score_pairs(teacher, pairs, budget)
    assert ranked.values == pytest.approx(plain.values, abs=1e-5)
    assert max(sizes) <= 10 and budget.tokens < 8192
