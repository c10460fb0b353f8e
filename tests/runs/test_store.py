"""The run store: resumed, sharded and merged to the same bytes; damage is found; TREC files and
fusion by hand.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.runs import (
    MemoryRun,
    RankedList,
    RunWriter,
    compile_run,
    diff,
    fuse,
    import_run,
    merge,
    open_run,
    stats,
    verify,
    write_run,
)
from irdistill.runs.ranked_lists import column_scores, ranked, to_table
from tests.runs.stored import DOCS, QUERIES, files, identity, lists


def test_order_is_score_then_id_descending_and_nulls_come_last(
    tmp_path: Path, collection: Collection
) -> None:
    scores = np.array([1, 2, 2, np.nan, 2], np.float32)
    run = write_run(
        tmp_path / "r",
        identity(collection),
        [RankedList("q0", ["d1", "d10", "d9", "d4", "d2"], scores)],
    )
    row = run["q0"]
    assert row.doc_ids == ["d9", "d2", "d10", "d1", "d4"]
    assert row.scores[:4].tolist() == [2, 2, 2, 1] and math.isnan(row.scores[4])
    assert row.flags == [None, None, None, None, "unscored"]
    assert run.to_dict(scored_only=True) == {"q0": {"d9": 2.0, "d2": 2.0, "d10": 2.0, "d1": 1.0}}
    table = next(open_run(tmp_path / "r").tables())
    assert table.column_names == ["query_id", "doc_id", "rank", "score", "flag"]
    assert (
        table.column("rank").to_pylist() == [1, 2, 3, 4, 5]
        and table.column("score")[4].as_py() is None
    )


@given(st.integers(0, 4), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_stopped_anywhere_it_ends_with_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, stop: int, size: int
) -> None:
    tmp_path = tmp_path_factory.mktemp("resume")
    collection = Collection.from_dicts("tiny", DOCS, QUERIES, {})
    rows = lists()
    whole = write_run(tmp_path / "whole", identity(collection), rows.values(), part_queries=size)
    with RunWriter(tmp_path / "cut", identity(collection), list(QUERIES), size) as writer:
        for number, ids in writer.pending()[:stop]:
            writer.write_part(number, [rows[q] for q in ids], {"pairs": 3})
    with (tmp_path / "cut" / "journal.jsonl").open("a") as stream:
        stream.write('{"part": {"number": 0, "na')  # a kill in the middle of a line
    (tmp_path / "cut" / ".manifest.json-irdistill-tmp-1").write_text(
        "{"
    )  # and between writing a file and renaming it
    if stop < len(writer.manifest.part_numbers()):
        with pytest.raises(IrdistillError, match="not finished"):
            open_run(tmp_path / "cut")
    with RunWriter(tmp_path / "cut", identity(collection), list(QUERIES), size) as writer:
        assert len(writer.pending()) == max(0, -(-10 // size) - stop)
        for number, ids in writer.pending():
            writer.write_part(number, [rows[q] for q in ids], {"pairs": 3})
        run = writer.finish()
    assert run.manifest.usage == {"pairs": 3 * -(-10 // size)}
    assert run.fingerprint == whole.fingerprint and verify(tmp_path / "cut") == []
    assert not list((tmp_path / "cut").glob(".*-irdistill-tmp-*"))
    cut, plain = files(tmp_path / "cut"), files(tmp_path / "whole")
    assert {k: v for k, v in cut.items() if k != "manifest.json"} == {
        k: v for k, v in plain.items() if k != "manifest.json"
    }


def test_a_second_start_leaves_a_finished_run_alone(tmp_path: Path, collection: Collection) -> None:
    write_run(tmp_path / "r", identity(collection), lists().values(), part_queries=3)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "r").glob("[!.]*")}
    write_run(tmp_path / "r", identity(collection), lists().values(), part_queries=3)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "r").glob("[!.]*")} == before


def test_another_identity_is_refused_with_the_difference(
    tmp_path: Path, collection: Collection
) -> None:
    write_run(tmp_path / "r", identity(collection), lists().values())
    before = files(tmp_path / "r")
    with pytest.raises(IrdistillError, match=r'producer\.model: "a" there, "b" here'):
        write_run(tmp_path / "r", identity(collection, "b"), lists().values())
    assert files(tmp_path / "r") == before
    run = write_run(tmp_path / "r", identity(collection, "b"), lists().values(), overwrite=True)
    assert run.identity.producer == {"model": "b"} and verify(tmp_path / "r") == []


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, collection: Collection) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(IrdistillError, match="thesis"):
            write_run(tmp_path, identity(collection), lists().values(), overwrite=overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_shards_merge_to_the_same_bytes(tmp_path: Path, collection: Collection) -> None:
    rows = lists()
    write_run(tmp_path / "whole", identity(collection), rows.values(), part_queries=2)
    for i in (1, 2, 3):
        with RunWriter(
            tmp_path / f"s{i}", identity(collection), list(QUERIES), 2, shard=(i, 3)
        ) as writer:
            for number, ids in writer.pending():
                writer.write_part(number, [rows[q] for q in ids])
            writer.finish()
    with pytest.raises(IrdistillError, match="shard 1/3"):
        open_run(tmp_path / "s1")
    with pytest.raises(IrdistillError, match="parts are missing"):
        merge([tmp_path / "s1", tmp_path / "s3"], tmp_path / "m")
    with pytest.raises(IrdistillError, match="each shard once"):
        merge([tmp_path / "s1", tmp_path / "s1"], tmp_path / "m")
    with pytest.raises(IrdistillError, match="What differs"):
        write_run(tmp_path / "other", identity(collection, "b"), rows.values(), part_queries=2)
        merge([tmp_path / "s1", tmp_path / "other"], tmp_path / "m")
    merge([tmp_path / f"s{i}" for i in (2, 3, 1)], tmp_path / "m")
    assert files(tmp_path / "m") == files(tmp_path / "whole")


def test_damage_is_found_and_mended(tmp_path: Path, collection: Collection) -> None:
    run = write_run(tmp_path / "r", identity(collection), lists().values(), part_queries=3)
    part = tmp_path / "r" / "part-00001.parquet"
    good = part.read_bytes()
    part.write_bytes(good[:-20])
    with pytest.raises(IrdistillError, match="truncated"):
        open_run(tmp_path / "r")
    flipped = bytearray(good)
    flipped[30] ^= 1
    part.write_bytes(bytes(flipped))
    problems = verify(tmp_path / "r")
    assert len(problems) == 1 and "part-00001.parquet" in problems[0] and "SHA-256" in problems[0]
    part.unlink()
    again = write_run(tmp_path / "r", identity(collection), lists().values(), part_queries=3)
    assert (
        part.read_bytes() == good
        and again.fingerprint == run.fingerprint
        and verify(tmp_path / "r") == []
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (RankedList("q0", ["d1", "d1"], np.zeros(2, np.float32)), "twice"),
        (RankedList("q0", ["d1", "d2"], np.zeros(3, np.float32)), "shape"),
        (RankedList("q0", ["d1", "d2"], np.array([1, np.inf], np.float32)), "'d2' is inf"),
    ],
)
def test_bad_lists_are_refused(
    tmp_path: Path, collection: Collection, row: RankedList, message: str
) -> None:
    with pytest.raises(IrdistillError, match=message):
        write_run(tmp_path / "r", identity(collection), [row])


def test_another_collection_is_refused(tmp_path: Path, collection: Collection) -> None:
    write_run(tmp_path / "r", identity(collection), lists().values())
    assert len(open_run(tmp_path / "r", collection)) == 10
    other = Collection.from_dicts("other", {**DOCS, "d0": "changed"}, QUERIES, {})
    with pytest.raises(
        IrdistillError,
        match=f"{collection.corpus.fingerprint} there, {other.corpus.fingerprint} here",
    ):
        open_run(tmp_path / "r", other)
    other_queries = Collection.from_dicts("other", DOCS, {**QUERIES, "q0": "changed"}, {})
    with pytest.raises(IrdistillError, match="queries differ"):
        open_run(tmp_path / "r", other_queries)


def test_compiled_lists_are_the_lists(tmp_path: Path, collection: Collection) -> None:
    rows = {**lists(), "q3": RankedList("q3", [], np.empty(0, np.float32))}
    run = write_run(tmp_path / "r", identity(collection), rows.values(), part_queries=4)
    for _ in range(2):  # compiled, then mapped
        compiled = compile_run(run, collection.corpus)
        assert compiled.query_ids == list(QUERIES) and compiled.offsets[-1] == 63
        for query_id, place in compiled.index.items():
            result, scores = compiled.list(place)
            assert [collection.corpus.id(int(i)) for i in result] == run[query_id].doc_ids
            np.testing.assert_array_equal(scores, run[query_id].scores)


def test_compiling_writes_into_the_cache_only(
    tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    run = write_run(tmp_path / "r", identity(collection), lists().values(), part_queries=4)
    before = files(tmp_path / "r")
    compiled = compile_run(run, collection.corpus)
    assert files(tmp_path / "r") == before and not (tmp_path / "r" / "compiled").exists()
    assert compiled.folder is not None and compiled.folder.parent == tmp_path / "cache" / "compiled"
    expected = [scores.tolist() for _, scores in map(compiled.list, range(len(compiled)))]
    data = bytearray((compiled.folder / "scores.npy").read_bytes())
    data[-1] ^= 1
    (compiled.folder / "scores.npy").write_bytes(data)
    assert "scores.npy is damaged" in verify(tmp_path / "r")[0]
    again = compile_run(open_run(tmp_path / "r"), collection.corpus)
    np.testing.assert_array_equal(
        np.concatenate([again.list(number)[1] for number in range(len(again))]),
        np.concatenate([np.array(scores, np.float32) for scores in expected]),
    )
    assert verify(tmp_path / "r") == []


def test_arrays_derived_from_a_compiled_run(
    tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    run = write_run(tmp_path / "r", identity(collection), lists().values(), part_queries=4)
    compiled = compile_run(run, collection.corpus)
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        np.save(folder / "sizes.npy", np.diff(compiled.offsets))

    for _ in range(2):
        arrays = compiled.derived_arrays("sizes", {"version": 1}, build)
        assert np.asarray(arrays["sizes"]).tolist() == [7] * 10 and list(arrays) == ["sizes"]
    assert len(built) == 1
    compiled.derived_arrays("sizes", {"version": 2}, build)
    assert len(built) == 2
    stored = sorted(path.name for path in compiled.folder.glob("sizes-*"))
    assert len(stored) == 2
    for name in stored:
        (compiled.folder / name / "sizes.npy").write_bytes(b"damaged")
    assert compiled.derived_arrays("sizes", {"version": 1}, build)["sizes"][0] == 7
    assert len(built) == 3
    in_memory = compile_run(MemoryRun(run.identity, run), collection.corpus)
    assert in_memory.folder is None
    assert in_memory.derived_arrays("sizes", {}, build)["sizes"].tolist() == [7] * 10


def test_trec_there_and_back(tmp_path: Path, collection: Collection) -> None:
    run = write_run(tmp_path / "r", identity(collection), lists().values())
    for name in ("run.txt", "run.txt.gz"):
        assert run.to_trec(tmp_path / name) == 60
        assert open_run(tmp_path / name, collection).to_dict() == run.to_dict(scored_only=True)
        assert import_run(
            tmp_path / name, collection, tmp_path / f"back-{name}", "trec"
        ).to_dict() == run.to_dict(scored_only=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q0 Q0 d1 1 1.0", "line 2: 5 columns"),
        ("q0 Q0 d1 1 nan t", "line 2: the score 'nan'"),
        ("q0 Q0 d0 1 2 t", "line 2: the document 'd0' comes twice"),
        ("q0 Q0 d99 1 2 t", "line 2: the document 'd99' is not in the corpus"),
    ],
)
def test_broken_trec_lines_are_named(
    tmp_path: Path, collection: Collection, line: str, message: str
) -> None:
    (tmp_path / "run.txt").write_text(f"q0 Q0 d0 1 3.5 t\n{line}\n")
    with pytest.raises(IrdistillError, match=message):
        open_run(tmp_path / "run.txt", collection)


def two(tmp_path: Path, collection: Collection) -> list[Path]:
    write_run(
        tmp_path / "a",
        identity(collection),
        [RankedList("q0", ["d1", "d2", "d3"], np.array([3, 2, 1], np.float32))],
    )
    write_run(
        tmp_path / "b",
        identity(collection, "b"),
        [RankedList("q0", ["d2", "d1", "d4"], np.array([30, 20, 10], np.float32))],
    )
    return [tmp_path / "a", tmp_path / "b"]


def test_fusion_by_hand(tmp_path: Path, collection: Collection) -> None:
    runs = two(tmp_path, collection)
    z = math.sqrt(1.5)  # (3, 2, 1): mean 2, population deviation sqrt(2/3)
    result = fuse(runs, tmp_path / "z", "zscore")["q0"]
    assert result.doc_ids[:2] == ["d2", "d1"] and result.flags == [None, None, "missing", "missing"]
    np.testing.assert_allclose(result.scores, [z / 2, z / 2, np.nan, np.nan], rtol=1e-6)
    result = fuse(runs, tmp_path / "s", "zscore", missing="skip")["q0"]
    np.testing.assert_allclose(
        [dict(zip(result.doc_ids, result.scores, strict=True))[d] for d in ("d3", "d4")],
        [-z, -z],
        rtol=1e-6,
    )
    result = fuse(runs, tmp_path / "w", "mean", weights=[3, 1], missing="min")["q0"]
    assert dict(zip(result.doc_ids, result.scores.tolist(), strict=True)) == {
        "d1": 7.25,
        "d2": 9.0,
        "d3": 3.25,
        "d4": 3.25,
    }
    result = fuse(runs, tmp_path / "r", "rrf")["q0"]
    expected = {"d2": 1 / 62 + 1 / 61, "d1": 1 / 61 + 1 / 62, "d4": 1 / 63, "d3": 1 / 63}
    assert result.doc_ids == list(expected)
    np.testing.assert_allclose(result.scores, list(expected.values()), rtol=1e-6)
    e = np.exp([3.0, 2.0, 1.0])
    result = fuse(runs, tmp_path / "e", "softmax", missing="skip")["q0"]
    assert dict(zip(result.doc_ids, result.scores, strict=True))["d3"] == pytest.approx(
        e[2] / e.sum(), rel=1e-6
    )
    with pytest.raises(IrdistillError, match="at least two"):
        fuse(runs[:1], tmp_path / "x")
    with pytest.raises(IrdistillError, match="weights"):
        fuse(runs, tmp_path / "x", weights=[1.0])


def test_stats_and_diff(tmp_path: Path, collection: Collection) -> None:
    runs = two(tmp_path, collection)
    result = stats(open_run(runs[0]))
    assert (result["queries"], result["rows"], result["nulls"], result["score_mean"]) == (
        1,
        3,
        0,
        2.0,
    )
    assert result["score_sd"] == pytest.approx(math.sqrt(2 / 3))
    flagged = RankedList("q", ["a", "b", "c"], np.array([1, np.nan, np.nan]), ["x", "y", None])
    counts = stats([flagged])
    assert counts["null_flags"] == {"unscored": 1, "y": 1} and counts["flags"]["x"] == 1
    result = diff(open_run(runs[0]), open_run(runs[1]))
    assert (
        result["documents_only_left"],
        result["documents_only_right"],
        result["scores_compared"],
    ) == (1, 1, 2)
    assert result["largest_difference"] == 28.0 and result["kendall_tau"] == pytest.approx(-1.0)
    assert json.dumps(result)


@given(
    st.lists(
        st.lists(
            st.tuples(
                st.integers(0, 30),
                st.sampled_from([1.0, -0.0, 0.0, 2.5, math.nan]),
                st.sampled_from([None, "why"]),
            ),
            max_size=12,
            unique_by=lambda row: row[0],
        ),
        max_size=6,
    )
)
@settings(max_examples=60, deadline=None)
def test_a_part_is_ranked_as_its_lists_are(rows: list[list[tuple[int, float, str | None]]]) -> None:
    unranked = [
        RankedList(
            f"q{n}",
            [f"d{doc}" for doc, _, _ in row],
            np.array([score for _, score, _ in row], np.float32),
            [flag for _, _, flag in row] if n % 2 else None,
        )
        for n, row in enumerate(rows)
    ]
    table, expected = to_table(unranked), [ranked(row) for row in unranked]
    assert table.column("doc_id").to_pylist() == [doc for row in expected for doc in row.doc_ids]
    assert table.column("query_id").to_pylist() == [
        row.query_id for row in expected for _ in row.doc_ids
    ]
    assert table.column("rank").to_pylist() == [
        rank + 1 for row in expected for rank in range(len(row.doc_ids))
    ]
    scores = np.concatenate([np.empty(0, np.float32), *(row.scores for row in expected)])
    np.testing.assert_array_equal(column_scores(table), scores)
    assert table.column("score").null_count == sum(
        int(np.isnan(row.scores).sum()) for row in expected
    )
    assert table.column("flag").to_pylist() == [
        flag for row in expected for flag in row.flags or [None] * len(row.doc_ids)
    ]


def test_a_run_without_rows_is_compiled(tmp_path: Path, collection: Collection) -> None:
    run = write_run(
        tmp_path / "r", identity(collection), [RankedList("q0", [], np.empty(0, np.float32))]
    )
    compiled = compile_run(run, collection.corpus)
    assert [len(part) for part in compiled.list(0)] == [0, 0] and len(compiled) == 1
