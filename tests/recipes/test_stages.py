"""Schedules of several stages: a train stage that goes on from the student of an earlier one,
whatever its kind.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from irdistill.errors import IrdistillError
from irdistill.recipes import read_recipe, run_recipe
from irdistill.storage.files import read_json
from irdistill.students import build_student
from irdistill.students.build import STUDENTS
from tests.recipes.tiny import beir_folder
from tests.students.tiny import tiny_backbone
from tests.training.tiny import make_backbone

RECIPE = """
name: stages
description: Warm up on labels, then distil, then search with the student for harder lists and distil again.
settings: {data: DATA, model: MODEL}
stages:
  - {name: candidates, verb: retrieve, collection: "${data}#train", k: 8}
  - {name: teacher, verb: score, collection: "${data}#train", candidates: "${candidates}", teacher: bm25}
  - &stage {name: warm-up, verb: train, collection: "${data}#train", scores: "${teacher}", student: KIND, SETTINGS
     loss: 'InfoNCE(negatives="list")', backbone: "${model}", steps: 3, batch_size: 2, list_size: 4, learning_rate: 0.01}
  - {name: distilled, verb: train, collection: "${data}#train", scores: "${teacher}", student: KIND, loss: KL(teacher_tau=4),
     backbone: "${warm-up}", steps: 3, batch_size: 2, list_size: 4, learning_rate: 0.001, schedule: cosine, floor: 0.1}
MORE"""
MINED = """
  - {name: hard, verb: retrieve, collection: "${data}#train", model: "${distilled}", k: 8}
  - {name: hard-teacher, verb: score, collection: "${data}#train", candidates: "${hard}", teacher: bm25}
  - {name: again, verb: train, collection: "${data}#train", scores: "${hard-teacher}", loss: KL(teacher_tau=4),
     backbone: "${distilled}", epochs: 1, batch_size: 2, list_size: 4, learning_rate: 0.001}
"""
KINDS = {
    "dense": "query_layers: 1,",
    "sparse": "inference_free: true,",
    "late-interaction": "dimension: 8,",
    "cross-encoder": "",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_goes_on_from_the_student_of_the_one_before(kind: str, tmp_path: Path) -> None:
    data, model = beir_folder(tmp_path / "data"), tiny_backbone(tmp_path / "model")
    text = (
        RECIPE.replace("KIND", kind)
        .replace("SETTINGS", KINDS[kind])
        .replace("MORE", MINED if kind == "dense" else "")
    )
    path = tmp_path / "stages.yaml"
    path.write_text(text.replace("DATA", str(data)).replace("MODEL", str(model)))
    out = run_recipe(read_recipe(path), tmp_path / "out")
    stages = ["warm-up", "distilled", *(["again"] if kind == "dense" else [])]
    for before, after in pairwise(stages):
        first, then = (
            STUDENTS[kind].load(out / name / "model", device="cpu") for name in (before, after)
        )
        assert (
            read_json(out / after / "training.json")["identity"]["student"]["weights"]
            == first.weights_digest()
        )
        assert then.weights_digest() != first.weights_digest()
        assert [type(module) for module in then.model.modules()] == [
            type(module) for module in first.model.modules()
        ]
        learning = [
            [name for name, value in student.model.named_parameters() if value.requires_grad]
            for student in (first, then)
        ]
        assert learning[0] == learning[1]
        if kind == "dense":  # the document tower stayed frozen through all stages
            assert then.weights_digest("document") == first.weights_digest("document")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("dense", {}),
        ("dense", {"freeze_documents": True}),
        ("sparse", {}),
        ("sparse", {"inference_free": True}),
        ("late-interaction", {"dimension": 8, "expand_queries": 6}),
        ("cross-encoder", {}),
    ],
)
def test_a_saved_student_is_taken_as_it_is(
    kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    student = build_student(
        kind, str(make_backbone(tmp_path / "backbone")), device="cpu", **settings
    )
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(0.01)  # so that a head that is made anew is seen
    student.save(tmp_path / "saved")
    again = build_student(kind, str(tmp_path / "saved"), device="cpu")
    assert again.weights_digest() == student.weights_digest()
    for side in student.sides:
        assert again.max_length(side) == student.max_length(side) and again.learns(
            side
        ) == student.learns(side)
    cut = build_student(kind, str(tmp_path / "saved"), device="cpu", max_length=9)
    assert (
        cut.weights_digest() == student.weights_digest() and cut.max_length(student.sides[-1]) == 9
    )
    if settings.get("inference_free"):
        with pytest.raises(
            IrdistillError, match="has no query model, so the query length is fixed"
        ):
            build_student(kind, str(tmp_path / "saved"), device="cpu", max_query_length=5)
