"""Byte strings: hashed as by xxhash, compared, and looked up in sorted hashes."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from irdistill.collections import Corpus, Document
from irdistill.collections.byte_strings import ByteStrings, HashIndex

IDS = st.lists(st.text(max_size=45), max_size=30)


@given(IDS)
def test_hashes_are_those_of_xxhash_and_strings_come_back(names: list[str]) -> None:
    names = [name for name in names if not any("\ud800" <= letter <= "\udfff" for letter in name)]
    fields = ByteStrings.of(names)
    digests = [xxhash.xxh64_intdigest(name.encode()) for name in names]
    assert fields.hashes().tolist() == digests
    many = fields.take(np.repeat(np.arange(len(names)), 300))  # enough for arrays
    assert many.hashes().tolist() == np.repeat(np.array(digests, np.uint64), 300).tolist()
    assert fields.texts() == names and fields.packed().texts() == names
    back = np.arange(len(names))[::-1]
    assert fields.equal(fields.take(back)).tolist() == [
        one == other for one, other in zip(names, names[::-1], strict=True)
    ]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 17, 1000])
def test_hash_index_gives_the_first_place(size: int) -> None:
    hashes = np.sort(np.random.default_rng(size).integers(0, 1 << 64, size, dtype=np.uint64))
    hashes[: size // 2] = np.sort(hashes[: size // 2] >> np.uint64(62))
    lookups = np.concatenate([hashes, hashes + np.uint64(1), np.array([0, 2**64 - 1], np.uint64)])
    expected = np.searchsorted(hashes, lookups)
    expected[~np.isin(lookups, hashes)] = -1
    assert HashIndex(hashes).places(lookups).tolist() == expected.tolist()


def test_ids_of_a_corpus_in_memory_and_on_disk() -> None:
    names = [f"d{n}" * (n % 5 + 1) for n in range(50)] + ["", "日本"]
    corpus = Corpus.in_memory(Document(name, "", "x") for name in names)
    rows = np.array([3, 51, 50, 0, 3])
    assert corpus.ids_at(rows) == [names[row] for row in rows] and corpus.ids_at([]) == []
    assert corpus.find([*names, "d", "d3d3d3d", "x" * 40]).tolist() == [*range(52), -1, -1, -1]
    with pytest.raises(IndexError):
        corpus.ids_at([52])
    assert Corpus.in_memory([]).find(["a"]).tolist() == [-1]
