"""The verb *compare*: runs of students that differ by their loss alone -> ranks, spread and tested
differences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.evaluation.friedman_test import Friedman, friedman
from irdistill.evaluation.measure_names import is_count, parse_measures
from irdistill.evaluation.measures import per_query
from irdistill.evaluation.ranking_policies import SelfMatch, measured_run, warn_of_self_matches
from irdistill.evaluation.significance import equal_within, holm, paired_t, without_noise
from irdistill.runs import Run


@dataclass(frozen=True)
class Entry:
    """The run of one trained student on a collection; ``seed`` is the one it was trained with."""

    loss: str
    student: str
    collection: str
    seed: str
    run: str | Path | Run


@dataclass(frozen=True)
class Figure:
    """One loss on one student and collection.

    Attributes:
        mean, deviation: over the seeds, of the mean over queries; the deviation is None with one
            seed.
        seeds: seed -> mean over queries.
        rank: mean over the seeds of its rank among the losses, 1 for the best.
        best: whether no other loss has a higher mean here.
        worse: whether it is significantly below the best one here, after Holm's correction over the
            whole table.
    """

    loss: str
    student: str
    collection: str
    mean: float
    deviation: float | None
    seeds: dict[str, float]
    rank: float
    best: bool
    worse: bool


@dataclass(frozen=True)
class Pair:
    """Two losses on one student and collection, paired over queries: of each query the mean over
    the seeds.

    Attributes:
        difference: of ``loss`` minus ``against``.
        p, p_holm: of the paired t-test (of the randomisation test where all queries differ by the
            same amount), and corrected over all pairs of the whole table.
        wins, ties, losses: queries.
    """

    loss: str
    against: str
    student: str
    collection: str
    difference: float
    p: float
    p_holm: float
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        figures: by collection and student, and in each by loss, the best mean rank first.
        over_blocks: ranks over all (student, collection, seed).
        over_settings: ranks over all (student, collection), of the means over seeds; None where
            there is one alone. Seeds of one setting are no independent data sets, so this is the
            cautious form.
    """

    measure: str
    level: float
    figures: tuple[Figure, ...]
    pairs: tuple[Pair, ...]
    over_blocks: Friedman | None
    over_settings: Friedman | None

    @property
    def losses(self) -> list[str]:
        """The best mean rank first."""
        return list(dict.fromkeys(figure.loss for figure in self.figures))

    @property
    def settings(self) -> list[tuple[str, str]]:
        """(student, collection), in the order given."""
        return list(dict.fromkeys((figure.student, figure.collection) for figure in self.figures))

    def figure(self, loss: str, student: str, collection: str) -> Figure:
        """One figure; all are there."""
        return next(
            found
            for found in self.figures
            if (found.loss, found.student, found.collection) == (loss, student, collection)
        )

    def to_json(self) -> dict[str, Any]:
        """Everything at full precision."""

        def ranks(found: Friedman | None) -> dict[str, Any] | None:
            return None if found is None else asdict(found) | {"groups": found.groups}

        return asdict(self) | {
            "over_blocks": ranks(self.over_blocks),
            "over_settings": ranks(self.over_settings),
        }


