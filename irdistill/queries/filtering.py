"""The verb *filter*: of synthetic queries, those worth learning from, each rule with its counts.

A query knows its source passage (its judgment). ``retrieved`` is a run of the retriever that is to
learn, ``scores`` one of the teacher over candidates.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections import Collection, load_collection
from irdistill.collections.derived import write_derived
from irdistill.collections.slices import split_folder
from irdistill.errors import IrdistillError
from irdistill.queries.generating import query_kind
from irdistill.queries.query_kinds import normalize_query
from irdistill.runs import RankedList, Run, open_run

logger = logging.getLogger(__name__)
_RULE = re.compile(r"(consistency|first|percentile|critic)(?:=(-?\d+(?:\.\d+)?))?")
_DEFAULTS = {"consistency": 20.0, "first": 1.0, "percentile": 25.0}
#: Which of the two runs a rule looks at.
_LOOKS_AT = {
    "consistency": "retrieved",
    "first": "scores",
    "percentile": "scores",
    "critic": "scores",
}


@dataclass(frozen=True)
class FilterRule:
    """One rule, written ``consistency=20``.

    * ``consistency=K``: the source is among the K best of the retriever (Promptagator, Dai et al.
      2022, arXiv:2209.11755).
    * ``first=K``: the source is among the K best of the teacher, 1 unless said.
    * ``percentile=P``: the best teacher score of the query's list is not below the P-th percentile
      of those of its kind.
    * ``critic=T``: the teacher's score of the source is at least T (the critic of Symbolic
      Knowledge Distillation, West et al. 2022, arXiv:2110.07178).

    A query that excludes its source, because it is the source's own words, passes those that look
    at the source's place.
    """

    name: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> FilterRule:
        """Read a rule.

        Raises:
            IrdistillError: it is none of these, or lacks its number.
        """
        match = _RULE.fullmatch(text.strip())
        if match is None or (match[2] is None and match[1] not in _DEFAULTS):
            raise IrdistillError(
                f"the rule {text!r} cannot be read; give consistency=K, first=K, percentile=P or"
                " critic=T."
            )
        bound = float(match[2]) if match[2] is not None else _DEFAULTS[match[1]]
        if (match[1] in ("consistency", "first") and bound < 1) or (
            match[1] == "percentile" and not 0 <= bound <= 100
        ):
            raise IrdistillError(
                f"the rule {text!r} has a bound that nothing can meet; ranks begin at 1,"
                " percentiles go to 100."
            )
        return cls(match[1], bound)

    def __str__(self) -> str:
        return f"{self.name}={self.bound:g}"


def filter_queries(
    collection: Collection,
    out: str | Path,
    rules: Sequence[str | FilterRule],
    scores: Run | str | Path | None = None,
    retrieved: Run | str | Path | None = None,
) -> Collection:
    """Write the queries that pass all rules; those left out are counted by the first rule that they
    fail.

    Runs of the whole collection serve the filtered one.

    Returns:
        The collection ``OUT#SPLIT``, the split that was given. Its record holds the counts, for
        each rule and kind.

    Raises:
        IrdistillError: a rule cannot be read or lacks the run it looks at, a query has no single
            source, no query passes, or ``out`` holds another collection.
    """
    parsed = [rule if isinstance(rule, FilterRule) else FilterRule.parse(rule) for rule in rules]
    if not parsed:
        raise IrdistillError("no rule was given to filter by; give one or more, as consistency=20.")
    runs = {
        name: open_run(run, collection)
        for name, run in (("scores", scores), ("retrieved", retrieved))
        if run is not None
    }
    for rule in parsed:
        if _LOOKS_AT[rule.name] not in runs:
            raise IrdistillError(
                f"the rule {rule} looks at the run of {_LOOKS_AT[rule.name]}, which was not given."
            )
    sources = {query_id: source_of(collection, query_id) for query_id in collection.queries}
    tests = [_test(rule, runs[_LOOKS_AT[rule.name]], sources) for rule in parsed]
    counts: Counter[str] = Counter()
    kept = []
    for query in collection.queries.values():
        own = sources[query.id] in query.excluded
        failed = next(
            (
                rule
                for rule, passes in zip(parsed, tests, strict=True)
                if not ((own and rule.name != "percentile") or passes(query.id))
            ),
            None,
        )
        kind = query_kind(query.id)
        counts[f"{kind}: {'kept' if failed is None else f'failed {failed}'}"] += 1
        if failed is None:
            kept.append(query)
    if not kept:
        raise IrdistillError(
            f"none of {len(sources)} queries passes {', '.join(map(str, parsed))}; loosen a bound."
        )
    texts = [query.text for query in kept]
    made_by: dict[str, Any] = {
        "verb": "filter",
        "rules": list(map(str, parsed)),
        "runs": {name: run.fingerprint for name, run in runs.items()},
        "of": len(sources),
        "kept": len(kept),
        "counts": dict(sorted(counts.items())),
        "diversity": diversity(texts),
    }
    logger.info("%d of %d queries pass %s", len(kept), len(sources), ", ".join(map(str, parsed)))
    split = split_folder(collection.id)[1] or "train"
    judged = {query.id: {sources[query.id]: 1} for query in kept}
    write_derived(out, collection, kept, {split: judged}, made_by, same_questions=True)
    return load_collection(f"{out}#{split}")


def source_of(collection: Collection, query_id: str) -> str:
    """The passage a synthetic query was made of.

    Raises:
        IrdistillError: its judgments are not one passage.
    """
    judged = [doc for doc, grade in collection.qrels[query_id].items() if grade > 0]
    if len(judged) != 1:
        raise IrdistillError(
            f"the query {query_id!r} of {collection.id!r} has {len(judged)} relevant passages; a"
            " synthetic query has one, its source. Filter what generate has written."
        )
    return judged[0]


def critic_curve(
    collection: Collection, scores: Run | str | Path, steps: int = 11
) -> list[dict[str, float]]:
    """Size and quality against the critic's threshold: at quantiles of the teacher's score of the
    source.

    Returns:
        Rows of ``threshold``, ``kept`` (share of the queries), ``first`` (share of those kept whose
        source the teacher puts first) and ``mrr`` (of the source in the teacher's list), loosest
        first.
    """
    run = open_run(scores, collection)
    found = []
    for query_id in collection.queries:
        source, listed = source_of(collection, query_id), run.get(query_id)
        rank = document_rank(listed, source)
        found.append((_score(listed, source), 0.0 if rank is None else 1 / rank))
    values, reciprocal = (np.array(column, dtype=np.float64) for column in zip(*found, strict=True))
    known = values[np.isfinite(values)]
    rows = []
    for bound in (
        np.unique(np.quantile(known, np.linspace(0, 1, steps), method="lower"))
        if len(known)
        else []
    ):
        kept = values >= bound
        rows.append(
            {
                "threshold": float(bound),
                "kept": float(kept.mean()),
                "first": float((reciprocal[kept] == 1).mean()),
                "mrr": float(reciprocal[kept].mean()),
            }
        )
    return rows


def diversity(texts: Sequence[str]) -> dict[str, float]:
    """How varied queries are: different words by all words, the same for pairs of words, and words
    a query.
    """
    words = [normalize_query(text).split() for text in texts]
    single = [word for line in words for word in line]
    pairs = [pair for line in words for pair in pairwise(line)]
    return {
        "distinct_1": len(set(single)) / max(1, len(single)),
        "distinct_2": len(set(pairs)) / max(1, len(pairs)),
        "words": len(single) / max(1, len(texts)),
    }


def document_rank(listed: RankedList | None, doc_id: str) -> int | None:
    """The place of a document by score, from 1, documents with equal scores before it counted; None
    where it has no score.
    """
    score = _score(listed, doc_id)
    if listed is None or not np.isfinite(score):
        return None
    others = np.asarray(listed.scores)[[one != doc_id for one in listed.doc_ids]]
    return 1 + int((others >= score).sum())


def _score(listed: RankedList | None, doc_id: str) -> float:
    if listed is None or doc_id not in listed.doc_ids:
        return float("nan")
    return float(listed.scores[list(listed.doc_ids).index(doc_id)])


def _test(rule: FilterRule, run: Run, sources: dict[str, str]) -> Callable[[str], bool]:
    if rule.name in ("consistency", "first"):

        def among(query_id: str) -> bool:
            rank = document_rank(run.get(query_id), sources[query_id])
            return rank is not None and rank <= rule.bound

        return among
    if rule.name == "critic":
        return lambda query_id: _score(run.get(query_id), sources[query_id]) >= rule.bound
    best = {query_id: _best(run.get(query_id)) for query_id in sources}
    by_kind: dict[str, list[float]] = {}
    for query_id, score in best.items():
        if np.isfinite(score):
            by_kind.setdefault(query_kind(query_id), []).append(score)
    bounds = {kind: float(np.percentile(values, rule.bound)) for kind, values in by_kind.items()}
    return lambda query_id: best[query_id] >= bounds.get(query_kind(query_id), np.inf)


def _best(listed: RankedList | None) -> float:
    scores = np.empty(0) if listed is None else np.asarray(listed.scores)
    return float(np.nanmax(scores)) if np.isfinite(scores).any() else float("nan")
