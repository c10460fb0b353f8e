"""Vectors and scores of saved models in a process that cannot import irdistill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocker())
"""


def run_without(code: str, folder: Path, blocked: Sequence[str] = ("irdistill",)) -> str:
    """The output of Python code in a process that cannot import some packages."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    completed = subprocess.run(
        [sys.executable, "-c", _BLOCKED.format(blocked=set(blocked)) + code],
        cwd=folder,
        env=environment | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def plain_vectors(
    model: Path, texts: Sequence[str], work: Path, trust: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of texts as queries and as documents, by sentence-transformers without irdistill."""
    code = f"""
import json, numpy
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({str(model)!r}, device="cpu", trust_remote_code={trust})
texts = json.loads({json.dumps(json.dumps(list(texts)))})
numpy.savez("vectors.npz", query=model.encode_query(texts), document=model.encode_document(texts))
assert "irdistill" not in sys.modules
"""
    run_without(code, work)
    saved = np.load(work / "vectors.npz")
    return saved["query"], saved["document"]
