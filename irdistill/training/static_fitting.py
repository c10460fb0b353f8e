"""Static query towers in closed form: a ridge regression from the tokens of texts to a teacher."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, diags_array
from scipy.sparse.linalg import LinearOperator, cg
from tokenizers import Tokenizer

from irdistill.collections import Corpus, Document
from irdistill.console.progress_bars import progress
from irdistill.errors import InputError, ModelError
from irdistill.search.vectors.vector_store import corpus_vectors
from irdistill.students import DenseStudent
from irdistill.students.static_tower import (
    centered,
    query_tokenizer,
    static_model,
    summed_model,
    token_texts,
)
from irdistill.training.alignment_start import mean_cosine
from irdistill.training.computed_models import write_computed_model

logger = logging.getLogger(__name__)

RIDGE = 0.1
"""nDCG@10 with 0.1, 0.3 and 0.9: 0.441, 0.435, 0.414 (cystic-fibrosis), 0.502, 0.504, 0.498
(cranfield), 0.282, 0.291, 0.282 (pydocs/howto) with MiniLM as the teacher; with term vectors behind
it 0.498, 0.487 (cystic-fibrosis), 0.552, 0.549 (cranfield), 0.645, 0.642 (scifact), 0.304, 0.301
(pydocs/howto) with 0.1 and 0.3.
"""
_TOLERANCE, _ROUNDS = 1e-3, 100
_HELD_OUT = 1000
_SHARES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 11))
"""Weights of the token vectors beside a tower, of which the best on held-out texts is taken.

