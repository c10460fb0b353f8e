"""The guard against forgetting: which weight is chosen, what is saved, and resuming."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import irdistill as ird
from irdistill.cli.printing import print_result
from irdistill.errors import IrdistillError
from irdistill.storage.files import read_json
from irdistill.students import DenseStudent
from irdistill.students.keep_report import KeepReport, MergedFigures, decide
from irdistill.students.weight_averaging import average_students
from irdistill.training.guarding import GRID, WeightChoice
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from irdistill.training.validation_sets import SearchedSet
from tests.training.support import LOSS, digests
from tests.training.tiny import make_backbone, make_collection, make_run, make_student

OPTIONS = TrainOptions(
    steps=8,
    batch_size=4,
    list_size=5,
    learning_rate=1e-2,
    precision="float32",
    seed=7,
    validate_every=8,
    checkpoint_every=4,
)


def rows(held_out: Mapping[float, float], probe: Mapping[float, float]) -> Any:
    return tuple(MergedFigures(w, held_out[w], {"probe": probe[w]}) for w in sorted(held_out))


@pytest.mark.parametrize(
    ("held_out", "probe", "tolerance", "weight", "verdict"),
    [
        # no probe fell: the end, whatever lies between
        ({0: 0.5, 0.5: 0.9, 1: 0.6}, {0: 0.3, 0.5: 0.1, 1: 0.3}, 0, 1, "trained"),
        # the best held-out figure among those that lower no probe
        ({0: 0.5, 0.3: 0.55, 0.6: 0.6, 1: 0.7}, {0: 0.3, 0.3: 0.31, 0.6: 0.29, 1: 0.2}, 0, 0.3, 0),
        (
            {0: 0.5, 0.3: 0.55, 0.6: 0.6, 1: 0.7},
            {0: 0.3, 0.3: 0.31, 0.6: 0.29, 1: 0.2},
            0.01,
            0.6,
            0,
        ),
        # equal figures: the smaller weight
        ({0: 0.5, 0.3: 0.6, 0.6: 0.6, 1: 0.7}, {0: 0.3, 0.3: 0.3, 0.6: 0.3, 1: 0.2}, 0, 0.3, 0),
        # every merged model lowers the probe, or gains nothing
        ({0: 0.5, 0.5: 0.6, 1: 0.7}, {0: 0.3, 0.5: 0.29, 1: 0.2}, 0, 0, "refused: the probe fell"),
        ({0: 0.5, 0.5: 0.5, 1: 0.7}, {0: 0.3, 0.5: 0.4, 1: 0.2}, 0, 0, "refused: the probe fell"),
    ],
)
def test_the_rule(
    held_out: Any, probe: Any, tolerance: float, weight: float, verdict: str | int
) -> None:
    report = decide("nDCG@10", "held out", tolerance, rows(held_out, probe))
    assert (report.weight, report.verdict) == (weight, verdict or "merged")
    assert KeepReport.from_json(json.loads(json.dumps(report.to_json()))) == report


def test_every_probe_counts() -> None:
    both = (
        MergedFigures(0, 0.5, {"a": 0.3, "b": 0.3}),
        MergedFigures(0.5, 0.6, {"a": 0.4, "b": 0.2}),
        MergedFigures(1, 0.7, {"a": 0.4, "b": 0.1}),
    )
    report = decide("nDCG@10", "held out", 0, both)
    assert report.refused and report.fallen == ["b"]
    assert "training lowered b from 0.3000 to 0.1000" in report.sentence
    assert "| 0 (chosen) | 0.5000 | 0.3000 | 0.3000 |" in str(report)


class Curve:
    """Queries whose figure is a function of the weight."""

    texts = 1

    def __init__(self, name: str, at: dict[str, float], figure: Callable[[float], float]) -> None:
        self.name, self.at, self.figure = name, at, figure
        self.calls: list[float] = []

    def measure(self) -> dict[str, float]:
        self.calls.append(self.at["weight"])
        return {"nDCG@10": self.figure(self.at["weight"])}


def choice(folder: Path, at: dict[str, float], identity: str = "a") -> tuple[WeightChoice, Curve]:
    """The probe rises up to 0.4 and falls below its start after 0.8; held-out figures rise."""
    probe = Curve("probe", at, lambda weight: 0.3 + weight * (0.8 - weight))
    held_out = Curve("held out", at, lambda weight: 0.5 + 0.1 * weight)
    return WeightChoice([held_out], [probe], "nDCG@10", 0.0, folder, {"id": identity}), probe


def test_a_killed_choice_measures_each_weight_once(tmp_path: Path) -> None:
    at = {"weight": 0.0}
    first, probe = choice(tmp_path / "whole", at)
    (tmp_path / "whole").mkdir()
    first.measure_start()
    report = first.choose("end", lambda weight: at.update(weight=weight))
    assert (report.weight, report.verdict, at["weight"]) == (0.8, "merged", 0.8)
    assert sorted(probe.calls) == list(GRID) and probe.calls[:2] == [0, 1]
    assert [row.weight for row in report.rows] == list(GRID)
    assert KeepReport.read(tmp_path / "whole") == report

    killed = tmp_path / "killed"
    killed.mkdir()
    calls: list[float] = []

    def blend(weight: float) -> None:
        if weight in (0.3, 1.0) and weight not in calls:
            calls.append(weight)
            raise KeyboardInterrupt
        at["weight"] = weight

    measured: list[float] = []
    for _ in range(3):
        again, probe = choice(killed, at)
        at["weight"] = 0.0
        again.measure_start()
        try:
            assert again.choose("end", blend) == report
        except KeyboardInterrupt:
            with pytest.raises(IrdistillError, match="no finished keep"):
                KeepReport.read(killed)
        measured += probe.calls
    assert sorted(measured) == list(GRID)
    assert digests(killed) == digests(tmp_path / "whole")
    other, probe = choice(killed, at, "b")  # figures of another training are not used
    at["weight"] = 0.0
    other.measure_start()
    assert probe.calls == [0.0]
    again, probe = choice(tmp_path / "whole", at)  # nor those of another end, but the start
    again.choose("another end", lambda weight: at.update(weight=weight))
    assert 0.0 not in probe.calls and 1.0 in probe.calls


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guard")
    make_run(folder / "scores", make_collection())
    make_backbone(folder / "backbone")
    student = make_student(folder / "backbone", frozen=True)
    train(make_collection(), folder / "scores", student, LOSS, folder / "plain", OPTIONS)
    return folder


OTHER, PROBE = replace(make_collection(20), id="other"), replace(make_collection(6), id="probe")


def guarded(
    place: Path, out: Path, keep: Any = PROBE, validate: Any = OTHER, **changes: Any
) -> DenseStudent:
    student = make_student(place / "backbone", frozen=True)
    options = replace(OPTIONS, **changes)
    collection, scores = make_collection(), place / "scores"
    train(collection, scores, student, LOSS, out, options, validate=validate, keep=keep)
    return student


@pytest.fixture()
def figures(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Lets the figures of searches be functions of how far a student is from its start."""
    start, end = make_student(place / "backbone", True), DenseStudent.load(place / "plain/model")

    def parameter(student: Any) -> float:
        return student.tower("query")[0].model.embeddings.LayerNorm.bias[3].item()

    weights: list[float] = []

    def use(held_out: Callable[[float], float], probe: Callable[[float], float]) -> list[float]:
        def measure(self: SearchedSet) -> dict[str, float]:
            far = parameter(self.student) - parameter(start)
            weight = far / (parameter(end) - parameter(start))
            curve = probe if self.name == "probe" else held_out
            if self.name == "probe":
                weights.append(round(weight, 3))
            return dict.fromkeys(self.queries.measures, curve(round(weight, 3)))

        monkeypatch.setattr(SearchedSet, "measure", measure)
        return weights

    return use


