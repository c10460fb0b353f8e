"""Fusing runs: an ensemble of teachers, several rewrites, a hybrid of dense and sparse
retrieval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections.collection import collection_mismatch
from irdistill.console.progress import progress
from irdistill.errors import IrdistillError
from irdistill.runs.flags import heaviest
from irdistill.runs.gate import Gate, Part
from irdistill.runs.manifest import RunIdentity
from irdistill.runs.mixing import DISAGREE, DISAGREE_ON_IT, REASONS, Missing, Mixing
from irdistill.runs.opening import open_run
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run
from irdistill.runs.run_files import check_out
from irdistill.runs.subsets import common_queries
from irdistill.runs.writer import RunWriter


def fuse(
    runs: Sequence[str | Path | Run],
    out: str | Path,
    method: str = "zscore",
    weights: Sequence[float] | None = None,
    missing: Missing = "null",
    overwrite: bool = False,
    part_queries: int = 64,
    *,
    tau: float | Sequence[float] = 1.0,
    abstain: str = "",
    gate: Gate | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Run:
    """Fuse runs of one collection, query by query, in float64; `Mixing` says how.

    The flag of a document that is scored and doubtful in one of the runs stays on it. Queries and
    documents that are null because the teachers disagree are counted in the manifest's usage.

    Args:
        runs: at least two, of the same corpus and queries; of a run with more queries than another,
            those they share.
        method, weights, missing, tau, abstain, gate: see `Mixing`.
        origin: how the weights were found; recorded in the manifest.

    Raises:
        IrdistillError: fewer than two runs, another method, weights that do not fit, or runs of
            different collections.
    """
    opened = common_queries([open_run(run) for run in runs])
    check_out(out, overwrite, [*runs, *opened])
    temperature = tau if isinstance(tau, int | float) else tuple(tau)
    rule = Mixing(
        method, tuple(weights) if weights is not None else None, missing, temperature, abstain, gate
    )
    rule = _check(opened, rule)
    first = opened[0]
    candidates = {run.identity.candidates for run in opened}
    found = {"origin": dict(origin)} if origin else {}
    identity = RunIdentity(
        "fused",
        {
            **rule.identity(),
            **found,
            "runs": [
                {
                    "fingerprint": run.fingerprint,
                    "kind": run.identity.kind,
                    "producer": run.identity.producer,
                }
                for run in opened
            ],
        },
        first.identity.collection,
        candidates.pop() if len(candidates) == 1 else None,
    )
    query_ids = list(dict.fromkeys(query_id for run in opened for query_id in run.query_ids))
    with RunWriter(
        out,
        identity,
        query_ids,
        part_queries,
        overwrite=overwrite,
        fingerprints={
            key: value for run in opened for key, value in run.query_fingerprints.items()
        },
    ) as writer:
        pending = writer.pending()
        with progress(
            len(query_ids), "queries", "fuse", len(query_ids) - sum(len(ids) for _, ids in pending)
        ) as bar:
            for number, ids in pending:
                lists = [
                    _fused(query_id, [run.get(query_id) for run in opened], rule)
                    for query_id in ids
                ]
                writer.write_part(number, lists, _abstentions(lists) if abstain else None)
                bar.update(len(ids))
        return writer.finish()


def check_count(count: int) -> None:
    """Refuse a number of runs that cannot be fused.

    Raises:
        IrdistillError: there are fewer than two.
    """
    if count < 2:
        raise IrdistillError(
            f"{count} run{'' if count == 1 else 's'} to fuse; at least two were expected."
        )


def _check(runs: Sequence[Run], rule: Mixing) -> Mixing:
    check_count(len(runs))
    complete = rule.for_teachers(len(runs))
    for run in runs[1:]:
        ours, theirs = runs[0].identity.collection, run.identity.collection
        part = collection_mismatch(ours, theirs)
        if part is not None:
            raise IrdistillError(
                f"{runs[0]} and {run} belong to different collections: the fingerprints of the"
                f" {part} are {ours.get(part)} and {theirs.get(part)}. Only runs of one collection"
                " can be fused."
            )
    return complete


def aligned(lists: Sequence[RankedList | None]) -> tuple[list[str], list[Part | None]]:
    """The documents of several lists of a query, each once, in the order they come; and the lists
    by their places.
    """
    places: dict[str, int] = {}
    parts: list[Part | None] = []
    for found in lists:
        if found is None:
            parts.append(None)
            continue
        own = np.array([places.setdefault(doc, len(places)) for doc in found.doc_ids], np.int64)
        parts.append((own, found.scores))
    return list(places), parts


def _fused(query_id: str, lists: Sequence[RankedList | None], rule: Mixing) -> RankedList:
    doc_ids, parts = aligned(lists)
    scores, reasons = rule.mix(parts, len(doc_ids))
    flags: list[str | None] = [REASONS[code] for code in reasons.tolist()]
    doubts: dict[str, list[str]] = {}
    for found in lists:
        if found is not None and found.flags:
            for doc, score, flag in zip(
                found.doc_ids, found.scores.tolist(), found.flags, strict=True
            ):
                if flag and score == score:
                    doubts.setdefault(doc, []).append(flag)
    if doubts:
        flags = [
            flag or heaviest(doubts.get(doc, [])) for flag, doc in zip(flags, doc_ids, strict=True)
        ]
    return RankedList(query_id, doc_ids, scores, flags if any(flags) else None)


def _abstentions(lists: Sequence[RankedList]) -> dict[str, float]:
    """How many queries and further documents the teachers disagree on."""
    flags = [found.flags or [] for found in lists]
    return {
        "abstained_queries": sum(DISAGREE in own for own in flags),
        "abstained_documents": sum(own.count(DISAGREE_ON_IT) for own in flags),
    }