The held-out texts are of the same kind as those of the fit, and queries are not, so more than 1 is
not tried: 1.5 was the best on texts of pydocs (cosine 0.934), and nDCG@10 on pydocs/test and howto
is 0.5804 and 0.3269 with 1.5, 0.5827 and 0.3296 with 1, 0.5843 and 0.3277 with 0.7.
"""


def fit_static(
    corpus: Corpus,
    teacher: DenseStudent,
    out: str | Path,
    ridge: float = RIDGE,
    beside: DenseStudent | None = None,
    seed: int = 42,
    overwrite: bool = False,
) -> DenseStudent:
    """Give a dense model a static query tower that comes as close to its query tower as it can.

    With ``beside`` the token vectors are added to the query tower of that model instead. The sum
    is nearer to the teacher than either part, because a small transformer and a bag of tokens err
    in different ways; the token vectors cost a table look-up.

    The vectors of documents do not change, so the teacher's vectors and indexes stay valid. The
    teacher encodes the texts as queries, into a store in the cache folder that `align` shares. The
    vectors of the tokens then solve a ridge regression toward the vectors that the teacher gives
    to each token alone, see `fit_token_vectors`.

    Args:
        corpus: the texts, from `irdistill.queries.raw_texts.open_texts`.
        teacher: a dense model; its query tower is replaced.
        out: folder; the model is saved to ``model`` in it. A finished model for the same input is
            opened.
        ridge: see `fit_token_vectors`.
        beside: a model that the teacher has taught, such as one that `align` cut to two layers.
        seed: draws the texts on which the weight of the token vectors is chosen.

    Raises:
        InputError: no text has a token.
        ModelError: the teacher's tokenizer is written in Python; or ``beside`` has other vectors
            than the teacher, a static query tower, or dot products.
        SettingsDifferError: ``out`` has something else.
    """
    identity = {
        "verb": "static",
        "teacher": teacher.identity(),
        "texts": corpus.fingerprint,
        "settings": {"ridge": ridge},
    }
    if beside is None:
        compute = partial(_fit, corpus, teacher, ridge)
    else:
        _check_beside(beside, teacher)
        identity["settings"] = {"ridge": ridge, "seed": seed}
        identity["beside"] = beside.identity()
        compute = partial(_fit_beside, corpus, teacher, ridge, beside, seed)
    model = write_computed_model(out, identity, compute, overwrite)
    return DenseStudent.load(model)


def _check_beside(beside: DenseStudent, teacher: DenseStudent) -> None:
    """Refuse a model to whose query tower token vectors of the teacher cannot be added."""
    problem = ""
    if beside.size()["query_layers"] == 0:
        problem = "has a static query tower already"
    elif "dot" in (beside.similarity, teacher.similarity):
        problem = "or the teacher is compared by dot products; a cosine was expected"
    elif beside.dimension != teacher.dimension:
        problem = f"has vectors of {beside.dimension} numbers, the teacher {teacher.dimension}"
    if problem:
        raise ModelError(
            f"the model {beside.source!r} {problem}. Give a transformer that learned the teacher's"
            " vectors (irdistill align)."
        )


def _fit(
    corpus: Corpus, teacher: DenseStudent, ridge: float
) -> tuple[DenseStudent, dict[str, Any]]:
    """The teacher with a static query tower, and figures about it."""
    tokenizer = query_tokenizer(teacher)
    vectors = _encode(corpus, teacher)
    bags = token_bags(tokenizer, corpus)
    prior = _tokens_alone(token_texts(tokenizer), teacher)
    weight = fit_token_vectors(bags, vectors, prior, ridge, teacher.similarity == "dot")
    fitted = DenseStudent.from_model(
        static_model(teacher, tokenizer, weight), teacher.source, teacher.revision
    )
    fitted._freeze("document")
    cosine = mean_cosine(bags @ weight, vectors)
    logger.info(
        "%d texts, %d tokens; mean cosine to the teacher %.3f", len(corpus), len(weight), cosine
    )
    return fitted, {"texts": len(corpus), "cosine": cosine}


def _fit_beside(
    corpus: Corpus, teacher: DenseStudent, ridge: float, beside: DenseStudent, seed: int
) -> tuple[DenseStudent, dict[str, Any]]:
    """A model with the teacher's token vectors added to its query tower, and figures about it."""
    tokenizer = query_tokenizer(beside)
    vectors = _encode(corpus, teacher)
    bags = token_bags(tokenizer, corpus)
    special = _special_tokens(beside)
    prior = _tokens_alone(token_texts(tokenizer), teacher)
    order = np.random.default_rng([seed, 8]).permutation(len(corpus))
    held_out, rest = np.split(order, [min(_HELD_OUT, -(-len(corpus) // 10))])
    held_out, rest = np.sort(held_out), np.sort(rest)
    towers = beside.encode(corpus.texts(held_out), "query", normalize=True)
    weight = fit_token_vectors(bags[rest], vectors[rest], prior, ridge, special=special)
    counts = np.asarray(bags[held_out].sum(axis=1)) + special
    sums = np.asarray(bags[held_out] @ weight) / np.sqrt(counts)
    cosines = {
        share: mean_cosine(towers + share * sums, vectors[held_out]) for share in (0.0, *_SHARES)
    }
    share = max(cosines, key=lambda value: cosines[value])
    logger.info(
        "on %d texts that were held out: mean cosine to the teacher %.3f, with token vectors"
        " times %.1f %.3f",
        len(held_out),
        cosines[0.0],
        share,
        cosines[share],
    )
    weight = share * fit_token_vectors(bags, vectors, prior, ridge, special=special)
    fitted = DenseStudent.from_model(summed_model(beside, weight), beside.source, beside.revision)
    fitted._freeze("document")
    figures = {"texts": len(corpus), "cosine_alone": cosines[0.0], "cosine": cosines[share]}
    return fitted, figures | {"share": share}


def _special_tokens(student: DenseStudent) -> int:
    """The tokens of a query that are neither of its text nor counted as its prompt."""
    first: Any = student._first("query")
    prompt = student.prompts()["query"]
    counted = first._get_prompt_length(prompt) if prompt else 0
    return len(first.tokenizer(prompt or "")["input_ids"]) - counted


def _tokens_alone(texts: Sequence[str], teacher: DenseStudent) -> np.ndarray:
    """(V, D) float32: as `token_vectors`, kept in the store of text vectors."""
    documents = [Document(str(place), "", text) for place, text in enumerate(texts)]
    vectors = _encode(Corpus.in_memory(documents), teacher)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return centered(vectors / np.where(lengths > 0, lengths, 1), texts)


def _encode(corpus: Corpus, teacher: DenseStudent) -> np.ndarray:
    """(n, D) float32 vectors of texts as queries, of length 1 if they are compared by cosine."""
    store = corpus_vectors(corpus, teacher, kind="query")
    return np.asarray(store.matrix[:], dtype=np.float32)


def token_bags(tokenizer: Tokenizer, corpus: Corpus) -> csr_matrix:
    """(n, V) float32: how often each text has each token."""
    ids: list[np.ndarray] = [np.empty(0, np.int32)]
    lengths: list[int] = []
    with progress(len(corpus), "texts", "count tokens") as bar:
        for texts in corpus.text_batches():
            for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
                ids.append(np.array(encoding.ids, np.int32))
                lengths.append(len(encoding.ids))
            bar.update(len(texts))
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    columns = np.concatenate(ids)
    shape = (len(lengths), tokenizer.get_vocab_size())
    bags = csr_matrix((np.ones(len(columns), np.float32), columns, starts), shape=shape)
    bags.sum_duplicates()
    return bags


def fit_token_vectors(
    bags: csr_matrix,
    targets: np.ndarray,
    prior: np.ndarray,
    ridge: float,
    keep_lengths: bool = False,
    special: int = 0,
) -> np.ndarray:
    """The token vectors E (V, D) with the least ``|X E - Y|^2 + ridge |E - c P|^2``.

    A row of X is a text's token counts over the square root of its number of tokens, so that
    short and long texts count alike. P has the prior vector of each token times its inverse
    document frequency, so rare tokens, which the texts say little about, keep a useful vector, and
    tokens that no text has get one. c is the least-squares factor of ``X P`` toward Y.

    Only the directions of the sums are fitted, which is all that cosine compares.

    Args:
        bags: (n, V) token counts.
        targets: (n, D) Y, the vectors of the teacher.
        prior: (V, D) vectors of the tokens alone.
        ridge: number of texts of one token that move its vector halfway from the prior to theirs.
        keep_lengths: fit the mean of token vectors to Y, with its length, for dot products.
        special: tokens without a vector that count as well.

    Raises:
        InputError: no text has a token.

    Examples:
        >>> bags = csr_matrix(np.array([[1.0, 0.0], [1.0, 0.0]]))
        >>> targets, prior = np.array([[2.0], [4.0]]), np.zeros((2, 1))
        >>> fit_token_vectors(bags, targets, prior, ridge=1.0).round(6).tolist()
        [[2.0], [0.0]]
    """
    counts = np.asarray(bags.sum(axis=1), targets.dtype).ravel()
    if not counts.any():
        raise InputError(f"none of the {len(counts)} texts has a token; give texts with words.")
    roots = np.sqrt(np.maximum(counts + special, 1), dtype=targets.dtype)
    rows = (diags_array(1 / roots) @ bags).tocsc()
    if keep_lengths:
        targets = targets * roots[:, None]
    frequencies = np.diff(rows.indptr)
    start = prior * np.log((len(counts) + 1) / (frequencies + 1)).astype(targets.dtype)[:, None]
    reached = rows @ start
    energy = float((reached * reached).sum())
    start *= targets.dtype.type((reached * targets).sum() / energy if energy > 0 else 0)
    used = np.flatnonzero(frequencies)
    start[used] += _solve_ridge(rows[:, used].tocsr(), targets - rows @ start, ridge)
    return np.asarray(start)


def _solve_ridge(rows: csr_matrix, targets: np.ndarray, ridge: float) -> np.ndarray:
    """The Z (v, D) with the least ``|X Z - Y|^2 + ridge |Z|^2``, by conjugate gradients."""
    columns = rows.T.tocsr()
    shape = (rows.shape[1], targets.shape[1])
    diagonal = np.asarray(columns.multiply(columns).sum(axis=1)).reshape(-1, 1) + ridge
    size, kind = shape[0] * shape[1], targets.dtype

    def normal(values: np.ndarray) -> np.ndarray:
        block = values.reshape(shape)
        return (columns @ (rows @ block) + kind.type(ridge) * block).ravel()

    def precondition(values: np.ndarray) -> np.ndarray:
        return (values.reshape(shape) / diagonal).astype(kind).ravel()

    with progress(None, "rounds", "fit token vectors") as bar:
        solution, _ = cg(
            LinearOperator((size, size), normal, dtype=kind),
            (columns @ targets).ravel(),
            rtol=_TOLERANCE,
            maxiter=_ROUNDS,
            M=LinearOperator((size, size), precondition, dtype=kind),
            callback=lambda _: bar.update(1),
        )
    return np.asarray(solution.reshape(shape), kind)
