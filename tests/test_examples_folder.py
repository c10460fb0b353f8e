"""Every script in examples/ runs offline, on a small collection with a small model."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.recipes.tiny import beir_folder
from tests.students.tiny import tiny_backbone

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((REPOSITORY / "examples").glob("*.py"))
NEEDS = {"score_on_ray.py": "ray", "evaluate_with_significance.py": "pandas"}
PRINTS = {
    "score_and_train.py": "| student ",
    "own_teacher.py": "| overlap ",
    "own_loss.py": "SmoothL1(tau=0.5)",
    "audit_teachers.py": "fused",
    "evaluate_with_significance.py": "after Holm's correction",
    "specialise_documents.py": "## In words",
    "conversational_search.py": "| rewritten ",
    "score_on_ray.py": "16 queries",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small collection and a small model."""
    folder = tmp_path_factory.mktemp("examples")
    beir_folder(folder / "data")
    tiny_backbone(folder / "model", layers=2)
    return folder


def test_there_are_eight_examples_and_the_page_lists_them() -> None:
    page = (REPOSITORY / "examples" / "README.md").read_text(encoding="utf-8")
    assert len(SCRIPTS) >= 8 and all(f"`{path.name}`" in page for path in SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_an_example_runs(script: Path, place: Path) -> None:
    library = NEEDS.get(script.name)
    if library and find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    data = str(place / "data")
    arguments = [f"{data}#train", f"{data}#test", str(place / "model")]
    if script.name == "specialise_documents.py":
        arguments[0] = f"{data}#test"
    if script.name == "conversational_search.py":
        arguments = []
    environment = os.environ | {
        "IRDISTILL_CACHE": str(place / "cache"),
        "PYTHONPATH": str(REPOSITORY),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert PRINTS[script.name] in done.stdout
