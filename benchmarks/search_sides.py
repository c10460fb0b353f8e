"""Random vectors and texts, and the timing of the sides of a comparison."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def dense_rows(rows: int, dimension: int, start: int) -> np.ndarray:
    """Random unit vectors (rows, D)."""
    vectors = np.random.default_rng(start).standard_normal((rows, dimension), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def sparse_rows(rows: int, words: int, each: int, seed: int) -> Any:
    """Rows like SPLADE's: ``each`` terms per row, with the frequencies of words in text, and
    weights up to about 3.
    """
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(seed)
    share = 1 / (np.arange(words) + 30.0)
    owners = np.repeat(np.arange(rows), each)
    drawn = rng.choice(words, size=len(owners), p=share / share.sum())
    matrix = csr_matrix(
        (rng.gamma(2.0, 0.4, size=len(owners)).astype(np.float32), (owners, drawn)),
        shape=(rows, words),
    )
    matrix.sum_duplicates()
    return matrix


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
    """Token vectors of passages with topics: vectors of words, of their topics, and noise; words
    have the frequencies of text.
    """
    words, topics = dense_rows(16_384, dimension, 2), dense_rows(100, dimension, 3)
    rng = np.random.default_rng(seed)
    share = 1 / (np.arange(len(words)) + 30.0)
    share /= share.sum()
    favorites = np.random.default_rng(4).choice(len(words), (len(topics), 60), p=share)
    passages = []
    for length in rng.integers(shortest, longest + 1, count).tolist():
        topic = int(rng.integers(len(topics)))
        topical = favorites[topic][rng.integers(0, favorites.shape[1], length)]
        is_topical = rng.random(length) < 0.6
        chosen = np.where(is_topical, topical, rng.choice(len(words), length, p=share))
        noise = rng.standard_normal((length, dimension), dtype=np.float32) / dimension**0.5
        mixed = words[chosen] + 0.6 * topics[topic] + 0.6 * noise
        passages.append(mixed / np.linalg.norm(mixed, axis=1, keepdims=True))
    return passages


def in_memory_corpus(documents: int) -> Any:
    from irdistill.collections import Collection

    return Collection.from_dicts(
        "random", {f"d{row}": "x" for row in range(documents)}, {}, {}
    ).corpus


def take_turns(
    sides: Mapping[str, Callable[[], Any]], runs: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each side by run, without a first run for warming up, and the last results."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    results: dict[str, Any] = {}
    for number in range(runs + 1):
        for name, call in sides.items():
            start_time = time.perf_counter()
            results[name] = call()
            if number:
                seconds[name].append(time.perf_counter() - start_time)
    return seconds, results


def report(
    what: str, seconds: Mapping[str, list[float]], queries: int, ours: str = "irdistill"
) -> dict[str, Any]:
    """Queries per second of each side, and the ratio of ours to each."""
    speed = {name: queries / statistics.median(values) for name, values in seconds.items()}
    figures: dict[str, Any] = {
        f"{what}_{name}_queries_per_second": value for name, value in speed.items()
    }
    figures |= {
        f"{what}_{name}_ratio": speed[ours] / value for name, value in speed.items() if name != ours
    }
    return figures


def sparse_store(folder: Path, rows: Any) -> Any:
    """A sparse store with the rows of a scipy matrix."""
    from irdistill.search.array_shards import ShardOptions, write_arrays
    from irdistill.search.vectors.vector_store import SparseStore

    count, words = rows.shape
    write_arrays(
        folder,
        {"kind": "sparse", "dimension": words},
        SparseStore.layout(words, "float32"),
        count,
        8192,
        lambda start, end: SparseStore.arrays(rows[start:end]),
        options=ShardOptions(label="write"),
    )
    return SparseStore(folder)


def token_store(folder: Path, texts: list[np.ndarray]) -> Any:
    """A token store with the token vectors (tokens, D) of texts."""
    from irdistill.search.array_shards import ShardOptions, write_arrays
    from irdistill.search.vectors.vector_store import TokenStore

    dimension = texts[0].shape[1]
    write_arrays(
        folder,
        {"kind": "late-interaction", "dimension": dimension},
        TokenStore.layout(dimension, "float32"),
        len(texts),
        8192,
        lambda start, end: TokenStore.arrays(texts[start:end]),
        options=ShardOptions(label="write"),
    )
    return TokenStore(folder)


def recall(retrieved: list[np.ndarray], exact: list[np.ndarray]) -> float:
    """Mean share of the exact rows that were retrieved."""
    return float(
        np.mean(
            [
                len(np.intersect1d(one, other)) / max(1, len(other))
                for one, other in zip(retrieved, exact, strict=True)
            ]
        )
    )


def splade_vectors(model: str, collection: str, work: Path | None) -> tuple[Any, Any, Any]:
    """Document store, query rows and corpus of a collection encoded by a SPLADE model."""
    from irdistill.collections import load_collection
    from irdistill.search.vectors.vector_store import corpus_vectors
    from irdistill.students import load_student

    loaded, student = load_collection(collection), load_student(model, kind="sparse", device="cpu")
    for module in student._transformers("document"):
        module.max_seq_length = min(module.max_seq_length or 256, 256)
    store = corpus_vectors(loaded.corpus, student, work, "float32")
    texts = [query.text for query in loaded.queries.values()]
    return store, student.search_vectors(texts, "query", "float32"), loaded.corpus
