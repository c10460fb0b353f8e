"""A run of more queries serves a collection of some of them, where these have the same texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from irdistill import IrdistillError
from irdistill.collections import Collection, Qrels
from irdistill.collections.slices import slice_queries
from irdistill.evaluation import audit, evaluate
from irdistill.runs import compile_run, export_run, fuse, import_run, mask, merge, open_run
from irdistill.runs.subsets import RunSubset
from irdistill.search import retrieve
from irdistill.teachers import ScoreOptions, TeacherSpec, score

WORDS = ["cat", "dog", "fish", "bird", "cow", "pig", "hen", "fox", "owl", "ant", "bee", "elk"]


@pytest.fixture()
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collection:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    docs = {
        f"d{place}": f"{one} {other}"
        for place, (one, other) in enumerate(zip(WORDS * 2, WORDS + WORDS[1:], strict=False))
    }
    queries = {f"q{place}": f"{word} {WORDS[place - 1]}" for place, word in enumerate(WORDS)}
    return Collection.from_dicts(
        "animals", docs, queries, {query: {f"d{query[1:]}": 1} for query in queries}
    )


def rows_of(path: str | Path, collection: Collection) -> list[tuple[str, list[str], list[float]]]:
    return [
        (one.query_id, list(one.doc_ids), one.scores.tolist()) for one in open_run(path, collection)
    ]


def test_every_verb_takes_the_run_of_the_whole(tmp_path: Path, whole: Collection) -> None:
    part = slice_queries(whole, "[:5]")
    wide, narrow = (
        retrieve(collection, "bm25", tmp_path / f"bm25-{collection.id}", 6)
        for collection in (whole, part)
    )
    assert (
        narrow.path is not None
        and wide.path is not None
        and rows_of(wide.path, part) == rows_of(narrow.path, part)
    )
    shared = open_run(wide.path, part)
    assert isinstance(shared, RunSubset) and len(shared) == 5 and shared.num_rows == narrow.num_rows
    assert shared.fingerprint == wide.fingerprint and shared.identity.collection == part.describe()
    assert [row.query_id for row in shared] == list(part.queries)
    figures = [
        evaluate(part, {"bm25": run}, "nDCG@10 RR@10").rows for run in (wide.path, narrow.path)
    ]
    assert [replace(row, run="") for row in figures[0]] == [
        replace(row, run="") for row in figures[1]
    ]
    assert all(row.missing == 0 and row.n == 5 for row in figures[0])
    teacher = TeacherSpec("bm25")
    scores = [
        score(part, run, teacher, tmp_path / f"scores{place}")
        for place, run in enumerate((wide.path, narrow.path))
    ]
    assert rows_of(scores[0], part) == rows_of(scores[1], part)
    assert (
        scores[0].identity.collection == part.describe()
        and scores[0].identity.candidates == wide.fingerprint
    )
    masked = [
        mask(run, part, tmp_path / f"mask{place}", "above-positive")
        for place, run in enumerate((wide.path, narrow.path))
    ]
    assert [one.flags for one in masked[0]] == [one.flags for one in masked[1]] and len(
        masked[0]
    ) == 5
    audits = [
        audit(part, {"teacher": run}).to_json()["teachers"][0] | {"run": ""}
        for run in (wide.path, narrow.path)
    ]
    assert audits[0] == audits[1]
    compiled = compile_run(shared, part.corpus)
    for query_id in part.queries:
        documents = compiled.list(compiled.index[query_id])[0]
        assert [part.corpus.id(int(row)) for row in documents] == open_run(narrow.path)[
            query_id
        ].doc_ids
    assert export_run(wide.path, tmp_path / "part.trec", None, part).rows == narrow.num_rows


def test_fusing_runs_of_the_whole_and_of_a_share(tmp_path: Path, whole: Collection) -> None:
    part = slice_queries(whole, "[:5]")
    wide, narrow = (
        retrieve(collection, "bm25", tmp_path / f"bm25-{collection.id}", 6)
        for collection in (whole, part)
    )
    fused = [
        fuse([one, narrow], tmp_path / f"fused{place}", "rrf")
        for place, one in enumerate((wide, narrow))
    ]
    again = fuse([narrow, wide], tmp_path / "again", "rrf")
    assert rows_of(fused[0], part) == rows_of(fused[1], part) == rows_of(again, part)
    assert (
        len(fused[0]) == 5
        and fused[0].identity.collection == part.describe() == again.identity.collection
    )
    half = fuse([wide, fused[0]], tmp_path / "of-both", "rrf")
    assert len(half) == 5  # what was fused keeps the fingerprints of its queries


def test_a_share_of_a_share_an_import_and_a_merged_run(tmp_path: Path, whole: Collection) -> None:
    first, inner = slice_queries(whole, "[:8]"), slice_queries(whole, "[:3]")
    run = retrieve(first, "bm25", tmp_path / "eight", 6)
    assert len(open_run(run, inner)) == 3
    export_run(run, tmp_path / "eight.trec")
    imported = import_run(tmp_path / "eight.trec", first, tmp_path / "imported")
    assert rows_of(imported, inner) == rows_of(run, inner)
    shards = [
        score(
            first,
            run,
            TeacherSpec("bm25"),
            tmp_path / f"s{place}",
            ScoreOptions(shard=f"{place}/{2}", part_queries=2),
        )
        for place in (1, 2)
    ]
    merged = merge([shard.path for shard in shards if shard.path], tmp_path / "merged")
    assert len(open_run(merged, inner)) == 3


def test_other_texts_are_refused_and_named(tmp_path: Path, whole: Collection) -> None:
    run = retrieve(whole, "bm25", tmp_path / "bm25", 6)
    part = slice_queries(whole, "[:5]")
    query_id = next(iter(part.queries))
    changed = replace(
        part,
        queries={
            key: replace(query, text=query.text + "s" * (key == query_id))
            for key, query in part.queries.items()
        },
    )
    with pytest.raises(
        IrdistillError,
        match=f"queries differ.*1 of 5 queries have another text there, '{query_id}' first",
    ):
        open_run(run, changed)
    with pytest.raises(IrdistillError, match="7 of 12 queries are not in the run"):
        open_run(retrieve(part, "bm25", tmp_path / "part", 6), whole)
    excluded = replace(
        part, queries={key: replace(query, excluded=("d1",)) for key, query in part.queries.items()}
    )
    with pytest.raises(IrdistillError, match="5 of 5 queries have another text"):
        open_run(run, excluded)
    other = Collection.from_dicts("other", {"d0": "another corpus"}, {"q0": "cat"})
    with pytest.raises(IrdistillError, match="the fingerprints of the corpus differ"):
        open_run(run, other)
    with pytest.raises(IrdistillError, match="different collections"):
        fuse([run, retrieve(changed, "bm25", tmp_path / "changed", 6)], tmp_path / "fused")


def test_the_numbers_of_a_run_do_not_change_with_the_fingerprints(
    tmp_path: Path, whole: Collection
) -> None:
    run = retrieve(whole, "bm25", tmp_path / "bm25", 6)
    assert run.query_fingerprints == whole.query_fingerprints and set(
        whole.query_fingerprints
    ) == set(whole.queries)
    assert open_run(run, replace(whole, qrels=Qrels({}))) is run and isinstance(
        run["q0"].scores, np.ndarray
    )
