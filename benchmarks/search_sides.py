"""Made-up vectors and texts, and turns for the sides of a comparison of searches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def dense_rows(rows: int, dimension: int, start: int) -> np.ndarray:
    """Unit vectors (rows, D); the same whatever they are made together with."""
    vectors = np.random.default_rng(start).standard_normal((rows, dimension), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def sparse_rows(rows: int, words: int, each: int, seed: int) -> Any:
    """Rows like SPLADE's: ``each`` words on average, drawn as words are in text, with weights up to
    about 3.
    """
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(seed)
    share = 1 / (np.arange(words) + 30.0)
    owners = np.repeat(np.arange(rows), each)
    drawn = rng.choice(words, size=len(owners), p=share / share.sum())
    found = csr_matrix(
        (rng.gamma(2.0, 0.4, size=len(owners)).astype(np.float32), (owners, drawn)),
        shape=(rows, words),
    )
    found.sum_duplicates()
    return found


def token_lists(
    count: int, shortest: int, longest: int, dimension: int, seed: int
) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, longest + 1, count).tolist()
    return [
        dense_rows(length, dimension, seed * 1_000_003 + place)
        for place, length in enumerate(lengths)
    ]


def topical_tokens(
    count: int, shortest: int, longest: int, dimension: int, seed: int
) -> list[np.ndarray]:
    """Token vectors of passages on topics: each a word's vector, drawn towards the topic's, and
    noise; words as in text.
    """
    words, topics = dense_rows(16_384, dimension, 2), dense_rows(100, dimension, 3)
    rng = np.random.default_rng(seed)
    share = 1 / (np.arange(len(words)) + 30.0)
    share /= share.sum()
    favourites = np.random.default_rng(4).choice(len(words), (len(topics), 60), p=share)
    found = []
    for length in rng.integers(shortest, longest + 1, count).tolist():
        topic = int(rng.integers(len(topics)))
        own = favourites[topic][rng.integers(0, favourites.shape[1], length)]
        chosen = np.where(rng.random(length) < 0.6, own, rng.choice(len(words), length, p=share))
        noise = rng.standard_normal((length, dimension), dtype=np.float32) / dimension**0.5
        mixed = words[chosen] + 0.6 * topics[topic] + 0.6 * noise
        found.append(mixed / np.linalg.norm(mixed, axis=1, keepdims=True))
    return found


def in_memory_corpus(documents: int) -> Any:
    from irdistill.collections import Collection

    return Collection.from_dicts(
        "made up", {f"d{row}": "x" for row in range(documents)}, {}, {}
    ).corpus


def take_turns(
    sides: Mapping[str, Callable[[], Any]], runs: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each side, run by run, after one run that does not count; and what each gave at
    last.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    results: dict[str, Any] = {}
    for number in range(runs + 1):
        for name, call in sides.items():
            began = time.perf_counter()
            results[name] = call()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return seconds, results


def report(
    what: str, seconds: Mapping[str, list[float]], queries: int, ours: str = "irdistill"
) -> dict[str, Any]:
    """Queries a second of each side, and by how much ours is quicker."""
    speed = {name: queries / statistics.median(values) for name, values in seconds.items()}
    found: dict[str, Any] = {
        f"{what}_{name}_queries_per_second": value for name, value in speed.items()
    }
    found |= {
        f"{what}_{name}_ratio": speed[ours] / value for name, value in speed.items() if name != ours
    }
    return found


def sparse_store(folder: Path, rows: Any) -> Any:
    """The rows of a scipy matrix, written as a store of sparse vectors."""
    from irdistill.search.array_shards import WriteOptions, write_arrays
    from irdistill.search.vectors.vector_store import SparseStore

    count, words = rows.shape
    write_arrays(
        folder,
        {"kind": "sparse", "dimension": words},
        SparseStore.layout(words, "float32"),
        count,
        8192,
        lambda start, end: SparseStore.arrays(rows[start:end]),
        options=WriteOptions(label="write"),
    )
    return SparseStore(folder)


def token_store(folder: Path, texts: list[np.ndarray]) -> Any:
    """Token vectors (tokens, D) of texts, written as a store."""
    from irdistill.search.array_shards import WriteOptions, write_arrays
    from irdistill.search.vectors.vector_store import TokenStore

    dimension = texts[0].shape[1]
    write_arrays(
        folder,
        {"kind": "late-interaction", "dimension": dimension},
        TokenStore.layout(dimension, "float32"),
        len(texts),
        8192,
        lambda start, end: TokenStore.arrays(texts[start:end]),
        options=WriteOptions(label="write"),
    )
    return TokenStore(folder)


def recall(found: list[np.ndarray], true: list[np.ndarray]) -> float:
    """The mean share of the true rows that were found."""
    return float(
        np.mean(
            [
                len(np.intersect1d(one, other)) / max(1, len(other))
                for one, other in zip(found, true, strict=True)
            ]
        )
    )


def splade_vectors(model: str, collection: str, work: Path | None) -> tuple[Any, Any, Any]:
    """What a SPLADE model makes of a collection: the store of its documents, the rows of its
    queries, and its corpus.
    """
    from irdistill.collections import load_collection
    from irdistill.search.vectors.vector_store import corpus_vectors
    from irdistill.students import load_student

    loaded, student = load_collection(collection), load_student(model, kind="sparse", device="cpu")
    for module in student._transformers("document"):
        module.max_seq_length = min(module.max_seq_length or 256, 256)
    store = corpus_vectors(loaded.corpus, student, work, "float32")
    texts = [query.text for query in loaded.queries.values()]
    return store, student.search_vectors(texts, "query", "float32"), loaded.corpus
