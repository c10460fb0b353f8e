"""A trained SPLADE model as retriever, teacher, student and index, on a real collection."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill.collections import Collection, load_collection
from irdistill.evaluation import evaluate
from irdistill.search import RetrieveOptions, recall, retrieve
from irdistill.students import SparseStudent, build_student, load_student
from irdistill.teachers import load_teacher, score
from irdistill.training import TrainOptions, train
from tests.search.lucene_support import needs_lucene
from tests.students.real_sparse import MODEL, needs_splade, splade_folder

pytestmark = needs_splade
FLOAT: dict[str, Any] = {"precision": "float32"}


@pytest.fixture(scope="module")
def adi(adi_folder: Path) -> Collection:
    return load_collection(f"{adi_folder}#test")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("splade")


@pytest.fixture(scope="module")
def model(work: Path) -> str:
    """The collection with short texts, for speed."""
    return str(splade_folder(work / "model", max_length=48))


@pytest.fixture(scope="module")
def run(adi: Collection, model: str, work: Path) -> Any:
    return retrieve(adi, model, work / "run", 20, options=RetrieveOptions(**FLOAT), work=work)


@pytest.mark.slow
def test_the_detected_kind_is_better(adi: Collection, work: Path) -> None:
    runs = {
        kind: retrieve(
            adi, MODEL, work / kind, 20, options=RetrieveOptions(kind=kind, **FLOAT), work=work
        )
        for kind in ("sparse", "dense")
    }
    values = {row.system: row.value for row in evaluate(adi, runs, "nDCG@10").rows}
    assert (
        values["sparse"] == pytest.approx(0.3952, abs=0.002)
        and values["dense"] < values["sparse"] - 0.04
    )


needs_seismic = pytest.mark.skipif(
    find_spec("seismic") is None, reason="needs pip install 'irdistill[seismic]'"
)


@pytest.mark.parametrize(
    "index",
    [pytest.param("seismic", marks=needs_seismic), pytest.param("lucene", marks=needs_lucene)],
)
def test_indexes_find_the_exact_top_k(
    index: Any, adi: Collection, run: Any, model: str, work: Path
) -> None:
    approximate = retrieve(
        adi, model, work / index, 20, options=RetrieveOptions(index=index, **FLOAT), work=work
    )
    assert (recall(approximate) or 0) > 0.97
    same = np.mean(
        [one.doc_ids[:5] == other.doc_ids[:5] for one, other in zip(run, approximate, strict=True)]
    )
    assert same > 0.9
    exact = dict(zip(run["1"].doc_ids, run["1"].scores, strict=True)) if "1" in adi.queries else {}
    for doc_id, value in zip(
        *((approximate["1"].doc_ids, approximate["1"].scores) if exact else ((), ())), strict=True
    ):
        assert doc_id not in exact or value == pytest.approx(float(exact[doc_id]), rel=1e-4)


def test_teacher_scores_equal_student_scores(
    adi: Collection, run: Any, model: str, work: Path
) -> None:
    teacher = load_teacher(model, adi.corpus, work=work, **FLOAT)
    scored = score(adi, run, teacher, work / "scores")
    for one, other in zip(run, scored, strict=True):
        expected = dict(zip(one.doc_ids, one.scores, strict=True))
        assert all(
            value == pytest.approx(float(expected[doc]), rel=1e-3, abs=1e-3)
            for doc, value in zip(other.doc_ids, other.scores, strict=True)
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"inference_free": True},
        {"inference_free": True, "activation": "log1p_relu"},
        {"query_layers": 1},
    ],
)
def test_students_learn_and_stay_sparse(
    settings: dict[str, Any], adi: Collection, run: Any, model: str, work: Path, tmp_path: Path
) -> None:
    scored = score(adi, run, load_teacher(model, adi.corpus, work=work, **FLOAT), work / "scores")
    student = build_student("sparse", MODEL, device="cpu", max_length=48, **settings)
    assert isinstance(student, SparseStudent)
    texts = list(adi.corpus.texts(range(20)))
    before = student.encode(texts, show_progress=False, **FLOAT)
    # a backbone with a known kind has no random weights
    assert 20 < before.nnz / 20 < 300
    train(
        adi,
        scored,
        student,
        "KL(tau=2)",
        tmp_path / "out",
        TrainOptions(
            steps=3,
            batch_size=4,
            list_size=4,
            learning_rate=1e-4,
            query_flops=0.01,
            checkpoint_every=0,
        ),
    )
    after: Any = load_student(tmp_path / "out" / "model", device="cpu")
    assert (
        after.kind == "sparse"
        and after.encode(texts, show_progress=False, **FLOAT).nnz < 1.2 * before.nnz
    )


def test_a_saved_model_needs_no_kind(adi: Collection, tmp_path: Path) -> None:
    student: Any = load_student(splade_folder(tmp_path / "splade"), device="cpu")
    plain: Any = load_student(MODEL, kind="sparse", device="cpu")
    texts = list(adi.corpus.texts(range(5)))
    assert student.max_length("document") == 256
    assert (
        abs(
            student.encode(texts, show_progress=False) - plain.encode(texts, show_progress=False)
        ).max()
        < 1e-5
    )
