"""Weights of teachers: from figures on labelled queries, from agreement, or per query (a gate)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections import Collection
from irdistill.collections.slices import split_folder
from irdistill.errors import InputError, OptionError
from irdistill.evaluation.measures import per_query
from irdistill.evaluation.ranking_policies import RunSource, measured_run
from irdistill.evaluation.significance import equal_within
from irdistill.runs import Gate, Mixing, Run, as_run
from irdistill.runs.fusion import aligned
from irdistill.runs.gate import FEATURES, features, pairwise_tau

MEASURE = "nDCG@10"
_HELD_OUT = re.compile(r"test.*|eval.*|trec-dl.*|howto")


@dataclass(frozen=True)
class Weighting:
    """Weights of T teachers, which sum to 1, and their origin for a run's manifest."""

    values: tuple[float, ...]
    origin: dict[str, Any]


def power_weights(quality: Sequence[float], power: float = 1.0) -> tuple[float, ...]:
    """``max(0, e_m)^p / sum_j max(0, e_j)^p`` (DistillWeighted).

    ``p`` = 0 is uniform. With infinite ``p`` the best teachers share all weight (DistillNearest).

    Examples:
        >>> power_weights([0.8, 0.2])
        (0.8, 0.2)
    """
    good = np.maximum(0.0, np.asarray(quality, np.float64))
    if (
        not len(good)
        or not np.isfinite(good).all()
        or not power >= 0
        or (power > 0 and good.max() <= 0)
    ):
        raise OptionError(
            f"no weights can be made of the qualities {list(quality)} with the power {power:g}:"
            " finite numbers, one of them above 0, and a power of at least 0 were expected."
        )
    if power == 0:
        shares = np.ones_like(good)
    else:
        relative = good / good.max()
        # figures that are equal up to rounding errors share
        shares = (relative > 1 - 1e-12).astype(np.float64) if np.isinf(power) else relative**power
    return tuple((shares / shares.sum()).tolist())


def split_names(collection_id: str) -> list[str]:
    """The parts of a collection's id that can name its split; of a folder what follows #."""
    path, split = split_folder(collection_id)
    if split:
        return [split]
    if path.startswith((".", "/", "~")) or Path(path).is_dir():
        return ["test"]
    return path.split("/")[1:]


def check_not_held_out(collection: Collection, use: str) -> None:
    """Check that labels do not come from a split named test (or eval, trec-dl, howto)."""
    if any(_HELD_OUT.fullmatch(name) for name in split_names(collection.id)):
        raise OptionError(
            f"{use} the labels of {collection.id!r}, which by its name is held out for the final"
            " figures. Give a dev or train split; if the collection has only one split, write a"
            " part of its judgments to another split (qrels/dev.tsv) and evaluate on the rest."
        )


def check_labelled(
    dev: Collection, dev_runs: Sequence[RunSource], runs: Sequence[RunSource]
) -> list[Run]:
    """Check that labels may decide how ``runs`` are mixed; return the runs on labelled queries.

    Labels must not come from a split named test (or eval, trec-dl, howto). The queries to be mixed
    must not be among the labelled ones, since a figure measured on them would depend on their
    labels. Only queries of a split named train may be both, as no figure is measured there.
    """
    check_not_held_out(dev, "weights would be fitted on")
    if not len(dev.qrels):
        raise InputError(
            f"{dev.id!r} has no judgments to fit weights on; give a split that has qrels."
        )
    targets = [as_run(run) for run in runs]
    labelled = [measured_run(run, dev) for run in dev_runs]
    if targets and len(labelled) != len(targets):
        raise OptionError(
            f"{len(labelled)} runs were given for the labelled queries and {len(targets)} teachers"
            " are mixed; give one of each teacher, in the same order."
        )
    producers = [run.identity.producer for run in labelled]
    for place, run in enumerate(targets):
        described = run.identity.collection
        if described.get("corpus") == dev.corpus.fingerprint and "train" not in split_names(
            str(described.get("id", ""))
        ):
            shared = [query_id for query_id in run.query_ids if query_id in dev.qrels]
            if shared:
                raise OptionError(
                    f"{len(shared)} of the {len(run)} queries of {run} (such as {shared[0]!r}) are"
                    f" among the labelled ones of {dev.id!r}: a figure measured on them would"
                    " depend on their labels. Give labelled queries that are not among those that"
                    " are mixed."
                )
        if run.identity.producer != producers[place] and run.identity.producer in producers:
            raise OptionError(
                f"teacher {place + 1} of the runs is number"
                f" {producers.index(run.identity.producer) + 1} of the runs of {dev.id!r}; give"
                " both in the same order."
            )
    return labelled


