"""The verb *compare*: runs of students that differ only by their loss → ranks and tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from irdistill.collections import Collection
from irdistill.errors import InputError, OptionError
from irdistill.evaluation.friedman_test import Friedman, friedman
from irdistill.evaluation.measure_names import is_count, parse_measures
from irdistill.evaluation.measures import per_query
from irdistill.evaluation.ranking_policies import (
    RunSource,
    SelfMatch,
    measured_run,
    warn_of_self_matches,
)
from irdistill.evaluation.reporting.findings import Finding, Table, cell, probability
from irdistill.evaluation.reporting.rendering import Displayed
from irdistill.evaluation.significance import equal_within, holm, paired_t, without_noise

SeedValues = Mapping[str, np.ndarray]
"""Seed -> (Q,) values."""


@dataclass(frozen=True)
class Entry:
    """The run of one trained student on a collection.

    Attributes:
        seed: the seed that the student was trained with.
    """

    loss: str
    student: str
    collection: str
    seed: str
    run: RunSource


@dataclass(frozen=True)
class LossFigure:
    """One loss on one student and collection.

    Attributes:
        mean: mean over the seeds of the mean over queries.
        deviation: standard deviation over the seeds; None for one seed.
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
class LossPair:
    """Two losses on one student and collection, paired by each query's mean over the seeds.

    Attributes:
        difference: ``loss`` minus ``against``.
        p: paired t-test (randomization test if all queries differ by the same amount).
        p_holm: p corrected over all pairs of the whole table.
        wins: number of queries on which ``loss`` is better.
        ties: number of queries without a difference.
        losses: number of queries on which ``loss`` is worse.
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


@dataclass(frozen=True, repr=False)
class Comparison(Displayed):
    """Ranks, figures and tested differences of losses.

    Attributes:
        level: significance level of the tests.
        figures: by collection and student, and within each by loss, the best mean rank first.
        over_blocks: ranks over all (student, collection, seed).
        over_settings: ranks over all (student, collection) of the means over seeds; None for a
            single one. Seeds of one setting are not independent data sets, so this is the cautious
            form.
    """

    measure: str
    level: float
    figures: tuple[LossFigure, ...]
    pairs: tuple[LossPair, ...]
    over_blocks: Friedman | None
    over_settings: Friedman | None

    @property
    def losses(self) -> list[str]:
        """The losses, the best mean rank first."""
        return list(dict.fromkeys(figure.loss for figure in self.figures))

    @property
    def settings(self) -> list[tuple[str, str]]:
        """(student, collection), in the order of the entries."""
        return list(dict.fromkeys((figure.student, figure.collection) for figure in self.figures))

    def figure(self, loss: str, student: str, collection: str) -> LossFigure:
        """Return one figure."""
        return next(
            figure
            for figure in self.figures
            if (figure.loss, figure.student, figure.collection) == (loss, student, collection)
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """The figures as mappings."""
        return [asdict(figure) for figure in self.figures]

    def to_json(self) -> dict[str, Any]:
        """Everything at full precision."""

        def ranks(result: Friedman | None) -> dict[str, Any] | None:
            return None if result is None else asdict(result) | {"groups": result.groups}

        return asdict(self) | {
            "over_blocks": ranks(self.over_blocks),
            "over_settings": ranks(self.over_settings),
        }

    def findings(self) -> list[Finding]:
        """Means over seeds, ranks and their tests, and every significant difference."""
        legend = (
            f"Mean {self.measure} over the seeds ± standard deviation. **Bold**: the best of its"
            f" column. ▼: below the best of its column, p < {self.level:g} by the paired t-test"
            " over queries (each query's mean over the seeds) after Holm's correction over all"
            f" {len(self.pairs)} pairs of the table."
        )
        different = [pair for pair in self.pairs if pair.p_holm < self.level]
        ranks = [
            _ranks(title, result)
            for title, result in (
                ("student × collection × seed", self.over_blocks),
                ("student × collection", self.over_settings),
            )
            if result is not None
        ]
        count = f"{len(different)} of {len(self.pairs)} pairs differ after correction."
        return [
            Finding("means", tables=[self._means_table()], notes=[legend, *ranks]),
            Finding("pairs", text=[count], tables=[_pairs_table(different)] if different else []),
        ]

    def _means_table(self) -> Table:
        ranks = self.over_blocks.ranks if self.over_blocks else {}
        rows = []
        for loss in self.losses:
            cells = []
            for student, collection in self.settings:
                figure = self.figure(loss, student, collection)
                text = f"**{figure.mean:.4f}**" if figure.best else f"{figure.mean:.4f}"
                spread = "" if figure.deviation is None else f" ± {figure.deviation:.4f}"
                cells.append(f"{text}{spread}{' ▼' if figure.worse else ''}")
            rows.append([loss, *cells, cell(ranks.get(loss), ".2f")])
        columns = [f"{student}, {collection}" for student, collection in self.settings]
        return Table(["loss", *columns, "mean rank"], rows)


def _ranks(title: str, result: Friedman) -> str:
    def p(value: float) -> str:
        text = probability(value)
        return text if text.startswith("<") else f"= {text}"

    statistic = "" if result.f is None else f" (F = {result.f:.2f})"
    groups = "; ".join(", ".join(group) for group in result.groups) or "none"
    return (
        f"Over {result.blocks} cells of {title}: Friedman χ² = {result.statistic:.2f}, p"
        f" {p(result.p)}; by Iman and Davenport{statistic} p {p(result.p_f)}. Nemenyi critical"
        f" difference of mean ranks at {result.level:g}: {result.critical_difference:.2f}. Mean"
        f" ranks: {', '.join(f'{name} {rank:.2f}' for name, rank in result.ranks.items())}. Not"
        f" significantly different: {groups}."
    )


def _pairs_table(pairs: Sequence[LossPair]) -> Table:
    """The pairs, the better loss first."""
    rows = []
    for pair in sorted(
        pairs, key=lambda pair: (pair.collection, pair.student, -abs(pair.difference))
    ):
        names, counts = (pair.loss, pair.against), (pair.wins, pair.ties, pair.losses)
        sign = 1 if pair.difference > 0 else -1
        rows.append(
            [
                " over ".join(names[::sign]),
                pair.student,
                pair.collection,
                f"{abs(pair.difference):+.4f}",
                probability(pair.p),
                probability(pair.p_holm),
                "/".join(map(str, counts[::sign])),
            ]
        )
    header = "better over worse,student,collection,difference,p,p (Holm),win/tie/loss"
    return Table(header.split(","), rows)


def check_level(level: float) -> None:
    """Check the significance level of the tests."""
    if not 0 < level < 1:
        raise OptionError(
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
        entries: one of every loss for each student, collection and seed.
        collections: the collections by the names in the entries.
        measure: a single measure.
        level: significance level of the tests.
    """
    check_level(level)
    name = _single(measure)
    losses = _complete(entries)
    values: dict[tuple[str, str], dict[str, dict[str, np.ndarray]]] = {}
    for entry in entries:
        collection = collections[entry.collection]
        run = measured_run(entry.run, collection, self_match)
        result = per_query(collection.qrels, run, [name])
        system = f"{entry.loss} on {entry.collection}"
        warn_of_self_matches(result.self_matches, len(collection.qrels), collection, system)
        by_loss = values.setdefault((entry.student, entry.collection), {})
        by_loss.setdefault(entry.loss, {})[entry.seed] = result.values[name]
    pairs = _pairs(values, losses)
    blocks = {
        loss: [
            float(by_loss[loss][seed].mean())
            for by_loss in values.values()
            for seed in by_loss[losses[0]]
        ]
        for loss in losses
    }
    settings = {
        loss: [float(_over_seeds(by_loss[loss]).mean()) for by_loss in values.values()]
        for loss in losses
    }
    ranked = friedman(blocks, level) if len(blocks[losses[0]]) > 1 else None
    order = list(ranked.ranks) if ranked else sorted(losses, key=lambda loss: -blocks[loss][0])
    figures = [
        figure
        for setting, by_loss in values.items()
        for figure in _figures(setting, by_loss, order, pairs, level)
    ]
    over_settings = friedman(settings, level) if len(values) > 1 else None
    return Comparison(name, level, tuple(figures), tuple(pairs), ranked, over_settings)


