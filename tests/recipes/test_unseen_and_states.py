"""The recipes of the text bank and of middle layers, whole, on real text and a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from irdistill.card_files import card_folder
from irdistill.recipes import read_recipe, run_recipe
from irdistill.storage.files import read_json
from tests.recipes.tiny import beir_folder, pydocs_folder
from tests.students.tiny import tiny_backbone

SMALL = ("k=12", "steps=3", "batch_size=4", "list_size=6")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("recipes")
    pydocs_folder(folder / "data")
    beir_folder(folder / "other")
    tiny_backbone(folder / "model", layers=2)
    return folder


def ran(name: str, place: Path, *changes: str) -> Path:
    shared = (f"train={place}/data#train", f"test={place}/data#test", f"encoder={place}/model")
    path = card_folder("recipes") / f"{name}.yaml"
    return run_recipe(read_recipe(path, [*shared, *SMALL, *changes]), place / name)


@pytest.mark.slow
def test_the_report_has_the_retention_on_unseen_collections(place: Path) -> None:
    out = ran("text-bank", place, f"unseen={place}/other#test", f"bank=[{place}/other:documents]",
              "bank_size=9", "bank_queries=2")  # fmt: skip
    record = read_json(out / "student-banked" / "training.json")["identity"]
    assert (record["bank"]["queries"], record["bank"]["weight"]) == (2, 3.0)
    assert "bank" not in read_json(out / "student-plain" / "training.json")["identity"]
    rows = read_json(out / "results.json")["rows"]
    known = {(row["system"], row["dataset"]): row["trained"] for row in rows}
    assert known["with a bank", f"{place}/data#test"] is True
    assert known["with a bank", f"{place}/other#test"] is False
    assert known["encoder", f"{place}/other#test"] is None
    assert "Retention" in (out / "report.md").read_text()


@pytest.mark.slow
def test_three_starts_of_one_student(place: Path) -> None:
    out = ran("middle-layer", place, "word_steps=2", "state_steps=2", "max_length=24",
              "config={hidden_size: 16, num_attention_heads: 2}")  # fmt: skip
    for name, teacher in (("states", 1), ("words", None), ("nothing", None)):
        identity = read_json(out / name / "training.json")["identity"]
        assert identity.get("teacher", {}).get("layer") == teacher
    systems = {row["system"] for row in read_json(out / "results.json")["rows"]}
    assert systems == {"words", "states", "nothing"}
