"""The embedded collection: splitting docstrings, and the collection built from installed packages."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from irdistill.collections import Document, LoadReport, load_collection, pydocs
from irdistill.collections.corpus import Corpus
from irdistill.collections.pydocs import Pydocs, open_pydocs, read_howto, split_of
from irdistill.collections.pydocs_text import (
    TEXT_CHARACTERS,
    DocstringParts,
    clean_summary,
    normalize_summary,
    shorten,
    split_docstring,
)
from irdistill.errors import IrdistillError

BODY = "If ignore_errors is set, errors are ignored and nothing is raised."


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("docstring", "parts"),
    [
        (f"Delete a directory tree.\n\n{BODY}", DocstringParts(BODY, "Delete a directory tree")),
        (
            f"Delete a whole\ntree of folders.  {BODY}",
            DocstringParts(BODY, "Delete a whole tree of folders"),
        ),
        (
            f"D.pop(k[,d]) -> v, remove specified key and return the value.\n\n{BODY}",
            DocstringParts(
                f"D.pop(k[,d]) -> v\n{BODY}", "remove specified key and return the value"
            ),
        ),
        (
            f"f(a, b=(1, 2),\n  c=3) -> Tensor\n\nFills the tensor with numbers.\n\n{BODY}",
            DocstringParts(
                f"f(a, b=(1, 2), c=3) -> Tensor\n{BODY}", "Fills the tensor with numbers"
            ),
        ),
        (
            f"f(x) -> create an iterator which returns x\nfor the number of times.  {BODY}",
            DocstringParts(
                f"f(x) ->\n{BODY}", "create an iterator which returns x for the number of times"
            ),
        ),
        (
            (
                "gmtime([s]) -> (year, month,\n  day of the year)\n\nConvert seconds to a"
                f" tuple.\n{BODY}"
            ),
            DocstringParts(
                f"gmtime([s]) -> (year, month, day of the year)\n{BODY}",
                "Convert seconds to a tuple",
            ),
        ),
        (
            "Recursively delete a directory tree.",
            DocstringParts("Recursively delete a directory tree.", None),
        ),
        (f"Delete it.\n\n{BODY}", DocstringParts(f"Delete it.\n\n{BODY}", None)),
        (
            f"Parameters of it all\n------\n{BODY}",
            DocstringParts(f"Parameters of it all\n------\n{BODY}", None),
        ),
        (
            f"See the method of dict.\n\n{BODY}",
            DocstringParts(f"See the method of dict.\n\n{BODY}", None),
        ),
        (f">>> f(1, 2, 3, 4)\n\n{BODY}", DocstringParts(f">>> f(1, 2, 3, 4)\n\n{BODY}", None)),
    ],
)
def test_docstring_is_split(docstring: str, parts: DocstringParts) -> None:
    assert split_docstring(docstring, "shutil.rmtree") == parts


def test_markup_is_removed_from_summaries() -> None:
    marked = (
        "Like :func:`~os.path.join` of ``a`` and `b`, *not* **c**, see `here <https://x.y>`_ [1]_."
    )
    assert clean_summary(marked) == "Like join of a and b, not c, see here"
    assert clean_summary(":class:`a title <a.B>` and :meth:`C.d`::") == "a title and C.d"
    assert clean_summary("Takes *args and **kwargs of an f.") == "Takes *args and **kwargs of an f"
    assert normalize_summary("Return `x`, the X!") == normalize_summary("return x the x")


def test_texts_are_cut_at_a_word() -> None:
    cut = shorten("word " * 1000)
    assert len(cut) <= TEXT_CHARACTERS and cut.endswith("word")
    assert shorten("x" * TEXT_CHARACTERS) == "x" * TEXT_CHARACTERS


def test_splits_are_fixed_by_the_query_id() -> None:
    names = ("shutil.rmtree", "os.path.join", "json.dumps", "dict.pop")
    assert [split_of(f"q:{name}") for name in names] == ["train", "train", "test", "test"]
    shares = Counter(split_of(f"q:{number}") for number in range(10_000))
    assert shares == {"train": 3546, "dev": 1010, "test": 5444}


def test_collection(cache: Path) -> None:
    splits = {name: load_collection(f"pydocs/{name}", cache=cache) for name in pydocs.SPLITS}
    corpus = splits["test"].corpus
    assert 4000 <= len(corpus) <= 10_000
    assert len(splits["test"].queries) >= 400
    queries = [query_id for split in splits.values() for query_id in split.queries]
    assert len(queries) == len(set(queries))
    texts = [
        normalize_summary(query.text)
        for split in splits.values()
        for query in split.queries.values()
    ]
    assert len(texts) == len(set(texts))
    for name in (
        "shutil.rmtree",
        "dict.update",
        "os.path.join",
        "itertools.chain",
        "re.sub",
        "len",
    ):
        assert corpus.has(name), name
    assert not corpus.has("posixpath.join") and not corpus.has("os._exists")
    train = splits["train"]
    assert train.queries["q:shutil.rmtree"].text == "Recursively delete a directory tree"
    assert train.qrels["q:shutil.rmtree"] == {"shutil.rmtree": 1}
    assert "Recursively delete" not in corpus.text(corpus.row("shutil.rmtree"))
    assert max(len(document.text) for document in corpus.documents()) <= TEXT_CHARACTERS
    for split in splits.values():
        assert all(corpus.has(doc_id) for judged in split.qrels.values() for doc_id in judged)
        assert all(
            4 <= len(normalize_summary(query.text).split()) <= 40
            for query in split.queries.values()
        )
    notes = splits["test"].report.notes
    assert sum(notes["documents"].values()) == len(corpus)
    assert notes["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.slow
def test_building_again_gives_the_same(cache: Path, tmp_path: Path) -> None:
    first = load_collection("pydocs/train", cache=cache)
    assert load_collection("pydocs/train", cache=tmp_path).fingerprint == first.fingerprint
    assert "antigravity" not in sys.modules and "this" not in sys.modules
    [folder] = (tmp_path / "pydocs").glob("[!.]*")
    assert sorted(path.name for path in folder.iterdir()) == [
        "aliases.json",
        "corpus",
        "manifest.json",
        "notes.json",
        "queries.json",
    ]


def test_aliases_resolve_to_documents(cache: Path) -> None:
    built = open_pydocs(cache)
    assert built.resolve("shutil.rmtree") == "shutil.rmtree"
    assert built.resolve("pathlib.Path.with_suffix") == "pathlib.PurePath.with_suffix"
    assert built.resolve("collections.Counter.keys") == "dict.keys"
    assert (
        built.resolve("concurrent.futures.ThreadPoolExecutor.map")
        == "concurrent.futures.Executor.map"
    )
    assert built.resolve("socket.socket.connect") == "socket.socket.connect"
    assert built.resolve("no.such.name") is None


def test_howto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus.in_memory([Document("shutil.rmtree", "", "x"), Document("os.remove", "", "y")])
    missing = {"missing packages": {"scipy": "ImportError: no"}}
    built = Pydocs(corpus, {}, {}, {"os.unlink": "os.remove"}, missing)
    lines = [
        {
            "id": "howto-001",
            "question": "delete a folder?",
            "answers": ["shutil.rmtree", "os.gone"],
        },
        {"id": "howto-002", "question": "and a file?", "answers": ["os.unlink", "os.remove"]},
        {"id": "howto-003", "question": "and all?", "answers": ["os.gone"]},
    ]
    path = tmp_path / pydocs.HOWTO_FILE
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(pydocs, "card_folder", lambda kind: {"data": tmp_path}[kind])
    monkeypatch.setattr(pydocs, "open_pydocs", lambda cache: built)
    collection = load_collection("pydocs/howto", cache=tmp_path / "cache")
    assert {key: query.text for key, query in collection.queries.items()} == {
        "howto-001": "delete a folder?",
        "howto-002": "and a file?",
    }
    assert collection.qrels.to_dict() == {
        "howto-001": {"shutil.rmtree": 1},
        "howto-002": {"os.remove": 1},
    }
    assert collection.report.places("answers without document") == [
        f"{path.name} line 1 (howto-001: os.gone)",
        f"{path.name} line 3 (howto-003: os.gone)",
    ]
    assert collection.report.places("questions without answers") == [
        f"{path.name} line 3 (howto-003)"
    ]
    assert collection.report.places("missing packages") == ["scipy: ImportError: no"]
    for text, words in (
        ('{"id": "a"}', r"line 2 of .* is broken \(KeyError: 'question'\)"),
        ('{"id": "a", ', r"line 2 of .* is broken \(JSONDecodeError"),
        ('{"id": "howto-001", "question": "x", "answers": []}', "line 2 of .* or repeats the id"),
    ):
        path.write_text(json.dumps(lines[0]) + "\n" + text + "\n")
        with pytest.raises(IrdistillError, match=words):
            read_howto(path, built, LoadReport())
    path.unlink()
    with pytest.raises(IrdistillError, match=r"pydocs-howto\.jsonl is missing"):
        load_collection("pydocs/howto", cache=tmp_path / "cache")


def test_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        IrdistillError, match="there is no collection 'pydocs/all'; the embedded ones are"
    ):
        load_collection("pydocs/all", cache=tmp_path)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(
        IrdistillError, match=r"documentation of the installed packages failed \(exit 1"
    ):
        load_collection("pydocs/test", cache=tmp_path)
    assert not list((tmp_path / "pydocs").glob("[!.]*"))
