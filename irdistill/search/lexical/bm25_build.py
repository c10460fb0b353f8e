"""Building a BM25 index in bounded memory: postings are sorted in runs on disk, and the runs merged
term by term.

The scores are those of bm25s to the last digit: the same formula in the same order, in float64,
    rounded once to float32.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from irdistill.collections import Corpus
from irdistill.collections.byte_strings import ByteStrings, HashIndex, pad_bytes
from irdistill.console.progress import progress
from irdistill.modeling.stemming import StemNumbers, words_of
from irdistill.runs.disk_array import array_stream

MEMORY = 1 << 30
"""Bytes that a build takes for postings, beside 16 for each document and the words of the corpus.
"""
_TOKEN_COST, _POSTING_COST = 40, 72
"""Bytes of memory that a token takes while it is counted, and a posting while runs are merged."""
_KIND = np.dtype("<i4")
_WORD_BYTES = np.zeros(256, bool)
_WORD_BYTES[[*b"abcdefghijklmnopqrstuvwxyz0123456789_", *range(128, 256)]] = True


def split_words(texts: Sequence[str]) -> tuple[ByteStrings, np.ndarray]:
    """All words of some texts as ``words_of`` gives them, and how many each text has, (n,)
    int64.
    """
    # In a text of ASCII, words are the runs of two and more letters, digits and underscores. Of
    # another text the words that a regular expression finds are put in its place: all bytes above
    # ASCII are parts of words then.
    parts = [
        (
            text.encode()
            if text.isascii()
            else " ".join(words_of(text)).encode("utf-8", "surrogatepass")
        )
        for text in texts
    ]
    data = pad_bytes(b"\n".join(parts).lower() + b"\n")
    inside = _WORD_BYTES[data]
    edges = np.flatnonzero(np.append(inside[0], inside[1:] != inside[:-1]))
    starts, ends = edges[::2], edges[1::2]
    long = ends - starts > 1
    starts, ends = starts[long], ends[long]
    lengths = np.fromiter(map(len, parts), np.int64, len(parts)) + 1
    return ByteStrings(data, starts, ends - starts), np.diff(
        np.searchsorted(starts, np.cumsum(lengths)), prepend=0
    )


class _Run(NamedTuple):
    """P postings of a range of documents, sorted by term, then document.

    Attributes:
        terms: the numbers of the terms that occur, ascending. ends: where the postings of each end,
            int64.
        path: 2 x P int32: all documents, then all counts.
    """

    terms: np.ndarray
    ends: np.ndarray
    path: Path

    def bounds(self, first: int, last: int) -> tuple[int, int]:
        """Where the postings of the terms ``first`` to ``last - 1`` begin and end."""
        places = np.searchsorted(self.terms, [first, last])
        start, end = (int(self.ends[place - 1]) if place else 0 for place in places.tolist())
        return start, end

    def read(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Terms, documents and counts of a range of postings."""
        size, total = _KIND.itemsize, int(self.ends[-1])
        docs, counts = (
            np.fromfile(self.path, _KIND, end - start, offset=size * (column * total + start))
            for column in (0, 1)
        )
        first, last = np.searchsorted(self.ends, [start, end - 1], side="right").tolist()
        edges = np.clip(self.ends[first : last + 1], start, end)
        return np.repeat(self.terms[first : last + 1], np.diff(edges, prepend=start)), docs, counts


def build_index(
    corpus: Corpus, k1: float, b: float, folder: Path, memory: int = MEMORY
) -> list[str]:
    """Write ``data.npy``, ``indices.npy`` and ``indptr.npy``: the score of each document for each
    stem of the corpus.

    The matrix (N documents, V stems) lies by columns: ``indices[indptr[v]:indptr[v + 1]]`` (int32)
        are the documents that
    hold stem v, ascending, and ``data`` (float32) their scores. Temporary files in the folder take
    8 bytes a posting.

    Args:
        memory: bytes for postings at a time.

    Returns:
        The V stems, in the order of the columns.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".postings-") as scratch:
        counting = _Counting(corpus, Path(scratch), max(1, memory // _TOKEN_COST))
        lengths = counting.lengths
        frequencies = counting.frequencies[: len(counting.stems)]
        with np.errstate(invalid="ignore"):
            mean = np.float64(lengths.sum(dtype=np.int64)) / np.float64(max(1, len(lengths)))
            norms = k1 * ((1 - b) + b * lengths / mean) if mean else np.zeros(len(lengths))
        _merge(counting.runs, frequencies, norms, folder, max(1, memory // _POSTING_COST))
    return counting.stems


class _Counting:
    """The first pass: tokenizes the corpus and writes runs of about ``limit`` tokens.

    Attributes:
        stems: in the order in which they first occur. frequencies: (at least V,) documents that
            hold each.
        lengths: (N,) int32 tokens of each document.
    """

    def __init__(self, corpus: Corpus, scratch: Path, limit: int) -> None:
        self.runs: list[_Run] = []
        self.lengths = np.zeros(len(corpus), np.int32)
        self.frequencies = np.zeros(0, np.int64)
        self._numbers = StemNumbers()
        self._scratch = scratch
        keys: list[np.ndarray] = []
        first = tokens = 0
        with progress(len(corpus), "documents", "BM25 index") as bar:
            for texts in corpus.text_batches():
                keys.append(self._keys(texts, first))
                tokens += len(keys[-1])
                first += len(texts)
                if tokens >= limit:  # at the end of a document, so that a posting is in one run
                    self._write_run(keys)
                    tokens = 0
                bar.update(len(texts))
        if tokens:
            self._write_run(keys)
        self.stems = list(self._numbers.stems)

    def _keys(self, texts: list[str], first: int) -> np.ndarray:
        """(tokens,) int64: the number of a token's stem, and its document in the lower half."""
        words, sizes = split_words(texts)
        docs = np.repeat(np.arange(first, first + len(texts)), sizes)
        terms = self._terms(words)
        kept = terms >= 0
        docs = docs[kept]
        self.lengths[first : first + len(texts)] = np.bincount(docs - first, minlength=len(texts))
        return terms[kept] << 32 | docs

    def _terms(self, words: ByteStrings) -> np.ndarray:
        """(n,) int64: the numbers of the words' stems; each different word is looked up once, in
        order of occurrence.
        """
        hashes = words.hashes()
        different = np.sort(hashes)
        different = different[np.append(True, different[1:] != different[:-1])[: len(different)]]
        places = HashIndex(different).places(hashes)
        occurrence = np.empty(len(different), np.int64)
        occurrence[places[::-1]] = np.arange(len(words))[::-1]
        if not words.equal(words.take(occurrence[places])).all():  # two words of one hash
            return np.fromiter(map(self._numbers.__getitem__, words.texts()), np.int64, len(words))
        order = np.argsort(occurrence)
        numbers = np.empty(len(different), np.int64)
        numbers[order] = [self._numbers[word] for word in words.take(occurrence[order]).texts()]
        return numbers[places]

    def _write_run(self, keys: list[np.ndarray]) -> None:
        """Write the postings of the keys, and forget these."""
        merged = np.concatenate(keys)
        keys.clear()
        merged.sort()
        starts = np.flatnonzero(np.append(True, merged[1:] != merged[:-1]))
        counts = np.diff(starts, append=len(merged)).astype(_KIND)
        merged = merged[starts]
        path = self._scratch / f"run-{len(self.runs):05d}"
        with open(path, "wb") as stream:
            (merged & 0xFFFFFFFF).astype(_KIND).tofile(stream)
            counts.tofile(stream)
        terms = (merged >> 32).astype(_KIND)
        ends = np.flatnonzero(np.append(terms[1:] != terms[:-1], True)) + 1
        self.runs.append(_Run(terms[ends - 1], ends, path))
        frequencies = np.zeros(len(self._numbers.stems), np.int64)
        frequencies[: len(self.frequencies)] = self.frequencies
        frequencies[self.runs[-1].terms] += np.diff(ends, prepend=0)
        self.frequencies = frequencies


