"""The passages of a collection: files, texts, identities."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import irdistill as ird
from irdistill.collections import Collection, load_collection
from irdistill.collections.document_splitting import PassageOptions, split_into_passages
from irdistill.collections.passage_corpus import reading_corpus
from irdistill.errors import DamagedError, InputError, NotFoundError, OptionError
from irdistill.modeling.token_places import TokenPlaces
from tests.search.passage_collection import passage_collection, write_collection
from tests.students.tiny import tiny_backbone


def test_passages_are_the_text_of_their_documents(tmp_path: Path) -> None:
    collection = passage_collection(tmp_path)
    passages = collection.corpus.passages
    assert passages is not None
    table = pq.read_table(tmp_path / "docs" / "passages.parquet").to_pylist()
    assert len(table) == len(passages) > len(collection.corpus)
    encoder = TokenPlaces(str(tmp_path / "encoder"))
    for document in range(len(collection.corpus)):
        rows = passages.all_of([document]).tolist()
        whole = collection.corpus.document(document)
        spans = [(table[row]["start"], table[row]["end"]) for row in rows]
        assert "".join(whole.text[start:end] for start, end in spans) == whole.text
        for number, row in enumerate(rows):
            passage = passages.corpus.document(row)
            assert passage.id == f"{whole.id}#{number}" and passage.title == whole.title
            assert passage.text == whole.text[slice(*spans[number])].strip()
            assert passages.documents[row] == document == passages.documents_of([row])[0]
            assert passages.numbers([row]) == [number]
            assert passages.rows([document], [number]) == [row]
    [*ends] = encoder.ends(passages.corpus.texts(range(len(passages))))
    assert max(len(tokens) for tokens in ends) + encoder.special == 16


def test_opened_collections_have_the_same_passages(tmp_path: Path) -> None:
    made = passage_collection(tmp_path)
    opened = load_collection(tmp_path / "docs")
    assert opened.describe() == made.describe() and "passages" in opened.describe()
    part = load_collection(f"{tmp_path / 'docs'}[:3]")
    assert part.corpus.passages is not None and len(part.queries) == 3
    again = pickle.loads(pickle.dumps(opened.corpus))
    assert again.passages.fingerprint == made.corpus.passages.fingerprint  # type: ignore[union-attr]
    assert reading_corpus(again).ids[0] == "d0#0"
    assert opened.to_json()["passages"] == len(opened.corpus.passages or ())
    assert "passages" in repr(opened)


def test_without_passages_nothing_changes(tmp_path: Path) -> None:
    write_collection(tmp_path / "docs")
    whole = load_collection(tmp_path / "docs")
    split = passage_collection(tmp_path)
    assert whole.corpus.passages is None
    assert "passages" not in whole.describe() and "passages" not in whole.to_json()
    assert split.describe().items() > whole.describe().items()
    assert split.corpus.fingerprint == whole.corpus.fingerprint
    assert split.fingerprint != whole.fingerprint
    assert reading_corpus(whole.corpus) is whole.corpus


def test_passages_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    encoder = str(passage_collection(tmp_path).corpus and tmp_path / "encoder")
    docs = {"a": ("cat", "Dog bird. " * 9), "b": "fish"}
    collection = split_into_passages(
        Collection.from_dicts("two", docs, {"q": "cat"}), PassageOptions(10, 0, encoder)
    )
    assert collection.corpus.passages is not None
    assert collection.corpus.passages.starts.tolist() == [0, 5, 6]
    assert collection.corpus.passages.corpus.text(0) == "cat Dog bird. Dog bird."
    assert collection.corpus.passages.counts([0, 1]).tolist() == [5, 1]


def test_a_long_title_leaves_half_of_the_budget(tmp_path: Path) -> None:
    passage_collection(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "corpus.jsonl").touch()
    docs = {"a": ("cat " * 30, "dog " * 30)}
    encoder = str(tmp_path / "encoder")
    collection = split_into_passages(
        Collection.from_dicts("one", docs, {"q": "cat"}),
        PassageOptions(16, 0, encoder),
        tmp_path / "x",
    )
    assert collection.corpus.passages is not None
    first = collection.corpus.passages.corpus.document(0)
    assert first.title.split() == ["cat"] * 7 and first.text.split() == ["dog"] * 7
    manifest = json.loads((tmp_path / "x" / "passages.json").read_text())
    assert manifest["cut_titles"] == 1 and manifest["cut_sentences"] == 4


def test_the_same_split_is_not_made_again(tmp_path: Path) -> None:
    passage_collection(tmp_path)
    path = tmp_path / "docs" / "passages.parquet"
    before = path.stat().st_mtime_ns
    passage_collection(tmp_path)
    assert path.stat().st_mtime_ns == before
    other = passage_collection(tmp_path, tokens=20, overlap=5)
    assert path.stat().st_mtime_ns != before
    assert other.describe() == load_collection(tmp_path / "docs").describe()


def test_stale_and_damaged_passages_are_refused(tmp_path: Path) -> None:
    passage_collection(tmp_path)
    docs = tmp_path / "docs"
    data = (docs / "passages.parquet").read_bytes()
    (docs / "passages.parquet").write_bytes(data[:-1] + b"x")
    with pytest.raises(DamagedError, match="SHA-256"):
        load_collection(docs)
    (docs / "passages.parquet").write_bytes(data)
    text = (docs / "corpus.jsonl").read_text()
    (docs / "corpus.jsonl").write_text(text + '{"_id": "new", "text": "more"}\n')
    with pytest.raises(InputError, match="passages of other documents"):
        load_collection(docs)
    (docs / "corpus.jsonl").write_text(text)
    (docs / "passages.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        load_collection(docs)


def test_a_killed_split_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passage_collection(tmp_path)
    names = ("passages.parquet", "passages.json")
    docs = tmp_path / "docs"
    expected = [(docs / name).read_bytes() for name in names]
    from irdistill.collections import document_splitting

    with monkeypatch.context() as killed:
        (docs / names[1]).unlink()
        killed.setattr(document_splitting, "file_sha256", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            passage_collection(tmp_path)
        assert not (docs / names[1]).exists()
    passage_collection(tmp_path)
    assert [(docs / name).read_bytes() for name in names] == expected


def test_documents_that_were_collected_and_not_split_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_backbone(tmp_path / "encoder", layers=1)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("A cat. " * 20)
    out = tmp_path / "out"

    def collect() -> Collection:
        encoder = str(tmp_path / "encoder")
        return ird.collect(tmp_path / "files", out=out, passage_tokens=16, passage_encoder=encoder)

    from irdistill.collections import document_splitting

    with monkeypatch.context() as killed:
        killed.setattr(document_splitting, "_write", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            collect()
    with pytest.raises(InputError, match="not finished"):
        load_collection(out, queries=False)
    passages = collect().corpus.passages
    assert passages is not None and len(passages) == 5  # four sentences each
    (out / "passages.parquet").write_bytes(b"damaged")
    assert collect().fingerprint == load_collection(out, queries=False).fingerprint


def test_passages_of_changed_documents_are_split_again(tmp_path: Path) -> None:
    options = PassageOptions(16, 0, str(tmp_path / "encoder"))
    docs = tmp_path / "docs"
    before = passage_collection(tmp_path).corpus.passages
    with open(docs / "corpus.jsonl", "a") as stream:
        stream.write('{"_id": "new", "text": "more"}\n')
    after = split_into_passages(docs, options, docs).corpus.passages
    assert before is not None and after is not None and len(after) == len(before) + 1


def test_options_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="less than half"):
        PassageOptions(32, 16)
    collection = passage_collection(tmp_path)
    encoder = str(tmp_path / "encoder")
    with pytest.raises(InputError, match=r"has no corpus\.jsonl"):
        split_into_passages(collection, PassageOptions(16, 0, encoder), tmp_path / "elsewhere")
    passages = collection.corpus.passages
    assert passages is not None
    with pytest.raises(NotFoundError, match="passage 99"):
        passages.rows([0], [99])
    assert np.array_equal(passages.counts([1]), [len(passages.all_of([1]))])
