"""The collection of a run is located by its manifest, or by the option."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irdistill.collections import load_collection
from irdistill.errors import InputError, NotFoundError, WrongCollectionError
from irdistill.runs import RunIdentity
from irdistill.runs.memory_run import MemoryRun
from irdistill.view.run_collections import RunCollections


def write_collection(folder: Path, text: str = "a cat") -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d", "text": text}) + "\n")
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "cats"}) + "\n")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    return folder


def run_of(folder: Path, id: str) -> MemoryRun:
    described = load_collection(folder).describe() | {"id": id}
    return MemoryRun(RunIdentity("imported", {}, described), [])


def test_a_relative_id_is_tried_below_and_above_the_viewed_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(write_collection(tmp_path / "project" / "sets" / "pets"), "sets/pets#test")
    (tmp_path / "project" / "out").mkdir()
    (tmp_path / "other").mkdir()
    for current, viewed in (
        (tmp_path / "project", "out"),
        (tmp_path, "project"),
        (tmp_path / "other", "../project/out"),
    ):
        monkeypatch.chdir(current)
        collections = RunCollections([Path(viewed)])
        collection = collections.collection_of(run)
        assert collection.queries["q"].text == "cats"
        assert collections.collection_of(run) is collection
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(NotFoundError, match="give the collection with --collection"):
        RunCollections([tmp_path / "other"]).collection_of(run)


def test_the_option_is_used_where_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pets = write_collection(tmp_path / "pets")
    farm = write_collection(tmp_path / "farm", "a cow")
    chosen = RunCollections([tmp_path], [str(farm)])
    assert chosen.collection_of(run_of(farm, "moved")).id == str(farm)
    assert chosen.collection_of(run_of(pets, "pets")).corpus.text(0) == "a cat"
    with pytest.raises(WrongCollectionError, match="fingerprints of the corpus differ"):
        RunCollections([tmp_path]).collection_of(run_of(pets, "farm"))


def test_a_run_without_a_collection() -> None:
    with pytest.raises(InputError, match="does not name its collection"):
        RunCollections([]).collection_of(MemoryRun(RunIdentity("imported", {}, {}), []))
