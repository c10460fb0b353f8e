"""Rules that say which unjudged documents are probably relevant; what they find is a flag beside
the score.
"""

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
from irdistill.console.progress import progress
from irdistill.errors import IrdistillError
from irdistill.runs.flags import FALSE_NEGATIVE, SUSPECTED, flag_code
from irdistill.runs.opening import open_run
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run
from irdistill.runs.run_files import check_out
from irdistill.runs.writer import RunWriter

logger = logging.getLogger(__name__)
Reference = Literal["highest", "lowest", "mean"]
RULES = ("margin", "percentage", "threshold", "top-k", "above-positive")
_RULE = re.compile(r"([a-z-]+)(?:=([-+.\deE]+))?")


@dataclass(frozen=True)
class Rule:
    """One rule. With s a document's score and p the score of the query's positive:

    - ``margin=m``: s > p - m (m at least 0);
    - ``percentage=c``: s > c * p (0 < c at most 1). It needs scores with a meaningful zero; where p
      is not above 0, c * p lies above p and the rule says nothing about the query;
    - ``threshold=t``: s > t;
    - ``top-k=k``: the document stands among the first k of the run;
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
            raise IrdistillError(
                f"the rule {self} is not known or its number is out of range. Write margin=M (at"
                " least 0), percentage=C (above 0, at most 1), threshold=T, top-k=K (a whole"
                " number from 1) or above-positive."
            )

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``margin=2``.

        Raises:
            IrdistillError: it is no rule.
        """
        match = _RULE.fullmatch(text.replace(" ", ""))
        try:
            name, value = (match[1], match[2]) if match else (text, None)
            if name in RULES and (value is None) != (name == "above-positive"):
                raise ValueError
            return cls(name, float(value) if value is not None else 0.0)
        except ValueError as error:
            raise IrdistillError(
                f"the rule {text!r} cannot be read; write a rule and its number, as margin=2, or"
                " above-positive alone."
            ) from error

    def __str__(self) -> str:
        return self.name if self.name == "above-positive" else f"{self.name}={self.value:g}"

    def hits(self, scores: np.ndarray, positive: float) -> np.ndarray | None:
        """(n,) bool for scores in rank order; None where the rule says nothing for want of a
        (usable) positive.
        """
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
    run: str | Path | Run,
    collection: Collection,
    out: str | Path,
    rules: str | Sequence[str],
    positive: Reference = "highest",
    overwrite: bool = False,
) -> Run:
    """Flag unjudged documents that are probably relevant: ``false negative: margin``. No score is
    changed.

    A judged document, relevant or not, is never flagged, nor is one without a score. Of several
    rules the first that hits gives the reason. The manifest's usage counts what each rule flagged
    and the queries that a rule could say nothing about, because no positive of theirs has a score
    (or, for ``percentage``, one above 0).

    Args:
        rules: such as ``"margin=2"``, or several.
        positive: which score stands for the positives where a query has several: the ``highest``
            (flags least), the ``lowest`` or the ``mean``.

    Raises:
        IrdistillError: a rule cannot be read, the collection has no judgments though a rule needs
            them, the run belongs to another collection, or ``out`` holds something else.
    """
    parsed = [Rule.parse(text) for text in ([rules] if isinstance(rules, str) else rules)]
    if not parsed or positive not in ("highest", "lowest", "mean"):
        raise IrdistillError(
            f"{len(parsed)} rules and positive={positive!r} were given; at least one rule and one"
            " of highest, lowest, mean were expected."
        )
    if not len(collection.qrels):
        raise IrdistillError(
            f"{collection.id!r} has no judgments, so its known relevant documents would be flagged"
            " as false negatives; give a split that has qrels."
        )
    opened = open_run(run, collection)
    check_out(out, overwrite, [opened])
    settings: dict[str, Any] = {
        "rules": [str(rule) for rule in parsed],
        "positive": positive,
        "run": opened.fingerprint,
        "qrels": collection.qrels.fingerprint,
    }
    identity = replace(opened.identity, settings={**opened.identity.settings, "mask": settings})
    # A run in memory is one part; in a folder it is cut like any other.
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
                lists = [
                    _masked(
                        opened[query_id],
                        collection.qrels.get(query_id, {}),
                        parsed,
                        positive,
                        counts,
                    )
                    for query_id in ids
                ]
                writer.write_part(number, lists, counts)
                bar.update(len(ids))
        found = writer.finish()
    usage = found.manifest.usage
    logger.info(
        "%d documents flagged as suspected false negatives; %d of %d queries have no positive that"
        " a rule could use",
        sum(int(usage.get(f"flagged_{rule.name}", 0)) for rule in parsed),
        int(usage.get("unruled_queries", 0)),
        len(found),
    )
    return found


def _masked(
    found: RankedList,
    judged: Mapping[str, int],
    rules: Sequence[Rule],
    reference: Reference,
    counts: Counter[str],
) -> RankedList:
    scores = found.scores.astype(np.float64)
    known = np.array([doc in judged for doc in found.doc_ids], dtype=bool)
    relevant = np.array([judged.get(doc, 0) > 0 for doc in found.doc_ids], dtype=bool) & ~np.isnan(
        scores
    )
    positive = math.nan
    if relevant.any():
        choices = {
            "highest": scores[relevant].max(),
            "lowest": scores[relevant].min(),
            "mean": scores[relevant].mean(),
        }
        positive = float(choices[reference])
    flags: list[str | None] = list(found.flags) if found.flags else [None] * len(found.doc_ids)
    free = (
        ~known
        & ~np.isnan(scores)
        & np.array([flag_code(flag) != SUSPECTED for flag in flags], dtype=bool)
    )
    silent = False
    for rule in rules:
        hits = rule.hits(scores, positive)
        if hits is None:
            silent = True
            continue
        places = np.flatnonzero(hits & free)
        free[places] = False
        counts[f"flagged_{rule.name}"] += len(places)
        for place in places.tolist():
            flags[place] = "; ".join(filter(None, (f"{FALSE_NEGATIVE}: {rule.name}", flags[place])))
    counts["unruled_queries"] += silent
    return RankedList(found.query_id, found.doc_ids, found.scores, flags if any(flags) else None)