def test_the_merged_model_is_saved(
    place: Path, tmp_path: Path, figures: Callable[..., list[float]]
) -> None:
    weights = figures(lambda weight: weight, lambda weight: -abs(weight - 0.2))
    student = guarded(place, tmp_path / "out")
    assert weights == [0.0, 1.0, *GRID[1:-1]]
    record = read_json(tmp_path / "out" / "training.json")
    assert (record["keep"]["verdict"], record["keep"]["weight"]) == ("merged", 0.4)
    assert record["keep"]["rows"] == read_json(tmp_path / "out" / "keep.json")["rows"]
    start, end = make_student(place / "backbone", True), DenseStudent.load(place / "plain/model")
    saved = DenseStudent.load(tmp_path / "out" / "model")
    expected = average_students([start, end], [0.6, 0.4])
    assert saved.weights_digest() == expected.weights_digest() == student.weights_digest()


def test_a_refused_training_saves_the_start_and_says_so(
    place: Path,
    tmp_path: Path,
    figures: Callable[..., list[float]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    figures(lambda weight: weight, lambda weight: 1 - weight)
    guarded(place, tmp_path / "out")
    saved = DenseStudent.load(tmp_path / "out" / "model")
    assert saved.weights_digest() == make_student(place / "backbone", True).weights_digest()
    record = read_json(tmp_path / "out" / "training.json")
    assert record["keep"]["verdict"] == "refused: the probe fell" and record["finished"]
    warnings = [entry.message for entry in caplog.records if entry.levelname == "WARNING"]
    assert any(
        "refused: the probe fell: training lowered probe from 1.0000 to 0.0000" in text
        and "The saved model is the one at the start, unchanged." in text
        for text in warnings
    )


def test_a_tolerance_lets_a_probe_fall(
    place: Path, tmp_path: Path, figures: Callable[..., list[float]]
) -> None:
    figures(lambda weight: weight, lambda weight: -weight)
    guarded(place, tmp_path / "out", keep_tolerance=0.35)
    assert KeepReport.read(tmp_path / "out").weight == 0.3
    with pytest.raises(IrdistillError, match=r"keep\.tolerance: 0\.35 there, 0\.0 here"):
        guarded(place, tmp_path / "out")


@pytest.mark.parametrize("when", [1, 2, 5])
def test_a_training_killed_in_the_choice_ends_with_the_same_bytes(
    place: Path,
    tmp_path: Path,
    figures: Callable[..., list[float]],
    when: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures(lambda weight: weight, lambda weight: -abs(weight - 0.2))
    guarded(place, tmp_path / "whole")
    inner, calls = WeightChoice._figures, [0]

    def killed(self: WeightChoice, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == when:
            raise KeyboardInterrupt
        return inner(self, *arguments)

    monkeypatch.setattr(WeightChoice, "_figures", killed)
    with pytest.raises(KeyboardInterrupt):
        guarded(place, tmp_path / "out")
    guarded(place, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


@pytest.mark.parametrize("options", [{"frozen": True}, {"frozen": False}])
def test_figures_are_those_of_evaluate(
    place: Path, tmp_path: Path, options: dict[str, bool]
) -> None:
    student = make_student(place / "backbone", **options)
    changed = replace(OPTIONS, validate_documents=0)
    out = tmp_path / "out"
    train(
        make_collection(), place / "scores", student, LOSS, out, changed, validate=OTHER, keep=PROBE
    )
    report = KeepReport.read(out)
    start = make_student(place / "backbone", **options)
    chosen = DenseStudent.load(out / "model")
    for weight, model in ((0.0, start), (report.weight, chosen)):
        row = next(row for row in report.rows if row.weight == weight)
        for collection, value in ((OTHER, row.held_out), (PROBE, row.probes["probe"])):
            run = ird.retrieve(collection, model, k=20, out=tmp_path / f"{weight}-{collection.id}")
            figures = ird.evaluate(collection, {"model": run}, measures="nDCG@10").rows[0].value
            assert figures == pytest.approx(value, abs=1e-9)
    assert not list(out.glob(".probe*"))


def test_adapters_are_guarded(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA needs the extra lora")
    backbone = str(place / "backbone")
    student = DenseStudent(backbone, device="cpu", freeze_documents=True, lora_rank=2)
    out = tmp_path / "out"
    collection, scores = make_collection(), place / "scores"
    train(collection, scores, student, LOSS, out, OPTIONS, validate=OTHER, keep=PROBE)
    report = KeepReport.read(out)
    assert report.rows[0].weight == 0
    assert DenseStudent.load(out / "model").weights_digest() == student.weights_digest()
    adapters = DenseStudent(
        backbone, device="cpu", freeze_documents=True, lora_rank=2, lora_merge=False
    )
    with pytest.raises(IrdistillError, match="lora_merge=False saves adapters"):
        train(
            collection, scores, adapters, LOSS, tmp_path / "b", OPTIONS, validate=OTHER, keep=PROBE
        )


def test_what_contradicts_is_refused_before_training(place: Path, tmp_path: Path) -> None:
    unjudged = replace(PROBE, qrels=ird.Qrels({}))
    for keep, changes, message in (
        ((PROBE, PROBE), {}, "keep names the collections probe, probe; expected"),
        (unjudged, {}, "give keep a collection with judgments"),
        ((), {"keep_tolerance": 0.1}, "given without keep"),
        (PROBE, {"validate_measures": "loss", "validate": 0.2}, "keep chooses among merged"),
    ):
        with pytest.raises(IrdistillError, match=message):
            guarded(place, tmp_path / "out", keep, **changes)
    assert not (tmp_path / "out").exists()


def test_without_probes_the_identity_has_nothing_of_a_guard(place: Path) -> None:
    record = read_json(place / "plain" / "training.json")
    assert "keep" not in json.dumps(record["identity"]) and "keep" not in record
    assert not (place / "plain" / "keep.json").exists()


def test_the_verb_returns_and_prints_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.recipes.tiny import beir_folder
    from tests.students.tiny import tiny_backbone

    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    data = str(beir_folder(tmp_path / "data"))
    backbone = str(tiny_backbone(tmp_path / "model", layers=1))
    run = ird.retrieve(f"{data}#train", "bm25", k=10)
    student = ird.train(
        f"{data}#train",
        run,
        backbone=backbone,
        freeze_documents=True,
        loss="KL",
        steps=2,
        batch_size=2,
        list_size=3,
        keep=f"{data}#test",
        out=tmp_path / "out",
    )
    report = student.keep_report
    assert report is not None and report == KeepReport.read(tmp_path / "out")
    assert set(report.rows[0].probes) == {f"{data}#test"} and report.held_out == "held out"
    print_result("train", student, {"out": tmp_path / "out"}, tmp_path / "result.json")
    printed = capsys.readouterr().out
    assert report.sentence in printed and str(tmp_path / "out" / "model") in printed
    assert read_json(tmp_path / "result.json")["keep"] == report.to_json()
    assert torch.get_num_threads() == 1
