"""Every script of examples/ runs offline and prints its result."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
EXAMPLES = REPOSITORY / "examples"

#: A part of what each script prints.
SHOWN = {
    "audit_teachers.py": "nDCG@10",
    "conversational_search.py": "with history",
    "evaluate_with_significance.py": "reversed",
    "score_on_ray.py": "queries",
    "small_corpus.py": "irdistill-example",
    "specialise_your_documents.py": "nDCG@10",
    "train_in_15_lines.py": "student",
    "your_own_loss.py": "trained with CappedMargin(cap=2) + 0.1*InfoNCE(tau=0.05)",
    "your_own_teacher.py": "overlap",
}


def test_all_examples_are_tested() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(SHOWN)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SHOWN))
def test_example_runs(name: str, tmp_path: Path) -> None:
    if name == "score_on_ray.py":
        pytest.importorskip("ray")
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "IRDISTILL_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": str(REPOSITORY),
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert SHOWN[name] in done.stdout
