"""Compiled corpora: rows, ids, fingerprints, repeated documents, killed builds."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill.collections import Collection, Corpus, Document, Query, Turn, compile_corpus
from irdistill.collections import compiling as compiling_module
from irdistill.collections.byte_strings import ByteStrings
from irdistill.collections.compiling import open_or_compile
from irdistill.errors import DamagedError, IrdistillError
from irdistill.storage.build_cache import open_or_build

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


def compiled(documents: list[Document], folder: Path) -> Corpus:
    folder.mkdir()
    return compile_corpus(documents, folder, "corpus.jsonl")


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(IDS, st.tuples(TEXT, TEXT), max_size=40), st.lists(IDS, max_size=8))
def test_every_id_is_found_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, docs: dict[str, tuple[str, str]], others: list[str]
) -> None:
    documents = [Document(doc_id, title, text) for doc_id, (title, text) in docs.items()]
    on_disk = compiled(documents, tmp_path_factory.mktemp("corpora") / "c")
    for corpus in (on_disk, Corpus.in_memory(documents)):
        assert list(corpus.ids) == list(docs) and len(corpus) == len(docs)
        assert corpus.rows(list(docs)).tolist() == list(range(len(docs)))
        expected = [f"{title} {text}" if title else text for title, text in docs.values()]
        assert corpus.texts(np.arange(len(docs))) == expected
        for row, doc_id in enumerate(docs):
            assert (corpus.row(doc_id), corpus.id(row), corpus.text(row)) == (
                row,
                doc_id,
                expected[row],
            )
        for other in others:
            assert corpus.has(other) == (other in docs) == (other in corpus.ids)
        assert corpus.find(others).tolist() == [
            list(docs).index(o) if o in docs else -1 for o in others
        ]
    assert on_disk.fingerprint == Corpus.in_memory(documents).fingerprint


def test_message_names_unknown_ids(tmp_path: Path) -> None:
    corpus = compiled([Document("a", "", "x"), Document("b", "", "y")], tmp_path / "c")
    with pytest.raises(
        IrdistillError, match=r"there is no document 'z' in this corpus of 2 documents"
    ):
        corpus.row("z")
    with pytest.raises(
        IrdistillError, match=r"6 of 7 document ids .*'0', '1', '2', '3', '4' \.\.\."
    ):
        corpus.rows([*"012345", "a"])
    assert not corpus.has("\ud800")
    with pytest.raises(IndexError, match="row 2 is outside"):
        corpus.text(2)
    with pytest.raises(IndexError, match=r"rows -1 to 0 are not all in 0 to 1"):
        corpus.texts([-1, 0])
    assert corpus.rows([]).dtype == np.int64


def test_colliding_hashes_do_not_mix_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (compiling_module, sys.modules["irdistill.collections.corpus"]):
        monkeypatch.setattr(module, "id_hash", lambda doc_id: len(doc_id))
    monkeypatch.setattr(ByteStrings, "hashes", lambda self: self.lengths.astype(np.uint64))
    documents = [Document(name, "", f"text {name}") for name in ("aa", "bb", "c", "dd")]
    corpus = compiled(documents, tmp_path / "c")
    assert corpus.rows(["dd", "bb", "aa", "c"]).tolist() == [3, 1, 0, 2]
    assert not corpus.has("ee") and corpus.find(["ee", "dd"]).tolist() == [-1, 3]


def test_many_batches_are_read_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling_module, "BATCH_ROWS", 7)
    corpus = compiled(
        [Document(f"d{n}", "t" if n % 2 else "", str(n)) for n in range(100)], tmp_path / "c"
    )
    rows = np.random.default_rng(0).integers(0, 100, 300)
    assert corpus.texts(rows) == [f"t {n}" if n % 2 else str(n) for n in rows]
    assert corpus.ids[-1] == "d99" and corpus.ids[5:8] == ["d5", "d6", "d7"]
    assert corpus.rows([f"d{n}" for n in rows]).tolist() == rows.tolist()
    copy = pickle.loads(pickle.dumps(corpus))
    assert copy.texts([99, 0]) == ["t 99", "0"] and copy.fingerprint == corpus.fingerprint
    assert len(pickle.dumps(corpus)) < 500
    in_memory = Corpus.in_memory([Document("ü", "", "日本")])
    assert pickle.loads(pickle.dumps(in_memory)).text(0) == "日本"


def test_fingerprint_is_fixed_and_changes_with_content(tmp_path: Path) -> None:
    base = [Document("a", "ti", "x"), Document("b", "", "y")]
    first = compiled(base, tmp_path / "1").fingerprint
    assert first == compiled(base, tmp_path / "2").fingerprint
    fields = (b"a", b"ti", b"x", b"b", b"", b"y")
    written = b"".join(len(field).to_bytes(8, "little") + field for field in fields)
    assert first == hashlib.sha256(written).hexdigest()[:16] == "51bc452d87f9753e"
    changes = [
        [Document("a", "ti", "x"), Document("b", "", "Y")],
        [Document("a", "t", "ix"), Document("b", "", "y")],
        [Document("c", "ti", "x"), Document("b", "", "y")],
        [Document("b", "", "y"), Document("a", "ti", "x")],
        [Document("a", "ti", "x")],
    ]
    assert len({first, *(Corpus.in_memory(documents).fingerprint for documents in changes)}) == 6


def test_repeated_document_is_kept_once_and_reported(tmp_path: Path) -> None:
    documents = [Document("a", "", "x", 1), Document("b", "", "y", 2), Document("a", "", "x", 5)]
    corpus = compiled(documents, tmp_path / "c")
    assert list(corpus.ids) == ["a", "b"] and corpus.row("b") == 1
    assert corpus.problems["duplicate documents"] == {
        "count": 1,
        "places": ["corpus.jsonl line 5 (a, first in line 1)"],
    }
    assert corpus.fingerprint == Corpus.in_memory(documents[:2]).fingerprint
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "corpus.arrow",
        "hashes.bin",
        "manifest.json",
        "offsets.bin",
        "rows.bin",
        "starts.bin",
    ]


def test_id_with_two_texts_is_refused(tmp_path: Path) -> None:
    documents = [Document("a", "", "x", 1), Document("b", "", "", 2), Document("a", "", "z", 3)]
    with pytest.raises(IrdistillError, match=r"'a' twice with different texts, in lines 1 and 3\."):
        compiled(documents, tmp_path / "c")
    with pytest.raises(IrdistillError, match="document id 'a' occurs twice"):
        Corpus.in_memory([Document("a", "", "x"), Document("a", "", "x")])


def test_empty_corpus_opens(tmp_path: Path) -> None:
    corpus = compiled([], tmp_path / "c")
    assert len(corpus) == 0 and not corpus.has("a") and corpus.find(["a"]).tolist() == [-1]


def test_damaged_corpus_is_reported_and_rebuilt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "corpora" / "key"
    documents = [Document("a", "", "x")]
    open_or_compile(lambda: documents, folder, "s")
    (folder / "rows.bin").write_bytes(b"short")
    with pytest.raises(IrdistillError, match=r"rows\.bin is damaged: it has 5 bytes, not 8 bytes"):
        Corpus.open(folder)
    assert open_or_compile(lambda: documents, folder, "s").row("a") == 0
    assert "damaged" in caplog.text
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 0}))
    with pytest.raises(IrdistillError, match=r"holds no compiled corpus of format \d"):
        Corpus.open(folder)


def test_failing_build_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Document]:
        yield Document("a", "", "x")
        raise ValueError("the disk of the source is gone")

    with pytest.raises(ValueError, match="is gone"):
        open_or_compile(broken, tmp_path / "key", "s")
    assert [path.name for path in tmp_path.iterdir()] == [".key.lock"]


def test_next_build_removes_a_killed_one(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from irdistill.collections.compiling import open_or_compile\n"
        "from irdistill.collections import Document\n"
        "def slow():\n"
        "    for n in range(10_000): yield Document(f'd{n}', '', 'x')\n"
        "    print('written', flush=True); time.sleep(60)\n"
        f"open_or_compile(slow, Path({str(tmp_path / 'key')!r}), 's')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment
    )
    assert child.stdout is not None and child.stdout.readline() == b"written\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert (tmp_path / ".key.tmp").is_dir() and not (tmp_path / "key").exists()
    corpus = open_or_compile(lambda: [Document("a", "", "x")], tmp_path / "key", "s")
    assert list(corpus.ids) == ["a"] and not (tmp_path / ".key.tmp").exists()


def test_cached_corpus_is_not_rebuilt(tmp_path: Path) -> None:
    built: list[float] = []

    def build(folder: Path) -> None:
        built.append(time.monotonic())
        (folder / "x").write_text("1")

    for _ in range(3):
        assert (
            open_or_build(tmp_path / "key", build, lambda folder: (folder / "x").read_text()) == "1"
        )
    assert len(built) == 1


def test_collection_in_memory() -> None:
    queries = {"q1": "first?", "q2": Query("q2", "and it?", (Turn("user", "x"),), "and x?")}
    docs = {"d1": "text", "d2": ("title", "text")}
    collection = Collection.from_dicts("mine", docs, queries, {"q1": {"d1": 1}})
    assert collection.corpus.texts([1, 0]) == ["title text", "text"]
    assert collection.queries["q1"] == Query("q1", "first?")
    assert collection.qrels["q1"]["d1"] == 1 and collection.qrels.to_dict() == {"q1": {"d1": 1}}
    assert collection.describe() == {
        "id": "mine",
        "corpus": collection.corpus.fingerprint,
        "queries": collection.queries_fingerprint,
    }
    others = [
        Collection.from_dicts("mine", docs | {"d1": "tex"}, queries, {"q1": {"d1": 1}}),
        Collection.from_dicts("mine", docs, queries | {"q1": "first"}, {"q1": {"d1": 1}}),
        Collection.from_dicts("mine", docs, {"q1": "first?", "q2": "and it?"}, {"q1": {"d1": 1}}),
        Collection.from_dicts("mine", docs, queries, {"q1": {"d1": 2}}),
    ]
    assert len({collection.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert pickle.loads(pickle.dumps(collection)).fingerprint == collection.fingerprint
    with pytest.raises(IrdistillError, match="query 'q' of mine has an empty text"):
        Collection.from_dicts("mine", docs, {"q": " "}, {})
    with pytest.raises(IrdistillError, match="under the key 'q' has the id 'p'"):
        Collection.from_dicts("mine", docs, {"q": Query("p", "x")}, {})


@pytest.mark.parametrize("limit", [0, 64 << 20])
def test_damage_to_any_file_is_detected_on_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(
        "irdistill.storage.checksums.WHOLE_BYTES", limit
    )  # 0: each block at its first use
    documents = [Document(f"d{number}", "title", f"the text {number}") for number in range(300)]

    def use(folder: Path) -> tuple[list[str], list[int]]:
        corpus = Corpus.open(folder)
        return (
            corpus.texts(range(300)),
            corpus.rows([document.id for document in documents]).tolist(),
        )

    right = use(compiled(documents, tmp_path / "c").folder or tmp_path)
    draw = random.Random(1)
    for name in ("corpus.arrow", "starts.bin", "offsets.bin", "hashes.bin", "rows.bin"):
        for _ in range(8):
            path = shutil.copytree(tmp_path / "c", tmp_path / "damaged") / name
            data = bytearray(path.read_bytes())
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            path.write_bytes(data)
            with pytest.raises(IrdistillError, match="damaged"):
                use(tmp_path / "damaged")
            shutil.rmtree(tmp_path / "damaged")
    assert use(tmp_path / "c") == right


def test_large_corpus_checks_only_used_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irdistill.storage.checksums.WHOLE_BYTES", 0)
    documents = [Document(f"d{number:05}", "", "word " * 100) for number in range(3000)]
    folder = compiled(documents, tmp_path / "c").folder
    assert folder is not None
    data = bytearray((folder / "corpus.arrow").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "corpus.arrow").write_bytes(data)
    corpus = Corpus.open(folder)
    assert corpus.document(0) == documents[0] and corpus.row("d02999") == 2999
    with pytest.raises(DamagedError, match=r"corpus.arrow is damaged.*rebuilt"):
        corpus.texts(range(3000))
    with pytest.raises(
        DamagedError, match="marked as damaged"
    ):  # so that the cache is rebuilt at the next use
        Corpus.open(folder)


def test_collection_shows_itself() -> None:
    collection = Collection.from_dicts("<demo>", {"d": "text"}, {"q": "what?"}, {"q": {"d": 1}})
    collection.report.add("empty documents", "corpus.jsonl line 3 (d9)")
    assert repr(collection) == "Collection('<demo>', 1 document, 1 query, 1 judgment)"
    assert collection.to_json() == {
        "id": "<demo>",
        "documents": 1,
        "queries": 1,
        "judgments": 1,
        "findings": {"empty documents": {"count": 1, "places": ["corpus.jsonl line 3 (d9)"]}},
        "notes": {},
        "fingerprint": collection.fingerprint,
        "corpus_folder": None,
    }
    page = collection._repr_html_()
    assert "Collection &lt;demo&gt;" in page and "1 empty documents: corpus.jsonl line 3" in page
