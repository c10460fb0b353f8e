"""Every script in examples/ runs offline, on a small collection with a small model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.recipes.tiny import beir_folder
from tests.students.tiny import tiny_backbone

<<<<<<< HEAD
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
=======
#: A part of what each script prints.
SHOWN = {
    "audit_teachers.py": "nDCG@10",
    "conversational_search.py": "with history",
    "evaluate_with_significance.py": "reversed",
    "score_on_ray.py": "queries",
    "small_corpus.py": "irdistill-example",
    "specialise_your_documents.py": "nDCG@10",
    "train_in_15_lines.py": "student",
    "your_own_loss.py": "trained with CappedMargin(cap=2) + 0.1*InfoNCE;",
    "your_own_teacher.py": "overlap",
>>>>>>> main
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small collection and a small model."""
    folder = tmp_path_factory.mktemp("examples")
    beir_folder(folder / "data")
    tiny_backbone(folder / "model", layers=2)
    return folder


<<<<<<< HEAD
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
=======
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SHOWN))
def test_example_runs(name: str, tmp_path: Path) -> None:
    if name == "score_on_ray.py":
        pytest.importorskip("ray")
    assert SHOWN[name] in run_script(EXAMPLES / name, tmp_path)


def run_script(script: Path, tmp_path: Path) -> str:
    """Run a script with caches and temporary files in a folder of the test; returns what it prints."""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "IRDISTILL_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(EXAMPLES)]),
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, str(script)],
>>>>>>> main
        capture_output=True,
        text=True,
        timeout=300,
    )
<<<<<<< HEAD
    assert done.returncode == 0, done.stderr[-3000:]
    assert PRINTS[script.name] in done.stdout
=======
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_notebook_was_executed() -> None:
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5 and all(cell["outputs"] for cell in cells)
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])


@pytest.mark.slow
def test_the_code_of_the_notebook_runs(tmp_path: Path) -> None:
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    script = tmp_path / "quickstart.py"
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    script.write_text("\n".join([*code, 'print(evaluation, "done")']), encoding="utf-8")
    assert "done" in run_script(script, tmp_path)
>>>>>>> main
