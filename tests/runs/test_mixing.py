"""Mixing teachers: every method by hand, what must not change it, abstention, the gate, and
resuming.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.runs import (
    METHODS,
    Gate,
    Mixing,
    RankedList,
    Run,
    RunIdentity,
    RunWriter,
    fuse,
    stats,
    verify,
    write_run,
)
from irdistill.runs.fusion import aligned
from irdistill.runs.gate import Part, features, pairwise_tau
from irdistill.runs.mixing import parse_abstain

NAN = math.nan


def parts(*rows: list[float]) -> list[Part]:
    """Lists over the same documents 0, 1, …, each put in rank order; NaN where a teacher has not
    scored one.
    """
    result = []
    for row in rows:
        scores = np.array(row, np.float32)
        order = np.argsort(-scores, kind="stable")
        result.append((order, scores[order]))
    return result


def mixed(rule: Mixing, *rows: list[float]) -> list[float]:
    return rule.for_teachers(len(rows)).mix(parts(*rows), len(rows[0])).scores.tolist()  # type: ignore[arg-type]


def test_every_method_by_hand() -> None:
    a, b = [3.0, 2.0, 1.0], [10.0, 30.0, 20.0]
    z = math.sqrt(1.5)
    assert mixed(Mixing("mean"), a, b) == [6.5, 16.0, 10.5]
    assert mixed(Mixing("zscore"), a, b) == pytest.approx([0.0, z / 2, -z / 2], abs=1e-6)
    assert mixed(Mixing("minmax"), a, b) == [0.5, 0.75, 0.25]
    assert mixed(Mixing("minmax", weights=(3, 1)), a, b) == [0.75, 0.625, 0.125]
    assert mixed(Mixing("rrf"), a, b) == pytest.approx(
        [1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62]
    )
    for tau in (1.0, (0.5, 20.0)):
        one, two = (tau, tau) if isinstance(tau, float) else tau
        expected = (
            scipy.special.softmax(np.array(a) / one) + scipy.special.softmax(np.array(b) / two)
        ) / 2
        assert mixed(Mixing("softmax", tau=tau), a, b) == pytest.approx(expected.tolist(), rel=1e-6)
        assert mixed(Mixing("logsoftmax", tau=tau), a, b) == pytest.approx(
            np.log(expected).tolist(), rel=1e-6
        )


def test_the_logarithm_of_a_softmax_keeps_what_a_probability_cannot_hold() -> None:
    assert mixed(Mixing("softmax"), [2000.0, 0.0], [2000.0, 0.0])[1] == 0.0
    assert mixed(Mixing("logsoftmax"), [2000.0, 0.0], [2000.0, 0.0]) == [0.0, -2000.0]


@pytest.mark.parametrize("method", METHODS)
def test_equal_scores_and_single_documents_give_finite_numbers(method: str) -> None:
    assert np.isfinite(mixed(Mixing(method), [4.0, 4.0], [1.0, 1.0])).all()
    assert np.isfinite(mixed(Mixing(method), [4.0], [1.0])).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_teacher_of_weight_zero_is_as_if_it_were_not_there(method: str) -> None:
    """Also where it has scored less, and where it would have made the others abstain."""
    scores = np.array([3.0, 2.0, 0.5])
    alone = METHODS[method](scores, scores, 1.0).astype(np.float32).tolist()
    rule = Mixing(method, weights=(1, 0), abstain="tau<1,sd>0.1")
    assert mixed(rule, [3.0, 2.0, 0.5], [NAN, 1.0, 9.0]) == pytest.approx(alone, rel=1e-6)


def test_what_a_teacher_has_not_scored() -> None:
    a, b = [4.0, 2.0, 0.0], [NAN, 10.0, 6.0]
    assert mixed(Mixing("minmax"), a, b) == pytest.approx([NAN, 0.75, 0.0], nan_ok=True)
    assert mixed(Mixing("minmax", missing="skip"), a, b) == [1.0, 0.75, 0.0]
    assert mixed(Mixing("minmax", missing="min"), a, b) == [0.5, 0.75, 0.0]
    assert mixed(Mixing("mean", missing="skip"), a, [NAN] * 3) == a


scores = st.lists(st.integers(-400, 400), min_size=2, max_size=12)


@given(scores, st.data(), st.sampled_from(["zscore", "minmax", "softmax", "logsoftmax", "rrf"]))
@settings(max_examples=60, deadline=None)
def test_a_shift_of_one_teacher_changes_nothing(
    row: list[int], data: st.DataObject, method: str
) -> None:
    other = data.draw(st.lists(st.integers(-400, 400), min_size=len(row), max_size=len(row)))
    first = mixed(Mixing(method, tau=50.0), [x / 8 for x in row], [x / 8 for x in other])
    second = mixed(Mixing(method, tau=50.0), [x / 8 + 64 for x in row], [x / 8 for x in other])
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


@given(
    scores, st.data(), st.sampled_from(["zscore", "minmax", "rrf"]), st.sampled_from([0.25, 8.0])
)
@settings(max_examples=40, deadline=None)
def test_neither_does_another_scale(
    row: list[int], data: st.DataObject, method: str, scale: float
) -> None:
    other = data.draw(st.lists(st.integers(-400, 400), min_size=len(row), max_size=len(row)))
    first = mixed(Mixing(method), [float(x) for x in row], [float(x) for x in other])
    second = mixed(Mixing(method), [x * scale for x in row], [float(x) for x in other])
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


@given(scores, st.floats(0.1, 9), st.floats(0.1, 9), st.floats(0.2, 5))
@settings(max_examples=40, deadline=None)
def test_only_the_ratio_of_weights_counts_and_softmaxes_sum_to_one(
    row: list[int], a: float, b: float, times: float
) -> None:
    one, two = [float(x) / 50 for x in row], [float(x) / 70 for x in reversed(row)]
    first = mixed(Mixing("softmax", weights=(a, b)), one, two)
    np.testing.assert_allclose(
        first, mixed(Mixing("softmax", weights=(a * times, b * times)), one, two), rtol=1e-5
    )
    assert sum(first) == pytest.approx(1.0, rel=1e-5)


def test_kendall_tau_is_scipys_and_nan_where_there_is_nothing_to_compare() -> None:
    rows = [[1.0, 2.0, 2.0, 5.0], [4.0, 1.0, 3.0, NAN], [7.0] * 4]
    taus = pairwise_tau(parts(*rows), 4)
    assert taus[0, 1] == taus[1, 0] == pytest.approx(kendalltau([1, 2, 2], [4, 1, 3]).statistic)
    assert np.isnan(taus[2]).all() and np.isnan(np.diag(taus)).all()


def test_features_by_hand() -> None:
    result = features([*parts([3.0, 2.0, 1.0], [1.0, 1.0, 1.0]), None], 3)
    share = scipy.special.softmax(np.array([1, 0, -1]) * math.sqrt(1.5))
    assert result[0].tolist() == pytest.approx(
        [-(share * np.log(share)).sum() / math.log(3), math.sqrt(1.5), 0.0]
    )
    assert result[1].tolist() == pytest.approx([1.0, 0.0, 0.0]) and result[2].tolist() == [
        1.0,
        0.0,
        0.0,
    ]


def test_abstention_by_hand() -> None:
    agree, against = [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]
    rule = Mixing(abstain="tau<0.2")
    assert np.isfinite(mixed(rule, agree, agree)).all()
    assert np.isnan(mixed(rule, agree, against)).all()
    # three teachers: the mean of 1, -1 and -1 is -1/3
    assert np.isnan(mixed(Mixing(abstain="tau<-0.3"), agree, agree, against)).all()
    assert np.isfinite(mixed(Mixing(abstain="tau<-0.34"), agree, agree, against)).all()
    assert np.isfinite(
        mixed(rule, agree, [5.0, 5.0, 5.0])
    ).all()  # it says nothing, so there is no disagreement
    # z-scores of the first document are +-1.22, of the second 0 and 0
    result = Mixing(abstain="sd>1").for_teachers(2).mix(parts(agree, against), 3)
    assert result.reasons.tolist() == [3, 0, 3] and result.scores[1] == 0.0
    assert np.isfinite(mixed(Mixing(abstain="sd>1.3"), agree, against)).all()
    assert parse_abstain(" tau<-0.5, sd>2e-1") == (-0.5, 0.2)


@pytest.mark.parametrize(
    "text",
    ["tau>0.2", "sd<1", "tau<0.2;sd>1", "tau<2", "sd>0", "tau<0.1,tau<0.2", "tau<.-", "rho<1"],
)
def test_abstentions_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(IrdistillError, match="cannot be read"):
        Mixing(abstain=text)


def test_a_gate_by_hand() -> None:
    a, b = [9.0, 0.0, 0.0], [0.0, 2.0, 1.0]
    looks = features(parts(a, b), 3)
    gap = np.exp(2 * looks[:, 1])
    weights = Gate.by_hand(2, gap=2).weights(parts(a, b), 3)
    assert weights.tolist() == pytest.approx((gap / gap.sum()).tolist())
    expected = weights[0] * np.array(a) + weights[1] * np.array(b)
    assert mixed(Mixing("mean", gate=Gate.by_hand(2, gap=2)), a, b) == pytest.approx(
        expected.tolist(), rel=1e-6
    )
    assert mixed(Mixing("mean", gate=Gate.by_hand(2, top=1, gap=2)), a, b) == a
    assert mixed(Mixing("minmax", gate=Gate.by_hand(2)), a, b) == mixed(Mixing("minmax"), a, b)
    with pytest.raises(IrdistillError, match="no feature 'age'"):
        Gate.by_hand(2, age=1)
    with pytest.raises(IrdistillError, match="for 3 teachers, and 2 were given"):
        Mixing(gate=Gate.by_hand(3)).for_teachers(2)
    with pytest.raises(IrdistillError, match="scales above 0"):
        Gate(((1.0, 0.0, 0.0),), scale=((0.0, 1.0, 1.0),))


@given(
    st.lists(
        st.lists(st.floats(-50, 50, width=32), min_size=5, max_size=5), min_size=1, max_size=4
    ),
    st.floats(-5, 5),
    st.floats(-5, 5),
)
@settings(max_examples=40, deadline=None)
def test_gate_weights_sum_to_one(rows: list[list[float]], gap: float, entropy: float) -> None:
    weights = Gate.by_hand(len(rows), gap=gap, entropy=entropy).weights(parts(*rows), 5)
    assert weights.sum() == pytest.approx(1.0) and (weights >= 0).all()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"method": "median"}, "method 'median'"),
        ({"missing": "zero"}, "missing 'zero'"),
        ({"weights": (1, -1)}, "weights"),
        ({"weights": (0, 0)}, "weights"),
        ({"tau": 0.0}, "temperature"),
        ({"tau": (1, 2, 3)}, "temperature"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: dict[str, object], message: str) -> None:
    with pytest.raises(IrdistillError, match=message):
        Mixing(**rule).for_teachers(2)  # type: ignore[arg-type]


# -- fused runs
# ---------------------------------------------------------------------------------------------------------

QUERIES = {f"q{i}": f"question {i}" for i in range(10)}


@pytest.fixture()
def teachers(tmp_path: Path) -> list[Run]:
    """Three teachers of ten queries; the third has two more documents, and flags one that it has
    scored.
    """
    collection = Collection.from_dicts(
        "tiny", {f"d{i}": f"text {i}" for i in range(9)}, QUERIES, {}
    )
    random = np.random.default_rng(5)
    result = []
    for number in range(3):
        docs = [f"d{i}" for i in range(9 if number == 2 else 7)]
        lists = []
        for query_id in QUERIES:
            flags: list[str | None] = [None] * len(docs)
            flags[3] = "truncated" if number == 2 else None
            lists.append(
                RankedList(query_id, docs, random.normal(size=len(docs)).astype(np.float32), flags)
            )
        identity = RunIdentity("teacher", {"model": f"t{number}"}, collection.describe(), "cafe")
        result.append(write_run(tmp_path / f"t{number}", identity, lists))
    return result


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.name: p.read_bytes()
        for p in folder.iterdir()
        if p.is_file() and p.name not in ("journal.jsonl", ".lock")
    }


def test_abstention_is_counted_flagged_and_resumed_to_the_same_bytes(
    tmp_path: Path, teachers: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"method": "zscore", "missing": "skip", "abstain": "tau<0,sd>1", "part_queries": 3}
    whole = fuse(teachers, tmp_path / "whole", **settings)  # type: ignore[arg-type]
    usage = whole.manifest.usage
    flags = stats(whole)["flags"]
    assert 0 < usage["abstained_queries"] < 10 and usage["abstained_documents"] > 0
    assert flags["teachers disagree"] == 9 * usage["abstained_queries"]
    assert flags["teachers disagree on the document"] == usage["abstained_documents"]
    assert (
        flags["truncated"]
        + sum(
            result.flags[result.doc_ids.index("d3")] != "truncated"  # type: ignore[index]
            for result in whole
            if result.flags
        )
        == 10
    )
    assert whole.identity.producer["abstain"] == "tau<0,sd>1" and verify(tmp_path / "whole") == []
    write_part = RunWriter.write_part

    def stop(self: RunWriter, number: int, *rest: object) -> None:
        if number == 2:
            raise KeyboardInterrupt
        write_part(self, number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(RunWriter, "write_part", stop)
    with pytest.raises(KeyboardInterrupt):
        fuse(teachers, tmp_path / "cut", **settings)  # type: ignore[arg-type]
    monkeypatch.setattr(RunWriter, "write_part", write_part)
    fuse(teachers, tmp_path / "cut", **settings)  # type: ignore[arg-type]
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    with pytest.raises(IrdistillError, match=r"producer\.abstain"):
        fuse(teachers, tmp_path / "cut", missing="skip", abstain="tau<0.1", part_queries=3)


def test_fused_softmax_is_the_mean_of_scipys(tmp_path: Path, teachers: list[Run]) -> None:
    for result in fuse(teachers[:2], tmp_path / "f", "softmax", tau=0.7):
        shares = []
        for run in teachers[:2]:
            ranked = run[result.query_id]
            shares.append(
                dict(
                    zip(
                        ranked.doc_ids,
                        scipy.special.softmax(ranked.scores.astype(float) / 0.7),
                        strict=True,
                    )
                )
            )
        expected = [(shares[0][doc] + shares[1][doc]) / 2 for doc in result.doc_ids]
        np.testing.assert_allclose(result.scores, expected, rtol=1e-6)


def test_a_doubtful_flag_stays_and_the_gate_is_in_the_manifest(
    tmp_path: Path, teachers: list[Run]
) -> None:
    gate = Gate.by_hand(3, agreement=2)
    run = fuse(teachers, tmp_path / "f", "minmax", gate=gate, origin={"by": "me"})
    for result in run:
        assert dict(zip(result.doc_ids, result.flags or [], strict=True))["d3"] == "truncated"
        assert sorted(flag or "" for flag in result.flags or []) == [""] * 6 + ["missing"] * 2 + [
            "truncated"
        ]
        doc_ids, lists = aligned([teacher[result.query_id] for teacher in teachers])
        rule = Mixing("minmax", gate=gate).for_teachers(3)
        expected = dict(zip(doc_ids, rule.mix(lists, 9).scores.tolist(), strict=True))
        assert [expected[doc] for doc in result.doc_ids[:7]] == result.scores[:7].tolist()
    assert run.identity.producer["gate"]["coefficients"] == [[0.0, 0.0, 2.0]] * 3
    assert run.identity.producer["origin"] == {"by": "me"}


def test_two_common_documents_agree_or_do_not() -> None:
    places = np.arange(2)
    parts = [(places, np.array(pair, np.float32)) for pair in ([2.0, 1.0], [9.0, 8.0], [0.0, 5.0])]
    taus = pairwise_tau(parts, 2)
    assert (taus[0, 1], taus[0, 2], taus[1, 2]) == (1.0, -1.0, -1.0)
