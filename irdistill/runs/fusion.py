"""Fusing runs: an ensemble of teachers, several rewrites, a hybrid of dense and sparse retrieval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from irdistill.errors import IrdistillError
from irdistill.progress import progress
from irdistill.runs.lists import RankedList
from irdistill.runs.manifest import RunIdentity
from irdistill.runs.store import Run, open_run
from irdistill.runs.writer import RunWriter

Missing = Literal["null", "skip", "min"]
RRF_K = 60
"""Cormack, Clarke and Büttcher (SIGIR 2009) found 60 good everywhere."""


def _mean(scores: np.ndarray) -> np.ndarray:
    return scores


def _zscore(scores: np.ndarray) -> np.ndarray:
    deviation = scores.std()
    return (scores - scores.mean()) / deviation if deviation > 0 else np.zeros_like(scores)


def _softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max())
    return raised / raised.sum()


def _rrf(scores: np.ndarray) -> np.ndarray:
    return 1.0 / (RRF_K + 1.0 + np.arange(len(scores)))


METHODS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": _mean, "zscore": _zscore, "softmax": _softmax, "rrf": _rrf,
}
"""How one query's scores of one run, (n,) float64 best first, are made comparable before they are added."""


def fuse(runs: Sequence[str | Path | Run], out: str | Path, method: str = "zscore",
         weights: Sequence[float] | None = None, missing: Missing = "null", overwrite: bool = False,
         part_queries: int = 64) -> Run:
    """Fuse runs of one collection, query by query, in float64.

    With s the weighted mean over the runs of a document's normalised scores:

    - ``mean``: the raw scores (for teachers on one scale, as three cross-encoders of one training);
    - ``zscore``: (score - mean) / standard deviation of the query's list (population; 0 where all are equal);
    - ``softmax``: the list's softmax;
    - ``rrf``: the weighted *sum* of 1 / (60 + rank) (Cormack, Clarke and Büttcher, SIGIR 2009).

    Args:
        runs: at least two, of the same corpus and queries.
        weights: one a run; equal where None.
        missing: what a document has that a run did not score: ``null`` (flagged ``missing``, the safe choice for
            teachers), ``skip`` (the mean of the runs that have it), or ``min`` (the run's least normalised score
            for the query). ``rrf`` always adds nothing.

    Raises:
        IrdistillError: fewer than two runs, another method, weights that do not fit, or runs of different
            collections.
    """
    opened = [open_run(run) for run in runs]
    shares = _check(opened, method, weights, missing)
    first = opened[0]
    candidates = {run.identity.candidates for run in opened}
    identity = RunIdentity(
        "fused",
        {
            "method": method, "weights": shares.tolist(), "missing": "skip" if method == "rrf" else missing,
            "runs": [{"fingerprint": run.fingerprint, "kind": run.identity.kind, "producer": run.identity.producer}
                     for run in opened],
        },
        first.identity.collection, candidates.pop() if len(candidates) == 1 else None,
    )
    query_ids = list(dict.fromkeys(query_id for run in opened for query_id in run.query_ids))
    with RunWriter(out, identity, query_ids, part_queries, overwrite=overwrite) as writer:
        pending = writer.pending()
        with progress(len(query_ids), "queries", "fuse", len(query_ids) - sum(len(ids) for _, ids in pending)) as bar:
            for number, ids in pending:
                writer.write_part(number, (
                    _fused(query_id, [run.get(query_id) for run in opened], method, shares, missing)
                    for query_id in ids
                ))
                bar.update(len(ids))
        return writer.finish()


def _check(runs: Sequence[Run], method: str, weights: Sequence[float] | None, missing: str) -> np.ndarray:
    if len(runs) < 2:
        raise IrdistillError(f"{len(runs)} run was given to fuse; at least two were expected.")
    if method not in METHODS or missing not in ("null", "skip", "min"):
        raise IrdistillError(
            f"method {method!r} and missing {missing!r} were given; one of {', '.join(METHODS)} and one of null, skip, "
            "min were expected."
        )
    shares = np.asarray(weights if weights is not None else [1.0] * len(runs), dtype=np.float64)
    if shares.shape != (len(runs),) or not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise IrdistillError(
            f"the weights {shares.tolist()} were given for {len(runs)} runs; one finite number a run was expected, "
            "none below 0 and one above."
        )
    for run in runs[1:]:
        for part in ("corpus", "queries"):
            ours, theirs = runs[0].identity.collection.get(part), run.identity.collection.get(part)
            if ours != theirs:
                raise IrdistillError(
                    f"{runs[0]} and {run} belong to different collections: the fingerprints of the {part} are {ours} "
                    f"and {theirs}. Only runs of one collection can be fused."
                )
    return shares


def _fused(query_id: str, lists: Sequence[RankedList | None], method: str, weights: np.ndarray,
           missing: str) -> RankedList:
    places: dict[str, int] = {}
    for found in lists:
        for doc in found.doc_ids if found else ():
            places.setdefault(doc, len(places))
    values = np.full((len(lists), len(places)), np.nan)
    for i, found in enumerate(lists):
        if found is None:
            continue
        scored = ~np.isnan(found.scores)
        if scored.any():
            own = METHODS[method](found.scores[scored].astype(np.float64))
            at = [places[doc] for doc, good in zip(found.doc_ids, scored.tolist(), strict=True) if good]
            values[i, at] = own
            if missing == "min" and method != "rrf":
                gaps = np.isnan(values[i])
                values[i, gaps] = own.min()
    there = ~np.isnan(values)
    mass = (weights[:, None] * there).sum(0)
    total = (weights[:, None] * np.where(there, values, 0.0)).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = total if method == "rrf" else total / mass
    lost = ~there.any(0) | (mass == 0)
    if missing == "null" and method != "rrf":
        lost |= ~there.all(0)
    scores = np.where(lost, np.nan, scores).astype(np.float32)
    flags = ["missing" if gone else None for gone in lost.tolist()] if lost.any() else None
    return RankedList(query_id, list(places), scores, flags)
