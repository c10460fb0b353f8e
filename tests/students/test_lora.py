"""Students trained by adapters: only these learn and are checkpointed, and the saved model is a
plain one.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from irdistill.errors import IrdistillError
from irdistill.students import build_student
from irdistill.students.student_base import Student
from irdistill.students.student_options import option_kinds
from irdistill.training.loop import TrainingLoop
from irdistill.training.trainer import train
from tests.students.test_matrix import LOSSES, OPTIONS, SETTINGS, plain_scores, written
from tests.training.tiny import make_backbone, make_collection, make_run

pytest.importorskip("peft", reason="LoRA needs the extra lora")
TEXTS = ["w1 w2 w3", "w4 w5", "w6 w7 w8 w9"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    make_run(folder / "scores", make_collection())
    make_backbone(folder / "backbone")
    return folder


def make(kind: str, place: Path, **settings: Any) -> Student:
    return build_student(
        kind,
        str(place / "backbone"),
        device="cpu",
        lora_rank=2,
        **SETTINGS.get(kind, {}) | settings,
    )


def scores(student: Student, query: str, texts: list[str]) -> np.ndarray:
    """By the student itself."""
    student.model.eval()
    with torch.no_grad():
        if student.kind == "cross-encoder":
            return student.embed(
                student.tokenize([(query, text) for text in texts], "pair"), "pair"
            ).numpy()  # type: ignore[list-item]
        queries, documents = (
            student.join(
                [student.embed(student.tokenize(inputs, kind), kind)], torch.arange(len(inputs))
            )
            for inputs, kind in (([query], "query"), (texts, "document"))
        )  # type: ignore[arg-type]
        return student.scores(queries, documents, torch.arange(len(texts))[None])[0][0].numpy()


@pytest.mark.parametrize("kind", option_kinds("lora_rank"))
def test_adapters_learn_and_the_saved_model_is_plain(
    kind: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = make(kind, place)
    heads = {"late-interaction": ("1.linear",), "cross-encoder": ("classifier",)}.get(kind, ())
    learning = [name for name, value in student.model.named_parameters() if value.requires_grad]
    assert any("lora_A" in name for name in learning)
    assert all("lora_" in name or any(head in name for head in heads) for name in learning)
    before = {name: value.clone() for name, value in student.model.named_parameters()}
    states: list[set[str]] = []
    inner = TrainingLoop.weights
    monkeypatch.setattr(
        TrainingLoop,
        "weights",
        lambda self: (states.append(set(inner(self))), inner(self))[1],
    )
    train(
        make_collection(),
        place / "scores",
        student,
        written(LOSSES[0], kind),
        tmp_path / "out",
        replace(OPTIONS, steps=4, learning_rate=1e-2, checkpoint_every=2),
    )
    buffers = {name for name, _ in student.model.named_buffers()}
    assert states and all(state <= {*learning, *buffers} for state in states)
    changed = {
        name
        for name, value in student.model.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert changed <= set(learning) and any("lora_B" in name for name in changed)

    model = tmp_path / "out" / "model"
    assert not list(model.rglob("adapter_*"))
    untrained = plain_scores(kind, make_saved(kind, place, tmp_path), "w1 w2", TEXTS)
    result = plain_scores(kind, model, "w1 w2", TEXTS)
    assert np.allclose(result, scores(student, "w1 w2", TEXTS), atol=1e-5)
    assert not np.allclose(result, untrained, atol=1e-4)


def make_saved(kind: str, place: Path, folder: Path) -> Path:
    """The student before training: B is 0, so it scores as its backbone does."""
    student = make(kind, place)
    student.save(folder / "untrained")
    plain = build_student(kind, str(place / "backbone"), device="cpu", **SETTINGS.get(kind, {}))
    assert np.allclose(scores(plain, "w1 w2", TEXTS), scores(student, "w1 w2", TEXTS), atol=1e-6)
    return folder / "untrained"


@pytest.mark.parametrize("kind", ["dense", "cross-encoder"])
def test_adapters_alone_are_saved_where_asked_for(kind: str, place: Path, tmp_path: Path) -> None:
    student = make(kind, place, lora_merge=False, lora_targets=["query", "value"])
    with torch.no_grad():
        for name, value in student.model.named_parameters():
            if "lora_B" in name or ("classifier" in name and value.requires_grad):
                value.add_(0.1)
    student.save(tmp_path / "model")
    config = json.loads(next((tmp_path / "model").rglob("adapter_config.json")).read_text())
    assert (
        sorted(config["target_modules"]) == ["query", "value"]
        and config["r"] == 2
        and config["lora_alpha"] == 4
    )
    assert not list((tmp_path / "model").rglob("model.safetensors"))
    assert np.allclose(
        plain_scores(kind, tmp_path / "model", "w1 w2", TEXTS),
        scores(student, "w1 w2", TEXTS),
        atol=1e-5,
    )


def test_a_query_tower_alone_has_adapters(place: Path, tmp_path: Path) -> None:
    """The frozen document tower stays the backbone, byte for byte."""
    student = make("dense", place, query_layers=1)
    learning = [name for name, value in student.model.named_parameters() if value.requires_grad]
    assert learning and all("sub_modules.query" in name and "lora_" in name for name in learning)
    plain = build_student("dense", str(place / "backbone"), device="cpu", query_layers=1)
    assert student.weights_digest("document") == plain.weights_digest("document")
    student.save(tmp_path / "model")
    assert np.allclose(
        plain_scores("dense", tmp_path / "model", "w1 w2", TEXTS),
        scores(plain, "w1 w2", TEXTS),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_rank": 0.5}, "lora_rank=0.5"),
        ({"lora_alpha": -1}, "lora_alpha=-1"),
        ({"lora_targets": ["nothing"]}, "lora_targets"),
        ({"layers": 1, "lora_merge": False}, "shortened"),
        ({"lora_rank": None, "lora_alpha": 4}, "lora_alpha needs lora_rank"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str, place: Path) -> None:
    with pytest.raises(IrdistillError, match=message):
        build_student("dense", str(place / "backbone"), device="cpu", **{"lora_rank": 2} | settings)


@pytest.mark.parametrize("kind", ["kernel", "split-cross-encoder"])
def test_adapters_of_other_kinds_are_refused(kind: str, place: Path) -> None:
    with pytest.raises(IrdistillError, match=f"a {kind} student has no option lora_rank"):
        build_student(kind, str(place / "backbone"), lora_rank=2, device="cpu")