def _origin(by: str, dev: Collection, runs: Sequence[Run]) -> dict[str, Any]:
    return {
        "by": by,
        "dev": dev.describe() | {"qrels": dev.qrels.fingerprint},
        "queries": len(dev.qrels),
        "runs": [run.fingerprint for run in runs],
    }


def labelled_weights(
    runs: Sequence[RunSource], dev: Collection, dev_runs: Sequence[RunSource], power: float = 1.0
) -> Weighting:
    """Weights by task similarity: each teacher's nDCG@10 on labelled queries, raised to a power
    (DistillWeighted).

    Args:
        runs: the runs to be mixed, to check that their queries are not the labelled ones; may be
            empty.
        dev, dev_runs: some tens of labelled queries, and the same teachers' runs on them in the
            same order.
    """
    labelled = check_labelled(dev, dev_runs, runs)
    results = [per_query(dev.qrels, run, [MEASURE]).values[MEASURE] for run in labelled]
    quality = [float(values.mean()) for values in results]
    return Weighting(
        power_weights(quality, power),
        _origin(MEASURE, dev, labelled) | {"power": _number(power), "quality": quality},
    )


def agreement_weights(runs: Sequence[RunSource], power: float = 1.0) -> Weighting:
    """Weights without labels: each teacher's mean Kendall tau-b with the consensus of the others,
    raised to a power.

    The consensus is the mean of the others' z-scores. With two teachers each is the other's
    consensus, so both weigh the same. A teacher that errs alone loses weight; so does one that is
    right alone.
    """
    opened = [as_run(run) for run in runs]
    if len(opened) < 2:
        raise OptionError(f"{len(opened)} run was given; agreement needs at least two.")
    rule = Mixing("zscore", missing="skip").for_teachers(len(opened) - 1)
    taus: list[list[float]] = [[] for _ in opened]
    for query_id in dict.fromkeys(query_id for run in opened for query_id in run.query_ids):
        doc_ids, parts = aligned([run.get(query_id) for run in opened])
        for place, part in enumerate(parts):
            others = rule.mix([*parts[:place], *parts[place + 1 :]], len(doc_ids)).scores
            tau = pairwise_tau([part, (np.arange(len(doc_ids)), others)], len(doc_ids))[0, 1]
            if tau == tau:
                taus[place].append(float(tau))
    quality = [float(np.mean(values)) if values else 0.0 for values in taus]
    if power > 0 and max(quality) <= 0:
        raise InputError(
            "no run agrees with the others (mean Kendall tau"
            f" {', '.join(f'{value:.3f}' for value in quality)}), so agreement does not say which"
            " is better. Candidates of several first stages in one pool often disagree like this;"
            " give --weights by hand, or similarity with labelled queries."
        )
    return Weighting(
        power_weights(quality, power),
        {
            "by": "agreement",
            "power": _number(power),
            "quality": quality,
            "queries": max(map(len, taus)),
        },
    )


def _number(power: float) -> float | str:
    return power if np.isfinite(power) else "inf"


