"""Slices of a collection's queries: disjoint, complete, and independent of the order of the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irdistill import IrdistillError
from irdistill.collections import Collection, load_collection
from irdistill.collections.slices import slice_queries, split_slice
from tests.recipes.tiny import beir_folder


def made(ids: list[str]) -> Collection:
    return Collection.from_dicts(
        "made", {"d": "text"}, dict.fromkeys(ids, "ask"), {query: {"d": 1} for query in ids}
    )


@given(st.sets(st.text("abc0", min_size=1, max_size=4), min_size=2), st.integers(0, 100))
def test_complementary_slices_partition_the_queries(ids: set[str], share: int) -> None:
    whole = made(sorted(ids))
    sizes = len(ids) * share // 100
    parts = []
    for part, size in ((f"[:{share}%]", sizes), (f"[{share}%:]", len(ids) - sizes)):
        if size:
            sliced = slice_queries(whole, part)
            assert (
                len(sliced.queries) == size
                and list(sliced.qrels) == list(sliced.queries)
                and sliced.id == f"made{part}"
            )
            assert (
                slice_queries(made(sorted(ids, reverse=True)), part).queries.keys()
                == sliced.queries.keys()
            )
            parts += list(sliced.queries)
        else:
            with pytest.raises(IrdistillError, match="none of the"):
                slice_queries(whole, part)
    assert sorted(parts) == sorted(ids)


def test_numbers_of_queries_and_the_order_of_the_file() -> None:
    ids = [f"q{number}" for number in range(30)]
    whole = made(ids)
    first, next_, rest = (
        list(slice_queries(whole, part).queries) for part in ("[:10]", "[10:25]", "[25:]")
    )
    assert [len(first), len(next_), len(rest)] == [10, 15, 5] and sorted(
        [*first, *next_, *rest]
    ) == sorted(ids)
    assert first == [query for query in ids if query in first] and first != ids[:10]
    assert list(slice_queries(whole, "[:]").queries) == ids


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("pydocs/test[:300]", ("pydocs/test", "[:300]")),
        ("a#b[80%:]", ("a#b", "[80%:]")),
        ("a", ("a", "")),
        ("a[x]", ("a[x]", "")),
        ("a[3]", ("a[3]", "")),
    ],
)
def test_names(name: str, parts: tuple[str, str]) -> None:
    assert split_slice(name) == parts


def test_loading_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    folder = beir_folder(tmp_path / "data")
    whole, part = load_collection(f"{folder}#train"), load_collection(f"{folder}#train[:25%]")
    assert len(part.queries) == len(whole.queries) // 4 and set(part.queries) < set(whole.queries)
    assert (
        part.corpus.fingerprint == whole.corpus.fingerprint
        and part.fingerprint != whole.fingerprint
    )
    assert part.id == f"{folder}#train[:25%]"
