"""Labels in the scores of a run: how they get there, and where such a run may not go.

A teacher that sees labels is privileged (label-assisted distillation). Its scores may train a
student, and may never decide a figure: `refuse_labels` guards every verb that measures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from irdistill.collections import Collection
from irdistill.errors import InputError, LabelLeakError
from irdistill.option_checks import check_fields
from irdistill.runs.ranked_lists import RankedList
from irdistill.storage.files import digest

if TYPE_CHECKING:
    from irdistill.runs.run import Run

LABELS = "privileged"
"""Key in the settings of a run's identity: the labels that its scores contain."""


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """How labels are added to the scores of a run.

    Examples:
        >>> LabelOptions().label_weight
        1.0
    """

    label_weight: Annotated[
        float,
        Field(
            gt=0,
            description="What a label adds to a fused score (with zscore: standard deviations).",
        ),
    ] = 1.0
    label_noise: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of labels that are moved to a random other document of the list.",
        ),
    ] = 0.0

    def __post_init__(self) -> None:
        check_fields(self)


class LabelInjection:
    """Adds a collection's noised labels to ranked lists.

    A document that is labeled relevant gains ``label_weight``. If it has no score, it is added to
    the list with the lowest score of the list plus the weight. With the probability ``label_noise``
    another document of the list, drawn at random, gains the weight instead. The draws depend on the
    seed and the query alone.

    Args:
        collection: a collection with judgments; a grade of at least 1 is a label.

    Raises:
        InputError: the collection has no judgments.

    Examples:
        >>> texts = {"a": "first", "b": "second"}
        >>> collection = Collection.from_dicts("tiny", texts, {"q": "text"}, {"q": {"b": 1}})
        >>> inject = LabelInjection(collection, LabelOptions(label_weight=2.0))
        >>> inject(RankedList("q", ["a"], np.array([0.5], np.float32)))[:3]
        ('q', ['a', 'b'], array([0.5, 2.5], dtype=float32))
    """

    def __init__(self, collection: Collection, options: LabelOptions, seed: int = 42) -> None:
        if not len(collection.qrels):
            raise InputError(
                f"{collection.id!r} has no judgments to add to scores; give a split that has qrels."
            )
        self.collection, self._options, self._seed = collection, options, seed

    def settings(self) -> dict[str, Any]:
        """What decides the added labels, for the manifest of a run."""
        described = self.collection.describe() | {"qrels": self.collection.qrels.fingerprint}
        return {"labels": described, **asdict(self._options), "seed": self._seed}

    def __call__(self, ranked: RankedList) -> RankedList:
        """The list with labels; a list without labels or without scores stays as it is."""
        grades = self.collection.qrels.get(ranked.query_id, {})
        excluded = self.collection.queries[ranked.query_id].excluded
        relevant = sorted(doc for doc, grade in grades.items() if grade > 0 and doc not in excluded)
        scored = np.flatnonzero(~np.isnan(ranked.scores)).tolist()
        if not relevant or not scored:
            return ranked
        weight, lowest = self._options.label_weight, float(ranked.scores[scored].min())
        scores = dict(zip(ranked.doc_ids, ranked.scores.tolist(), strict=True))
        others = [ranked.doc_ids[place] for place in scored if ranked.doc_ids[place] not in grades]
        draw = np.random.default_rng(int(digest([self._seed, ranked.query_id]), 16))
        for doc in relevant:
            moved = draw.random() < self._options.label_noise and others
            target = others[draw.integers(len(others))] if moved else doc
            score = scores.get(target, np.nan)
            scores[target] = (score if score == score else lowest) + weight
        return _with_scores(ranked, scores)


def _with_scores(ranked: RankedList, scores: dict[str, float]) -> RankedList:
    """The list with new scores, and with the documents that it lacks."""
    doc_ids, added = list(scores), len(scores) - len(ranked.doc_ids)
    flags, passages = ranked.flags, ranked.passages
    if flags is not None:  # a flag that says why there is no score goes when there is one
        rescored = np.isnan(ranked.scores) & ~np.isnan([scores[doc] for doc in ranked.doc_ids])
        flags = [None if new else flag for flag, new in zip(flags, rescored, strict=True)]
        flags += [None] * added
    if passages is not None:
        passages = np.concatenate([passages, np.full(added, -1, np.int32)])
    values = np.array(list(scores.values()), np.float32)
    return RankedList(ranked.query_id, doc_ids, values, flags, passages)


def label_settings(runs: Iterable[Run]) -> dict[str, Any]:
    """Settings of a run that is made from others: the labels that their scores contain."""
    labels: list[Any] = []
    for run in runs:
        labels += [some for some in run.identity.settings.get(LABELS, ()) if some not in labels]
    return {LABELS: labels} if labels else {}


def refuse_labels(run: Run, use: str) -> None:
    """Refuse a run whose scores contain labels.

    Args:
        use: what the run was to be used for, such as ``"measured"``.

    Raises:
        LabelLeakError: the run, or one that it was made from, contains labels.
    """
    labels = run.identity.settings.get(LABELS)
    if labels:
        raise LabelLeakError(
            f"{run} cannot be {use}: its scores contain the labels of {labels[0]['labels']['id']!r}"
            " (fuse --labels). It may only train a student; use the run without labels here."
        )