def fit_gate(
    runs: Sequence[RunSource],
    dev: Collection,
    dev_runs: Sequence[RunSource],
    balance: float = 0.1,
    ridge: float = 0.01,
    top: int | None = None,
) -> Gate:
    """Fit a gate on labelled queries: which teacher is right, from features of their lists.

    With e_m(q) the nDCG@10 of teacher m and r_m(q) = e_m(q) - min_j e_j(q), it minimizes over the
    coefficients

        - sum_qm r_m(q) log g_m(q) / sum_qm r_m(q)  +  balance * KL(uniform || mean over q of g)  +
          ridge / 2 * |C|^2

    A query on which all teachers are equally good has no effect. The second term is MST-Distill's
    load balancing, which keeps a gate from giving all weight to one teacher. The third is on the
    coefficients of the standardized features, not on the biases. The fit is deterministic and
    starts at the uniform gate.

    Args:
        top: only this many teachers count for a query; all if None.
    """
    labelled = check_labelled(dev, dev_runs, runs)
    if len(labelled) < 2 or not balance >= 0 or not ridge >= 0:
        raise OptionError(
            f"a gate got {len(labelled)} teachers, balance={balance} and ridge={ridge}; at least"
            " two teachers and numbers of at least 0 were expected."
        )
    results = [per_query(dev.qrels, run, [MEASURE]) for run in labelled]
    values = np.stack([result.values[MEASURE] for result in results], axis=1)
    gains = values - values.min(axis=1, keepdims=True)
    gains[gains < equal_within(values)] = 0.0
    if not gains.any():
        raise InputError(
            f"all teachers are equally good on each of the {len(values)} labelled queries of"
            f" {dev.id!r}; a gate has nothing to learn from them. Give more queries, or use fixed"
            " weights."
        )
    inputs_by_query = []
    for query_id in results[0].query_ids:
        doc_ids, parts = aligned([run.get(query_id) for run in labelled])
        inputs_by_query.append(features(parts, len(doc_ids)))
    inputs = np.stack(inputs_by_query)
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0)
    scale[scale < 1e-9] = 1.0  # a constant feature has no effect
    standard = (inputs - mean) / scale
    coefficients, bias = _fit(standard, gains / gains.sum(), balance, ridge)
    rows = [tuple(tuple(row) for row in table.tolist()) for table in (coefficients, mean, scale)]
    origin = _origin(MEASURE, dev, labelled) | {
        "balance": balance,
        "ridge": ridge,
        "quality": values.mean(axis=0).tolist(),
    }
    return Gate(rows[0], tuple(bias.tolist()), rows[1], rows[2], top, origin)


def _fit(
    inputs: np.ndarray, gains: np.ndarray, balance: float, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (T, F) and biases (T,) for inputs (Q, T, F) and gains (Q, T) of sum 1."""
    from scipy.optimize import minimize

    queries, teachers, width = inputs.shape
    assert width == len(FEATURES)

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients, bias = values[:-teachers].reshape(teachers, width), values[-teachers:]
        logits = (inputs * coefficients).sum(-1) + bias
        high = logits.max(axis=1, keepdims=True)
        logs = logits - high - np.log(np.exp(logits - high).sum(axis=1, keepdims=True))
        gates = np.exp(logs)
        load = gates.mean(axis=0)
        value = -(gains * logs).sum() + ridge / 2 * (coefficients**2).sum()
        value += balance * float(np.mean(-np.log(teachers * load)))
        slopes = gains.sum(axis=1, keepdims=True) * gates - gains
        pull = -balance / (teachers * load)
        slopes = slopes + gates * (pull - (gates * pull).sum(axis=1, keepdims=True)) / queries
        slope = (slopes[:, :, None] * inputs).sum(axis=0) + ridge * coefficients
        return value, np.concatenate([slope.ravel(), slopes.sum(axis=0)])

    solution = minimize(
        objective,
        np.zeros(teachers * (width + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-9},
    ).x
    return solution[:-teachers].reshape(teachers, width), solution[-teachers:]
