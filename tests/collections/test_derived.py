"""Derived collections: written and read again over the same corpus, and runs that both can use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from irdistill.collections import Collection, Query, Turn, load_collection
from irdistill.collections.collection import collection_mismatch
from irdistill.collections.derived import write_derived
from irdistill.errors import IrdistillError
from irdistill.runs import RankedList, RunIdentity, RunWriter, fuse, open_run

MADE_BY = {"verb": "rewrite", "by": "human"}


@pytest.fixture
def source(tmp_path: Path) -> Collection:
    folder = tmp_path / "source"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d{i}", "text": f"text {i}"}) + "\n" for i in range(3))
    )
    history = [
        {"role": "user", "text": "who is Ada?"},
        {"role": "assistant", "text": "A mathematician."},
    ]
    (folder / "queries.jsonl").write_text(
        json.dumps(
            {
                "_id": "q1",
                "text": "what did she write?",
                "history": history,
                "rewrite": "what did Ada write?",
            }
        )
        + "\n"
        + json.dumps({"_id": "q2", "text": "who is Bob?"})
        + "\n"
    )
    (folder / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\td0\t2\nq1\td1\t0\nq2\td2\t1\n"
    )
    return load_collection(folder, cache=tmp_path / "cache")


def derive(
    folder: Path, source: Collection, queries: list[Query], same: bool = True, **made_by: str
) -> Collection:
    write_derived(
        folder, source, queries, {"test": source.qrels}, MADE_BY | made_by, same_questions=same
    )
    return load_collection(folder, cache=folder.parent / "cache")


REWRITES = [Query("q1", "what did Ada write?"), Query("q2", "who is Bob?")]


def test_queries_and_judgments_are_written_over_the_same_corpus(
    source: Collection, tmp_path: Path
) -> None:
    derived = derive(tmp_path / "rewrites", source, REWRITES)
    assert list(derived.queries.values()) == REWRITES
    assert derived.qrels.to_dict() == source.qrels.to_dict()
    assert (
        derived.corpus.fingerprint == source.corpus.fingerprint
        and derived.corpus.text(1) == "text 1"
    )
    assert derived.origin == source.queries_fingerprint
    assert not (tmp_path / "rewrites" / "corpus.jsonl").exists()
    turns = Query(
        "q1", "what did she write?", (Turn("user", "who is Ada?"),), "what did Ada write?"
    )
    assert derive(tmp_path / "turns", source, [turns]).queries == {"q1": turns}


def test_derived_from_derived_keeps_corpus_and_origin(source: Collection, tmp_path: Path) -> None:
    first = derive(tmp_path / "first", source, REWRITES)
    second = derive(tmp_path / "second", first, [Query("q2", "Bob?")])
    stored = json.loads((tmp_path / "second" / "derived.json").read_text())
    assert (
        stored["corpus"] == str(tmp_path / "source")
        and second.origin == first.origin == source.queries_fingerprint
    )
    assert second.qrels.to_dict() == {"q2": {"d2": 1}}


def run_of(collection: Collection, folder: Path) -> Path:
    identity = RunIdentity("teacher", {"model": folder.name}, collection.describe())
    scores = np.array([2.0, 1.0], np.float32)
    with RunWriter(folder, identity, list(collection.queries)) as writer:
        for number, ids in writer.pending():
            writer.write_part(
                number, [RankedList(query_id, ["d0", "d1"], scores, None) for query_id in ids]
            )
        writer.finish()
    return folder


def test_runs_of_rewrites_are_interchangeable(source: Collection, tmp_path: Path) -> None:
    rewrites = derive(tmp_path / "rewrites", source, REWRITES)
    others = derive(tmp_path / "others", source, [Query("q1", "Ada's writings?")], by="history")
    strangers = derive(tmp_path / "strangers", source, [Query("new", "text 1")], same=False)
    assert collection_mismatch(source.describe(), rewrites.describe()) is None
    assert collection_mismatch(rewrites.describe(), others.describe()) is None
    assert collection_mismatch(source.describe(), strangers.describe()) == "queries"
    assert (
        collection_mismatch({**source.describe(), "corpus": "x"}, rewrites.describe()) == "corpus"
    )
    assert collection_mismatch({}, source.describe()) == "corpus"
    runs = {
        name: run_of(collection, tmp_path / f"run-{name}")
        for name, collection in {
            "source": source,
            "rewrites": rewrites,
            "others": others,
            "strangers": strangers,
        }.items()
    }
    assert (
        open_run(runs["rewrites"], source).num_rows == 4
        and open_run(runs["source"], others).num_rows == 4
    )
    assert fuse([runs["rewrites"], runs["others"]], tmp_path / "fused").query_ids == ["q1", "q2"]
    with pytest.raises(IrdistillError, match="fingerprints of the queries differ"):
        open_run(runs["strangers"], source)
    with pytest.raises(IrdistillError, match="fingerprints of the queries"):
        fuse([runs["strangers"], runs["rewrites"]], tmp_path / "no")


@pytest.mark.parametrize(
    ("queries", "same", "message"),
    [
        ([], True, "no query was made"),
        ([Query("q1", " ")], True, "'q1' made for .* is empty"),
        ([Query("q9", "what?")], True, "'q9' made for .* is not in"),
    ],
)
def test_invalid_queries_are_refused(
    queries: list[Query], same: bool, message: str, source: Collection, tmp_path: Path
) -> None:
    with pytest.raises(IrdistillError, match=message):
        derive(tmp_path / "no", source, queries, same)
    assert not (tmp_path / "no").exists()


def test_folder_with_other_settings_is_not_overwritten(source: Collection, tmp_path: Path) -> None:
    derive(tmp_path / "rewrites", source, REWRITES)
    before = {
        path: path.read_bytes() for path in (tmp_path / "rewrites").rglob("*") if path.is_file()
    }
    derive(tmp_path / "rewrites", source, REWRITES)
    with pytest.raises(IrdistillError, match="made in another way"):
        derive(tmp_path / "rewrites", source, REWRITES, by="history")
    assert {path: path.read_bytes() for path in before} == before


def damage_corpus(folder: Path) -> None:
    path = folder / "corpus.jsonl"
    path.write_text(path.read_text().replace("text 1", "another"))


def damage_format(folder: Path) -> None:
    made = folder.parent / "rewrites" / "derived.json"
    made.write_text(made.read_text().replace('"format": 1', '"format": 7'))


@pytest.mark.parametrize(
    ("damage", "message"), [(damage_corpus, "documents have changed"), (damage_format, "format 7")]
)
def test_changed_corpus_or_format_is_refused(
    damage: Callable[[Path], None], message: str, source: Collection, tmp_path: Path
) -> None:
    derive(tmp_path / "rewrites", source, REWRITES)
    damage(tmp_path / "source")
    with pytest.raises(IrdistillError, match=message):
        load_collection(tmp_path / "rewrites", cache=tmp_path / "cache")


def test_missing_split_is_refused(source: Collection, tmp_path: Path) -> None:
    write_derived(
        tmp_path / "made", source, REWRITES, {"train": source.qrels}, MADE_BY, same_questions=True
    )
    assert len(load_collection(tmp_path / "made", cache=tmp_path / "cache").qrels) == 2
    with pytest.raises(IrdistillError, match=r"names no split of .* Its splits: train"):
        load_collection(f"{tmp_path / 'made'}#dev", cache=tmp_path / "cache")


@pytest.mark.parametrize(
    "name", ["queries.jsonl", "qrels/test.tsv", "corpus.jsonl", "thesis.txt", "derived.json"]
)
def test_folder_with_files_of_others_is_refused(
    name: str, source: Collection, tmp_path: Path
) -> None:
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(IrdistillError, match=f"holds {name}, which irdistill did not write there"):
        derive(tmp_path / "mine", source, REWRITES)
    assert [file.read_text() for file in (tmp_path / "mine").rglob("*") if file.is_file()] == [
        "mine"
    ]


def test_files_without_record_are_kept(source: Collection, tmp_path: Path) -> None:
    derive(tmp_path / "made", source, REWRITES)
    (tmp_path / "made" / "qrels" / "dev.tsv").write_text("mine")
    derive(tmp_path / "made", source, REWRITES)
    with pytest.raises(IrdistillError, match=r"holds qrels/dev.tsv, which"):
        write_derived(
            tmp_path / "made", source, REWRITES, {"dev": source.qrels}, MADE_BY, same_questions=True
        )
    assert (tmp_path / "made" / "qrels" / "dev.tsv").read_text() == "mine"


def test_unfinished_collection_is_refused(source: Collection, tmp_path: Path) -> None:
    derive(tmp_path / "made", source, REWRITES)
    record = json.loads((tmp_path / "made" / "derived.json").read_text())
    (tmp_path / "made" / "derived.json").write_text(json.dumps(record | {"complete": False}))
    with pytest.raises(
        IrdistillError, match="is not finished; run the command that writes it again"
    ):
        load_collection(tmp_path / "made", cache=tmp_path / "cache")
    derive(tmp_path / "made", source, REWRITES)
