"""Term vectors: BM25 distilled in closed form into the space of a corpus's document vectors."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from scipy.linalg import solve
from scipy.sparse import csc_matrix
from sentence_transformers.base.modules import Normalize
from torch import from_numpy

from irdistill.collections import Collection, Corpus
from irdistill.collections.passage_corpus import reading_corpus
from irdistill.console.progress_bars import progress, with_progress
from irdistill.errors import InputError
from irdistill.modeling.stemming import StemTokenizer, words_of
from irdistill.search.lexical.bm25 import BM25
from irdistill.search.ranking import best_rows
from irdistill.search.vectors.vector_store import corpus_vectors
from irdistill.students import DenseStudent
from irdistill.students.build import load_dense
from irdistill.students.towers import one_tower, tower_modules, two_towers
from irdistill.students.word_vectors import WordVectors
from irdistill.training.computed_models import write_computed_model

logger = logging.getLogger(__name__)

_RIDGE = 1e-3
"""Share of the mean variance of the document vectors. From a third of it to three times it, nDCG@10
changed by 0.002 on three sets.
"""
_SHARE = 0.5
"""Spread of the words' part relative to the model's part. Equal spreads are better where BM25 is as
good as the model, and worse where it is not: 0, 0.5 and 1 gave nDCG@10 of 0.509, 0.552, 0.559
(cranfield), 0.646, 0.688, 0.683 (scifact), 0.476, 0.531, 0.532 (cystic-fibrosis), but 0.316, 0.330,
0.303 (a pool of MTRAG's fiqa, rewrites) and 0.643, 0.647, 0.629 (TREC DL 2019's pool). 0.5 was no
loss on any of seven sets.
"""
_WEIGHT = 10.0
"""Weight of the documents that have a word, in the second problem of the word's vector; the others
have 1. nDCG@10 of the first problem alone, the second alone, and both: 0.554, 0.553, 0.552
(cranfield), 0.534, 0.533, 0.540 (cystic-fibrosis), 0.688, 0.701, 0.696 (scifact), 0.347, 0.361,
0.361 (pydocs/howto), 0.647, 0.640, 0.643 (TREC DL 2019's pool; 0.643 before).
"""
_MOST_ROWS = 8192
"""Documents of a word that are weighed; of more, as many are taken at equal distances."""
_MOST_WORDS = 200_000
_BLOCK = 65_536
_QUERIES, _DEPTH = 256, 100
_NO_SHARED_WORD = (
    "no query of {!r} shares a word with its corpus; queries set the scale of term vectors."
)


def fit_term_vectors(
    collection: Collection,
    model: str | DenseStudent,
    out: str | Path,
    work: str | Path | None = None,
    overwrite: bool = False,
    kind: str | None = None,
    trust_remote_code: bool = False,
) -> DenseStudent:
    """Give a dense model a query tower that adds a vector for each word of the query.

    The vectors of documents do not change. The vector of a word solves a least-squares problem: its
    inner products with all documents are what the word adds to their BM25 scores. This is
    mean-squared-error distillation from BM25 over every (word, document) pair, with a frozen
    document tower, and without gradients.

    Least squares shrinks the vectors of rare words most, because it fits the many zeros of the
    documents without the word. Two corrections are averaged: each vector scaled back by the square
    root of the factor by which it was shrunk on its own documents, and a solution in which these
    documents weigh 10 times as much. (nDCG@10 on scifact, with MiniLM: 0.670 without, 0.688 and
    0.701 with one, and 0.696 with both, which never fell below the model on five sets.) A common
    factor gives the words half the spread over the candidates that the model's part has, on average
    over the texts of the collection's queries. The 200,000 most frequent words get a vector.

    Args:
        collection: its corpus is learned; its queries (the first 256) set the scale, and may be
            synthetic.
        model: a dense model with one tower.
        out: folder; the model is saved to ``model`` in it. A finished model for the same input is
            opened.
        work: folder of the corpus's vectors; the cache folder by default.
        kind: ``dense``, if the model's files do not tell.

    Raises:
        OptionError: the model has two towers.
        InputError: the corpus has fewer than two documents or its vectors are all the same, or no
            query shares a word with it.
        SettingsDifferError: ``out`` has something else.
    """
    student = model
    if not isinstance(student, DenseStudent):
        student = load_dense(student, kind, trust_remote_code=trust_remote_code)
    one_tower(student.model, f"the model {student.source!r}")
    identity = {
        "verb": "terms",
        "model": student.identity(),
        "collection": collection.describe(),
        "settings": {
            "ridge": _RIDGE,
            "weight": _WEIGHT,
            "most_rows": _MOST_ROWS,
            "share": _SHARE,
            "most_words": _MOST_WORDS,
            "queries": _QUERIES,
            "depth": _DEPTH,
        },
    }
    model_folder = write_computed_model(
        out, identity, lambda: _fit(collection, student, work), overwrite
    )
    return DenseStudent.load(model_folder)


def _fit(
    collection: Collection, student: DenseStudent, work: str | Path | None
) -> tuple[DenseStudent, dict[str, Any]]:
    """The model with term vectors, and figures about it."""
    corpus = reading_corpus(collection.corpus)
    bm25 = BM25(corpus)
    vectors = corpus_vectors(corpus, student, work).matrix
    places, solutions = term_vectors(bm25.matrix, vectors)
    scaling = _ScalingQueries.of(collection, student, bm25, vectors, places)
    spreads = [scaling.spread(solution) for solution in solutions]
    if not min(spreads) > 0:
        raise InputError(_NO_SHARED_WORD.format(collection.id))
    weight = solutions[0] / spreads[0] + solutions[1] / spreads[1]
    weight *= _SHARE * scaling.model_spread() / scaling.spread(weight)
    logger.info("%d words, each with a vector of %d numbers", len(places), weight.shape[1])
    stems = [bm25.stems[place] for place in places.tolist()]
    forms = _forms(corpus, stems, student)
    return _with_words(student, forms, weight), {"words": len(places)}


def _forms(corpus: Corpus, stems: list[str], student: DenseStudent) -> list[list[str]]:
    """The words of each stem that the corpus or the vocabulary of the tokenizer has, sorted.

    A stemmer is not needed to read queries then. A word of a query that neither has is ignored:
    nDCG@10 of the corpus's words is lower than with a stemmer by 0.0002 (cranfield), 0.0030
    (cystic-fibrosis) and 0.0003 (scifact), none of them significant.
    """
    places = {stem: place for place, stem in enumerate(stems)}
    forms: list[list[str]] = [[] for _ in stems]
    tokenizer: Any = student._first("query").tokenizer
    words = set(words_of(" ".join(token.lstrip("#▁Ġ") for token in tokenizer.get_vocab())))
    with progress(len(corpus), "documents", "collect words") as bar:
        for texts in corpus.text_batches():
            for text in texts:
                words.update(words_of(text))
            bar.update(len(texts))
    tokenize = StemTokenizer()
    for word in sorted(words):
        for stem in tokenize(word):
            if stem in places:
                forms[places[stem]].append(word)
    return forms


def _with_words(student: DenseStudent, forms: list[list[str]], weight: np.ndarray) -> DenseStudent:
    """The student with word vectors behind its query tower; both towers share the rest."""
    tower = tower_modules(student.model, "query")
    first: Any = tower[0]
    # float16 halves the file; vectors are rounded here so that the saved model is the same
    rounded = from_numpy(weight).half().float()
    tower.append(WordVectors(first.tokenizer, forms, rounded))
    if any(isinstance(module, Normalize) for module in tower):
        tower.append(Normalize())
    fitted = DenseStudent.from_model(
        two_towers(student.model, tower), student.source, student.revision
    )
    fitted._freeze("document")
    return fitted


def term_vectors(
    scores: csc_matrix, vectors: np.ndarray, most: int = _MOST_WORDS
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The words with a vector, and two solutions for their vectors.

    Args:
        scores: (N, V) what a word adds to a document's score.
        vectors: (N, D) of the documents; read block by block.
        most: number of words, the most frequent ones.

    Returns:
        (v,) places of words in ascending order, and two (v, D) float32 solutions: with equal
        weights, and with more weight on the documents of a word.

    Raises:
        InputError: there are fewer than two documents, or all vectors are the same.
    """
    count, dimension = vectors.shape
    frequencies = np.diff(scores.indptr)
    places = np.sort(np.argsort(-frequencies, kind="stable")[:most])
    places = places[frequencies[places] > 0]
    mean = np.zeros(dimension)
    for start in range(0, count, _BLOCK):
        mean += np.asarray(vectors[start : start + _BLOCK], np.float64).sum(axis=0) / max(count, 1)
    spread = np.zeros((dimension, dimension))
    products = np.zeros((len(places), dimension))
    kept = scores[:, places]
    rows = kept.tocsr()
    with progress(count, "documents", "fit term vectors") as bar:
        for start in range(0, count, _BLOCK):
            block = np.asarray(vectors[start : start + _BLOCK], np.float64) - mean
            spread += block.T @ block
            products += rows[start : start + _BLOCK].T @ block
            bar.update(len(block))
    ridge = _RIDGE * np.trace(spread) / dimension
    if count < 2 or not ridge > 0:
        raise InputError(f"term vectors need documents that differ; {count} were given.")
    spread[np.diag_indices(dimension)] += ridge
    inverse = np.linalg.inv(spread)
    plain = products @ inverse
    true = np.asarray(kept.multiply(kept).sum(axis=0)).ravel().astype(np.float64)
    reached = (products * plain).sum(axis=1)
    shrunk = np.divide(true, reached, out=np.ones_like(true), where=reached > 0)
    weighted = _weighted_solutions(kept, vectors, mean, spread, plain)
    return places, [(plain * np.sqrt(shrunk)[:, None]).astype(np.float32), weighted]


def _weighted_solutions(
    scores: csc_matrix,
    vectors: np.ndarray,
    mean: np.ndarray,
    spread: np.ndarray,
    plain: np.ndarray,
) -> np.ndarray:
    """Least squares in which the documents that have the word weigh `_WEIGHT`, the others 1.

    Only the weights of a word's own documents differ from the common problem. A word with fewer
    documents than dimensions updates the common solution by the Woodbury identity.

    Args:
        scores: (N, v) what a word adds to a document's score.
        vectors: (N, D) of the documents.
        mean: (D,) their mean.
        spread: (D, D) scatter of the centered vectors, with the ridge.
        plain: (v, D) solutions without weights.

    Returns:
        (v, D) float32.
    """
    fitted = np.empty(plain.shape, np.float32)
    inverse, bounds = np.linalg.inv(spread), scores.indptr.tolist()
    for word in with_progress(range(len(plain)), "words", "solve for term vectors"):
        rows = scores.indices[bounds[word] : bounds[word + 1]]
        more = _WEIGHT - 1
        if len(rows) > _MOST_ROWS:
            more *= len(rows) / _MOST_ROWS
            rows = rows[np.linspace(0, len(rows) - 1, _MOST_ROWS).astype(np.int64)]
        block = np.asarray(vectors[rows], np.float64) - mean
        if len(rows) > len(spread):
            solution = solve(spread + more * block.T @ block, spread @ plain[word], assume_a="pos")
        else:
            reduced = block @ inverse
            system = reduced @ block.T
            system[np.diag_indices(len(rows))] += 1 / more
            solution = plain[word] - reduced.T @ solve(system, block @ plain[word], assume_a="pos")
        fitted[word] = _WEIGHT * solution
    return fitted


@dataclass(frozen=True)
class _ScalingQueries:
    """Candidates of some queries, over which the spread of scores is measured.

    Attributes:
        vectors: (N, D) of the documents.
        pools: rows of the candidates of each query.
        words: places of each query's words among those with a vector.
        spreads: spread of the model's scores over the candidates of each query.
    """

    vectors: np.ndarray
    pools: list[np.ndarray]
    words: list[list[int]]
    spreads: list[float]

    @classmethod
    def of(
        cls,
        collection: Collection,
        student: DenseStudent,
        bm25: BM25,
        vectors: np.ndarray,
        places: np.ndarray,
    ) -> Self:
        """Search with the first queries of a collection.

        Raises:
            InputError: no query shares a word with the corpus.
        """
        queries = list(collection.queries.values())[:_QUERIES]
        query_vectors = student.encode(
            [query.text for query in queries], "query", normalize=student.similarity == "cosine"
        )
        corpus, passages = bm25.corpus, collection.corpus.passages
        numbers = {bm25.stems[place]: number for number, place in enumerate(places.tolist())}
        scaling = cls(vectors, [], [], [])
        for query, vector in zip(
            with_progress(queries, "queries", "scale term vectors"), query_vectors, strict=True
        ):
            words = [numbers[stem] for stem in bm25.words(query.text) if stem in numbers]
            if not words:
                continue
            dense, lexical = vectors @ vector, bm25.all_scores(query.text)
            excluded = collection.corpus.find(list(query.excluded))
            excluded = excluded[excluded >= 0]
            excluded = excluded if passages is None else passages.all_of(excluded)
            dense[excluded], lexical[excluded] = -np.inf, 0.0
            pool = np.union1d(
                best_rows(corpus, dense, _DEPTH).rows,
                best_rows(corpus, lexical, _DEPTH, above=0.0).rows,
            )
            pool = np.setdiff1d(pool, excluded)
            scaling.pools.append(pool)
            scaling.words.append(words)
            scaling.spreads.append(float(dense[pool].std()))
        if not sum(scaling.spreads) > 0:
            raise InputError(_NO_SHARED_WORD.format(collection.id))
        return scaling

    def model_spread(self) -> float:
        """Mean standard deviation of the model's scores over the candidates."""
        return float(np.mean(self.spreads))

    def spread(self, weight: np.ndarray) -> float:
        """Mean standard deviation of what term vectors (v, D) add to these scores."""
        added = [
            (self.vectors[pool] @ (weight[words].sum(axis=0) / np.sqrt(len(words)))).std()
            for pool, words in zip(self.pools, self.words, strict=True)
        ]
        return float(np.mean(added))
