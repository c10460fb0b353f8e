"""Documents that are given where a collection is expected: collected into the cache, and kept there."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

import irdistill as ird
from irdistill.collections.derived import write_derived
from irdistill.errors import IrdistillError
from tests.collections.collecting.source_files import EXPECTED, FILES, documents, write


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_documents_are_used_directly(caplog: pytest.LogCaptureFixture, place: Path) -> None:
    write("docs", FILES)
    with caplog.at_level(logging.INFO, "irdistill"):
        collection = ird.load_collection("docs", queries=False)
    assert documents(collection) == EXPECTED and collection.id == "docs"
    assert "docs: 5 documents were collected into the cache" in caplog.text
    caplog.clear()
    again = ird.load_collection("docs", queries=False)
    assert again.fingerprint == collection.fingerprint and "collected" not in caplog.text
    assert sorted(path.name for path in Path("docs").iterdir()) == ["a", "b.md", "z.rst"]
    write("docs", {"a/b.txt": "Dogs bark loudly."})
    assert documents(ird.load_collection("docs", queries=False))["a/b.txt"][1].endswith("loudly.")
    hits = ird.search_text("docs", "who swims? fish")
    assert hits[0].doc_id == "a/c.html"
    source = ird.load_collection("docs", queries=False)
    write_derived("queries", source, [ird.Query("q", "cat")], {}, {}, same_questions=False)
    os.chdir(place / "docs")
    assert len(ird.load_collection(place / "queries").corpus) == 5


@pytest.mark.parametrize("source", ["docs", "table.csv"])
def test_a_change_that_keeps_size_and_time_is_noticed(source: str, place: Path) -> None:
    """As ``cp -p`` and ``rsync -t`` replace a file."""
    write("docs", {"a.txt": "The cat sat."})
    write(".", {"table.csv": "id,text\n1,The cat sat.\n"})
    file = Path("docs/a.txt" if source == "docs" else source)
    times = file.stat().st_mtime_ns
    before = documents(ird.load_collection(source, queries=False))
    file.write_text(file.read_text().replace("cat", "dog"))
    os.utime(file, ns=(times, times))
    after = documents(ird.load_collection(source, queries=False))
    assert [text for _, text in before.values()] == ["The cat sat."]
    assert [text for _, text in after.values()] == ["The dog sat."]


def test_damaged_documents_in_the_cache_are_collected_again(place: Path) -> None:
    write("docs", FILES)
    ird.load_collection("docs", queries=False)
    (path,) = (place / "cache" / "collected").glob("*/corpus.jsonl")
    path.write_bytes(path.read_bytes().replace(b"bark", b"moan"))
    assert documents(ird.load_collection("docs", queries=False)) == EXPECTED


def test_verbs_that_need_queries_say_so() -> None:
    write("docs", FILES)
    write(".", {"t.csv": "id,text\n1,a\n"})
    ird.collect("docs", out="out")
    for source in ("docs", "t.csv", "out"):
        with pytest.raises(IrdistillError, match=r"no queries.*irdistill generate"):
            ird.retrieve(source, "bm25", out="run")
