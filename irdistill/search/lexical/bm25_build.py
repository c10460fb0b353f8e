"""Build a BM25 index in bounded memory: sorted runs of postings on disk, merged term by term.

The scores equal those of bm25s to the last digit: the same formula in the same order in float64,
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
from irdistill.console.progress_bars import progress
from irdistill.modeling.stemming import StemNumbers, words_of
from irdistill.runs.disk_array import array_stream

MEMORY = 1 << 30
"""Bytes of postings in memory, in addition to 16 per document and the vocabulary."""
_TOKEN_COST, _POSTING_COST = 40, 72
"""Bytes of memory per token while counting, and per posting while merging."""
_INT = np.dtype("<i4")
_WORD_BYTES = np.zeros(256, bool)
_WORD_BYTES[[*b"abcdefghijklmnopqrstuvwxyz0123456789_", *range(128, 256)]] = True


def split_words(texts: Sequence[str]) -> tuple[ByteStrings, np.ndarray]:
    """All words of some texts, as ``words_of`` returns them, and their number per text (n,) int64.

    In an ASCII text, words are runs of two or more letters, digits and underscores. Another text is
    replaced by the words that the regular expression finds; all bytes above ASCII belong to words
    then.
    """
    parts = [
        text.encode()
        if text.isascii()
        else " ".join(words_of(text)).encode("utf-8", "surrogatepass")
        for text in texts
    ]
    data = pad_bytes(b"\n".join(parts).lower() + b"\n")
    inside = _WORD_BYTES[data]
    edges = np.flatnonzero(np.append(inside[0], inside[1:] != inside[:-1]))
    starts, ends = edges[::2], edges[1::2]
    long = ends - starts > 1
    starts, ends = starts[long], ends[long]
    text_ends = np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)) + 1)
    counts = np.diff(np.searchsorted(starts, text_ends), prepend=0)
    return ByteStrings(data, starts, ends - starts), counts


class _SortedPostings(NamedTuple):
    """P postings of a range of documents, sorted by term, then document.

    Attributes:
        terms: numbers of the terms that occur, ascending.
        ends: end of the postings of each of these terms, int64.
        path: file of 2 x P int32: all documents, then all counts.
    """

    terms: np.ndarray
    ends: np.ndarray
    path: Path

    def bounds(self, first: int, last: int) -> tuple[int, int]:
        """Start and end of the postings of the terms from ``first`` up to ``last``."""
        places = np.searchsorted(self.terms, [first, last])
        start, end = (int(self.ends[place - 1]) if place else 0 for place in places.tolist())
        return start, end

    def read(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Terms, documents and counts of the postings from ``start`` up to ``end``."""
        size, total = _INT.itemsize, int(self.ends[-1])
        docs, counts = (
            np.fromfile(self.path, _INT, end - start, offset=size * (column * total + start))
            for column in (0, 1)
        )
        first, last = np.searchsorted(self.ends, [start, end - 1], side="right").tolist()
        edges = np.clip(self.ends[first : last + 1], start, end)
        return np.repeat(self.terms[first : last + 1], np.diff(edges, prepend=start)), docs, counts


