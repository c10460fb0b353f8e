"""Weights from labels, from agreement and from a gate; and labels that must not be used."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.evaluation import (
    FusionWeights,
    agreement_weights,
    fit_gate,
    fuse_teachers,
    labelled_weights,
    per_query,
    power_weights,
)
from irdistill.evaluation.weighting import _fit, split_names
from irdistill.runs import MemoryRun, RankedList, Run, RunIdentity, fuse

DOCS = {f"d{i}": f"text {i}" for i in range(30)}


def make_collection(name: str, first: int, count: int, judged: bool = True) -> Collection:
    """Queries q{first}…; the answer of each is the document of its number modulo 30."""
    ids = [f"q{i}" for i in range(first, first + count)]
    qrels = {query_id: {f"d{int(query_id[1:]) % 30}": 1} for query_id in ids} if judged else {}
    return Collection.from_dicts(
        name, DOCS, {query_id: f"question {query_id}" for query_id in ids}, qrels
    )


def teacher(
    collection: Collection, model: str, seed: int, right: set[int] | None, noise: float = 1.0
) -> Run:
    """A teacher that ranks the answer first if the query's number modulo 2 is in ``right``, else at
    random.
    """
    random = np.random.default_rng(seed)
    lists = []
    for query_id in collection.queries:
        number = int(query_id[1:])
        scores = random.normal(size=30).astype(np.float32) * np.float32(noise)
        if right is None or number % 2 in right:
            scores[number % 30] = 8.0
        lists.append(RankedList(query_id, list(DOCS), scores))
    return MemoryRun(RunIdentity("teacher", {"model": model}, collection.describe()), lists)


def ndcg(collection: Collection, run: Run) -> float:
    return float(per_query(collection.qrels, run, ["nDCG@10"]).values["nDCG@10"].mean())


def test_power_weights() -> None:
    assert power_weights([0.6, 0.2], 1) == pytest.approx((0.75, 0.25))
    assert power_weights([0.6, 0.2], 2) == pytest.approx((0.9, 0.1))
    assert power_weights([0.6, -0.2], 1) == (1.0, 0.0)
    assert power_weights([0.6, 0.2, 0.0], 0) == pytest.approx((1 / 3,) * 3)
    assert power_weights([0.6, 0.2, 0.6], math.inf) == (0.5, 0.0, 0.5)
    assert power_weights([0.6, 0.2], 5000) == (1.0, 0.0)
    for quality, power in (
        ([0.0, 0.0], 1.0),
        ([math.nan, 1.0], 1.0),
        ([1.0, 1.0], -1.0),
        ([], 1.0),
    ):
        with pytest.raises(IrdistillError, match="no weights"):
            power_weights(quality, power)


def test_labelled_weights_are_recorded(tmp_path: Path) -> None:
    dev, test = make_collection("c/dev", 0, 40), make_collection("c/test", 100, 20)
    part = [teacher(dev, "good", 1, None), teacher(dev, "half", 2, {0})]
    runs = [teacher(test, "good", 3, None), teacher(test, "half", 4, {0})]
    result = labelled_weights(runs, dev, part, power=2)
    quality = [ndcg(dev, run) for run in part]
    assert result.origin["quality"] == quality and quality[0] == 1.0 and quality[1] < 0.7
    assert result.values == pytest.approx(
        (1 / (1 + quality[1] ** 2), quality[1] ** 2 / (1 + quality[1] ** 2))
    )
    fused = fuse_teachers(runs, tmp_path / "f", weighting=FusionWeights("similarity", 2, dev, part))
    assert fused.identity.producer["weights"] == list(result.values)
    assert fused.identity.producer["origin"] == result.origin
    nearest = fuse_teachers(
        runs, tmp_path / "n", "mean", FusionWeights("similarity", math.inf, dev, part)
    )
    assert (
        nearest.to_dict() == runs[0].to_dict()
        and nearest.identity.producer["origin"]["power"] == "inf"
    )


def test_agreement_lowers_the_weight_of_an_outlier() -> None:
    collection = make_collection("c/test", 0, 30, judged=False)
    random = np.random.default_rng(0)
    truth = random.normal(size=(30, 30))
    runs = []
    for model, noise in (("a", 0.3), ("b", 0.3), ("noise", 50.0)):
        lists = [
            RankedList(
                query_id, list(DOCS), (truth[i] + noise * random.normal(size=30)).astype(np.float32)
            )
            for i, query_id in enumerate(collection.queries)
        ]
        runs.append(
            MemoryRun(RunIdentity("teacher", {"model": model}, collection.describe()), lists)
        )
    weights = agreement_weights(runs).values
    assert (
        weights[0] > 0.35
        and weights[1] > 0.35
        and weights[2] < 0.15
        and sum(weights) == pytest.approx(1.0)
    )
    assert agreement_weights(runs[:2]).values == pytest.approx((0.5, 0.5))
    reverse = [
        RankedList(result.query_id, result.doc_ids, -result.scores, None) for result in runs[0]
    ]
    with pytest.raises(
        IrdistillError, match=r"no run agrees with the others \(mean Kendall tau -1\.000, -1\.000\)"
    ):
        agreement_weights(
            [runs[0], MemoryRun(RunIdentity("teacher", {}, collection.describe()), reverse)]
        )


def test_a_fitted_gate_beats_both_teachers_and_the_uniform_mix(tmp_path: Path) -> None:
    """A is right on even queries, B on odd ones; a right list has an outstanding first document."""
    dev, test = make_collection("c/dev", 0, 60), make_collection("c/test", 100, 60)
    part = [teacher(dev, "A", 1, {0}), teacher(dev, "B", 2, {1})]
    runs = [teacher(test, "A", 3, {0}), teacher(test, "B", 4, {1})]
    # The mean of ranks cannot tell who is right: the answer is first for one and anywhere for the
    # other.
    uniform = ndcg(test, fuse(runs, tmp_path / "uniform", "rrf"))
    gate = fit_gate(runs, dev, part)
    gated = ndcg(test, fuse(runs, tmp_path / "gated", "rrf", gate=gate))
    assert gated > max(uniform, *(ndcg(test, run) for run in runs)) + 0.02
    assert gated > 0.97
    fused = fuse_teachers(
        runs, tmp_path / "verb", "rrf", FusionWeights(gate="fit", dev=dev, dev_runs=part)
    )
    assert fused.identity.producer["gate"]["coefficients"] == [
        list(row) for row in gate.coefficients
    ]
    assert fused.identity.producer["gate"]["origin"]["balance"] == 0.1
    assert ndcg(test, fused) == gated


def test_balance_term_keeps_the_load_even() -> None:
    random = np.random.default_rng(0)
    inputs = np.zeros((200, 2, 3))
    gains = np.zeros((200, 2))
    gains[np.arange(200), (random.random(200) > 0.8).astype(int)] = 1 / 200
    loads = []
    for balance in (0.0, 1.0, 100.0):
        coefficients, bias = _fit(inputs, gains, balance, 0.01)
        assert not coefficients.any()
        loads.append(float((np.exp(bias) / np.exp(bias).sum())[0]))
    assert loads[0] == pytest.approx(gains[:, 0].sum(), abs=1e-3)  # the share of the gains is A's
    assert loads[0] > loads[1] > loads[2] and loads[2] == pytest.approx(0.5, abs=0.01)
    # by hand: d/dg [-p log g - (1-p) log (1-g) - (b/2) (log g + log (1-g))] = 0 at g = (p + b/2) /
    # (1 + b)
    assert loads[1] == pytest.approx((gains[:, 0].sum() + 0.5) / 2, abs=1e-3)


def test_fit_minimizes_the_objective() -> None:
    """No small step lowers the objective, which is written out here independently."""
    random = np.random.default_rng(1)
    inputs, gains = random.normal(size=(40, 3, 3)), random.random((40, 3))
    gains /= gains.sum()

    def objective(coefficients: np.ndarray, bias: np.ndarray) -> float:
        logits = np.einsum("qtf,tf->qt", inputs, coefficients) + bias
        gate = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        load = gate.mean(0)
        return float(
            -(gains * np.log(gate)).sum()
            + 0.3 * np.sum(np.log(1 / 3 / load) / 3)
            + 0.05 / 2 * (coefficients**2).sum()
        )

    coefficients, bias = _fit(inputs, gains, 0.3, 0.05)
    least = objective(coefficients, bias)
    assert least < objective(np.zeros((3, 3)), np.zeros(3))
    for _ in range(50):
        step = random.normal(size=12) * 1e-3
        assert objective(coefficients + step[:9].reshape(3, 3), bias + step[9:]) >= least - 1e-9


@pytest.mark.parametrize(
    "name",
    [
        "c/test",
        "beir/scifact/test",
        "folder#test",
        "x/trec-dl-2019/judged",
        "pydocs/howto",
        "./folder",
    ],
)
def test_labels_of_test_are_errors(name: str) -> None:
    dev = make_collection(name, 0, 10)
    part = [teacher(dev, "A", 1, {0}), teacher(dev, "B", 2, {1})]
    for fit in (labelled_weights, fit_gate):
        with pytest.raises(IrdistillError, match="held out for the final figures"):
            fit([], dev, part)  # type: ignore[operator]


def test_top_needs_a_gate(tmp_path: Path) -> None:
    with pytest.raises(IrdistillError, match="but no gate was given"):
        fuse_teachers(["a", "b"], tmp_path / "out", weighting=FusionWeights(top=1))


def test_split_names() -> None:
    assert split_names("pydocs/dev") == ["dev"] and split_names("/home/test/set#dev") == ["dev"]
    assert (
        split_names("msmarco-passage/train/judged") == ["train", "judged"]
        and split_names("tiny") == []
    )
    assert split_names("/home/x/set") == ["test"]  # the split that a folder has unless said


def test_mixed_queries_must_not_be_labelled(tmp_path: Path) -> None:
    def both(collection: Collection) -> list[Run]:
        return [teacher(collection, "A", 1, {0}), teacher(collection, "B", 2, {1})]

    dev, train, other = (
        make_collection("c/dev", 0, 20),
        make_collection("c/train", 200, 20),
        make_collection("c/part", 10, 20),
    )
    with pytest.raises(IrdistillError, match="20 of the 20 queries"):
        labelled_weights(both(dev), dev, both(dev))
    with pytest.raises(IrdistillError, match=r"10 of the 20 queries .* \(such as 'q10'\)"):
        fit_gate(both(other), dev, both(dev))
    assert labelled_weights(both(train), train, both(train)).values[0] > 0
    assert labelled_weights(both(train), dev, both(dev)).values[0] > 0
    with pytest.raises(IrdistillError, match="same order"):
        labelled_weights(both(train), dev, both(dev)[::-1])
    with pytest.raises(
        IrdistillError, match="1 runs were given for the labelled queries and 2 teachers"
    ):
        labelled_weights(both(train), dev, both(dev)[:1])
    with pytest.raises(IrdistillError, match="no judgments"):
        labelled_weights(both(train), make_collection("c/dev", 0, 20, judged=False), both(dev))
    with pytest.raises(IrdistillError, match="made for the collection"):
        labelled_weights(both(train), dev, both(train))
    with pytest.raises(IrdistillError, match="equally good"):
        fit_gate([], dev, [teacher(dev, "A", 1, None), teacher(dev, "B", 2, None)])
    for settings in ({"weights": "similarity"}, {"gate": "fit"}):
        with pytest.raises(IrdistillError, match="need labelled queries"):
            fuse_teachers(both(train), tmp_path / "x", weighting=FusionWeights(**settings))  # type: ignore[arg-type]
    with pytest.raises(IrdistillError, match="nothing is fitted"):
        fuse_teachers(
            both(train), tmp_path / "x", weighting=FusionWeights(dev=dev, dev_runs=both(dev))
        )
    with pytest.raises(IrdistillError, match="cannot be read"):
        fuse_teachers(both(train), tmp_path / "x", weighting=FusionWeights(gate="agreement"))
