"""Fusing runs: an ensemble of teachers, several rewrites, hybrid dense and sparse retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections.collection import collection_mismatch
from irdistill.console.progress_bars import progress
from irdistill.errors import OptionError, WrongCollectionError
from irdistill.runs.flags import heaviest
from irdistill.runs.gate import Gate, Part
from irdistill.runs.interchange import as_run
from irdistill.runs.label_injection import LABELS, LabelInjection, label_settings
from irdistill.runs.manifest import RunIdentity
from irdistill.runs.mixing import DISAGREE, DISAGREE_ON_IT, REASONS, Missing, Mixing
from irdistill.runs.opening import check_collection
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run
from irdistill.runs.run_ownership import check_out
from irdistill.runs.subsets import common_queries
from irdistill.runs.writer import RunWriter


def fuse(
    runs: Sequence[Any],
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
    head: int = 3,
    labels: LabelInjection | None = None,
) -> Run:
    """Fuse runs of one collection, query by query, in float64; see `Mixing`.

    The flag of a document with a doubtful score in one of the runs is kept. Its passage is the one
    that is named by the run with its best rank. Queries and documents that are null because the
    teachers disagree are counted in the manifest's usage.

    Args:
        runs: of a run with more queries than another, those that both have are fused.
        gate: weights that depend on the query.
        origin: how the weights were chosen; recorded in the manifest.
        head: documents that the method ``head`` takes from the first run.
        labels: labels that are added to the fused scores. Such a run may only train a student.

    Examples:
        >>> import tempfile
        >>> from irdistill.runs import fuse
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fused = fuse([{"q": {"a": 1, "b": 2}}, {"q": {"a": 5, "b": 3}}], folder, "rrf")
        ...     fused["q"].doc_ids
        ['b', 'a']
    """
    opened = common_queries([as_run(run) for run in runs])
    check_out(out, overwrite, [*runs, *opened])
    temperature = tau if isinstance(tau, int | float) else tuple(tau)
    shares = tuple(weights) if weights is not None else None
    check_count(len(opened), labels is not None)
    mixing = Mixing(method, shares, missing, temperature, abstain, gate, head)
    mixing = mixing.for_teachers(len(opened))
    collection = _common_collection(opened)
    candidates = {run.identity.candidates for run in opened}
    sources = [
        {
            "fingerprint": run.fingerprint,
            "kind": run.identity.kind,
            "producer": run.identity.producer,
        }
        for run in opened
    ]
    identity = RunIdentity(
        "fused",
        mixing.identity() | ({"origin": dict(origin)} if origin else {}) | {"runs": sources},
        collection,
        candidates.pop() if len(candidates) == 1 else None,
        _label_settings(opened, labels),
    )
    query_ids = list(dict.fromkeys(query_id for run in opened for query_id in run.query_ids))
    fingerprints = {key: value for run in opened for key, value in run.query_fingerprints.items()}
    with RunWriter(
        out, identity, query_ids, part_queries, overwrite=overwrite, fingerprints=fingerprints
    ) as writer:
        pending = writer.pending()
        done = len(query_ids) - sum(len(ids) for _, ids in pending)
        with progress(len(query_ids), "queries", "fuse", done) as bar:
            for number, ids in pending:
                lists = [
                    _fused(query_id, [run.get(query_id) for run in opened], mixing)
                    for query_id in ids
                ]
                if labels is not None:
                    lists = [labels(row) for row in lists]
                writer.write_part(number, lists, _abstentions(lists) if abstain else None)
                bar.update(len(ids))
        return writer.finish()


def check_count(count: int, with_labels: bool = False) -> None:
    """Check that there are at least two runs to fuse, or one and labels."""
    if count < (1 if with_labels else 2):
        raise OptionError(
            f"{count} run{'' if count == 1 else 's'} to fuse; at least two were expected, or one"
            " and --labels."
        )


def _label_settings(runs: Sequence[Run], labels: LabelInjection | None) -> dict[str, Any]:
    """The labels in the scores of the runs, and those that are added."""
    settings = label_settings(runs)
    if labels is None:
        return settings
    for run in runs:
        check_collection(run, labels.collection)
    return {LABELS: [*settings.get(LABELS, ()), labels.settings()]}


def _common_collection(runs: Sequence[Run]) -> dict[str, Any]:
    """What the manifest stores of the runs' collection, with the passages that some run names."""
    for run in runs[1:]:
        ours, theirs = runs[0].identity.collection, run.identity.collection
        part = collection_mismatch(ours, theirs)
        if part is not None:
            raise WrongCollectionError(
                f"{runs[0]} and {run} belong to different collections: the fingerprints of the"
                f" {part} are {ours.get(part)} and {theirs.get(part)}. Only runs of one collection"
                " can be fused."
            )
    splits = {run.identity.collection.get("passages"): run for run in runs}
    splits.pop(None, None)
    if len(splits) > 1:
        [(one, first), (other, second), *_] = splits.items()
        raise WrongCollectionError(
            f"{first} and {second} name passages of documents that were split in different ways:"
            f" their fingerprints are {one} and {other}. Make both runs with the same passages."
        )
    collection = dict(runs[0].identity.collection)
    for fingerprint in splits:
        collection["passages"] = fingerprint
    return collection


def aligned(lists: Sequence[RankedList | None]) -> tuple[list[str], list[Part | None]]:
    """The union of the documents of a query's lists, and each list by positions in it."""
    positions: dict[str, int] = {}
    parts: list[Part | None] = []
    for row in lists:
        if row is None:
            parts.append(None)
            continue
        some = [positions.setdefault(doc, len(positions)) for doc in row.doc_ids]
        parts.append((np.array(some, np.int64), row.scores))
    return list(positions), parts


def _fused(query_id: str, lists: Sequence[RankedList | None], mixing: Mixing) -> RankedList:
    doc_ids, parts = aligned(lists)
    scores, reasons = mixing.mix(parts, len(doc_ids))
    flags: list[str | None] = [REASONS[code] for code in reasons.tolist()]
    doubts: dict[str, list[str]] = {}
    for row in lists:
        if row is not None and row.flags:
            for doc, score, flag in zip(row.doc_ids, row.scores.tolist(), row.flags, strict=True):
                if flag and score == score:
                    doubts.setdefault(doc, []).append(flag)
    if doubts:
        flags = [
            flag or heaviest(doubts.get(doc, [])) for flag, doc in zip(flags, doc_ids, strict=True)
        ]
    passages = _best_passages(lists, doc_ids)
    return RankedList(query_id, doc_ids, scores, flags if any(flags) else None, passages)


def _best_passages(lists: Sequence[RankedList | None], doc_ids: Sequence[str]) -> np.ndarray | None:
    """For each document the passage that the list with its best rank names; -1 if none does."""
    best: dict[str, tuple[int, int]] = {}
    for row in lists:
        if row is not None and row.passages is not None:
            for rank, (doc, number) in enumerate(
                zip(row.doc_ids, row.passages.tolist(), strict=True)
            ):
                if number >= 0 and (doc not in best or rank < best[doc][0]):
                    best[doc] = rank, number
    if not best:
        return None
    return np.array([best[doc][1] if doc in best else -1 for doc in doc_ids], np.int32)


def _abstentions(lists: Sequence[RankedList]) -> dict[str, float]:
    """Number of queries, and of single documents, that the teachers disagree on."""
    flags = [row.flags or [] for row in lists]
    return {
        "abstained_queries": sum(DISAGREE in some for some in flags),
        "abstained_documents": sum(some.count(DISAGREE_ON_IT) for some in flags),
    }