def check_level(level: float) -> None:
    """Refuse a level of tests that is none.

    Raises:
        IrdistillError: it is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise IrdistillError(
            f"the level of the tests is {level:g}; a number between 0 and 1 was expected, as 0.05."
        )


def compare_losses(
    entries: Sequence[Entry],
    collections: Mapping[str, Collection],
    measure: str = "nDCG@10",
    level: float = 0.05,
    self_match: SelfMatch = "keep",
) -> Comparison:
    """Compare losses over students, collections and seeds.

    Args:
        entries: of every loss one for each student, collection and seed.
        collections: by the names that the entries give them.
        self_match: ``drop`` leaves out a document that has the query's own id, see `evaluate`.

    Raises:
        IrdistillError: a run is missing or comes twice, fewer than two losses, more than one
            measure or one that counts documents, a run belongs to another collection, or the level
            is not between 0 and 1.
    """
    check_level(level)
    name = str(_single(measure))
    losses = _complete(entries)
    values: dict[tuple[str, str], dict[str, dict[str, np.ndarray]]] = {}
    for entry in entries:
        collection = collections[entry.collection]
        result = per_query(
            collection.qrels, measured_run(entry.run, collection, self_match), [name]
        )
        warn_of_self_matches(
            result.self_matches,
            len(collection.qrels),
            collection,
            f"{entry.loss} on {entry.collection}",
        )
        values.setdefault((entry.student, entry.collection), {}).setdefault(entry.loss, {})[
            entry.seed
        ] = result.values[name]
    pairs = _pairs(values, losses)
    blocks = {
        loss: [float(own[loss][seed].mean()) for own in values.values() for seed in own[losses[0]]]
        for loss in losses
    }
    settings = {
        loss: [float(_over_seeds(own[loss]).mean()) for own in values.values()] for loss in losses
    }
    ranked = friedman(blocks, level) if len(blocks[losses[0]]) > 1 else None
    order = list(ranked.ranks) if ranked else sorted(losses, key=lambda loss: -blocks[loss][0])
    figures = [
        figure
        for place, own in values.items()
        for figure in _figures(place, own, order, pairs, level)
    ]
    return Comparison(
        name,
        level,
        tuple(figures),
        tuple(pairs),
        ranked,
        friedman(settings, level) if len(values) > 1 else None,
    )


def _single(measure: str) -> Any:
    parsed = parse_measures(measure)
    if len(parsed) != 1:
        raise IrdistillError(f"losses are compared by one measure; {measure!r} was given.")
    if is_count(parsed[0]):
        raise IrdistillError(
            f"losses are compared by the mean over queries, and {measure} is a count; take nDCG@10"
            " or R@100."
        )
    return parsed[0]


def _complete(entries: Sequence[Entry]) -> list[str]:
    """The losses, in the order given, where every student, collection and seed has a run of
    each.
    """
    losses = list(dict.fromkeys(entry.loss for entry in entries))
    if len(losses) < 2:
        raise IrdistillError(
            f"runs of the losses {', '.join(losses) or '(none)'} were given; at least two losses"
            " were expected."
        )
    counts = Counter((entry.student, entry.collection, entry.seed, entry.loss) for entry in entries)
    for student, collection, seed, _ in list(counts):
        for loss in losses:
            if counts[student, collection, seed, loss] != 1:
                fault = (
                    "has no run"
                    if not counts[student, collection, seed, loss]
                    else "has more than one run"
                )
                raise IrdistillError(
                    f"the loss {loss} {fault} of the student {student or '(unnamed)'} with seed"
                    f" {seed or '(unnamed)'} on {collection}; ranks need one run of each of"
                    f" {', '.join(losses)}."
                )
    return losses


def _over_seeds(found: Mapping[str, np.ndarray]) -> np.ndarray:
    """(Q,) each query's mean over the seeds."""
    return np.mean(list(found.values()), axis=0)


def _pairs(
    values: Mapping[tuple[str, str], Mapping[str, Mapping[str, np.ndarray]]], losses: Sequence[str]
) -> list[Pair]:
    """Every two losses on each student and collection."""
    tested = []
    for (student, collection), found in values.items():
        means = {loss: _over_seeds(found[loss]) for loss in losses}
        for loss, against in combinations(losses, 2):
            apart = means[loss] - means[against]
            apart[np.abs(apart) < equal_within(means[loss], means[against])] = (
                0.0  # sums in another order
            )
            counts = [int((apart > 0).sum()), int((apart == 0).sum()), int((apart < 0).sum())]
            tested.append(
                (
                    loss,
                    against,
                    student,
                    collection,
                    float(apart.mean()),
                    paired_t(means[loss], means[against]),
                    counts,
                )
            )
    adjusted = holm([test[5] for test in tested])
    return [
        Pair(*test[:6], p_holm, *test[6]) for test, p_holm in zip(tested, adjusted, strict=True)
    ]


def _figures(
    place: tuple[str, str],
    found: Mapping[str, Mapping[str, np.ndarray]],
    order: Sequence[str],
    pairs: Sequence[Pair],
    level: float,
) -> list[Figure]:
    student, collection = place
    seeds = {
        loss: {seed: float(values.mean()) for seed, values in found[loss].items()} for loss in order
    }
    means = {loss: float(np.mean(list(seeds[loss].values()))) for loss in order}
    equal = without_noise(np.array(list(means.values())))
    winners = {
        loss for loss, value in zip(order, equal.tolist(), strict=True) if value == equal.max()
    }
    worse = {
        pair.against if pair.loss in winners else pair.loss
        for pair in pairs
        if (pair.student, pair.collection) == place
        and pair.p_holm < level
        and {pair.loss, pair.against} & winners
    } - winners
    table = np.array([[seeds[loss][seed] for loss in order] for seed in found[order[0]]])
    from scipy.stats import rankdata  # which takes a second to load

    ranks = rankdata([-without_noise(row) for row in table], axis=1).mean(axis=0)
    return [
        Figure(
            loss,
            student,
            collection,
            means[loss],
            float(np.std(list(seeds[loss].values()), ddof=1)) if len(seeds[loss]) > 1 else None,
            seeds[loss],
            float(ranks[number]),
            loss in winners,
            loss in worse,
        )
        for number, loss in enumerate(order)
    ]
