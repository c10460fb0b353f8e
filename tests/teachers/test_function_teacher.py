"""The user's functions and classes as teachers."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill.cli.entry_point import main
from irdistill.collections import Collection, load_collection
from irdistill.errors import IrdistillError, ModelError, NotFoundError, OptionError
from irdistill.recipes.recipe import Stage
from irdistill.recipes.stages import RecipeContext, run_stage
from irdistill.runs import MemoryRun, RankedList, Run, RunIdentity, open_run
from irdistill.search import retrieve
from irdistill.teachers import (
    FunctionTeacher,
    ScoreOptions,
    TeacherScores,
    TextPair,
    load_teacher,
    score,
    teacher,
)

DOCS = {"d1": "the cat sat on the mat", "d2": "a dog", "d3": "cat and dog", "d4": "  "}
QUERIES = {f"q{number}": f"cat {number}" for number in range(6)}
MODULE = """
def overlap(queries, documents, weight=1.0):
    assert isinstance(queries, list) and isinstance(documents, list)
    return [
        weight * len(set(query.split()) & set(document.split()))
        for query, document in zip(queries, documents)
    ]


class Lengths:
    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    @property
    def identity(self):
        return {"kind": "lengths", "factor": self.factor}

    def score(self, pairs):
        import numpy as np
        from irdistill.teachers import TeacherScores

        return TeacherScores(np.array([self.factor * len(p.text) for p in pairs], np.float32))


