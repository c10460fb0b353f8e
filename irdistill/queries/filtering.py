"""The verb *filter*: keep the synthetic queries that are worth learning from.

A synthetic query has one judgment, its source passage. Rules look at the rank or score of the
source in a run of the retriever that will learn (``retrieved``) or of the teacher (``scores``).
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irdistill.collections import Collection, load_collection
from irdistill.collections.derived import write_derived
from irdistill.collections.slices import split_folder
from irdistill.console.terminal import counted
from irdistill.errors import InputError, OptionError
from irdistill.queries.generating import query_kind
from irdistill.queries.query_kinds import normalize_query
from irdistill.runs import RankedList, Run, open_run
from irdistill.runs.label_injection import refuse_labels

if TYPE_CHECKING:
    Passes = Callable[[str], bool]
    """Whether the query with this id passes a rule."""

logger = logging.getLogger(__name__)
_RULE = re.compile(r"(consistency|first|percentile|critic)(?:=(-?\d+(?:\.\d+)?))?")
_DEFAULTS = {"consistency": 20.0, "first": 1.0, "percentile": 25.0}
_RUN_OF_RULE = {
    "consistency": "retrieved",
    "first": "scores",
    "percentile": "scores",
    "critic": "scores",
}


@dataclass(frozen=True)
class FilterRule:
    """One rule, written as ``consistency=20``.

    * ``consistency=K``: the source is in the top K of the retriever (Promptagator, Dai et al. 2022,
      arXiv:2209.11755).
    * ``first=K``: the source is in the top K of the teacher (default: 1).
    * ``percentile=P``: the best teacher score of the query is at least the P-th percentile of these
      scores among queries of its kind.
    * ``critic=T``: the teacher's score of the source is at least T (the critic of Symbolic
      Knowledge Distillation, West et al. 2022, arXiv:2110.07178).

    A query that excludes its source, because it consists of the source's words, passes all rules
    about the source.

    Examples:
        >>> str(FilterRule.parse("first"))
        'first=1'
    """

    name: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> FilterRule:
        """Read a rule."""
        match = _RULE.fullmatch(text.strip())
        if match is None or (match[2] is None and match[1] not in _DEFAULTS):
            raise OptionError(
                f"cannot read the rule {text!r}; expected consistency=K, first=K, percentile=P or"
                " critic=T."
            )
        bound = float(match[2]) if match[2] is not None else _DEFAULTS[match[1]]
        if (match[1] in ("consistency", "first") and bound < 1) or (
            match[1] == "percentile" and not 0 <= bound <= 100
        ):
            raise OptionError(
                f"the bound of the rule {text!r} is out of range; ranks start at 1, percentiles are"
                " from 0 to 100."
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
    """Write the queries that pass all rules; count the others by the first rule that they fail.

    Runs of the whole collection serve the filtered one.

    Args:
        collection: synthetic queries, as `generate` writes them.

    Returns:
        The collection ``OUT#SPLIT`` with the split of ``collection``. Its record contains the
        counts by rule and kind.
    """
    parsed = [rule if isinstance(rule, FilterRule) else FilterRule.parse(rule) for rule in rules]
    if not parsed:
        raise OptionError("filter needs at least one rule, for example consistency=20.")
    runs = {
        name: open_run(run, collection)
        for name, run in (("scores", scores), ("retrieved", retrieved))
        if run is not None
    }
    for run in runs.values():
        refuse_labels(run, "used to filter")
    for rule in parsed:
        if _RUN_OF_RULE[rule.name] not in runs:
            raise OptionError(f"the rule {rule} needs the run {_RUN_OF_RULE[rule.name]}; give it.")
    sources = {query_id: source_passage(collection, query_id) for query_id in collection.queries}
    checks = [(rule, _check(rule, runs[_RUN_OF_RULE[rule.name]], sources)) for rule in parsed]
    counts: Counter[str] = Counter()
    kept = []
    for query in collection.queries.values():
        excludes_source = sources[query.id] in query.excluded
        failed = [
            rule
            for rule, passes in checks
            if not (excludes_source and rule.name != "percentile") and not passes(query.id)
        ]
        result = f"failed {failed[0]}" if failed else "kept"
        counts[f"{query_kind(query.id)}: {result}"] += 1
        if not failed:
            kept.append(query)
    listed = ", ".join(map(str, parsed))
    if not kept:
        raise InputError(
            f"none of {counted(len(sources), 'query')} passes {listed}; loosen a bound."
        )
    made_by: dict[str, Any] = {
        "verb": "filter",
        "rules": list(map(str, parsed)),
        "runs": {name: run.fingerprint for name, run in runs.items()},
        "of": len(sources),
        "kept": len(kept),
        "counts": dict(sorted(counts.items())),
        "diversity": diversity([query.text for query in kept]),
    }
    logger.info("%d of %d queries pass %s", len(kept), len(sources), listed)
    split = split_folder(collection.id)[1] or "train"
    judged = {query.id: {sources[query.id]: 1} for query in kept}
    write_derived(out, collection, kept, {split: judged}, made_by, same_questions=True)
    return load_collection(f"{out}#{split}")


def source_passage(collection: Collection, query_id: str) -> str:
    """Id of the passage that a synthetic query was made from."""
    relevant = [doc_id for doc_id, grade in collection.qrels[query_id].items() if grade > 0]
    if len(relevant) != 1:
        raise InputError(
            f"the query {query_id!r} of {collection.id!r} has {len(relevant)} relevant passages;"
            " expected one, its source. Filter collections that generate has written."
        )
    return relevant[0]


def critic_curve(
    collection: Collection, scores: Run | str | Path, steps: int = 11
) -> list[dict[str, float]]:
    """Number and quality of the queries that each threshold of ``critic=T`` keeps.

    Args:
        steps: number of thresholds, at quantiles of the teacher's score of the source.

    Returns:
        Rows of ``threshold``, ``kept`` (share of the queries), ``first`` (share of the kept queries
        whose source the teacher ranks first) and ``mrr`` (of the source in the teacher's list), by
        ascending threshold.
    """
    run = open_run(scores, collection)
    refuse_labels(run, "measured")
    values, ranks = [], []
    for query_id in collection.queries:
        source, ranked = source_passage(collection, query_id), run.get(query_id)
        values.append(_score(ranked, source))
        ranks.append(document_rank(ranked, source) or np.inf)
    source_scores, reciprocal = np.array(values), 1 / np.array(ranks, dtype=np.float64)
    finite = source_scores[np.isfinite(source_scores)]
    if not len(finite):
        return []
    rows = []
    for bound in np.unique(np.quantile(finite, np.linspace(0, 1, steps), method="lower")):
        kept = source_scores >= bound
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
    """Shares of distinct words and word pairs, and words per query.

    Examples:
        >>> diversity(["merge two dicts", "merge two lists"])["distinct_1"]
        0.6666666666666666
    """
    words = [normalize_query(text).split() for text in texts]
    single = [word for query in words for word in query]
    pairs = [pair for query in words for pair in pairwise(query)]
    return {
        "distinct_1": len(set(single)) / max(1, len(single)),
        "distinct_2": len(set(pairs)) / max(1, len(pairs)),
        "words": len(single) / max(1, len(texts)),
    }


def document_rank(ranked: RankedList | None, doc_id: str) -> int | None:
    """Rank of a document by score, from 1, after all ties; None without a score."""
    score = _score(ranked, doc_id)
    if ranked is None or not np.isfinite(score):
        return None
    others = np.asarray(ranked.scores)[[other != doc_id for other in ranked.doc_ids]]
    return 1 + int((others >= score).sum())


def _score(ranked: RankedList | None, doc_id: str) -> float:
    if ranked is None or doc_id not in ranked.doc_ids:
        return float("nan")
    return float(ranked.scores[list(ranked.doc_ids).index(doc_id)])


def _check(rule: FilterRule, run: Run, sources: dict[str, str]) -> Passes:
    """The function that tells whether a query passes a rule."""
    if rule.name in ("consistency", "first"):

        def in_top(query_id: str) -> bool:
            rank = document_rank(run.get(query_id), sources[query_id])
            return rank is not None and rank <= rule.bound

        return in_top
    if rule.name == "critic":
        return lambda query_id: _score(run.get(query_id), sources[query_id]) >= rule.bound
    best = {query_id: _best_score(run.get(query_id)) for query_id in sources}
    by_kind: dict[str, list[float]] = {}
    for query_id, score in best.items():
        if np.isfinite(score):
            by_kind.setdefault(query_kind(query_id), []).append(score)
    bounds = {kind: float(np.percentile(values, rule.bound)) for kind, values in by_kind.items()}
    return lambda query_id: best[query_id] >= bounds.get(query_kind(query_id), np.inf)


def _best_score(ranked: RankedList | None) -> float:
    scores = np.empty(0) if ranked is None else np.asarray(ranked.scores)
    return float(np.nanmax(scores)) if np.isfinite(scores).any() else float("nan")
