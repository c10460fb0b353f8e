"""BM25: published effectiveness, order of ties, scores of any document, and the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bm25s import BM25 as Bm25s
from hypothesis import given
from hypothesis import strategies as st

from irdistill.collections import Collection, load_collection
from irdistill.collections import corpus as corpus_module
from irdistill.errors import IrdistillError
from irdistill.modeling import stemming as stems_module
from irdistill.modeling.stemming import StemNumbers, StemTokenizer, words_of
from irdistill.search.lexical.bm25 import BM25
from irdistill.search.lexical.bm25_build import split_words
from irdistill.search.ranking import TopK, best_rows

DOCS = {"a": "cats chase mice", "b": "the cat sat", "c": "dogs bark", "d": "the cat sat", "e": ""}


@pytest.fixture
def small() -> Collection:
    return Collection.from_dicts("small", DOCS, {"q": "cat sat"}, {})


@pytest.mark.parametrize(
    ("name", "expected"), [("scifact", 0.676), ("cranfield", 0.485), ("cystic-fibrosis", 0.436)]
)
def test_ndcg_on_public_collections(
    name: str, expected: float, shared_data: Path, tmp_path: Path
) -> None:
    ir_measures = pytest.importorskip("ir_measures")
    if not (shared_data / name).is_dir():
        pytest.skip(f"needs the collection {shared_data / name}")
    collection = load_collection(str(shared_data / name), cache=tmp_path)
    bm25 = BM25(collection.corpus, cache=tmp_path / "bm25")
    run = {
        ranked.query_id: dict(zip(ranked.doc_ids, ranked.scores.tolist(), strict=True))
        for ranked in bm25.search(list(collection.queries.values()), 100)
    }
    qrels = {query: dict(documents) for query, documents in collection.qrels.items()}
    value = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10]
    assert value == pytest.approx(expected, abs=0.001)


def test_tokenizer_stems_and_drops_stop_words() -> None:
    stems = StemTokenizer()("The cats WERE running, x 42 co-operating!")
    assert stems == ["cat", "were", "run", "42", "co", "oper"]


def test_scores_follow_the_formula(small: Collection, tmp_path: Path) -> None:
    bm25 = BM25(small.corpus, cache=tmp_path)
    lengths = np.array([3, 2, 2, 2, 0])
    df, tf, length = 2, 1, 2
    norm = 0.9 * (1 - 0.4 + 0.4 * length / lengths.mean())
    idf_cat, idf_sat = (np.log(1 + (5 - n + 0.5) / (n + 0.5)) for n in (3, df))
    expected = (idf_cat + idf_sat) * tf / (tf + norm)
    assert bm25.all_scores("cat sat")[1] == pytest.approx(expected, rel=1e-5)


def test_zero_scores_are_left_out_and_ties_go_by_id(small: Collection, tmp_path: Path) -> None:
    bm25 = BM25(small.corpus, cache=tmp_path)
    ranked = next(iter(bm25.search(list(small.queries.values()), 10)))
    assert ranked.doc_ids == ["d", "b", "a"] and ranked.scores.dtype == np.float32
    assert next(iter(bm25.search(list(small.queries.values()), 1))).doc_ids == ["d"]
    rows = np.array([4, 2, 0, 1, 3, 0])
    np.testing.assert_array_equal(bm25.score("cat sat", rows), bm25.all_scores("cat sat")[rows])
    assert bm25.score("zebra", rows).tolist() == [0.0] * 6


def test_an_index_is_reused_and_rebuilt_when_damaged(
    small: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = BM25(small.corpus, cache=tmp_path)
    right, build, builds = first.all_scores("dogs cat"), BM25._build, []

    def counted(self: BM25, folder: Path) -> None:
        builds.append(1)
        build(self, folder)

    monkeypatch.setattr(BM25, "_build", counted)
    np.testing.assert_array_equal(BM25(small.corpus, cache=tmp_path).all_scores("dogs cat"), right)
    assert not builds and [path.name for path in tmp_path.iterdir() if path.is_dir()] == [
        first.folder.name
    ]
    for number, name in enumerate(
        ("data.npy", "indices.npy", "indptr.npy", "vocabulary.json", "manifest.json"), 1
    ):
        path = first.folder / name
        data = bytearray(path.read_bytes())
        data[len(data) - 9] ^= 1
        path.write_bytes(data)
        np.testing.assert_array_equal(
            BM25(small.corpus, cache=tmp_path).all_scores("dogs cat"), right
        )
        assert len(builds) == number
    for damage in (
        lambda: (first.folder / "data.npy").write_bytes(b""),
        (first.folder / "manifest.json").unlink,
    ):
        damage()
        np.testing.assert_array_equal(
            BM25(small.corpus, cache=tmp_path).all_scores("dogs cat"), right
        )
    assert len(builds) == 7
    with pytest.raises(IrdistillError, match="k1 is"):
        BM25(small.corpus, k1=-1, cache=tmp_path)


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.2, 0.75), (0.0, 0.0), (2.0, 1.0)])
@pytest.mark.parametrize("memory", [1, 4000, 1 << 30])
def test_the_index_equals_that_of_bm25s_for_every_memory_limit(
    k1: float, b: float, memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bitwise, also when the postings of a term or of a run do not fit into memory."""
    monkeypatch.setattr(corpus_module, "BATCH_ROWS", 16)
    draw = np.random.default_rng(7)
    texts = [
        " ".join(f"w{number}" for number in draw.geometric(0.05, draw.integers(0, 60)))
        for _ in range(150)
    ]
    corpus = Collection.from_dicts(
        "c", {f"d{place}": text for place, text in enumerate(texts)}, {}, {}
    ).corpus
    vocabulary: dict[str, int] = {}
    tokens = [
        [vocabulary.setdefault(stem, len(vocabulary)) for stem in StemTokenizer()(text)]
        for text in texts
    ]
    plain = Bm25s(k1=k1, b=b, method="lucene").build_index_from_ids(
        list(range(len(vocabulary))), tokens, show_progress=False
    )
    bm25 = BM25(corpus, k1, b, tmp_path, memory)
    assert bm25.stems == list(vocabulary)
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(np.load(bm25.folder / f"{name}.npy"), plain[name])
    assert sorted(path.suffix for path in bm25.folder.iterdir()) == [".json"] * 2 + [".npy"] * 3


