"""Rules that flag unjudged documents that are probably relevant."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from irdistill.collections import Collection
from irdistill.collections.collection import collection_mismatch
from irdistill.collections.judging import CombinedJudgments
from irdistill.console.progress_bars import progress
from irdistill.errors import OptionError, WrongCollectionError
from irdistill.runs.flags import FALSE_NEGATIVE, SUSPECTED, flag_code
from irdistill.runs.interchange import as_run
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run
from irdistill.runs.run_ownership import check_out
from irdistill.runs.writer import RunWriter

logger = logging.getLogger(__name__)
Reference = Literal["highest", "lowest", "mean"]
RULES = ("margin", "percentage", "threshold", "top-k", "above-positive")
_RULE = re.compile(r"([a-z-]+)(?:=([-+.\deE]+))?")


@dataclass(frozen=True)
class MaskRule:
    """A rule for a document of score s and a query whose positive has score p.

    - ``margin=m``: s > p - m (m at least 0);
    - ``percentage=c``: s > c * p (0 < c at most 1). It needs scores with a meaningful zero; if p is
      not above 0, the rule does not apply to the query;
    - ``threshold=t``: s > t;
    - ``top-k=k``: the document is among the first k of the run;
    - ``above-positive``: s > p.

    ``margin`` and ``percentage`` are TopK-MarginPos and TopK-PercPos of NV-Retriever (arXiv
    2407.15831).
    """

    name: str
    value: float = 0.0

    def __post_init__(self) -> None:
        value = self.value
        good = {
            "margin": 0 <= value < math.inf,
            "percentage": 0 < value <= 1,
            "threshold": math.isfinite(value),
            "top-k": value >= 1 and value == int(value),
            "above-positive": value == 0,
        }
        if not good.get(self.name, False):
            raise OptionError(
                f"the rule {self} is not known or its number is out of range. Write margin=M (at"
                " least 0), percentage=C (above 0, at most 1), threshold=T, top-k=K (a whole"
                " number from 1) or above-positive."
            )

    @classmethod
    def parse(cls, text: str) -> MaskRule:
        """Parse a rule such as ``margin=2``."""
        match = _RULE.fullmatch(text.replace(" ", ""))
        try:
            name, value = (match[1], match[2]) if match else (text, None)
            if name in RULES and (value is None) != (name == "above-positive"):
                raise ValueError
            return cls(name, float(value) if value is not None else 0.0)
        except ValueError as error:
            raise OptionError(
                f"the rule {text!r} cannot be read; write a rule and its number, as margin=2, or"
                " above-positive alone."
            ) from error

    def __str__(self) -> str:
        return self.name if self.name == "above-positive" else f"{self.name}={self.value:g}"

    def hits(self, scores: np.ndarray, positive: float) -> np.ndarray | None:
        """(n,) bool for scores in rank order; None if the query has no positive that is usable."""
        match self.name:
            case "threshold":
                return scores > self.value
            case "top-k":
                return np.arange(len(scores)) < self.value
            case "percentage":
                return scores > self.value * positive if positive > 0 else None
            case _:  # margin; above-positive is a margin of 0
                return scores > positive - self.value if positive == positive else None


def mask(
    run: Any,
    collection: Collection,
    out: str | Path,
    rules: str | Sequence[str] = (),
    positive: Reference = "highest",
    overwrite: bool = False,
    people: CombinedJudgments | None = None,
) -> Run:
    """Flag unjudged documents that are probably relevant: ``false negative: margin``.

    No score is changed. Judged documents and documents without a score are never flagged. The first
    of several rules that applies to a document is the reason. The manifest's usage counts what each
    rule flagged, and the queries that a rule did not apply to because no positive has a score (or,
    for ``percentage``, a score above 0).

    Documents that people judged relevant, and the collection does not, are flagged as
    ``false negative: judged``. Documents that they judged not relevant are flagged by no rule, and
    lose the suspicion that the run has of them.

    Args:
        positive: the score of a query with several positives: the ``highest`` (flags the fewest
            documents), the ``lowest`` or the ``mean``.
        people: judgments as `combine_judges` returns them.
    """
    parsed = [MaskRule.parse(text) for text in ([rules] if isinstance(rules, str) else rules)]
    if not (parsed or people) or positive not in ("highest", "lowest", "mean"):
        raise OptionError(
            f"{len(parsed)} rules and positive={positive!r} were given; at least one rule, or"
            " judgments, and one of highest, lowest, mean were expected."
        )
    if parsed and not len(collection.qrels):
        raise WrongCollectionError(
            f"{collection.id!r} has no judgments, so its known relevant documents would be flagged"
            " as false negatives; give a split that has qrels."
        )
    opened = as_run(run, collection)
    check_out(out, overwrite, [opened])
    settings: dict[str, Any] = {
        "rules": [str(rule) for rule in parsed],
        "positive": positive,
        "run": opened.fingerprint,
        "qrels": collection.qrels.fingerprint,
        **_settings_of(people, collection),
    }
    grades = people.qrels if people is not None else {}
    identity = replace(opened.identity, settings={**opened.identity.settings, "mask": settings})
    size = opened.manifest.part_queries if opened.path is not None else 64
    with RunWriter(
        out,
        identity,
        opened.query_ids,
        size,
        overwrite=overwrite,
        fingerprints=opened.query_fingerprints,
    ) as writer:
        pending = writer.pending()
        done = len(opened) - sum(len(ids) for _, ids in pending)
        with progress(len(opened), "queries", "mask", done) as bar:
            for number, ids in pending:
                counts: Counter[str] = Counter(
                    {f"flagged_{rule.name}": 0 for rule in parsed} | {"unruled_queries": 0}
                )
                if people is not None:
                    counts |= {"flagged_judged": 0, "cleared_judged": 0}
                lists = [
                    _masked(
                        _judged(
                            opened[query_id],
                            collection.qrels.get(query_id, {}),
                            grades.get(query_id, {}),
                            counts,
                        ),
                        {**grades.get(query_id, {}), **collection.qrels.get(query_id, {})},
                        parsed,
                        positive,
                        counts,
                    )
                    for query_id in ids
                ]
                writer.write_part(number, lists, counts)
                bar.update(len(ids))
        masked = writer.finish()
    usage = masked.manifest.usage
    if people is not None:
        logger.info(
            "%d documents flagged that people judged relevant; %d suspicions cleared",
            int(usage.get("flagged_judged", 0)),
            int(usage.get("cleared_judged", 0)),
        )
    if parsed:
        logger.info(
            "%d documents flagged as suspected false negatives; %d of %d queries have no positive"
            " that a rule could use",
            sum(int(usage.get(f"flagged_{rule.name}", 0)) for rule in parsed),
            int(usage.get("unruled_queries", 0)),
            len(masked),
        )
    return masked


def _settings_of(people: CombinedJudgments | None, collection: Collection) -> dict[str, Any]:
    """What the run's identity says of people's judgments; empty without any."""
    if people is None:
        return {}
    part = collection_mismatch(people.collection, collection.describe())
    if part is not None:
        raise WrongCollectionError(
            f"the judgments are for {people.collection.get('id')!r}, whose {part} are not those of"
            f" {collection.id!r}; give the collection that was judged."
        )
    return {
        "people": {
            "policy": people.policy,
            "judges": list(people.judges),
            "qrels": people.qrels.fingerprint,
        }
    }


def _judged(
    row: RankedList,
    judged: Mapping[str, int],
    people: Mapping[str, int],
    counts: Counter[str],
) -> RankedList:
    """A list with the flags that follow from people's judgments."""
    flags: list[str | None] = list(row.flags) if row.flags else [None] * len(row.doc_ids)
    for place, doc in enumerate(row.doc_ids):
        if doc not in people or row.scores[place] != row.scores[place]:
            continue
        flag = flags[place]
        suspected = flag_code(flag) == SUSPECTED
        if people[doc] <= 0 and flag and suspected:
            flags[place] = flag.partition("; ")[2] or None
            counts["cleared_judged"] += 1
        elif people[doc] > 0 and judged.get(doc, 0) <= 0 and not suspected:
            flags[place] = "; ".join(filter(None, (f"{FALSE_NEGATIVE}: judged", flag)))
            counts["flagged_judged"] += 1
    return row._replace(flags=flags if any(flags) else None)


