"""Every measure of ir-measures with good and bad parameters: the same value, or one error."""

from __future__ import annotations

import shutil

import ir_measures
import numpy as np
import pytest

from irdistill import IrdistillError
from irdistill.collections import Qrels
from irdistill.evaluation import evaluate, parse_measures, per_query
from irdistill.runs import MemoryRun, RankedList, Run, RunIdentity

NAMES = list(ir_measures.measures.registry)
FORMS = (
    "",
    "@5",
    "@0",
    "@3.5",
    "@0.2",
    "@True",
    "@99999999999999999999",
    "(rel=2)",
    "(rel=2)@5",
    "(rel=1.5)",
    "(rel=0)@5",
    "(rel=True)@5",
    "(judged_only=True)",
    "(judged_only=True)@5",
    "(judged_only=1)@5",
    "(max_rel=3)",
    "(max_rel=3)@5",
    "(beta=2)",
    "(beta=2.0)",
    "(p=0.5)",
    "(p=2.0)@5",
    "(normalize=False)",
    "(dcg='exp-log2')@5",
    "(gains={1: 3})@5",
    "(gains={1: 0.5})@5",
    "(relative=True)",
    "(nonsense=1)@5",
    "(alpha=0.5)@5",
    "(T=1.0, max_rel=3)",
)
#: What must be computed, in the forms that papers use.
COMPUTED = """
    AP AP@5 AP(rel=2)@5 MAP AP(judged_only=True) Bpref BPref Bpref(rel=2) Compat Compat(p=0.5) Compat(normalize=False) ERR@5 infAP
    IPrec@0.2 Judged Judged@5 nDCG nDCG@5 NDCG@5 nDCG(dcg='exp-log2')@5 nDCG(gains={1:3})@5 nDCG(judged_only=True)@5 NumQ NumRel
    NumRet NumRet(rel=2) NumRelRet P@5 P(rel=2)@5 Precision@5 P(judged_only=True)@5 R@5 Recall@5 R(rel=2)@5 Rprec RPrec
    Rprec(rel=2) RR RR@5 MRR@5 RR(rel=2)@5 RR(rel=0)@5 RR(judged_only=True) SetP SetRelP SetP(relative=True) SetR SetR(rel=2)
    SetF SetF(beta=2.0) SetAP Success@5
"""


def case(
    ids: str, missing: bool = True
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """Judgments and a run: graded, with an unjudged document, one that is not found, and perhaps a
    query that the run lacks.
    """
    queries = {"numbers": ["101", "7", "3000"], "texts": ["PLAIN-1", "train-1", "query c"]}[ids]
    doc = "{}".format if ids == "numbers" else "doc-{}".format
    qrels = {
        queries[0]: {doc(1): 1, doc(2): 0, doc(3): 2, doc(9): 1},
        queries[1]: {doc(1): 0, doc(4): 3, doc(5): 1, doc(6): -1},
    }
    run = {
        queries[0]: {doc(number): 10.0 - place for place, number in enumerate((2, 1, 4, 3, 8))},
        queries[1]: {doc(number): 5.5 - place for place, number in enumerate((5, 6, 4, 1))},
    }
    if missing:
        qrels[queries[2]] = {doc(7): 1}
    return qrels, run


@pytest.mark.parametrize("name", NAMES)
def test_value_equals_ir_measures_or_is_an_error(name: str) -> None:
    texts, numbers = case("texts"), case("numbers")
    for form in FORMS:
        measure = f"{name}{form}"
        try:
            result = per_query(*numbers, [measure])
        except IrdistillError as error:
            assert "\n" not in str(error) and str(error).endswith(".") and name in str(error), error
            with pytest.raises(IrdistillError):
                per_query(*texts, [measure])
            continue
        (written,) = result.values
        expected = ir_measures.calc_aggregate([ir_measures.parse_measure(measure)], *numbers)
        assert list(map(str, expected)) == [written]
        (value,) = expected.values()
        assert result.figure(written) == pytest.approx(value, abs=1e-12), measure
        again = per_query(*texts, [measure])
        assert again.values[written].tolist() == result.values[written].tolist(), measure


@pytest.mark.skipif(shutil.which("perl") is None, reason="ERR and the exponential nDCG need perl")
def test_common_measures_are_computed() -> None:
    for name in COMPUTED.split():
        (values,) = per_query(*case("texts"), [name]).values.values()
        assert np.isfinite(values).all(), name


def test_measures_do_not_replace_each_other() -> None:
    """In one call of ir-measures the second of these two gets the value of the first, or 0."""
    names = [
        "SetF(beta=2.0)",
        "SetF(beta=0.5)",
        "IPrec@0.1",
        "IPrec@0.9",
        "nDCG(gains={1:3})@5",
        "nDCG(gains={1:9})@5",
    ]
    together = per_query(*case("texts"), names)
    for name in names:
        assert (
            together.values[name].tolist()
            == per_query(*case("texts"), [name]).values[name].tolist()
        )


def test_counts_are_sums_without_interval() -> None:
    qrels, run = case("numbers")
    other = {query: dict(list(documents.items())[:2]) for query, documents in run.items()}
    outcome = evaluate(
        Qrels(qrels),
        {"a": as_run(run), "b": as_run(other)},
        "NumRet NumRelRet NumRel NumQ P@5",
        baseline="b",
    )
    values = {row.measure: row.value for row in outcome.rows if row.system == "a"}
    assert values == {
        "NumRet": 9.0,
        "NumRet(rel=1)": 4.0,
        "NumRel": 5.0,
        "NumQ": 2.0,
        "P@5": pytest.approx(4 / 15),
    }
    for row in outcome.rows:
        counted = row.measure != "P@5"
        assert (row.low is None, row.high is None) == (counted, counted)
        assert (row.p is not None) == (row.system == "a" and not counted)


def test_counts_are_shown_as_whole_numbers() -> None:
    judged, lists = case("numbers")
    text = evaluate(Qrels(judged), {"a": as_run(lists)}, "NumRet P@5").to_markdown()
    assert " 9 |" in text and "9.0" not in text


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ("P", "'P' lacks its cutoff; write P@10"),
        ("Rprec@5", "has the parameter cutoff .* and Rprec takes rel, judged_only"),
        ("RR(rel=1.5)", "has rel=1.5, and a whole number was expected"),
        ("nDCG@0", "has cutoff=0, and a whole number from 1"),
        ("nDCG@3.5", "has cutoff=3.5, and a whole number was expected"),
        ("nDCG(rel=2)@10", "has the parameter rel, and nDCG takes cutoff, dcg, gains, judged_only"),
        ("INST", "lacks its max_rel; write INST"),
        ("SetF(beta=2)", "has beta=2, and a decimal number"),
        ("IPrec", "lacks its recall; write IPrec@0.1"),
        ("IPrec@0.123", "at most two decimals"),
        ("alpha_nDCG@5", "judgments by subtopic"),
        ("P(rel=0)@5", "trec_eval takes a whole number of at least 1"),
        ("ERR", "gdeval does not compute it without cutoff"),
        ("NumRel(rel=2)", "pytrec_eval does not compute it with rel=2"),
        ("nDCG@10@10", "not one of ir-measures"),
        ("(" * 5000, "not one of ir-measures"),
        ("nDCG@10,RR@10", "not one of ir-measures"),
    ],
)
def test_error_message(measure: str, message: str) -> None:
    with pytest.raises(IrdistillError, match=message):
        parse_measures([measure])


