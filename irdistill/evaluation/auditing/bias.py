"""Does a teacher like long documents, or those it was shown first, more than the judgments do?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from irdistill.collections import Corpus
from irdistill.evaluation.auditing.sample import Scored
from irdistill.evaluation.significance import interval

FEWEST = 5
MOST_DOCUMENTS = 200_000
NOTABLE = 0.2
NOTABLE_ALONE = 0.5
"""A bias is reported when the teacher's correlation is NOTABLE away from the labels', or
NOTABLE_ALONE where nothing is judged.
"""


@dataclass(frozen=True)
class Correlation:
    """Mean over lists of Spearman's rank correlation with a property of the documents.

    Attributes:
        lists: those with FEWEST documents or more in which both sides vary.
        value, low, high: the mean of the teacher's, and its 95% bootstrap interval.
        judged_lists: lists in which FEWEST judged documents have different grades.
        teacher_judged, labels: on these documents alone, of the teacher's scores and of the grades.
        excess: the mean of ``teacher_judged - labels``; excess_low, excess_high: its 95% bootstrap
            interval.
    """

    lists: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    judged_lists: int = 0
    teacher_judged: float | None = None
    labels: float | None = None
    excess: float | None = None
    excess_low: float | None = None
    excess_high: float | None = None

    @property
    def notable(self) -> bool:
        """Whether it is worth a sentence in the verdict."""
        if self.excess is not None and self.excess_low is not None and self.excess_high is not None:
            return abs(self.excess) >= NOTABLE and not self.excess_low <= 0 <= self.excess_high
        return self.value is not None and abs(self.value) >= NOTABLE_ALONE


@dataclass(frozen=True)
class Bias:
    """What a teacher's scores go with.

    Attributes:
        length: with the document's length in words.
        position: with the place in the first stage's list, 1 where the teacher keeps its order, -1
            where it turns it round; None without a first stage.
        unchanged: share of lists of three documents or more that have exactly the first stage's
            order.
    """

    length: Correlation
    position: Correlation | None
    unchanged: float | None


def bias(
    corpus: Corpus,
    lists: Mapping[str, Scored],
    first_stage: Mapping[str, Scored] | None,
    qrels: Mapping[str, Mapping[str, int]],
    seed: int,
) -> Bias:
    """Correlate scores with lengths and with the first stage's order.

    Lengths are read for the lists that begin within the first MOST_DOCUMENTS documents of the
    sample.
    """
    read, properties = 0, {}
    for query, found in lists.items():
        if read >= MOST_DOCUMENTS:
            break
        read += len(found.doc_ids)
        texts = corpus.texts(corpus.rows(found.doc_ids)) if found.doc_ids else []
        properties[query] = np.array([len(text.split()) for text in texts], dtype=np.float64)
    length = _correlation({query: lists[query] for query in properties}, properties, qrels, seed)
    if first_stage is None:
        return Bias(length, None, None)
    shared, places, unchanged = {}, {}, []
    for query, found in lists.items():
        if query not in first_stage:
            continue
        own, other = found.only(first_stage[query].doc_ids), first_stage[query].only(found.doc_ids)
        rank = {doc: -float(number) for number, doc in enumerate(other.doc_ids)}
        shared[query], places[query] = own, np.array([rank[doc] for doc in own.doc_ids])
        if len(own.doc_ids) >= 3:
            unchanged.append(own.doc_ids == other.doc_ids)
    return Bias(
        length,
        _correlation(shared, places, qrels, seed),
        float(np.mean(unchanged)) if unchanged else None,
    )


def _correlation(
    lists: Mapping[str, Scored],
    properties: Mapping[str, np.ndarray],
    qrels: Mapping[str, Mapping[str, int]],
    seed: int,
) -> Correlation:
    values, pairs = [], []
    for query, found in lists.items():
        value = spearman(found.scores, properties[query])
        if value is not None:
            values.append(value)
        grades = qrels.get(query, {})
        judged = np.array([doc in grades for doc in found.doc_ids], dtype=bool)
        labels = np.array([grades.get(doc, 0) for doc in found.doc_ids], dtype=np.float64)[judged]
        teacher, truth = (
            spearman(found.scores[judged], properties[query][judged]),
            spearman(labels, properties[query][judged]),
        )
        if teacher is not None and truth is not None:
            pairs.append((teacher, truth))
    if not values:
        return Correlation(0)
    low, high = interval(np.array(values), seed)
    if not pairs:
        return Correlation(len(values), float(np.mean(values)), low, high)
    table = np.array(pairs)
    excess = table[:, 0] - table[:, 1]
    excess_low, excess_high = interval(excess, seed)
    return Correlation(
        len(values),
        float(np.mean(values)),
        low,
        high,
        len(pairs),
        float(table[:, 0].mean()),
        float(table[:, 1].mean()),
        float(excess.mean()),
        excess_low,
        excess_high,
    )


def spearman(left: np.ndarray, right: np.ndarray) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None for fewer than FEWEST values or
    where one side is constant.
    """
    from scipy.stats import rankdata

    if len(left) < FEWEST or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    one, two = rankdata(left), rankdata(right)
    return float(np.corrcoef(one, two)[0, 1])
