"""Term vectors: BM25 distilled in closed form into the space of a corpus's document vectors."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import solve
from scipy.sparse import csc_matrix
from sentence_transformers.base.modules import Normalize
from torch import from_numpy

from irdistill.collections import Collection
from irdistill.console.progress_bars import progress, with_progress
from irdistill.errors import InputError, SettingsDifferError
from irdistill.search.lexical.bm25 import BM25
from irdistill.search.ranking import best_rows
from irdistill.search.vectors.vector_store import corpus_vectors
from irdistill.storage.files import make_folder, read_json_object, staging_path, write_json
from irdistill.storage.locking import lock_folder
from irdistill.students import DenseStudent
from irdistill.students.build import load_dense
from irdistill.students.term_vectors import TermVectors
from irdistill.students.towers import copy_tower, one_tower, two_towers
from irdistill.training.checkpoints import has_checksums
from irdistill.training.training_files import check_training_folder, place_model

logger = logging.getLogger(__name__)

TRAINING = "training.json"
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
"""Weight of the documents that have a word, in the problem of the word's vector; the others have 1.
Figures with 1 (and vectors scaled by the root of their shrinkage) and 10: 0.554, 0.553 (cranfield),
0.534, 0.533 (cystic-fibrosis), 0.688, 0.701 (scifact), 0.347, 0.361 (pydocs/howto).
"""
_MOST_ROWS = 512
"""Documents of a word that are weighed; of more, as many are taken at equal distances."""
_MOST_WORDS = 200_000
_BLOCK = 65_536
_QUERIES, _DEPTH = 256, 100


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

    Few documents have a rare word, and plain least squares fits the many zeros of the others. So
    the documents that have the word weigh 10 times as much (nDCG@10 on scifact, with MiniLM: 0.670
    without, 0.701 with). A common factor gives the words half the spread over the candidates that
    the model's part has, on average over the texts of the collection's queries. The 200,000 most
    frequent words get a vector.

    Args:
        collection: its corpus is learned; its queries (the first 256) set the scale, and may be
            synthetic.
        model: a dense model with one tower.
        out: folder; the model is saved to ``model`` in it. A finished model for the same input is
            opened.
        work: folder of the corpus's vectors; the cache folder by default.
        kind: ``dense``, if the model's files do not tell.

    Raises:
        ModelError: the model has two towers.
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
    folder = Path(out)
    check_training_folder(folder)
    make_folder(folder)
    if not overwrite and _is_fitted(folder, identity):
        return DenseStudent.load(folder / "model")
    with lock_folder(folder):
        bm25 = BM25(collection.corpus)
        vectors = corpus_vectors(collection.corpus, student, work).matrix
        places, weight = term_vectors(bm25.matrix, vectors)
        weight *= _scale(collection, student, bm25, vectors, places, weight)
        staged = staging_path(folder / "model")
        shutil.rmtree(staged, ignore_errors=True)
        _with_terms(student, [bm25.stems[place] for place in places.tolist()], weight).save(staged)
        record = {"identity": identity, "words": len(places)}
        files = place_model(folder, staged, record)
        write_json(folder / TRAINING, record | {"finished": True, "model": files})
    logger.info("%d words, each with a vector of %d numbers", len(places), weight.shape[1])
    return DenseStudent.load(folder / "model")


def _is_fitted(folder: Path, identity: dict[str, Any]) -> bool:
    if not (folder / TRAINING).is_file():
        return False
    record = read_json_object(folder / TRAINING)
    if record.get("identity") != identity:
        raise SettingsDifferError(
            f"{folder} has term vectors of another model or collection; choose another folder, or"
            " overwrite."
        )
    return record.get("finished", True) and has_checksums(
        folder / "model", record.get("model") or {}
    )


def _with_terms(student: DenseStudent, stems: list[str], weight: np.ndarray) -> DenseStudent:
    """The student with a query tower of words, and a frozen document tower."""
    tower = copy_tower(student.model, None)
    first: Any = tower[0]
    tower.append(TermVectors(first.tokenizer, stems, from_numpy(weight)))
    if any(isinstance(module, Normalize) for module in tower):
        tower.append(Normalize())
    fitted = DenseStudent.from_model(
        two_towers(student.model, tower), student.source, student.revision
    )
    fitted._freeze("document")
    return fitted


def term_vectors(
    scores: csc_matrix, vectors: np.ndarray, most: int = _MOST_WORDS
) -> tuple[np.ndarray, np.ndarray]:
    """The words with a vector, and their vectors.

    Args:
        scores: (N, V) what a word adds to a document's score.
        vectors: (N, D) of the documents; read block by block.
        most: number of words, the most frequent ones.

    Returns:
        (v,) places of words in ascending order, (v, D) float32 vectors.

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
    return places, _weighted_solutions(kept, vectors, mean, np.linalg.inv(spread), products)


