"""Whether a teacher prefers long documents, or the first stage's order, more than the judgments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from irdistill.collections import Corpus
from irdistill.evaluation.auditing.query_sample import Grades, Lists, scored_texts, shared_parts
from irdistill.evaluation.significance import interval

FEWEST = 5
MAX_DOCUMENTS = 200_000
NOTABLE = 0.2
NOTABLE_ALONE = 0.5
"""A bias is reported when the teacher's correlation is NOTABLE away from the labels', or, where
nothing is judged, NOTABLE_ALONE away from 0.
"""


@dataclass(frozen=True)
class Correlation:
    """Mean over lists of Spearman's rank correlation with a property of the documents.

    Attributes:
        lists: number of lists with at least FEWEST documents in which both sides vary.
        value, low, high: mean for the teacher's scores, and its 95% bootstrap interval.
        judged_lists: number of lists in which FEWEST judged documents have different grades.
        teacher_judged, labels: means over these documents, of the scores and of the grades.
        excess: mean of ``teacher_judged - labels``.
        excess_low, excess_high: its 95% bootstrap interval.
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
        """Whether the verdict should mention it."""
        if self.excess is not None and self.excess_low is not None and self.excess_high is not None:
            return abs(self.excess) >= NOTABLE and not self.excess_low <= 0 <= self.excess_high
        return self.value is not None and abs(self.value) >= NOTABLE_ALONE

    @property
    def direction(self) -> float:
        """The excess where it is known, else the correlation."""
        return self.excess if self.excess is not None else self.value or 0.0


@dataclass(frozen=True)
class Bias:
    """What a teacher's scores correlate with.

    Attributes:
        length: the document's length in words.
        position: the place in the first stage's list: 1 where the teacher keeps the order, -1 where
            it reverses it; None without a first stage.
        unchanged: share of lists of at least three documents that keep the first stage's order.
    """

    length: Correlation
    position: Correlation | None
    unchanged: float | None


def measure_bias(
    corpus: Corpus, lists: Lists, first_stage: Lists | None, qrels: Grades, seed: int
) -> Bias:
    """Correlate scores with lengths and with the first stage's order.

    Lengths are read for the lists that begin within the first MAX_DOCUMENTS documents.
    """
    read, lengths = 0, {}
    for query, scores in lists.items():
        if read >= MAX_DOCUMENTS:
            break
        read += len(scores.doc_ids)
        texts = scored_texts(corpus, scores)
        lengths[query] = np.array([len(text.split()) for text in texts], dtype=np.float64)
    length = _correlation({query: lists[query] for query in lengths}, lengths, qrels, seed)
    if first_stage is None:
        return Bias(length, None, None)
    shared, places, unchanged = {}, {}, []
    for query in (query for query in lists if query in first_stage):
        teacher, other = shared_parts(lists[query], first_stage[query])
        rank = {doc: -float(number) for number, doc in enumerate(other.doc_ids)}
        shared[query], places[query] = teacher, np.array([rank[doc] for doc in teacher.doc_ids])
        if len(teacher.doc_ids) >= 3:
            unchanged.append(teacher.doc_ids == other.doc_ids)
    position = _correlation(shared, places, qrels, seed)
    return Bias(length, position, float(np.mean(unchanged)) if unchanged else None)


def _correlation(
    lists: Lists, properties: Mapping[str, np.ndarray], qrels: Grades, seed: int
) -> Correlation:
    values, pairs = [], []
    for query, scores in lists.items():
        value = spearman(scores.scores, properties[query])
        if value is not None:
            values.append(value)
        grades = qrels.get(query, {})
        is_judged = np.array([doc in grades for doc in scores.doc_ids], dtype=bool)
        labels = np.array([grades.get(doc, 0) for doc in scores.doc_ids], dtype=np.float64)
        teacher = spearman(scores.scores[is_judged], properties[query][is_judged])
        truth = spearman(labels[is_judged], properties[query][is_judged])
        if teacher is not None and truth is not None:
            pairs.append((teacher, truth))
    if not values:
        return Correlation(0)
    means = (float(np.mean(values)), *interval(np.array(values), seed))
    if not pairs:
        return Correlation(len(values), *means)
    teacher_judged, labelled = np.array(pairs).T
    excess = teacher_judged - labelled
    judged = (float(teacher_judged.mean()), float(labelled.mean()), float(excess.mean()))
    return Correlation(len(values), *means, len(pairs), *judged, *interval(excess, seed))


def spearman(left: np.ndarray, right: np.ndarray) -> float | None:
    """Spearman's rank correlation; None for fewer than FEWEST values or a constant side."""
    from scipy.stats import rankdata

    if len(left) < FEWEST or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    return float(np.corrcoef(rankdata(left), rankdata(right))[0, 1])
