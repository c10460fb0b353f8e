"""Every script of examples/ runs offline and prints its result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
EXAMPLES = REPOSITORY / "examples"

#: A part of what each script prints.
SHOWN = {
    "audit_teachers.py": "nDCG@10",
    "conversational_search.py": "with history",
    "evaluate_with_significance.py": "reversed",
    "library_pages.py": "800 pages in pages",
    "score_on_ray.py": "queries",
    "small_corpus.py": "irdistill-example",
    "specialise_your_documents.py": "nDCG@10",
    "train_in_15_lines.py": "student",
    "your_own_loss.py": "trained with CappedMargin(cap=2) + 0.1*InfoNCE;",
    "your_own_teacher.py": "overlap",
}


def test_all_examples_are_tested() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(SHOWN)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that all scripts share: most encode the same 800 pages with the same model."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SHOWN))
def test_example_runs(name: str, tmp_path: Path, cache: Path) -> None:
    if name == "score_on_ray.py":
        pytest.importorskip("ray")
    assert SHOWN[name] in run_script(EXAMPLES / name, tmp_path, cache)


def run_script(script: Path, tmp_path: Path, cache: Path) -> str:
    """Run a script with temporary files in a folder of the test; returns what it prints."""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "IRDISTILL_CACHE": str(cache),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(EXAMPLES)]),
    }
    # Ray's sockets are in the temporary folder, and their paths have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="irdistill-") as short:
        done = subprocess.run(
            [sys.executable, str(script)],
            capture_output=True,
            text=True,
            env=environment | {"TMPDIR": short},
            cwd=tmp_path,
            timeout=600,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_notebook_was_executed() -> None:
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5 and all(cell["outputs"] for cell in cells)
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])


@pytest.mark.slow
def test_the_code_of_the_notebook_runs(tmp_path: Path, cache: Path) -> None:
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    script = tmp_path / "quickstart.py"
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    script.write_text("\n".join([*code, 'print(evaluation, "done")']), encoding="utf-8")
    assert "done" in run_script(script, tmp_path, cache)