def _weighted_solutions(
    scores: csc_matrix,
    vectors: np.ndarray,
    mean: np.ndarray,
    inverse: np.ndarray,
    products: np.ndarray,
) -> np.ndarray:
    """Least squares in which the documents that have the word weigh `_WEIGHT`, the others 1.

    Only the weights of a word's own documents differ from the common problem, so its inverse is
    updated by the Woodbury identity instead of solving each word's problem.

    Args:
        scores: (N, v) what a word adds to a document's score.
        vectors: (N, D) of the documents.
        mean: (D,) their mean.
        inverse: (D, D) of the centered vectors' scatter, with the ridge.
        products: (v, D) centered vectors, summed with the scores as weights.

    Returns:
        (v, D) float32.
    """
    fitted = np.empty(products.shape, np.float32)
    bounds = scores.indptr.tolist()
    words = range(products.shape[0])
    for word in with_progress(words, "words", "solve for term vectors"):
        rows = scores.indices[bounds[word] : bounds[word + 1]]
        more = _WEIGHT - 1
        if len(rows) > _MOST_ROWS:
            more *= len(rows) / _MOST_ROWS
            rows = rows[np.linspace(0, len(rows) - 1, _MOST_ROWS).astype(np.int64)]
        block = np.asarray(vectors[rows], np.float64) - mean
        plain, reduced = inverse @ products[word], block @ inverse
        system = reduced @ block.T
        system[np.diag_indices(len(rows))] += 1 / more
        correction = solve(system, block @ plain, assume_a="pos")
        fitted[word] = _WEIGHT * (plain - reduced.T @ correction)
    return fitted


def _scale(
    collection: Collection,
    student: DenseStudent,
    bm25: BM25,
    vectors: np.ndarray,
    places: np.ndarray,
    weight: np.ndarray,
) -> float:
    """The factor that gives the words' part its share of the spread over the candidates."""
    queries = list(collection.queries.values())[:_QUERIES]
    query_vectors = student.encode(
        [query.text for query in queries], "query", normalize=student.similarity == "cosine"
    )
    corpus = collection.corpus
    numbers = {bm25.stems[place]: number for number, place in enumerate(places.tolist())}
    spreads = []
    for query, vector in zip(
        with_progress(queries, "queries", "scale term vectors"), query_vectors, strict=True
    ):
        words = [numbers[stem] for stem in bm25.words(query.text) if stem in numbers]
        if not words:
            continue
        dense, lexical = vectors @ vector, bm25.all_scores(query.text)
        excluded = corpus.find(list(query.excluded))
        excluded = excluded[excluded >= 0]
        dense[excluded], lexical[excluded] = -np.inf, 0.0
        pool = np.union1d(
            best_rows(corpus, dense, _DEPTH).rows,
            best_rows(corpus, lexical, _DEPTH, above=0.0).rows,
        )
        pool = np.setdiff1d(pool, excluded)
        added = vectors[pool] @ (weight[words].sum(axis=0) / np.sqrt(len(words)))
        spreads.append((dense[pool].std(), added.std()))
    total = np.array(spreads, np.float64).reshape(-1, 2).sum(axis=0)
    if not (total > 0).all():
        raise InputError(
            f"no query of {collection.id!r} shares a word with its corpus; queries set the scale of"
            " term vectors."
        )
    return _SHARE * float(total[0] / total[1])
