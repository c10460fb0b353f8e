"""BM25 in Lucene: values by hand, order, index files, Anserini's figures, and the start of Java."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from irdistill.collections import Collection, Query
from irdistill.errors import IrdistillError
from irdistill.search import RetrieveOptions, retrieve
from irdistill.search.lexical.first_stages import is_lexical, open_lexical
from irdistill.search.lucene.lucene_search import LuceneBM25
from tests.search.lucene_support import needs_lucene

pytestmark = needs_lucene


def _hits(bm25: LuceneBM25, text: str, k: int = 10) -> list[tuple[str, float]]:
    (ranked,) = bm25.search([Query("q", text)], k)
    return list(zip(ranked.doc_ids, ranked.scores.tolist(), strict=True))


@pytest.fixture(scope="module")
def small() -> Collection:
    documents = {
        "a": "red apple",
        "b": ("Apple", "apple apple banana"),
        "c": "",
        "d": "green pears",
        "é😀": "cherry 樱桃 tart",
    }
    return Collection.from_dicts("small", documents, {"q": "apple"}, {"q": {"a": 1}})


def test_scores_follow_the_formula(small: Collection, tmp_path: Path) -> None:
    bm25 = LuceneBM25(small.corpus, k1=1.2, b=0.75, cache=tmp_path)
    # 4 documents have text; "apple" is in 2 of them, and the lengths are 2, 4, 2 and 4 (樱 and 桃 are
    # two words, 😀 none)
    idf = math.log(1 + (4 - 2 + 0.5) / (2 + 0.5))
    average = (2 + 4 + 2 + 4) / 4

    def score(count: int, length: int) -> float:
        return idf * count / (count + 1.2 * (1 - 0.75 + 0.75 * length / average))

    assert _hits(bm25, "Apples") == [
        ("b", pytest.approx(score(3, 4), rel=1e-6)),
        ("a", pytest.approx(score(1, 2), rel=1e-6)),
    ]
    assert _hits(bm25, "the kiwi") == []
    assert [doc for doc, _ in _hits(bm25, "樱 cherry 😀")] == ["é😀"]


def test_ties_are_ordered_by_id_at_the_cut_off(tmp_path: Path) -> None:
    documents = {f"d{number}": "same words" for number in range(9)}
    bm25 = LuceneBM25(Collection.from_dicts("ties", documents, {}).corpus, cache=tmp_path)
    assert [doc for doc, _ in _hits(bm25, "same", 3)] == ["d8", "d7", "d6"]


def test_a_long_query_is_not_truncated(tmp_path: Path) -> None:
    corpus = Collection.from_dicts("long", {"a": "needle", "b": "hay"}, {}).corpus
    text = " ".join(f"word{number}" for number in range(3000)) + " needle"
    assert [doc for doc, _ in _hits(LuceneBM25(corpus, cache=tmp_path), text)] == ["a"]


def test_an_index_is_reused_and_rebuilt_when_damaged(
    small: Collection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = LuceneBM25(small.corpus, cache=tmp_path)
    folder = first._index.folder
    made = (folder / "manifest.json").stat().st_mtime_ns
    assert LuceneBM25(small.corpus, k1=2.0, cache=tmp_path)._index.folder == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == made
    half = folder.with_name(f".{folder.name}.tmp")
    half.mkdir()
    (half / "segments_1").write_bytes(b"")
    next((folder / "lucene").glob("*.fdt")).write_bytes(b"")
    assert _hits(LuceneBM25(small.corpus, cache=tmp_path), "pears")[0][0] == "d"
    assert "damaged" in caplog.text
    assert not half.exists()


def test_an_existing_index(small: Collection, tmp_path: Path) -> None:
    built = LuceneBM25(small.corpus, cache=tmp_path)
    existing = open_lexical(f"lucene:{built._index.files}", small.corpus)
    assert isinstance(existing, LuceneBM25)
    assert _hits(existing, "apple") == _hits(built, "apple")
    assert existing.identity()["index"]["documents"] == 4
    other = Collection.from_dicts("other", {"x": "apple"}, {}).corpus
    with pytest.raises(IrdistillError, match="not in this corpus"):
        _hits(LuceneBM25(other, index=str(built._index.files)), "apple")
    with pytest.raises(IrdistillError, match="no Lucene index"):
        LuceneBM25(small.corpus, index=str(tmp_path))
    with pytest.raises(IrdistillError, match="neither the folder"):
        LuceneBM25(small.corpus, index="no-such-index")
    with pytest.raises(IrdistillError, match="k1"):
        LuceneBM25(small.corpus, k1=-1)


def test_names_of_first_stages() -> None:
    assert [
        name
        for name in ("bm25", "lucene", "lucene:x", "lucene-model", Path("lucene"))
        if is_lexical(name)
    ] == ["bm25", "lucene", "lucene:x"]


def test_a_run_records_its_producer(small: Collection, tmp_path: Path) -> None:
    run = retrieve(
        small, "lucene", tmp_path / "run", 2, options=RetrieveOptions(k1=1.5), work=tmp_path
    )
    assert run["q"].doc_ids == ["b", "a"]
    identity = run.manifest.identity
    assert identity.kind == "first-stage"
    assert identity.producer == {
        "model": "lucene",
        "revision": f"pyserini-{version('pyserini')}",
        "k1": 1.5,
        "b": 0.4,
        "analyzer": "anserini-english",
    }
    with pytest.raises(IrdistillError, match="k1"):
        retrieve(small, "lucene", tmp_path / "run", 2, work=tmp_path)


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if key != "OPENAI_API_KEY"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


_SEARCH = """
from irdistill.collections import Collection, Query
from irdistill.search.lucene.lucene_search import LuceneBM25
import pathlib, sys
corpus = Collection.from_dicts("one", {"a": "red apple"}, {}).corpus
bm25 = LuceneBM25(corpus, cache=pathlib.Path(CACHE))
print([found.doc_ids for found in bm25.search([Query("q", "apple")], 5)])
"""


def test_java_starts_quietly_and_leaves_the_environment_alone(tmp_path: Path) -> None:
    code = f"CACHE = {str(tmp_path)!r}\n{_SEARCH}\nimport os, signal\n"
    code += "print(os.environ.get('JAVA_HOME'), os.environ.get('OPENAI_API_KEY'))\n"
    code += (
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, 'torch' in"
        " sys.modules)"
    )
    done = _python(code, JAVA_HOME="/nowhere", IRDISTILL_JAVA_MEMORY="300m")
    # warnings of the virtual machine about memory or time are not Lucene's
    output = [
        line
        for line in done.stderr.splitlines()
        if "[warning]" not in line and "VM warning" not in line
    ]
    assert output == []
    assert done.stdout.splitlines() == ["[['a']]", "/nowhere None", "True False"]


def test_without_a_java_that_is_new_enough(tmp_path: Path) -> None:
    code = (
        "import irdistill.search.lucene.java_runtime as java\njava.KNOWN_FOLDERS = ()\nCACHE ="
        f" {str(tmp_path)!r}\n{_SEARCH}"
    )
    done = _python(code, JAVA_HOME="", PATH="/nowhere")
    assert "Lucene needs Java 21 or newer; found none. Install it with: " in done.stderr


def test_with_java_started_by_another_library(tmp_path: Path) -> None:
    from irdistill.search.lucene.java_runtime import find_java

    java = find_java()
    assert java is not None
    done = _python(f"import jnius\nCACHE = {str(tmp_path)!r}\n{_SEARCH}", JAVA_HOME=str(java.home))
    assert "another library of this process has already started Java" in done.stderr


@pytest.mark.slow
def test_pyserini_reads_the_index_and_ranks_alike(tmp_path: Path) -> None:
    """Pyserini's searcher (which needs an OpenAI key) returns the same scores to four decimals."""
    words = ["ant", "bee", "cat", "dog", "eel", "fox"]
    documents = {
        f"d{n:02}": " ".join(words[(n * step) % 6] for step in range(1, 3 + n % 7))
        for n in range(40)
    }
    bm25 = LuceneBM25(Collection.from_dicts("peer", documents, {}).corpus, cache=tmp_path)
    code = f"""
from pyserini.search.lucene import LuceneSearcher
searcher = LuceneSearcher({str(bm25._index.files)!r})
searcher.set_bm25(0.9, 0.4)
print({{hit.docid: round(hit.score, 3) for hit in searcher.search("cat fox", 100)}})
"""
    from irdistill.search.lucene.java_runtime import find_java

    java = find_java()
    assert java is not None
    done = _python(code, OPENAI_API_KEY="none", JAVA_HOME=str(java.home))
    peer = eval(done.stdout.splitlines()[-1])
    scores = dict(_hits(bm25, "cat fox", 100))
    assert len(scores) > 20 and scores.keys() == peer.keys()
    assert all(scores[doc] == pytest.approx(peer[doc], abs=2e-3) for doc in scores)
