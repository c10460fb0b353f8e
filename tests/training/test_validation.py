"""A student that is measured during training: the figures, the best step, stopping, resuming."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from irdistill.collections import Collection, Qrels
from irdistill.errors import InputError, IrdistillError, OptionError, WrongCollectionError
from irdistill.evaluation import evaluate
from irdistill.losses import parse_loss
from irdistill.runs import RankedList, RunIdentity, compile_run, open_run, write_run
from irdistill.search import retrieve
from irdistill.students import build_student
from irdistill.students.student_base import Student
from irdistill.teachers import score
from irdistill.teachers.score_options import ScoreOptions
from irdistill.training.data.collate import make_collator
from irdistill.training.data.sampler_setup import make_samplers, sampler_options
from irdistill.training.objectives.batch_scores import score_batch
from irdistill.training.objectives.encode import Encoder
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from irdistill.training.validation import steps_between
from irdistill.training.validation_data import ValidationData
from irdistill.training.validation_sets import MeasuredQueries, candidate_rows, sampled_corpus
from tests.training.support import digests, log, stopped_before
from tests.training.tiny import make_backbone, make_collection, make_run, make_student

OPTIONS = TrainOptions(
    steps=6,
    batch_size=3,
    list_size=6,
    learning_rate=3e-3,
    precision="float32",
    seed=7,
    checkpoint_every=3,
    log_every=2,
    validate_every=2,
    validate_queries=0,
    dropout=False,
)
LOSS = "KL(tau=0.2, teacher_tau=2)"
FIGURES = ("nDCG@10", "R@100")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validation")
    make_run(folder / "scores", make_collection())
    run_of_noise(folder / "noise")
    make_backbone(folder / "backbone")
    return folder


def other_queries(first: int = 8, end: int = 24) -> Collection:
    """Queries of the same documents that are not trained on; some have two relevant documents."""
    whole = make_collection(end)
    ids = [f"q{i}" for i in range(first, end)]
    qrels = {key: dict(whole.qrels[key]) | {f"d{int(key[1:]) // 2}": 2} for key in ids}
    queries = {key: whole.queries[key] for key in ids}
    return replace(whole, id=f"others-{first}", queries=queries, qrels=Qrels(qrels))


def learn(
    place: Path,
    out: Path,
    student: Student | None = None,
    options: TrainOptions = OPTIONS,
    loss: str = LOSS,
    scores: str = "scores",
    **validation: Any,
) -> Student:
    student = student or make_student(place / "backbone", frozen=True)
    work = out.parent / "work"
    train(
        make_collection(),
        place / scores,
        student,
        loss,
        out,
        options,
        "stored",
        work,
        **validation,
    )
    return student


def validations(out: Path) -> list[dict[str, Any]]:
    return [row for row in log(out) if "validation" in row]


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "training.json").read_text())


# -- the figures are those of the saved model


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("dense", {"freeze_documents": True}),
        ("dense", {}),
        ("sparse", {}),
        ("late-interaction", {"dimension": 8}),
    ],
)
def test_the_figures_are_those_of_a_search_with_the_saved_model(
    kind: str, settings: dict[str, Any], place: Path, tmp_path: Path
) -> None:
    others = other_queries()
    student = build_student(kind, str(place / "backbone"), device="cpu", **settings)
    options = replace(OPTIONS, validate_documents=0, validate_measures="nDCG@10 R@5 RR@10")
    learn(place, tmp_path / "out", student, options, "KL(teacher_tau=2)", validate=others)
    rows = validations(tmp_path / "out")
    assert [row["step"] for row in rows] == [0, 2, 4, 6]
    assert len({row["validation"]["nDCG@10"] for row in rows}) > 1
    best = next(row for row in rows if row["step"] == rows[-1]["best_step"])
    assert best["validation"]["nDCG@10"] == max(row["validation"]["nDCG@10"] for row in rows)
    run = retrieve(others, tmp_path / "out" / "model", tmp_path / "run", work=tmp_path / "work")
    for row in evaluate(others, {"student": run}, "nDCG@10 R@5 RR@10").rows:
        assert best["validation"][row.measure] == pytest.approx(row.value, abs=1e-6)
    # the first row is the student before training
    before = build_student(kind, str(place / "backbone"), device="cpu", **settings)
    run = retrieve(others, before, tmp_path / "before", work=tmp_path / "work")
    value = evaluate(others, {"student": run}, "nDCG@10").rows[0].value
    assert rows[0]["validation"]["nDCG@10"] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "candidates"),
    [
        ("cross-encoder", True),
        ("split-cross-encoder", False),
        ("kernel", True),
    ],
)
def test_a_student_that_cannot_search_reranks(
    kind: str, candidates: bool, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32: batches of other sizes have other last digits in bfloat16."""
    monkeypatch.setattr("irdistill.modeling.hardware.has_fast_bfloat16", lambda device: False)
    others = other_queries()
    student = build_student(kind, str(place / "backbone"), device="cpu")
    first = retrieve(others, "bm25", tmp_path / "first", k=7, work=tmp_path / "work")
    if candidates:  # all candidates of the run, whose ranks are not those of BM25
        first = _shuffled(first, others, tmp_path / "shuffled")
    options = replace(OPTIONS, validate_depth=7, steps=4)
    learn(
        place,
        tmp_path / "out",
        student,
        options,
        "KL(teacher_tau=2)",
        validate=others,
        validate_candidates=[first] if candidates else [],
    )
    rows = validations(tmp_path / "out")
    best = next(row for row in rows if row["step"] == rows[-1]["best_step"])
    backend = ScoreOptions(backend="torch") if kind == "cross-encoder" else None
    scored = score(others, first, str(tmp_path / "out" / "model"), tmp_path / "scored", backend)
    for row in evaluate(others, {"student": scored}, "nDCG@10 R@100").rows:
        assert best["validation"][row.measure] == pytest.approx(row.value, abs=1e-6)