def _single(measure: str) -> str:
    parsed = parse_measures(measure)
    if len(parsed) != 1:
        raise OptionError(f"losses are compared by one measure; {measure!r} was given.")
    if is_count(parsed[0]):
        raise OptionError(
            f"losses are compared by the mean over queries, and {measure} is a count; use nDCG@10"
            " or R@100."
        )
    return str(parsed[0])


def _complete(entries: Sequence[Entry]) -> list[str]:
    """The losses, in order, after checking that each has one run of every setting and seed."""
    losses = list(dict.fromkeys(entry.loss for entry in entries))
    if len(losses) < 2:
        raise InputError(
            f"runs of the losses {', '.join(losses) or '(none)'} were given; at least two losses"
            " were expected."
        )
    counts = Counter((entry.student, entry.collection, entry.seed, entry.loss) for entry in entries)
    for student, collection, seed, _ in list(counts):
        for loss in losses:
            count = counts[student, collection, seed, loss]
            if count != 1:
                raise InputError(
                    f"the loss {loss} has {'more than one' if count else 'no'} run of the student"
                    f" {student or '(unnamed)'} with seed {seed or '(unnamed)'} on {collection};"
                    f" ranks need one run of each of {', '.join(losses)}."
                )
    return losses


def _over_seeds(seeds: SeedValues) -> np.ndarray:
    """(Q,) each query's mean over the seeds."""
    return np.mean(list(seeds.values()), axis=0)


