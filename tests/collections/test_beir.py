"""Folders in BEIR layout, and the message for each error."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill.collections import Query, Turn, load_collection
from irdistill.collections.collection_loader import _load
from irdistill.errors import IrdistillError
from irdistill.search import retrieve

DOCS = [
    {"_id": "d1", "title": "One", "text": "first"},
    {"_id": "d2", "title": "", "text": "second"},
]
QUERIES = [
    {"_id": "q1", "text": "what?"},
    {"_id": "q2", "text": "and?"},
    {"_id": "q3", "text": "never"},
]
QRELS = "query-id\tcorpus-id\tscore\nq2\td2\t2\nq1\td1\t1\nq1\td2\t0\n"


def write(
    folder: Path, docs: Any = DOCS, queries: Any = QUERIES, qrels: str | None = QRELS
) -> Path:
    folder.mkdir(exist_ok=True)
    for name, entries in (("corpus", docs), ("queries", queries)):
        lines = entries
        if not isinstance(entries, str):
            lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8", newline="")
    if qrels is not None:
        (folder / "qrels").mkdir(exist_ok=True)
        (folder / "qrels" / "test.tsv").write_text(qrels, encoding="utf-8", newline="")
    return folder


def fault(folder: Path) -> str:
    with pytest.raises(IrdistillError) as caught:
        load_collection(folder, cache=folder.parent / "cache")
    return str(caught.value)


def test_folder_loads(tmp_path: Path) -> None:
    folder = write(tmp_path / "c")
    collection = load_collection(str(folder), cache=tmp_path / "cache")
    assert collection.id == str(folder)
    assert collection.corpus.texts([0, 1]) == ["One first", "second"]
    assert list(collection.queries) == ["q1", "q2"]
    assert collection.qrels.to_dict() == {"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 2}}
    assert collection.report.places("unjudged queries") == ["queries.jsonl (q3)"]
    assert (
        collection.report.documents,
        collection.report.queries,
        collection.report.judgments,
    ) == (2, 2, 3)
    assert collection.report.lines() == [
        "2 documents, 2 queries, 3 judgments",
        "1 unjudged queries: queries.jsonl (q3)",
    ]


def test_compressed_files_and_windows_line_ends_give_the_same(tmp_path: Path) -> None:
    plain = load_collection(write(tmp_path / "c"), cache=tmp_path / "cache")
    other = write(tmp_path / "z", qrels=QRELS.replace("\n", "\r\n"))
    for name in ("corpus", "queries"):
        data = (other / f"{name}.jsonl").read_bytes().replace(b"\n", b"\r\n")
        (other / f"{name}.jsonl").unlink()
        (other / f"{name}.jsonl.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + data + b"\r\n"))
    assert load_collection(other, cache=tmp_path / "cache").fingerprint == plain.fingerprint


def test_changed_text_is_compiled_again(tmp_path: Path) -> None:
    folder = write(tmp_path / "c")
    first = load_collection(folder, cache=tmp_path / "cache")
    assert load_collection(folder, cache=tmp_path / "cache").fingerprint == first.fingerprint
    times = (folder / "corpus.jsonl").stat()
    write(folder, docs=[DOCS[0] | {"text": "FIRST"}, DOCS[1]])
    os.utime(folder / "corpus.jsonl", ns=(times.st_atime_ns, times.st_mtime_ns))
    second = load_collection(folder, cache=tmp_path / "cache")
    assert second.corpus.text(0) == "One FIRST"
    assert second.corpus.fingerprint != first.corpus.fingerprint
    assert second.queries_fingerprint == first.queries_fingerprint


def test_conversations(tmp_path: Path) -> None:
    history = [{"role": "user", "text": "tell me of X"}, {"role": "assistant", "text": "X is."}]
    queries = [
        {"_id": "q1", "text": "why?", "history": history, "rewrite": "why is X?"},
        QUERIES[1],
    ]
    collection = load_collection(write(tmp_path / "c", queries=queries), cache=tmp_path / "cache")
    turns = (Turn("user", "tell me of X"), Turn("assistant", "X is."))
    assert collection.queries["q1"] == Query("q1", "why?", turns, "why is X?")
    assert collection.queries["q2"] == Query("q2", "and?")
    assert "line 1" in fault(write(tmp_path / "d", queries=[QUERIES[0] | {"history": ["x"]}]))


def test_splits(tmp_path: Path) -> None:
    folder = write(tmp_path / "c")
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq3\td1\t1\n")
    assert list(load_collection(f"{folder}#dev", cache=tmp_path / "cache").queries) == ["q3"]
    with pytest.raises(
        IrdistillError, match=r"Splits in that folder: dev, test\. Choose one: .*#dev"
    ):
        load_collection(f"{folder}#train", cache=tmp_path / "cache")
    everything = load_collection(write(tmp_path / "n", qrels=None), cache=tmp_path / "cache")
    assert len(everything.queries) == 3 and len(everything.qrels) == 0


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"docs": '{"_id": "d1", "text": "x"}\n{"_id": "d2", \n'},
            ["line 2 of ", "corpus.jsonl is broken", "not JSON"],
        ),
        (
            {"docs": '{"_id": "d1", "text": "x"}\n\n["d2"]\n'},
            ["line 3 of ", "expected an object in braces"],
        ),
        ({"docs": [{"text": "x"}]}, ["line 1 of ", 'expected a non-empty "_id"', "got None"]),
        ({"docs": [{"_id": " ", "text": "x"}]}, ["line 1 of ", 'expected a non-empty "_id"']),
        ({"docs": [{"_id": "d1", "text": ["x"]}]}, ["line 1 of ", '"text" should be a string']),
        ({"docs": '{"_id": "d1", "text": "\\ud800"}\n'}, ["line 1 of ", "half a character"]),
        (
            {"docs": [*DOCS, DOCS[0] | {"text": "z"}]},
            ["'d1' twice with different texts, in lines 1 and 3"],
        ),
        (
            {"queries": [*QUERIES, {"_id": "q4", "text": "  "}]},
            ["line 4 of ", "empty query ('q4')"],
        ),
        ({"queries": [*QUERIES, {"_id": "q1", "text": "?"}]}, ["'q1' twice", "in lines 1 and 4"]),
        ({"queries": '{"_id": "q1"'}, ["line 1 of ", "queries.jsonl is broken"]),
        ({"qrels": QRELS + "q1\td1\n"}, ["line 5 of ", "test.tsv is not a judgment", "'q1\\td1'"]),
        ({"qrels": QRELS + "q1 0 d1 1\n"}, ["line 5 of ", "separated by tabs"]),
        ({"qrels": QRELS + "q2\td1\thigh\n"}, ["line 5 of ", "a whole number"]),
        (
            {"qrels": QRELS + "q1\td1\t3\n"},
            ["'d1' for query 'q1' twice and differently: 1 in line 3, 3 in"],
        ),
        (
            {"qrels": QRELS + "q1\tdX\t1\n"},
            ["line 5 of ", "test.tsv", "'dX'", "'q1'", '"judgments_without_doc": 1'],
        ),
        (
            {"qrels": QRELS + "qX\td1\t1\n"},
            ["line 5 of ", "'qX'", '"judged_queries_without_text": 1'],
        ),
    ],
)
def test_errors_that_would_corrupt_results_are_refused(
    tmp_path: Path, parts: dict[str, Any], words: list[str]
) -> None:
    said = fault(write(tmp_path / "c", **parts))
    assert all(word in said for word in words), said
    assert len(said.split("\n")) == 1


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_corpus_without_documents_is_refused(tmp_path: Path, text: str) -> None:
    assert "contains no documents" in fault(write(tmp_path / "set", text, qrels=None))


def test_broken_encodings_and_archives(tmp_path: Path) -> None:
    folder = write(tmp_path / "c")
    (folder / "corpus.jsonl").write_bytes(
        b'{"_id": "1", "text": "x"}\n{"_id": "2", "text": "\xff"}\n'
    )
    assert "line 2 of " in fault(folder) and "is not UTF-8" in fault(folder)
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(
        gzip.compress(b'{"_id": "1", "text": "x"}\n' * 99)[:-12]
    )
    assert "the archive is damaged" in fault(folder)
    (folder / "corpus.jsonl.gz").write_bytes(b"no archive")
    assert "the archive is damaged" in fault(folder)
    (folder / "corpus.jsonl.gz").unlink()
    assert "no corpus.jsonl and no corpus.jsonl.gz" in fault(folder)


def test_harmless_problems_are_counted(tmp_path: Path) -> None:
    docs = [*DOCS, {"_id": "d3", "title": "", "text": " "}, DOCS[0]]
    qrels = "q2\td2\t2.0\nq1\td1\t1\nq1\td1\t1\nq1\tdX\t0\nqX\td1\t0\n"
    folder = write(tmp_path / "c", docs, [*QUERIES, QUERIES[0]], qrels)
    report = load_collection(folder, cache=tmp_path / "cache").report
    assert {kind: (problem.count, problem.places) for kind, problem in report.problems.items()} == {
        "empty documents": (1, ["corpus.jsonl line 3 (d3)"]),
        "duplicate documents": (1, ["corpus.jsonl line 4 (d1, first in line 1)"]),
        "duplicate queries": (1, ["queries.jsonl line 4 (q1, first in line 1)"]),
        "qrels without header": (1, ["test.tsv line 1 (read as a judgment)"]),
        "duplicate judgments": (1, ["test.tsv line 3 (as line 2)"]),
        "judgments without document": (1, ["test.tsv line 4 (document dX)"]),
        "judgments without query": (1, ["test.tsv line 5 (query qX)"]),
        "unjudged queries": (1, ["queries.jsonl (q3)"]),
    }


def test_partial_collection_must_be_declared(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", qrels=QRELS + "q1\tdX\t1\nq1\tdY\t0\nqX\td1\t1\n")
    declared = folder / "stats.json"
    declared.write_text('{"judgments_without_doc": 1, "judged_queries_without_text": 1}')
    assert '"judgments_without_doc": 2 (all such judgments; it is 1 now)' in fault(folder)
    declared.write_text('{"judgments_without_doc": 2, "judged_queries_without_text": 1}')
    collection = load_collection(folder, cache=tmp_path / "cache")
    assert collection.report.count("positive judgments without document") == 1
    assert collection.report.count("judgments without query") == 1
    assert collection.qrels["q1"]["dX"] == 1 and "qX" not in collection.qrels


def test_message_for_what_is_not_a_collection(tmp_path: Path) -> None:
    with pytest.raises(IrdistillError, match=r"there is no folder .*nowhere"):
        load_collection(tmp_path / "nowhere", cache=tmp_path / "cache")
    (tmp_path / "file").write_text("x")
    with pytest.raises(IrdistillError, match="file is a file, and a collection is a folder"):
        load_collection(f"{tmp_path / 'file'}#test", cache=tmp_path / "cache")


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\t\r\n"), min_size=1, max_size=8
).filter(lambda name: name == name.strip() and "\ufeff" not in name)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        NAMES, st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=8
    ),
    st.dictionaries(NAMES, NAMES, min_size=1, max_size=8),
    st.booleans(),
)
def test_written_collection_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    docs: dict[str, str],
    queries: dict[str, str],
    ascii_only: bool,
) -> None:
    folder = tmp_path_factory.mktemp("beir") / "c"
    lines = [
        [{"_id": key, "text": text} for key, text in entries.items()] for entries in (docs, queries)
    ]
    text = [
        "".join(json.dumps(entry, ensure_ascii=ascii_only) + "\n" for entry in part)
        for part in lines
    ]
    grades = {query: {doc: grade for grade, doc in enumerate(docs)} for query in queries}
    rows = [
        f"{query}\t{doc}\t{grade}\n" for query in queries for doc, grade in grades[query].items()
    ]
    write(folder, *text, "query-id\tcorpus-id\tscore\n" + "".join(rows))
    collection = load_collection(folder, cache=folder.parent / "cache")
    assert {key: collection.corpus.text(collection.corpus.row(key)) for key in docs} == docs
    assert {key: query.text for key, query in collection.queries.items()} == queries
    assert collection.qrels.to_dict() == grades


def test_import_of_collections_loads_no_heavy_library() -> None:
    program = (
        "import sys, irdistill.collections\nprint([name for name in ('torch', 'pandas',"
        " 'ir_datasets', 'transformers') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr


def test_folder_is_found_by_its_bare_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mydocs")
    for name in ("mydocs", "./mydocs", "mydocs#test", str(tmp_path / "mydocs"), "mydocs[:1]"):
        assert load_collection(name, cache=tmp_path / "cache").corpus.ids_at([0]) == ["d1"]
    (tmp_path / "empty").mkdir()
    for name in ("empty", "./empty", "empty#test", "empty[:3]"):
        with pytest.raises(
            IrdistillError, match=r"empty has no corpus.jsonl.*corpus.jsonl .one document per line"
        ):
            load_collection(name, cache=tmp_path / "cache")
    (tmp_path / "docs.pkl").write_text("{}")
    with pytest.raises(IrdistillError, match=r"docs.pkl is a file, and a collection is a folder"):
        load_collection("docs.pkl", cache=tmp_path / "cache")
    # a folder that happens to have the name of a known collection does not hide it
    (tmp_path / "vaswani").mkdir()
    monkeypatch.setattr(
        "irdistill.collections.ir_datasets_reader.load_ir_dataset",
        lambda name, cache, need: f"ir_datasets {name}",
    )
    assert _load("vaswani", tmp_path / "cache") == "ir_datasets vaswani"  # type: ignore[comparison-overlap]


def test_commands_that_use_queries_require_them(tmp_path: Path) -> None:
    folder, cache = write(tmp_path / "mydocs"), tmp_path / "cache"
    for path in (folder / "queries.jsonl", folder / "qrels" / "test.tsv"):
        path.unlink()
    documents = load_collection(folder, cache=cache, queries=False)
    assert len(documents.corpus) == 2 and documents.queries == {} and len(documents.qrels) == 0
    message = (
        r"has no queries.jsonl and no queries.jsonl.gz. Queries are needed here.*irdistill generate"
        r" .*mydocs --out NEW"
    )
    for name in (str(folder), f"{folder}#train", f"{folder}[:3]"):
        with pytest.raises(IrdistillError, match=message):
            load_collection(name, cache=cache)
    (folder / "queries.jsonl").write_text("")
    with pytest.raises(
        IrdistillError, match=r"the collection .* has no queries. Queries are needed here"
    ):
        load_collection(folder, cache=cache)
    write(folder)
    assert len(load_collection(folder, cache=cache, queries=False).queries) == 2


def test_queries_of_other_splits_are_not_a_problem(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path / "mydocs", docs=[*DOCS, {"_id": "d9", "text": ""}])
    with caplog.at_level("INFO", logger="irdistill"):
        collection = load_collection(folder, cache=tmp_path / "cache")
        assert "1 empty documents" in caplog.text and "unjudged" not in caplog.text
        retrieve(collection, "bm25", tmp_path / "run", 3, work=tmp_path / "cache")
    assert (
        f"searching for the 2 judged queries of {folder}; leaving out 1 query without judgments"
        in caplog.text
    )


@pytest.mark.parametrize("name", ["corpus", "queries"])
def test_file_in_two_compressions_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "text": "a"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "a"}\n')
    (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(b'{"_id": "x", "text": "another"}\n'))
    with pytest.raises(
        IrdistillError, match=rf"has {name}\.jsonl and {name}\.jsonl\.gz, and either could be meant"
    ):
        load_collection(tmp_path, cache=tmp_path / "cache")