def _shuffled(run: Any, collection: Collection, out: Path) -> Any:
    random = np.random.default_rng(1)
    lists = [
        RankedList(
            query_id,
            [f"d{row}" for row in random.choice(40, 7, replace=False)],
            np.arange(7, 0, -1, dtype=np.float32),
        )
        for query_id in run.query_ids
    ]
    return write_run(out, RunIdentity("first-stage", {}, collection.describe()), lists)


def test_figures_of_several_collections_are_averaged(place: Path, tmp_path: Path) -> None:
    first, second = other_queries(8, 12), other_queries(12, 24)
    learn(place, tmp_path / "out", validate=[first, second])
    rows = validations(tmp_path / "out")
    for row in rows:
        figures = row["validation"]
        assert figures["nDCG@10"] == pytest.approx(
            (figures["others-8"]["nDCG@10"] + figures["others-12"]["nDCG@10"]) / 2
        )
    learn(place, tmp_path / "single", validate=second)
    for row, single in zip(rows, validations(tmp_path / "single"), strict=True):
        assert row["validation"]["others-12"] == single["validation"]


def test_a_sample_of_the_documents_is_searched(place: Path, tmp_path: Path) -> None:
    """Judged documents and candidates, and random ones, in the order of the corpus."""
    others = other_queries(8, 12)
    queries = MeasuredQueries.of("some", others, list(others.queries), FIGURES)
    judged = {4, 5, 8, 9, 10, 11}
    assert set(queries.judged_rows) == judged
    candidates = [np.array([20, 21]), np.array([22]), np.array([9, 23]), np.array([24, 25])]

    def rows(size: int, seed: int = 1) -> list[int]:
        corpus = sampled_corpus(queries, candidates, size, seed)
        return [int(doc_id[1:]) for doc_id in corpus.ids]

    assert rows(3) == rows(12) == sorted(judged | {20, 21, 22, 23, 24, 25})
    assert len(rows(20)) == 20 and rows(20) == sorted(rows(20)) and set(rows(12)) < set(rows(20))
    assert rows(20) == rows(20) != rows(20, seed=2)
    assert rows(40) == list(range(40))
    student = make_student(place / "backbone")
    options = replace(OPTIONS, validate_documents=20, steps=2)
    learn(place, tmp_path / "out", student, options, validate=others)
    best = validations(tmp_path / "out")[-1]
    corpus = sampled_corpus(queries, candidate_rows(queries, 20, None), 20, seed=7)
    sample = replace(others, corpus=corpus)
    run = retrieve(sample, tmp_path / "out" / "model", tmp_path / "run")
    value = evaluate(sample, {"student": run}, "nDCG@10").rows[0].value
    assert record(tmp_path / "out")["validation"]["best"] == pytest.approx(value, abs=1e-6)
    assert best["step"] == 2