def _pairs(
    values: Mapping[tuple[str, str], Mapping[str, SeedValues]], losses: Sequence[str]
) -> list[LossPair]:
    """Test every two losses on each student and collection."""
    pairs, p_values = [], []
    for (student, collection), by_loss in values.items():
        means = {loss: _over_seeds(by_loss[loss]) for loss in losses}
        for loss, against in combinations(losses, 2):
            difference = means[loss] - means[against]
            # sums in another order
            difference[np.abs(difference) < equal_within(means[loss], means[against])] = 0.0
            counts = [int((np.sign(difference) == sign).sum()) for sign in (1, 0, -1)]
            pairs.append(((loss, against, student, collection, float(difference.mean())), counts))
            p_values.append(paired_t(means[loss], means[against]))
    return [
        LossPair(*names, p, p_holm, *counts)
        for (names, counts), p, p_holm in zip(pairs, p_values, holm(p_values), strict=True)
    ]


def _figures(
    setting: tuple[str, str],
    by_loss: Mapping[str, SeedValues],
    order: Sequence[str],
    pairs: Sequence[LossPair],
    level: float,
) -> list[LossFigure]:
    """The figures of one student and collection."""
    seeds = {
        loss: {seed: float(values.mean()) for seed, values in by_loss[loss].items()}
        for loss in order
    }
    means = {loss: float(np.mean(list(seeds[loss].values()))) for loss in order}
    equal = without_noise(np.array(list(means.values())))
    winners = {loss for loss, best in zip(order, equal == equal.max(), strict=True) if best}
    worse = {
        pair.against if pair.loss in winners else pair.loss
        for pair in pairs
        if (pair.student, pair.collection) == setting
        and pair.p_holm < level
        and {pair.loss, pair.against} & winners
    } - winners
    from scipy.stats import rankdata  # which takes a second to load

    table = [[seeds[loss][seed] for loss in order] for seed in by_loss[order[0]]]
    ranks = rankdata([-without_noise(np.array(row)) for row in table], axis=1).mean(axis=0)
    return [
        LossFigure(
            loss,
            *setting,
            means[loss],
            float(np.std(list(seeds[loss].values()), ddof=1)) if len(seeds[loss]) > 1 else None,
            seeds[loss],
            float(rank),
            loss in winners,
            loss in worse,
        )
        for loss, rank in zip(order, ranks, strict=True)
    ]