def _masked(
    row: RankedList,
    judged: Mapping[str, int],
    rules: Sequence[MaskRule],
    reference: Reference,
    counts: Counter[str],
) -> RankedList:
    scores = row.scores.astype(np.float64)
    scored = ~np.isnan(scores)
    relevant = np.array([judged.get(doc, 0) > 0 for doc in row.doc_ids], dtype=bool) & scored
    positive = math.nan
    if relevant.any():
        some = scores[relevant]
        choices = {"highest": some.max(), "lowest": some.min(), "mean": some.mean()}
        positive = float(choices[reference])
    flags: list[str | None] = list(row.flags) if row.flags else [None] * len(row.doc_ids)
    free = scored & np.array(
        [
            doc not in judged and flag_code(flag) != SUSPECTED
            for doc, flag in zip(row.doc_ids, flags, strict=True)
        ],
        dtype=bool,
    )
    unruled = False
    for rule in rules:
        hits = rule.hits(scores, positive)
        if hits is None:
            unruled = True
            continue
        positions = np.flatnonzero(hits & free)
        free[positions] = False
        counts[f"flagged_{rule.name}"] += len(positions)
        for position in positions.tolist():
            reason = f"{FALSE_NEGATIVE}: {rule.name}"
            flags[position] = "; ".join(filter(None, (reason, flags[position])))
    counts["unruled_queries"] += unruled
    return row._replace(flags=flags if any(flags) else None)
