"""Folds: each question is in one fold, conversations stay whole, sizes are balanced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irdistill.collections import Collection, load_collection
from irdistill.errors import IrdistillError
from irdistill.queries.splitting import conversation_key, split

SIZES = [5, 4, 3, 3, 2, 1]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collection:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "source"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d", "text": "text"}) + "\n")
    lines = [
        {
            "_id": f"{talk}-{turn}",
            "text": f"talk {talk} turn {turn}",
            "rewrite": "r",
            "history": [
                {"role": "user", "text": f"Talk {talk}, turn {other}"} for other in range(turn)
            ],
        }
        for talk, size in enumerate(SIZES)
        for turn in range(size)
    ]
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "qrels" / "test.tsv").write_text(
        "q\td\tscore\n" + "".join(f"{line['_id']}\td\t1\n" for line in lines)
    )
    return load_collection(folder)


def test_folds_contain_whole_conversations(source: Collection, tmp_path: Path) -> None:
    split(source, tmp_path / "folds", 3)
    folds_of = [
        [load_collection(f"{tmp_path / 'folds'}#{number}-{part}") for part in ("test", "train")]
        for number in range(3)
    ]
    tests = [set(test.queries) for test, _ in folds_of]
    assert set.union(*tests) == set(source.queries) and sum(map(len, tests)) == 18
    for test, train in folds_of:
        assert set(test.queries) | set(train.queries) == set(source.queries)
        talks = [set(map(conversation_key, part.queries.values())) for part in (test, train)]
        assert not talks[0] & talks[1]
        assert {query.id: query for query in test.queries.values()} == {
            query: source.queries[query] for query in test.queries
        }
        assert test.origin == train.origin == source.queries_fingerprint
    assert sorted(map(len, tests)) == [6, 6, 6]  # 5+1, 4+2, 3+3


def test_the_folds_depend_on_the_seed_alone(source: Collection, tmp_path: Path) -> None:
    def tests(name: str, seed: int) -> list[list[str]]:
        split(source, tmp_path / name, 2, seed)
        return [
            list(load_collection(f"{tmp_path / name}#{number}-test").queries) for number in range(2)
        ]

    assert tests("a", 1) == tests("b", 1)
    assert len({str(tests(f"seed{seed}", seed)) for seed in range(2, 8)}) > 1


@pytest.mark.parametrize("folds", [1, 7])
def test_too_few_conversations_are_refused(folds: int, source: Collection, tmp_path: Path) -> None:
    with pytest.raises(IrdistillError, match="the 6 conversations of"):
        split(source, tmp_path / "no", folds)