def test_measure_with_spaces_and_as_object() -> None:
    assert list(map(str, parse_measures("nDCG(gains={1: 5, 2: 7})@3 AP"))) == [
        "nDCG(gains={1:5,2:7})@3",
        "AP",
    ]
    assert list(map(str, parse_measures(ir_measures.nDCG @ 10))) == ["nDCG@10"]


def test_accuracy_needs_relevant_and_other_documents() -> None:
    qrels, run = case("texts", missing=False)
    assert per_query(qrels, run, "Accuracy@5").figure("Accuracy@5") == pytest.approx(
        (1 / 2 + 3 / 4) / 2
    )
    with pytest.raises(IrdistillError, match="not defined for all 3"):
        per_query(*case("texts"), "Accuracy@5")
    with pytest.raises(IrdistillError, match="not defined for all 1"):
        per_query({"q": {"a": 1}}, {"q": {"a": 1.0}}, "Accuracy@5")


@pytest.mark.skipif(shutil.which("perl") is None, reason="gdeval needs perl")
def test_gdeval_rejects_grades_above_four() -> None:
    with pytest.raises(
        IrdistillError, match="gdeval, which takes grades up to 4, and the judgments have 8"
    ):
        per_query({"q": {"a": 8}}, {"q": {"a": 1.0}}, "ERR@5")


def test_trec_eval_rejects_large_grades() -> None:
    """ir-measures silently gives 0 for such grades."""
    with pytest.raises(
        IrdistillError, match="grades up to 1000000, and the judgments have 2000000000"
    ):
        per_query({"q": {"a": 2_000_000_000}}, {"q": {"a": 1.0}}, "Bpref")
    assert per_query({"q": {"a": 2_000_000_000}}, {"q": {"a": 1.0}}, "nDCG@5").values[
        "nDCG@5"
    ].tolist() == [1.0]


@pytest.mark.parametrize(
    "grade", [0.5, 1.9, np.float32(0.5), float("nan"), float("inf"), None, "1.5", 10**30, [1]]
)
def test_fractional_grades_are_errors(grade: object) -> None:
    with pytest.raises(IrdistillError, match="query q, document a"):
        per_query({"q": {"a": grade}}, {"q": {"a": 1.0}}, "nDCG@10")  # type: ignore[dict-item]


def test_whole_grades_of_any_type() -> None:
    grades = {"a": 2.0, "b": np.int64(1), "c": np.float32(3.0), "d": True}
    run = {"q": dict.fromkeys("abcd", 1.0)}
    assert Qrels({"q": grades}).to_dict() == {"q": {"a": 2, "b": 1, "c": 3, "d": 1}}
    assert per_query({"q": grades}, run, "NumRel(rel=1)").figure("NumRel") == 4


def as_run(scores: dict[str, dict[str, float]]) -> Run:
    return MemoryRun(
        RunIdentity("imported", {}, {}),
        [
            RankedList(query, list(documents), np.array(list(documents.values()), np.float32))
            for query, documents in scores.items()
        ],
    )