def test_a_sample_of_the_queries_is_a_function_of_the_seed(place: Path, tmp_path: Path) -> None:
    others = other_queries()
    options = replace(OPTIONS, validate_queries=5, steps=1)
    first = [
        validations(learn_to(place, tmp_path / name, replace(options, seed=seed), validate=others))[
            0
        ]["validation"]
        for name, seed in (("a", 7), ("b", 7), ("c", 8))
    ]
    assert first[0] == first[1] != first[2]


def learn_to(place: Path, out: Path, options: TrainOptions, **more: Any) -> Path:
    learn(place, out, options=options, **more)
    return out


# -- the best step, stopping and resuming


def run_of_noise(path: Path) -> None:
    """Teacher scores that say nothing: what is learnt of them does not carry over to other
    queries.
    """
    random = np.random.default_rng(9)
    lists = [
        RankedList(
            f"q{i}",
            [f"d{j}" for j in random.choice(40, 10, replace=False)],
            random.normal(size=10) * 4,
        )
        for i in range(8)
    ]
    write_run(path, RunIdentity("teacher", {"model": "noise"}, make_collection().describe()), lists)


@pytest.mark.parametrize(
    ("measures", "validate"), [("loss", 0.4), ("nDCG@10", None), ("nDCG@10 loss", 0.4)]
)
def test_it_stops_when_nothing_improves_and_keeps_the_best(
    measures: str, validate: float | None, place: Path, tmp_path: Path
) -> None:
    options = replace(
        OPTIONS,
        steps=40,
        learning_rate=1e-2,
        warmup=0,
        schedule="constant",
        early_stop=3,
        validate_measures=measures,
    )
    data: dict[str, Any] = {"validate": validate or other_queries(), "scores": "noise"}
    data["loss"] = "KL(tau=0.1, teacher_tau=1)"
    whole = learn(place, tmp_path / "whole", options=options, **data)
    rows = log(tmp_path / "whole")
    name = measures.split()[0]
    sign = -1 if name == "loss" else 1
    measured = [
        (row["step"], sign * row["validation"][name]) for row in rows if "validation" in row
    ]
    best = max(measured, key=lambda row: (row[1], -row[0]))
    assert [step for step, _ in measured] == list(range(0, best[0] + 7, 2))
    assert max(row["step"] for row in rows) == best[0] + 6 < 40
    assert record(tmp_path / "whole")["validation"] == {
        "measure": name,
        "before": sign * measured[0][1],
        "best": sign * best[1],
        "best_step": best[0],
        "every": 2,
    }
    if best[0]:  # the weights of the best step, not of the last
        shorter = replace(options, steps=best[0])
        trained = learn(place, tmp_path / "shorter", options=shorter, **data)
    else:
        trained = make_student(place / "backbone", frozen=True)
    assert trained.weights_digest() == whole.weights_digest()
    if measures != "nDCG@10 loss":
        return
    for moment in (1, best[0] + 3):
        out = tmp_path / f"stopped-{moment}"
        with stopped_before(moment):
            learn(place, out, options=options, **data)
        learn(place, out, options=options, **data)
        assert digests(out) == digests(tmp_path / "whole"), moment