def build_index(
    corpus: Corpus, k1: float, b: float, folder: Path, memory: int = MEMORY
) -> list[str]:
    """Write ``data.npy``, ``indices.npy`` and ``indptr.npy``: the scores of documents by stem.

    The matrix (N documents, V stems) is stored by columns: ``indices[indptr[v]:indptr[v + 1]]``
    (int32) are the documents with stem v, ascending, and ``data`` (float32) their scores. Temporary
    files in the folder take 8 bytes per posting.

    Args:
        memory: bytes of postings in memory.

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
        scorer = _Scorer(_inverse_frequencies(frequencies, len(norms)), norms)
        _merge(counting.runs, frequencies, scorer, folder, max(1, memory // _POSTING_COST))
    return counting.stems


class _Counting:
    """The first pass: tokenizes the corpus, and writes runs of about ``limit`` tokens.

    Attributes:
        stems: stems in the order of their first occurrence.
        frequencies: (at least V,) number of documents with each stem.
        lengths: (N,) int32 number of tokens of each document.
    """

    def __init__(self, corpus: Corpus, scratch: Path, limit: int) -> None:
        self.runs: list[_SortedPostings] = []
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
                if tokens >= limit:  # between documents, so that a posting is in one run
                    self._write_run(keys)
                    tokens = 0
                bar.update(len(texts))
        if tokens:
            self._write_run(keys)
        self.stems = list(self._numbers.stems)

    def _keys(self, texts: list[str], first: int) -> np.ndarray:
        """(tokens,) int64: number of the stem in the upper half, document in the lower half."""
        words, sizes = split_words(texts)
        docs = np.repeat(np.arange(first, first + len(texts)), sizes)
        terms = self._terms(words)
        kept = terms >= 0
        docs = docs[kept]
        self.lengths[first : first + len(texts)] = np.bincount(docs - first, minlength=len(texts))
        return terms[kept] << 32 | docs

    def _terms(self, words: ByteStrings) -> np.ndarray:
        """(n,) int64 numbers of the stems of words; distinct words are looked up once, in order of
        occurrence.
        """
        hashes = words.hashes()
        distinct = np.sort(hashes)
        distinct = distinct[np.append(True, distinct[1:] != distinct[:-1])[: len(distinct)]]
        places = HashIndex(distinct).places(hashes)
        occurrence = np.empty(len(distinct), np.int64)
        occurrence[places[::-1]] = np.arange(len(words))[::-1]
        if not words.equal(words.take(occurrence[places])).all():  # two words with one hash
            return np.fromiter(map(self._numbers.__getitem__, words.texts()), np.int64, len(words))
        order = np.argsort(occurrence)
        numbers = np.empty(len(distinct), np.int64)
        numbers[order] = [self._numbers[word] for word in words.take(occurrence[order]).texts()]
        return numbers[places]

    def _write_run(self, keys: list[np.ndarray]) -> None:
        """Write the postings of the keys, and clear the keys."""
        merged = np.concatenate(keys)
        keys.clear()
        merged.sort()
        starts = np.flatnonzero(np.append(True, merged[1:] != merged[:-1]))
        counts = np.diff(starts, append=len(merged)).astype(_INT)
        merged = merged[starts]
        path = self._scratch / f"run-{len(self.runs):05d}"
        with open(path, "wb") as stream:
            (merged & 0xFFFFFFFF).astype(_INT).tofile(stream)
            counts.tofile(stream)
        terms = (merged >> 32).astype(_INT)
        ends = np.flatnonzero(np.append(terms[1:] != terms[:-1], True)) + 1
        self.runs.append(_SortedPostings(terms[ends - 1], ends, path))
        frequencies = np.zeros(len(self._numbers.stems), np.int64)
        frequencies[: len(self.frequencies)] = self.frequencies
        frequencies[self.runs[-1].terms] += np.diff(ends, prepend=0)
        self.frequencies = frequencies


class _Scorer(NamedTuple):
    """Scores postings.

    Attributes:
        weights: (V,) float32 inverse document frequencies.
        norms: (N,) float64 length norms of the documents.
    """

    weights: np.ndarray
    norms: np.ndarray

    def scores(self, terms: np.ndarray, docs: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """(P,) float32: inverse frequency x count / (norm of the document + count)."""
        values = counts.astype(np.float64)
        weights = self.weights[terms].astype(np.float64)
        return (weights * (values / (self.norms[docs] + values))).astype(np.float32)


def _merge(
    runs: list[_SortedPostings], frequencies: np.ndarray, scorer: _Scorer, folder: Path, limit: int
) -> None:
    """The second pass: score the postings of some terms at a time, from all runs."""
    indptr = np.concatenate([[0], np.cumsum(frequencies)])
    np.save(folder / "indptr.npy", indptr)
    total, first = int(indptr[-1]), 0
    with ExitStack() as stack:
        data, indices = (
            stack.enter_context(array_stream(folder / f"{name}.npy", kind, total))
            for name, kind in (("data", np.float32), ("indices", np.int32))
        )
        bar = stack.enter_context(progress(total, "postings", "BM25 index: scores"))
        while first < len(frequencies):
            after = int(np.searchsorted(indptr, indptr[first] + limit, side="right"))
            last = max(first + 1, after - 1)
            size = int(indptr[last] - indptr[first])
            if size > limit:  # one term with too many postings: its runs are in order already
                _copy_term(runs, first, limit, scorer, data, indices)
            else:
                scores, docs = np.empty(size, np.float32), np.empty(size, np.int32)
                heads = indptr[first:last] - indptr[first]
                for run in runs:
                    start, end = run.bounds(first, last)
                    if start < end:
                        terms, run_docs, counts = run.read(start, end)
                        places = _places(terms - first, heads)
                        docs[places] = run_docs
                        scores[places] = scorer.scores(terms, run_docs, counts)
                scores.tofile(data)
                docs.tofile(indices)
            bar.update(size)
            first = last


def _copy_term(
    runs: list[_SortedPostings],
    term: int,
    limit: int,
    scorer: _Scorer,
    data: BinaryIO,
    indices: BinaryIO,
) -> None:
    for run in runs:
        start, end = run.bounds(term, term + 1)
        for place in range(start, end, limit):
            terms, docs, counts = run.read(place, min(place + limit, end))
            scorer.scores(terms, docs, counts).tofile(data)
            docs.astype(np.int32, copy=False).tofile(indices)


def _places(terms: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """Where the postings of sorted terms go; moves ``heads``, the next free place of each term."""
    ends = np.flatnonzero(np.append(terms[1:] != terms[:-1], True)) + 1
    sizes, present = np.diff(ends, prepend=0), terms[ends - 1]
    places = np.arange(len(terms)) + np.repeat(heads[present] - (ends - sizes), sizes)
    heads[present] += sizes
    return places


def _inverse_frequencies(frequencies: np.ndarray, documents: int) -> np.ndarray:
    """(V,) float32: log(1 + (N - df + 0.5) / (df + 0.5)), by ``math.log``: numpy's last digits
    differ.
    """
    values, places = np.unique(frequencies, return_inverse=True)
    logs = [math.log(1 + (documents - df + 0.5) / (df + 0.5)) for df in values.tolist()]
    return np.array(logs, np.float32)[places]