number = 3
"""


def overlap(queries: list[str], documents: list[str]) -> list[float]:
    return [
        float(len(set(query.split()) & set(document.split())))
        for query, document in zip(queries, documents, strict=True)
    ]


def constant(queries: list[str], documents: list[str]) -> list[float]:
    return [1.0] * len(documents)


@pytest.fixture
def collection() -> Collection:
    return Collection.from_dicts("tiny", DOCS, QUERIES, {"q0": {"d1": 1}})


@pytest.fixture
def candidates(collection: Collection) -> MemoryRun:
    lists = [RankedList(query, list(DOCS), np.array([4, 3, 2, 1], np.float32)) for query in QUERIES]
    return MemoryRun(RunIdentity("first-stage", {}, collection.describe()), lists)


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "my_teachers.py"
    path.write_text(MODULE)
    return path


def pairs_of(collection: Collection) -> list[TextPair]:
    query = collection.queries["q0"]
    return [TextPair(query, row, collection.corpus.text(row)) for row in range(3)]


def values(run: Run) -> list[float | None]:
    scores = dict(zip(run["q0"].doc_ids, run["q0"].scores, strict=True))
    return [None if np.isnan(scores[doc]) else float(scores[doc]) for doc in DOCS]


def test_a_function_scores_a_run(
    collection: Collection, candidates: MemoryRun, tmp_path: Path
) -> None:
    run = score(collection, candidates, overlap, tmp_path / "run", ScoreOptions(part_queries=2))
    assert values(run) == [1.0, 0.0, 1.0, None]
    assert run.manifest.nulls == len(QUERIES)
    producer = run.identity.producer
    assert producer["model"] == "tests.teachers.test_function_teacher:overlap"
    assert len(producer["source"]) == 16


def test_a_stopped_job_resumes_with_the_same_bytes(
    collection: Collection, candidates: MemoryRun, tmp_path: Path
) -> None:
    calls = []

    @teacher(name="stopping", version="1")
    def stopping(queries: list[str], documents: list[str]) -> list[float]:
        calls.append(len(documents))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return overlap(queries, documents)

    options = ScoreOptions(part_queries=2)
    with pytest.raises(KeyboardInterrupt):
        score(collection, candidates, stopping, tmp_path / "run", options)
    resumed = score(collection, candidates, stopping, tmp_path / "run", options)
    assert calls == [6, 6, 6, 6]
    whole = score(collection, candidates, stopping, tmp_path / "whole", options)
    assert resumed.fingerprint == whole.fingerprint
    for path in (tmp_path / "whole").iterdir():
        if path.suffix not in (".json", ".parquet"):
            continue
        assert path.read_bytes() == (tmp_path / "run" / path.name).read_bytes()


def test_another_function_does_not_resume_a_run(
    collection: Collection, candidates: MemoryRun, tmp_path: Path
) -> None:
    score(collection, candidates, overlap, tmp_path / "run")
    with pytest.raises(IrdistillError, match="source"):
        score(collection, candidates, constant, tmp_path / "run")


def test_none_and_nan_are_not_scored_and_other_results_stop(collection: Collection) -> None:
    pairs = pairs_of(collection)

    def returning(result: Any) -> FunctionTeacher:
        return FunctionTeacher(teacher(name="x", version="1")(lambda queries, documents: result))

    scores = returning([1, None, float("nan")]).score(pairs)
    assert scores.values.tolist()[0] == 1.0 and np.isnan(scores.values[1:]).all()
    assert scores.flags == [None, "not scored", "not scored"]
    assert returning(np.arange(3)).score(pairs).flags is None
    with pytest.raises(ModelError, match=r"shape \(2,\)"):
        returning([1, 2]).score(pairs)
    with pytest.raises(ModelError, match="not a list of numbers"):
        returning(["high", "low", "low"]).score(pairs)


def test_an_infinite_score_stops(
    collection: Collection, candidates: MemoryRun, tmp_path: Path
) -> None:
    @teacher(name="infinite", version="1")
    def infinite(queries: list[str], documents: list[str]) -> list[float]:
        return [float("inf")] * len(documents)

    with pytest.raises(ModelError, match="inf"):
        score(collection, candidates, infinite, tmp_path / "run")


def test_the_batch_size_limits_a_call(collection: Collection) -> None:
    sizes = []

    @teacher(name="small", version="1", batch_size=2)
    def small(queries: Sequence[str], documents: Sequence[str]) -> list[float]:
        sizes.append(len(documents))
        return [float(len(document)) for document in documents]

    assert FunctionTeacher(small).score(pairs_of(collection)).values.tolist() == [22.0, 5.0, 11.0]
    assert sizes == [2, 1]
    with pytest.raises(OptionError, match="batch_size"):
        teacher(batch_size=0)


def test_the_identity_covers_values_that_a_function_closes_over() -> None:
    def scaled(factor: float) -> FunctionTeacher:
        return FunctionTeacher(lambda queries, documents: [factor] * len(documents))

    assert scaled(1.0).identity == scaled(1.0).identity
    assert scaled(1.0).identity != scaled(2.0).identity


def test_a_function_without_source_or_name_needs_a_declared_identity() -> None:
    namespace: dict[str, Any] = {"__name__": "generated"}
    exec("def f(queries, documents): return [0] * len(documents)", namespace)
    with pytest.raises(OptionError, match="source"):
        FunctionTeacher(namespace["f"])
    named = teacher(version="1")(namespace["f"])
    assert FunctionTeacher(named).identity["version"] == "1"
    with pytest.raises(OptionError, match="partial"):
        FunctionTeacher(functools.partial(overlap))


def test_a_reference_needs_permission(collection: Collection, module: Path) -> None:
    with pytest.raises(OptionError, match="--trust-remote-code"):
        load_teacher(f"{module}:overlap", collection.corpus)
    assert "_irdistill_file_my_teachers" not in sys.modules
    card = module.with_name("card.yaml")
    card.write_text(f"kind: function\nmodel: {module}:overlap\nsettings: {{weight: 2.0}}\n")
    with pytest.raises(OptionError, match="--trust-remote-code"):
        load_teacher(str(card), collection.corpus)
    loaded = load_teacher(str(card), collection.corpus, trust_remote_code=True)
    assert loaded.score(pairs_of(collection)).values.tolist() == [2.0, 0.0, 2.0]
    card.write_text(
        f"kind: function\nmodel: {module}:overlap\nsettings: {{trust_remote_code: true}}\n"
    )
    with pytest.raises(OptionError, match="--trust-remote-code"):
        load_teacher(str(card), collection.corpus)


def test_a_file_and_a_module_have_one_identity(
    collection: Collection, module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_file = load_teacher(f"{module}:overlap", collection.corpus, trust_remote_code=True)
    monkeypatch.chdir(module.parent)
    by_name = load_teacher("my_teachers:overlap", collection.corpus, trust_remote_code=True)
    assert by_file.identity == by_name.identity
    assert by_file.identity["model"] == "my_teachers:overlap"
    weighted = load_teacher(
        "my_teachers:overlap", collection.corpus, trust_remote_code=True, weight=3.0
    )
    assert weighted.score(pairs_of(collection)).values.tolist() == [3.0, 0.0, 3.0]
    assert weighted.identity["settings"] == {"weight": 3.0}
    for name, problem in (
        ("my_teachers:absent", "absent"),
        ("no_such_module_here:f", "no_such"),
        (f"{module.parent}/none.py:f", "no file"),
    ):
        with pytest.raises(NotFoundError, match=problem):
            load_teacher(name, collection.corpus, trust_remote_code=True)


def test_a_class_is_a_teacher(collection: Collection, module: Path) -> None:
    loaded = load_teacher(
        f"{module}:Lengths", collection.corpus, trust_remote_code=True, factor=2.0
    )
    assert loaded.identity == {"kind": "lengths", "factor": 2.0}
    assert loaded.score(pairs_of(collection)).values.tolist() == [44.0, 10.0, 22.0]
    with pytest.raises(OptionError, match="factr"):
        load_teacher(f"{module}:Lengths", collection.corpus, trust_remote_code=True, factr=2.0)


class _Half:
    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "half"}

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        return TeacherScores(np.full(len(pairs), 0.5, np.float32))


def test_an_object_is_a_teacher_and_takes_no_options(
    collection: Collection, candidates: MemoryRun, tmp_path: Path
) -> None:
    run = score(collection, candidates, _Half(), tmp_path / "run")
    assert values(run) == [0.5, 0.5, 0.5, None]
    with pytest.raises(OptionError, match="max_length"):
        score(collection, candidates, _Half(), tmp_path / "other", ScoreOptions(max_length=8))


def test_the_command_line_and_recipes_take_a_function(
    module: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", DOCS), ("queries", QUERIES)):
        lines = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td1\t1\n")
    data = load_collection(f"{folder}#test")
    retrieve(data, "bm25", tmp_path / "first", 2, work=tmp_path / "work")
    words = ["score", f"{folder}#test", "--candidates", "first", "--teacher", "my_teachers:overlap"]
    with pytest.raises(SystemExit):
        main([*words, "--out", "run"])
    assert "--trust-remote-code" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main([*words, "--out", "run", "--trust-remote-code"])
    assert not stop.value.code
    arguments = {
        "collection": f"{folder}#test",
        "candidates": "first",
        "teacher": f"{module}:overlap",
        "trust_remote_code": True,
    }
    stage = Stage("stage", "score", arguments)
    run_stage(stage, arguments, tmp_path / "stage", RecipeContext())
    assert open_run(tmp_path / "stage").fingerprint == open_run(tmp_path / "run").fingerprint