def _merge(
    runs: list[_Run], frequencies: np.ndarray, norms: np.ndarray, folder: Path, limit: int
) -> None:
    """The second pass: the postings of some terms at a time, from all runs, with their scores."""
    indptr = np.concatenate([[0], np.cumsum(frequencies)])
    np.save(folder / "indptr.npy", indptr)
    weights = _inverse_frequencies(frequencies, len(norms))
    total, first = int(indptr[-1]), 0
    with ExitStack() as stack:
        data, indices = (
            stack.enter_context(array_stream(folder / f"{name}.npy", kind, total))
            for name, kind in (("data", np.float32), ("indices", np.int32))
        )
        bar = stack.enter_context(progress(total, "postings", "BM25 index: scores"))
        while first < len(frequencies):
            last = max(
                first + 1, int(np.searchsorted(indptr, indptr[first] + limit, side="right")) - 1
            )
            size = int(indptr[last] - indptr[first])
            if (
                size > limit
            ):  # one term in more documents than fit: its runs follow one another as they are
                _copy(runs, first, limit, weights, norms, data, indices)
            else:
                scores, docs = np.empty(size, np.float32), np.empty(size, np.int32)
                heads = indptr[first:last] - indptr[first]
                for run in runs:
                    start, end = run.bounds(first, last)
                    if start < end:
                        terms, run_docs, counts = run.read(start, end)
                        places = _places(terms - first, heads)
                        docs[places], scores[places] = (
                            run_docs,
                            _scores(terms, run_docs, counts, weights, norms),
                        )
                scores.tofile(data)
                docs.tofile(indices)
            bar.update(size)
            first = last


def _copy(
    runs: list[_Run],
    term: int,
    limit: int,
    weights: np.ndarray,
    norms: np.ndarray,
    data: BinaryIO,
    indices: BinaryIO,
) -> None:
    for run in runs:
        start, end = run.bounds(term, term + 1)
        for place in range(start, end, limit):
            terms, docs, counts = run.read(place, min(place + limit, end))
            _scores(terms, docs, counts, weights, norms).tofile(data)
            docs.astype(np.int32, copy=False).tofile(indices)


def _places(terms: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """Where the postings of sorted terms go; ``heads`` (the next free place of each term) moves
    on.
    """
    ends = np.flatnonzero(np.append(terms[1:] != terms[:-1], True)) + 1
    sizes, present = np.diff(ends, prepend=0), terms[ends - 1]
    places = np.arange(len(terms)) + np.repeat(heads[present] - (ends - sizes), sizes)
    heads[present] += sizes
    return places


def _inverse_frequencies(frequencies: np.ndarray, documents: int) -> np.ndarray:
    """(V,) float32: log(1 + (N - df + 0.5) / (df + 0.5)), by ``math.log``, from which numpy's
    differs in last digits.
    """
    values, places = np.unique(frequencies, return_inverse=True)
    logs = [math.log(1 + (documents - df + 0.5) / (df + 0.5)) for df in values.tolist()]
    return np.array(logs, np.float32)[places]


def _scores(
    terms: np.ndarray, docs: np.ndarray, counts: np.ndarray, weights: np.ndarray, norms: np.ndarray
) -> np.ndarray:
    """(P,) float32: inverse frequency x count / (norm of the document + count)."""
    values = counts.astype(np.float64)
    return (weights[terms].astype(np.float64) * (values / (norms[docs] + values))).astype(
        np.float32
    )
