"""Rows in any order: the same with a little memory as with much, and the same as by hand."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from irdistill.errors import IrdistillError
from irdistill.runs import open_run
from irdistill.runs.formats.gather import ROW, ROW_COST, Gather

Found = dict[int, list[tuple[int, float]]]


def gathered(
    tmp_path: Path, rows: np.ndarray, memory: int, duplicates: str = "first", size: int = 700
) -> tuple[Found, Gather]:
    with Gather(200, tmp_path, lambda q, d: f"pair {q}, {d}", memory, duplicates) as gather:
        for start in range(0, len(rows), size):
            gather.add(rows[start : start + size])
        gather.settle()
        lists = {
            entry.query: list(zip(entry.docs.tolist(), entry.scores.tolist(), strict=True))
            for entry in gather
        }
    return lists, gather


def random_rows(seed: int, count: int = 20_000) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = np.zeros(count, ROW)
    # most rows lie in a few queries, so that one bucket does not fit into memory
    rows["query"] = np.where(
        random.random(count) < 0.7, random.integers(17, 20, count), random.integers(0, 200, count)
    )
    rows["doc"] = random.integers(0, 1500, count)
    rows["score"] = random.integers(-40, 40, count)
    rows["score"][random.random(count) < 0.1] = np.nan
    rows["line"] = np.arange(1, count + 1)
    return rows


def by_hand(rows: np.ndarray, duplicates: str) -> tuple[dict[int, dict[int, float]], int]:
    scores: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows.tolist():
        scores[row[0]][row[1]].append(row[2])
    result = {}
    for query, docs in sorted(scores.items()):
        result[query] = {}
        for doc, values in docs.items():
            numbers = [value for value in values if not math.isnan(value)]
            result[query][doc] = (
                math.nan
                if not numbers
                else (
                    numbers[0]
                    if duplicates == "first"
                    else float(np.float32(sum(numbers) / len(numbers)))
                )
            )
    return result, len(rows) - sum(map(len, result.values()))


@pytest.mark.parametrize("duplicates", ["first", "mean"])
@pytest.mark.parametrize("limit", [10**6, 3000, 150])
def test_as_by_hand_whatever_the_memory(tmp_path: Path, duplicates: str, limit: int) -> None:
    rows = random_rows(1)
    lists, gather = gathered(tmp_path, rows, limit * ROW_COST, duplicates)
    expected, repeated = by_hand(rows, duplicates)
    assert list(lists) == list(expected)
    assert str({query: dict(pairs) for query, pairs in lists.items()}) == str(
        expected
    )  # NaN equals NaN as text
    assert [doc for doc, _ in lists[18]] == list(expected[18])  # the order of the file
    assert gather.repeated == repeated and gather.counts.sum() == sum(map(len, expected.values()))
    assert (gather.spilled > 0) == (limit < 10**6) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("memory", [1 << 29, 1])
def test_two_scores_of_a_pair_are_an_error_that_names_both(tmp_path: Path, memory: int) -> None:
    rows = np.array(
        [
            (3, 5, 1.5, 0, 1),
            (2, 5, 9, 0, 2),
            (3, 5, 1.5, 0, 3),
            *[(0, i, 0, 0, 4 + i) for i in range(50)],
            (3, 5, 2, 0, 99),
        ],
        ROW,
    )
    with pytest.raises(
        IrdistillError, match=r"pair 3, 5 has two scores: 1.5 \(line 1\) and 2.0 \(line 99\)"
    ):
        gathered(tmp_path, rows, memory, "error")
    lists, gather = gathered(tmp_path, rows[:-1], memory, "error")
    assert lists[3] == [(5, 1.5)] and gather.repeated == 1


@pytest.mark.parametrize("memory", [1 << 29, 1])
def test_scores_from_elsewhere_fill_named_pairs_only(tmp_path: Path, memory: int) -> None:
    named = [(1, doc, math.nan, 0, doc) for doc in range(20)]
    numbers = [(1, doc, doc / 2, -1, doc) for doc in range(10, 40)] + [(7, 1, 1, -1, 1)]
    lists, gather = gathered(tmp_path, np.array(named + numbers, ROW), memory, "error")
    assert list(lists) == [1] and gather.repeated == 0
    assert lists[1][10:] == [(doc, doc / 2) for doc in range(10, 20)] and all(
        math.isnan(score) for _, score in lists[1][:10]
    )


def test_unknown_duplicates_policy(tmp_path: Path) -> None:
    with pytest.raises(IrdistillError, match="one of error, first, mean"):
        Gather(1, tmp_path, lambda q, d: "", duplicates="last")


IMPORT = """
import resource, sys
from pathlib import Path
from irdistill.collections import Collection
from irdistill.runs import import_run
folder, memory = Path(sys.argv[1]), int(sys.argv[2])
docs = {str(i): f"text {i}" for i in range(5000)}
collection = Collection.from_dicts("synthetic", docs, {str(i): f"question {i}" for i in range(2000)})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run = import_run(folder / "t.tsv", collection, folder / f"run{memory}", "triples", memory=memory)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, run.num_rows, run.identity.producer["repeated"], run.fingerprint)
"""


@pytest.mark.slow
def test_a_large_file_takes_little_memory_and_gives_the_same_run(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    count = 500_000
    query, entry, two = (random.integers(0, high, count) for high in (2000, 5000, 5000))
    # the score is a function of the pair: pairs that come again agree
    lines = (
        f"{(q * 31 + a) % 97 / 8}\t{(q * 31 + b) % 97 / 8}\t{q}\t{a}\t{b}\n"
        for q, a, b in zip(query.tolist(), entry.tolist(), two.tolist(), strict=True)
    )
    (tmp_path / "t.tsv").write_text("".join(lines))
    answers = []
    for memory in (1 << 20, 1 << 30):
        done = subprocess.run(
            [sys.executable, "-c", IMPORT, str(tmp_path), str(memory)],
            capture_output=True,
            text=True,
            cwd=os.getcwd(),
            check=True,
        )
        answers.append(done.stdout.split())
    assert answers[0][1:] == answers[1][1:]
    assert int(answers[0][1]) + int(answers[0][2]) == 2 * count
    # in KiB: a MiB for rows, and some dozens for blocks of text, ids and parts, however long the
    # file is
    assert int(answers[0][0]) < 150_000, answers
    left, right = (open_run(tmp_path / f"run{memory}") for memory in (1 << 20, 1 << 30))
    assert left.to_dict() == right.to_dict()
