"""A corpus with hostile ids and texts, tiny models, and packages of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from irdistill.bundles.bundle_manifest import Bundle
from irdistill.bundles.package_options import PackageOptions
from irdistill.bundles.packaging import package_model
from irdistill.collections import Collection
from irdistill.students import load_student
from irdistill.students.student_base import Student
from tests.students.tiny import WORDS, tiny_backbone
from tests.teachers.tiny import tiny_colbert, tiny_splade

HOSTILE = {
    'quote"d\\': ("tab\tand\\backslash", "the cat\nsat on\r\nthe mat \\. \\N"),
    "new\nline": ("", "a big dog and a small fish \u2028 in the rain"),
    "é🙂漢": ("ünïcode 🙂", "heat shock wave of the jet"),
    "'; DROP TABLE documents; --": ("$q$ ' \" {x} %s", "the gene of a protein"),
    "a#1": ("", "red blue green <b>fast</b> & slow"),
    "long-" + "x" * 600: ("", "bird wing and air flow"),
    "nul": ("", "snow\0rain"),
}
QUERIES = ["the small dog", "heat of the jet", "gene and protein", "cat"]


def small_collection(documents: int = 40) -> Collection:
    """Documents of the words that the tiny models know, then the hostile ones, and an empty one."""
    docs: dict[str, tuple[str, str]] = {
        f"d{number}": (
            WORDS[number % len(WORDS)],
            " ".join(WORDS[(number * step) % len(WORDS)] for step in range(1, 4 + number % 7)),
        )
        for number in range(documents)
    }
    return Collection.from_dicts("small", docs | HOSTILE | {"empty": ("", "")}, {})


def tiny_model(kind: str, folder: Path) -> Student:
    """A model of random weights of a kind."""
    if kind == "dense":
        path = tiny_backbone(folder / "dense", layers=2)
    else:
        path = tiny_splade(folder / "s") if kind == "sparse" else tiny_colbert(folder / "l")
    return load_student(path, device="cpu")


def package(
    student: Student, out: Path, corpus: Collection | None = None, **options: object
) -> Bundle:
    """A package of the small collection in full precision."""
    chosen = PackageOptions(**{"precision": "float32", **options})  # type: ignore[arg-type]
    return package_model((corpus or small_collection()).corpus, student, out, chosen)


def run_without_irdistill(script: Path, question: str) -> str:
    """What a script prints in a process that cannot import irdistill."""
    code = (
        "import runpy, sys; sys.modules['irdistill'] = None;"
        f"sys.argv = [{str(script)!r}, {question!r}]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        cwd=script.parent.parent,
        env=environment | {"HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()