def test_resumed_with_documents_that_are_encoded_each_time(place: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, validate_documents=20, checkpoint_every=1)

    def fit(out: Path) -> None:
        student = make_student(place / "backbone")
        learn(place, out, student, options, validate=[other_queries(8, 12), other_queries(12, 24)])

    fit(tmp_path / "whole")
    with stopped_before(4):
        fit(tmp_path / "stopped")
    (tmp_path / "stopped" / ".validation-0-irdistill-tmp-0").mkdir(exist_ok=True)
    fit(tmp_path / "stopped")
    assert digests(tmp_path / "stopped") == digests(tmp_path / "whole")


def test_weights_before_training_are_kept_if_no_step_is_better(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    student = make_student(place / "backbone", frozen=True)
    untrained = student.weights_digest()
    options = replace(OPTIONS, learning_rate=0.1, checkpoint_every=0)
    learn(place, tmp_path / "out", student, options, scores="noise", validate=other_queries())
    assert record(tmp_path / "out")["validation"]["best_step"] == 0
    assert student.weights_digest() == untrained
    assert "no step was better than the student before training (nDCG@10 0." in caplog.text


# -- a share of the training queries


def test_a_share_of_the_judged_queries_is_held_out(place: Path, tmp_path: Path) -> None:
    """Queries without a relevant document are trained on; figures and loss are computed again."""
    collection = make_collection()
    judged = {key: dict(value) for key, value in collection.qrels.items() if key != "q3"}
    collection = replace(collection, qrels=Qrels(judged | {"q3": {"d3": 0}}))
    options = replace(
        OPTIONS, steps=2, validate_measures="loss nDCG@10", learning_rate=1e-3, batch_size=3
    )
    student = make_student(place / "backbone", frozen=True)
    data = ValidationData.read(0.5, (), options, student)
    train(collection, place / "scores", student, LOSS, tmp_path / "out", options, validate=0.5)
    compiled = [compile_run(open_run(place / "scores"), collection.corpus)]
    relevant = {f"q{i}": {i: int(i != 3)} for i in range(8)}
    drawing = sampler_options(options, needs_teacher=True, needs_labels=False)
    trained, held_out = make_samplers(
        compiled, relevant, list(collection.queries), drawing, options, data
    )
    assert held_out is not None and len(held_out.query_ids) == 4 and "q3" in trained.query_ids
    assert sorted(trained.query_ids + held_out.query_ids) == sorted(collection.queries)
    counts = record(tmp_path / "out")["lists"]
    assert counts["queries"] == 4 and counts["held_out_queries"] == 4
    best_step = record(tmp_path / "out")["validation"]["best_step"]
    figures = {row["step"]: row["validation"] for row in validations(tmp_path / "out")}[best_step]
    collator = make_collator(collection, held_out, student, None)
    expression, encoder, values = parse_loss(LOSS), Encoder(student, torch.float32), []
    for chosen in ([0, 1, 2], [3]):
        held_out.order = lambda step, chosen=chosen: [(0, query) for query in chosen]
        values.append(
            len(chosen) * float(expression(score_batch(encoder, collator(0), True)).detach())
        )
    assert figures["loss"] == pytest.approx(sum(values) / 4, rel=1e-5)
    run = retrieve(collection, student, tmp_path / "run")
    qrels = {key: dict(collection.qrels[key]) for key in held_out.query_ids}
    value = evaluate(qrels, {"student": run}, "nDCG@10").rows[0].value
    assert figures["nDCG@10"] == pytest.approx(value, abs=1e-6)


def test_the_share_is_limited_by_the_number_of_queries(place: Path, tmp_path: Path) -> None:
    learn(
        place,
        tmp_path / "out",
        options=replace(OPTIONS, validate_queries=2, steps=1),
        validate=0.9,
    )
    assert record(tmp_path / "out")["lists"]["held_out_queries"] == 2


# -- how often, identity and errors


def test_the_interval_follows_from_the_number_of_texts() -> None:
    """A step with gradients counts three times; a twentieth of the training is validation."""
    options = TrainOptions(steps=1000, batch_size=16)
    # 0.05 * 3 * 16 * 1000 = 2400 texts: 8 validations of 300, one before the first step
    assert steps_between(options, 300, 16) == 143
    assert steps_between(options, 1200, 16) == 1000  # before and after
    assert steps_between(options, 9999, 16) == 1000
    assert steps_between(replace(options, validate_every=7), 9999, 16) == 7


def test_the_identity_has_the_validation_only_if_there_is_one(place: Path, tmp_path: Path) -> None:
    learn(place, tmp_path / "plain", options=replace(OPTIONS, steps=1))
    plain = record(tmp_path / "plain")["identity"]
    assert "validation" not in plain
    assert not any(name.startswith("validate") for name in plain["options"])
    learn(place, tmp_path / "measured", options=replace(OPTIONS, steps=1), validate=0.2)
    measured = record(tmp_path / "measured")["identity"]
    assert {key: value for key, value in measured.items() if key != "validation"} == plain
    with pytest.raises(IrdistillError, match=r"validation.share: 0\.2 there, 0\.3 here"):
        learn(place, tmp_path / "measured", options=replace(OPTIONS, steps=1), validate=0.3)


@pytest.mark.parametrize(
    ("validation", "changes", "error", "match"),
    [
        ({}, {"early_stop": 3}, OptionError, "early_stop was given without validate"),
        ({"validate": 1.5}, {}, OptionError, "validate is 1.5; expected a share between 0 and 1"),
        ({"validate": 0}, {}, OptionError, "validate is 0"),
        ({"validate": []}, {}, OptionError, "none; expected at least one"),
        ({"validate": 0.1}, {"validate_measures": "nDCG@ten"}, OptionError, "'nDCG@ten'"),
        ({"validate": 0.1}, {"validate_measures": "loss loss"}, OptionError, "'loss loss'"),
        ({"validate": 0.1}, {"validate_measures": ""}, OptionError, "at least one measure"),
        ({"validate": "others"}, {"validate_measures": "loss"}, OptionError, "a share, as"),
        ({"validate": "unjudged"}, {}, InputError, "'nothing' has no relevant documents"),
        ({"validate": "twice"}, {}, OptionError, "others-8, others-8; expected"),
        ({"validate": 0.1, "validate_candidates": ["scores"]}, {}, OptionError, "held-out queries"),
        (
            {"validate": "others", "validate_candidates": ["scores"]},
            {},
            OptionError,
            "a dense student searches all documents",
        ),
        (
            {"validate": "others", "validate_candidates": ["scores", "scores"]},
            {"validate_documents": 5},
            OptionError,
            "1 collections and validate_candidates 2 runs",
        ),
        (
            {"validate": "others", "validate_candidates": ["scores"]},
            {"validate_documents": 5},
            WrongCollectionError,
            "made for the collection 'tiny'",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_before_training(
    validation: dict[str, Any],
    changes: dict[str, Any],
    error: type[Exception],
    match: str,
    place: Path,
    tmp_path: Path,
) -> None:
    others = other_queries()
    nothing = replace(make_collection(), id="nothing", qrels=Qrels({"q0": {"d0": 0}}))
    collections = {"others": others, "unjudged": nothing, "twice": [others, others]}
    arguments = dict(validation)
    if isinstance(arguments.get("validate"), str):
        arguments["validate"] = collections[arguments["validate"]]
    names = arguments.get("validate_candidates", ())
    arguments["validate_candidates"] = [place / name for name in names]
    with pytest.raises(error, match=match):
        learn(place, tmp_path / "out", options=replace(OPTIONS, **changes), **arguments)
    assert not (tmp_path / "out").exists()


def test_a_validation_with_training_queries_is_warned_of(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learn(
        place,
        tmp_path / "out",
        options=replace(OPTIONS, steps=1),
        validate=other_queries(4, 24),
    )
    assert "4 of the 20 validation queries of others-4 are also training queries" in caplog.text
