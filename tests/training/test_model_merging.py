"""The verb merge: files, origin, resuming, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

import irdistill as ird
from irdistill.errors import IrdistillError
from irdistill.storage.files import read_json
from irdistill.students import DenseStudent
from irdistill.training import computed_models
from irdistill.training.model_merging import merge_models
from tests.students.test_weight_averaging import changed
from tests.training.support import digests
from tests.training.tiny import make_backbone


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merge")
    backbone = str(make_backbone(folder / "backbone"))
    changed(DenseStudent(backbone, device="cpu", freeze_documents=True)).save(folder / "student")
    return folder


def test_the_verb_writes_a_model_and_its_origin(place: Path, tmp_path: Path) -> None:
    models = [place / "student", place / "backbone"]
    merged = ird.merge(models, [0.25, 0.75], out=tmp_path / "merged")
    record = read_json(tmp_path / "merged" / "training.json")
    assert [entry["weight"] for entry in record["identity"]["models"]] == [0.25, 0.75]
    assert record["identity"]["models"][0]["model"] == str(place / "student")
    assert record["finished"] and "model.safetensors" in " ".join(record["model"])
    assert merged.weights_digest() == ird.load_student(tmp_path / "merged/model").weights_digest()
    before = digests(tmp_path / "merged")
    ird.merge(models, [0.25, 0.75], out=tmp_path / "merged")
    assert digests(tmp_path / "merged") == before
    with pytest.raises(IrdistillError, match=r"models\[0\]\.weight: 0\.25 there, 0\.5 here"):
        ird.merge(models, [0.5, 0.5], out=tmp_path / "merged")
    ird.merge(models, [0.5, 0.5], out=tmp_path / "merged", overwrite=True)
    assert digests(tmp_path / "merged") != before


def test_a_merge_that_was_killed_ends_with_the_same_bytes(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    students = [DenseStudent.load(place / name) for name in ("student", "backbone")]
    merge_models(students, tmp_path / "whole", [0.3, 0.7])
    inner = computed_models.place_model

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    for step in (stop, lambda *arguments: (inner(*arguments), stop())):
        monkeypatch.setattr(computed_models, "place_model", step)
        with pytest.raises(KeyboardInterrupt):
            merge_models(students, tmp_path / "killed", [0.3, 0.7])
    monkeypatch.undo()
    merge_models(students, tmp_path / "killed", [0.3, 0.7])
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")


def test_results_in_the_cache_follow_the_files_of_the_models(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    base = DenseStudent.load(place / "backbone")
    base.save(tmp_path / "model")
    first = ird.merge([place / "student", tmp_path / "model"], [0.5, 0.5])
    again = ird.merge([place / "student", tmp_path / "model"], [0.5, 0.5])
    assert again.weights_digest() == first.weights_digest()
    changed(base, 5).save(tmp_path / "model")
    other = ird.merge([place / "student", tmp_path / "model"], [0.5, 0.5])
    assert other.weights_digest() != first.weights_digest()


def test_wrong_arguments(place: Path, tmp_path: Path) -> None:
    models = [str(place / "student"), str(place / "backbone")]
    for arguments, message in (
        ((models, [0.3, 0.3]), "have the sum 0.6; expected 1"),
        ((models[0], [1.0]), "1 model was given"),
        (({"a": models[0], "b": models[1]}, [0.5, 0.5]), "takes a list of models"),
        ((models, [2.0, -1.0]), "weights"),
    ):
        with pytest.raises(IrdistillError, match=message):
            ird.merge(*arguments, out=tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(IrdistillError, match=r"holds notes\.txt, which irdistill did not write"):
        ird.merge(models, [0.5, 0.5], out=tmp_path / "other")