@given(
    st.lists(
        st.text("abcXYZ09_ .,-'\n\t\0éßİıÅ日本ǅ²٣ªºͅ\u0301\u200d\x85\xa0ﬁ\ud800", max_size=30),
        max_size=5,
    )
)
def test_split_words_equals_the_tokenizer(texts: list[str]) -> None:
    words, sizes = split_words(texts)
    expected = [words_of(text) for text in texts]
    assert sizes.tolist() == list(map(len, expected))
    split = [words.bytes_at(place).decode("utf-8", "surrogatepass") for place in range(len(words))]
    assert split == [word for one in expected for word in one]


def test_corpora_without_words_have_an_index(tmp_path: Path) -> None:
    for documents in ({}, {"a": ""}, {"a": "the", "b": "of a"}):
        bm25 = BM25(Collection.from_dicts("c", documents, {}, {}).corpus, cache=tmp_path)
        assert bm25.stems == [] and bm25.all_scores("the word").tolist() == [0.0] * len(documents)


def test_evicted_words_get_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"w{number}" for number in range(20)] * 3 + ["the"]
    remembered, forgotten = StemNumbers(), StemNumbers()
    expected = [remembered[word] for word in words]
    monkeypatch.setattr(stems_module, "REMEMBERED", 40)
    assert [forgotten[word] for word in words] == expected == [*range(20)] * 3 + [-1]


@given(
    scores=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=30),
    k=st.integers(1, 12),
)
def test_best_rows_orders_as_trec_eval(scores: list[float], k: int) -> None:
    names = [f"d{(7 * place) % len(scores)}-{place}" for place in range(len(scores))]
    corpus = Collection.from_dicts("c", dict.fromkeys(names, "x"), {}, {}).corpus
    rows, values, _ = best_rows(corpus, np.array(scores, dtype=np.float32), k, above=0.0)
    expected = sorted(((s, n) for s, n in zip(scores, names, strict=True) if s > 0), reverse=True)[
        :k
    ]
    assert [(float(v), names[row]) for v, row in zip(values, rows, strict=True)] == expected


def test_ties_at_the_cut_off_of_a_block_are_ordered_by_id() -> None:
    ids = ["z", "y", "b", "a", "d", "c"]  # by local place in the second block c would follow z, y
    corpus = Collection.from_dicts("ties", dict.fromkeys(ids, "x"), {}).corpus
    top = TopK(corpus, 2)
    for first in (0, 3):
        top.add(np.full(3, 2 if first else 1, np.float32), first)
    assert corpus.ids_at(top.hits.rows) == ["d", "c"]
