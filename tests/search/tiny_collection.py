"""A small collection with tied documents and a document without text."""

from __future__ import annotations

import numpy as np

from irdistill.collections import Collection
from tests.students.tiny import WORDS


def make_collection(documents: int = 60) -> Collection:
    """Random short documents, two copies of the first, an empty one, and five queries."""
    rng = np.random.default_rng(0)
    docs = {
        f"d{number}": " ".join(rng.choice(WORDS, size=int(rng.integers(1, 14))))
        for number in range(documents)
    }
    if documents > 1:
        docs |= {"twin-a": docs["d0"], "twin-b": docs["d0"], "empty": ""}
    queries = {f"q{number}": " ".join(rng.choice(WORDS, size=3)) for number in range(5)}
    return Collection.from_dicts("tiny", docs, queries, {})
