"""Rerankers of every family against plain transformers."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from irdistill.batching import TokenBudget
from irdistill.collections import Query
from irdistill.teachers import CrossEncoderTeacher, Pair, score_pairs
from tests.teachers.families import tiny_classifier

QUERIES = ["how does the cat sat", "what is heat"]
TEXTS = ["the cat sat in the red mat", "dog and bird", "heat shock wave in the cell " * 30, "why? small fish!"]
PAIRS = [Pair(Query(f"q{number}", query), row, text) for number, query in enumerate(QUERIES) for row, text in enumerate(TEXTS)]
FAMILIES = ["bert", "electra", "roberta", "xlm-roberta", "deberta-v2", "modernbert", "distilbert"]
NO_OPENVINO = pytest.mark.skipif(find_spec("openvino") is None, reason="no openvino")
#: tracing takes seconds, so of the back end openvino only those whose positions are not learned (test_teachers has BERT)
CASES = [*((family, "torch") for family in FAMILIES),
         *(pytest.param(family, "openvino", marks=NO_OPENVINO) for family in ("deberta-v2", "modernbert"))]


def plain(folder: Path) -> np.ndarray:
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()
    found = []
    for pair in PAIRS:
        given = tokenizer(pair.query.text, pair.text, truncation="longest_first", max_length=64, return_tensors="pt")
        with torch.no_grad():
            found.append(network(**given).logits[0, 0].item())
    return np.array(found, np.float32)


@pytest.mark.parametrize(("family", "backend"), CASES)
def test_a_sequence_classifier_of_any_family_gives_its_logits(tmp_path: Path, family: str, backend: str) -> None:
    folder = tiny_classifier(tmp_path / family, family)
    teacher = CrossEncoderTeacher(str(folder), precision="float32", backend=backend, device="cpu")
    assert teacher.max_length == 64
    assert teacher.head is not None and teacher.head[0].dtype == np.float32
    found, _ = score_pairs(teacher, PAIRS, TokenBudget(70))  # batches of many shapes
    expected = plain(folder)
    assert found.values == pytest.approx(expected, abs=1e-5, rel=1e-5)
    assert np.ptp(expected) > 0.05
