"""A teacher that sees labels: its scores by hand, and a proof that none of it is ever measured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irdistill as ird
from irdistill.collections import Collection
from irdistill.errors import LabelLeakError, OptionError, WrongCollectionError
from irdistill.evaluation.comparison import compare_losses
from irdistill.evaluation.fusing import FusionWeights, fuse_teachers
from irdistill.evaluation.run_patterns import Entry
from irdistill.queries import filter_queries
from irdistill.runs import RankedList, Run, RunIdentity, fuse, merge, open_run, write_run
from irdistill.runs.label_injection import LabelInjection, LabelOptions
from irdistill.runs.subsets import RunSubset
from tests.training.support import digests
from tests.training.tiny import make_backbone

NAN = float("nan")
DOCS = {f"d{i}": f"w{i} w{i + 1} w{i + 2}" for i in range(12)}


def collection(name: str = "tiny/train", queries: int = 8, shift: int = 0) -> Collection:
    """Query i is about document i, and its label is document i + shift."""
    texts = {f"{name}-q{i}": f"w{i} w{i + 1}" for i in range(queries)}
    labels = {f"{name}-q{i}": {f"d{(i + shift) % 12}": 1} for i in range(queries)}
    return Collection.from_dicts(name, DOCS, texts, labels)


def teacher(path: Path, of: Collection) -> Run:
    """Random scores of eight documents for each query."""
    random = np.random.default_rng(1)
    lists = [
        RankedList(
            query_id,
            [f"d{j}" for j in random.choice(12, 8, replace=False)],
            random.normal(size=8).astype(np.float32),
        )
        for query_id in of.queries
    ]
    identity = RunIdentity("teacher", {"model": "made up"}, of.describe())
    return write_run(path, identity, lists, part_queries=3)


def injection(weight: float = 1.0, noise: float = 0.0, seed: int = 42) -> LabelInjection:
    options = LabelOptions(label_weight=weight, label_noise=noise)
    return LabelInjection(collection(queries=12), options, seed)


@pytest.fixture()
def assisted(tmp_path: Path) -> Run:
    train = collection()
    return ird.fuse([teacher(tmp_path / "teacher", train)], labels=train, out=tmp_path / "assisted")


def scores(ranked: RankedList) -> dict[str, float]:
    return dict(zip(ranked.doc_ids, ranked.scores.tolist(), strict=True))


def test_scores_by_hand() -> None:
    inject = injection(weight=2.0)
    ranked = RankedList("tiny/train-q1", ["d0", "d1"], np.array([1, -0.5], np.float32))
    assert scores(inject(ranked)) == {"d0": 1.0, "d1": 1.5}
    absent = RankedList("tiny/train-q5", ["d0", "d1"], np.array([1, -0.5], np.float32))
    assert scores(inject(absent)) == {"d0": 1.0, "d1": -0.5, "d5": 1.5}
    unscored = RankedList(
        "tiny/train-q2",
        ["d0", "d2", "d3"],
        np.array([1, NAN, NAN], np.float32),
        ["truncated", "missing", "missing"],
        np.array([0, 3, -1], np.int32),
    )
    labeled = inject(unscored)
    assert labeled.scores.tolist()[:2] == [1.0, 3.0] and np.isnan(labeled.scores[2])
    assert labeled.flags == ["truncated", None, "missing"]
    added = inject(unscored._replace(query_id="tiny/train-q7"))
    assert added.passages is not None and added.passages.tolist() == [0, 3, -1, -1]
    assert added.flags == ["truncated", "missing", "missing", None]
    nothing = RankedList("tiny/train-q1", ["d1"], np.array([NAN], np.float32))
    assert inject(nothing) is nothing


def test_excluded_documents_are_not_added() -> None:
    of = Collection.from_dicts("tiny", DOCS, {"q": "w0"}, {"q": {"d1": 1}})
    of = replace(of, queries={"q": ird.Query("q", "w0", excluded=("d1",))})
    ranked = RankedList("q", ["d0"], np.ones(1, np.float32))
    assert LabelInjection(of, LabelOptions())(ranked) is ranked


def test_noise_moves_labels() -> None:
    flat = [RankedList(f"tiny/train-q{i}", list(DOCS), np.zeros(12, np.float32)) for i in range(12)]

    def targets(inject: LabelInjection) -> list[str]:
        return [inject(ranked).doc_ids[int(inject(ranked).scores.argmax())] for ranked in flat]

    right = [f"d{i}" for i in range(12)]
    assert targets(injection(noise=0.0)) == right
    moved = targets(injection(noise=1.0))
    assert not any(one == other for one, other in zip(moved, right, strict=True))
    assert targets(injection(noise=1.0)) == moved != targets(injection(noise=1.0, seed=7))
    options = LabelOptions(label_noise=0.3)
    many = {f"q{i}": {f"d{i % 12}": 1} for i in range(2000)}
    of = Collection.from_dicts("many", DOCS, dict.fromkeys(many, "w0"), many)
    inject = LabelInjection(of, options)
    kept = [
        scores(inject(flat[0]._replace(query_id=query_id)))[f"d{i % 12}"]
        for i, query_id in enumerate(many)
    ]
    assert np.mean(kept) == pytest.approx(0.7, abs=0.03)


def test_one_run_keeps_its_order_and_gains_the_weight(tmp_path: Path, assisted: Run) -> None:
    plain = open_run(tmp_path / "teacher")
    for i, ranked in enumerate(plain):
        values = scores(ranked)
        mean, deviation = np.mean(list(values.values())), np.std(list(values.values()))
        expected = {doc: (score - mean) / deviation for doc, score in values.items()}
        expected[f"d{i}"] = expected.get(f"d{i}", min(expected.values())) + 1
        assert scores(assisted[ranked.query_id]) == pytest.approx(expected, abs=1e-5)


def test_manifest_names_labels_weight_noise_and_seed(tmp_path: Path) -> None:
    train = collection()
    run = ird.fuse(
        [teacher(tmp_path / "teacher", train)],
        labels=train,
        label_weight=3.0,
        label_noise=0.25,
        seed=7,
        out=tmp_path / "out",
    )
    [entry] = open_run(tmp_path / "out").identity.settings["privileged"]
    assert entry == {
        "labels": train.describe() | {"qrels": train.qrels.fingerprint},
        "label_weight": 3.0,
        "label_noise": 0.25,
        "seed": 7,
    }
    assert run.identity.settings["privileged"] == [entry]


Use = Callable[[Collection, Run, Path], Any]
USES: dict[str, Use] = {
    "evaluate": lambda of, run, out: ird.evaluate(of, {"run": run}),
    "evaluate a path": lambda of, run, out: ird.evaluate(of, [str(run.path)]),
    "evaluate on judgments alone": lambda of, run, out: ird.evaluate(of.qrels, {"run": run}),
    "audit": lambda of, run, out: ird.audit(of, [run]),
    "first stage": lambda of, run, out: ird.audit(of, [teacher(out / "b", of)], first_stage=run),
    "compare": lambda of, run, out: compare_losses(
        [Entry(loss, "", of.id, "", run) for loss in ("A", "B")], {of.id: of}
    ),
    "report": lambda of, run, out: ird.report([run], collection=of, out=out / "report.html"),
    "diversity": lambda of, run, out: ird.measure_diversity(of, [run]),
    "filter": lambda of, run, out: filter_queries(of, out / "f", ["critic=0"], scores=run),
    "critic curve": lambda of, run, out: ird.critic_curve(of, run),
    "weights": lambda of, run, out: fuse_teachers(
        [teacher(out / "b", of)] * 2,
        out / "w",
        weighting=FusionWeights("similarity", 1, of, [run, run]),
    ),
    "export": lambda of, run, out: ird.export_run(run, out / "run.txt", format="trec"),
    "to_trec": lambda of, run, out: run.to_trec(out / "run.txt"),
}
DERIVED: dict[str, Use] = {
    "itself": lambda of, run, out: run,
    "fused": lambda of, run, out: fuse([run, teacher(out / "other", of)], out / "fused"),
    "fused twice": lambda of, run, out: ird.fuse([run], labels=of, out=out / "twice"),
    "head": lambda of, run, out: fuse(
        [teacher(out / "other", of), run], out / "head", "head", head=1
    ),
    "masked": lambda of, run, out: ird.mask(of, run, ["margin=1"], out=out / "masked"),
    "scored again": lambda of, run, out: ird.score(
        of, run, teacher=lambda query, texts: [len(text) for text in texts], out=out / "scored"
    ),
    "feedback": lambda of, run, out: ird.retrieve(
        of, str(make_backbone(out / "model")), k=4, feedback=run, out=out / "moved"
    ),
    "subset": lambda of, run, out: RunSubset(run, run.query_ids[:3], of.describe()),
}


@pytest.mark.parametrize("use", USES)
def test_verbs_that_measure_refuse_it(use: str, assisted: Run, tmp_path: Path) -> None:
    with pytest.raises(LabelLeakError, match=r"contain the labels of 'tiny/train' \(fuse --labels"):
        USES[use](collection(), assisted, tmp_path)


@pytest.mark.parametrize("way", DERIVED)
def test_runs_made_from_it_are_refused(way: str, assisted: Run, tmp_path: Path) -> None:
    derived = DERIVED[way](collection(), assisted, tmp_path)
    assert derived.identity.settings["privileged"]
    with pytest.raises(LabelLeakError, match="measured"):
        ird.evaluate(collection().qrels, {"run": derived})


def test_merged_shards_are_refused(assisted: Run, tmp_path: Path) -> None:
    of = collection()
    options = {"teacher": lambda query, texts: [1.0] * len(texts), "part_queries": 2}
    shards = [
        ird.score(of, assisted, out=tmp_path / f"s{i}", shard=f"{i}/2", **options).path
        for i in (1, 2)
    ]
    with pytest.raises(LabelLeakError):
        ird.evaluate(of, {"run": merge(shards, tmp_path / "merged")})


def test_validation_refuses_it(assisted: Run, tmp_path: Path) -> None:
    student = ird.CrossEncoderStudent(str(make_backbone(tmp_path / "model")), device="cpu")
    with pytest.raises(LabelLeakError, match="used to validate"):
        ird.train(
            collection(),
            assisted,
            student,
            loss="KL(tau=1)",
            steps=1,
            validate=collection(),
            validate_candidates=[assisted],
            out=tmp_path / "student",
        )


@pytest.mark.parametrize("name", ["tiny/test", "pydocs/howto", "folder#test", "./folder"])
def test_labels_of_test_are_refused(name: str, tmp_path: Path) -> None:
    of = collection(name)
    with pytest.raises(OptionError, match="held out for the final figures"):
        ird.fuse([teacher(tmp_path / "teacher", of)], labels=of, out=tmp_path / "out")


def test_wrong_calls(tmp_path: Path) -> None:
    train = collection()
    run = teacher(tmp_path / "teacher", train)
    with pytest.raises(OptionError, match="at least two were expected, or one and --labels"):
        ird.fuse([run], out=tmp_path / "out")
    with pytest.raises(OptionError, match="without labels"):
        ird.fuse([run, run], label_weight=2.0, out=tmp_path / "out")
    with pytest.raises(OptionError, match="leave out weights, gate and labels"):
        ird.fuse([run, run], method="head", labels=train, out=tmp_path / "out")
    with pytest.raises(WrongCollectionError):
        ird.fuse([run], labels=collection("other/train"), out=tmp_path / "out")


def _evaluated(folder: Path, test: Collection) -> dict[str, str]:
    """Digests of the privileged run, its student and the student's run on the test queries."""
    train = collection()
    make_backbone(folder.parent / "model")
    teacher(folder / "teacher", train)
    with chdir(folder):  # manifests name the paths of models
        ird.fuse(["teacher"], labels=train, label_noise=0.2, out="assisted")
        student = ird.DenseStudent("../model", device="cpu")
        options = {"steps": 3, "batch_size": 4, "list_size": 4, "dropout": False}
        ird.train(train, "assisted", student, loss="KL(tau=0.2)", out="student", **options)
        ird.retrieve(test, "student/model", k=5, out="run")
        ird.evaluate(test, {"student": "run"})  # a student may be measured
    return digests(folder)


def test_no_label_of_the_test_reaches_the_student_or_its_run(tmp_path: Path) -> None:
    first = _evaluated(tmp_path / "a", collection("tiny/test"))
    flipped = _evaluated(tmp_path / "b", collection("tiny/test", shift=5))
    assert first == flipped
    # the labels of the training do reach the teacher, so the comparison above can fail
    train = collection(shift=5)
    ird.fuse([str(tmp_path / "a" / "teacher")], labels=train, out=tmp_path / "assisted")
    assert digests(tmp_path / "assisted")["part-00000.parquet"] not in first.values()
