"""Split cross-encoders and kernel models as teachers: stored states give the same scores; folders
are recognized.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from irdistill import IrdistillError
from irdistill.cli.entry_point import cli
from irdistill.collections import Collection
from irdistill.runs import RankedList, RunIdentity, open_run, write_run
from irdistill.students import build_student
from irdistill.students.interaction_layers import InteractionStudent
from irdistill.teachers import ScoreOptions, TextPair, load_teacher, score, score_pairs
from irdistill.teachers.interaction_teacher import InteractionTeacher
from irdistill.teachers.teacher_kinds import kind_of
from tests.students.tiny import tiny_backbone
from tests.teachers.tiny import DOCS, QUERIES

KINDS = ["split-cross-encoder", "kernel"]
CPU: dict[str, Any] = {"precision": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def data() -> Collection:
    return Collection.from_dicts("small", DOCS, QUERIES, {"q1": {"a": 1}})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    backbone = tiny_backbone(folder / "bert", layers=3)
    for kind in KINDS:
        build_student(kind, str(backbone), max_length=20, device="cpu").save(folder / kind)
    return folder


def every_pair(data: Collection) -> list[TextPair]:
    pairs = [
        TextPair(query, row, data.corpus.text(row))
        for query in data.queries.values()
        for row in range(len(data.corpus))
    ]
    return [pairs[place] for place in np.random.default_rng(1).permutation(len(pairs))]


@pytest.mark.parametrize("kind", KINDS)
def test_stored_states_give_the_scores_of_live_ones(
    kind: str, data: Collection, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, model = every_pair(data), str(models / kind)
    assert kind_of(model) == "interaction"
    live = load_teacher(model, data.corpus, states="live", work=tmp_path, **CPU)
    stored = load_teacher(model, data.corpus, work=tmp_path, **CPU)
    assert isinstance(live, InteractionTeacher) and isinstance(stored, InteractionTeacher)
    scored, _ = score_pairs(live, pairs)
    student = live.student
    alone = [
        student.compare(
            student.encode([pair.query.text], "query", "float32")[0],
            student.encode([pair.text], "document", "float32"),
            "float32",
        )[0]
        for pair in pairs
    ]
    np.testing.assert_allclose(scored.values, alone, atol=1e-5)
    assert np.ptp(scored.values) > 1e-3
    sides: list[str] = []
    encode = InteractionStudent.encode

    def counted(self: InteractionStudent, texts: Any, side: Any, *rest: Any, **more: Any) -> Any:
        sides.extend([side] * len(texts))
        return encode(self, texts, side, *rest, **more)

    monkeypatch.setattr(InteractionStudent, "encode", counted)
    np.testing.assert_allclose(score_pairs(stored, pairs)[0].values, scored.values, atol=1e-5)
    assert sides == ["query"] * 3
    again = load_teacher(
        model, data.corpus, work=tmp_path, **CPU
    )  # finds the states that are there
    np.testing.assert_array_equal(
        score_pairs(again, pairs)[0].values, score_pairs(stored, pairs)[0].values
    )
    assert "document" not in sides
    half = load_teacher(model, data.corpus, storage="float16", work=tmp_path, **CPU)
    np.testing.assert_allclose(score_pairs(half, pairs)[0].values, scored.values, atol=2e-2)
    assert [teacher.identity["states"] for teacher in (live, stored, half)] == [
        "live",
        "stored in float32",
        "stored in float16",
    ]
    assert stored.identity["type"] == kind and stored.identity["max_document_length"] == 20


def test_large_states_are_not_stored(
    data: Collection, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irdistill.teachers.interaction_teacher._KEPT", 5 * 20 * 32 * 4 - 1)
    for storage, kept in (("float32", False), ("float16", True)):
        teacher = load_teacher(
            str(models / "kernel"), data.corpus, storage=storage, work=tmp_path / storage, **CPU
        )
        assert isinstance(teacher, InteractionTeacher) and (teacher.store is not None) == kept


def test_wrong_settings_and_models_are_refused(
    data: Collection, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(IrdistillError, match="states is 'kept' and storage is 'float32'"):
        load_teacher(str(models / "kernel"), data.corpus, states="kept", work=tmp_path, **CPU)
    with pytest.raises(
        IrdistillError, match="is not a saved split-cross-encoder or kernel student"
    ):
        load_teacher(str(models / "bert"), data.corpus, kind="interaction", work=tmp_path, **CPU)
    with pytest.raises(IrdistillError, match=r"has no setting max_length.*states"):
        load_teacher(str(models / "kernel"), data.corpus, max_length=5, work=tmp_path, **CPU)


def test_a_run_scored_in_parts_is_the_run_scored_whole(
    data: Collection, models: Path, tmp_path: Path
) -> None:
    candidates = write_run(
        tmp_path / "candidates",
        RunIdentity("first-stage", {"model": "all"}, data.describe(), None, {}),
        [
            RankedList(query_id, list(DOCS), np.arange(5, 0, -1, dtype=np.float32), None)
            for query_id in QUERIES
        ],
    )
    teacher = load_teacher(str(models / "split-cross-encoder"), data.corpus, work=tmp_path, **CPU)
    whole = score(data, candidates, teacher, tmp_path / "whole")
    parts = score(data, candidates, teacher, tmp_path / "parts", ScoreOptions(part_queries=1))
    for query_id in QUERIES:
        np.testing.assert_allclose(whole[query_id].scores, parts[query_id].scores, atol=1e-5)
    assert dict(whole.manifest.identity.producer)["kind"] == "interaction"


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_trains_and_reranks_with_them(
    kind: str, data: Collection, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set" / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", DOCS), ("queries", QUERIES)):
        (tmp_path / "set" / f"{name}.jsonl").write_text(
            "".join(json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items())
        )
    (tmp_path / "set" / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\ta\t1\nq2\tc\t1\nq3\tb\t1\n"
    )

    def run(*arguments: str) -> None:
        done = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
        assert done.exit_code == 0, done.output

    place, out = str(tmp_path / "set"), str(tmp_path / "out")
    run("retrieve", place, "--model", "bm25", "--out", out + "/bm25")
    shape = ["--split-layer", "1"] if kind == "split-cross-encoder" else ["--dimension", "20"]
    run(
        "train",
        place,
        "--scores",
        out + "/bm25",
        "--student",
        kind,
        "--backbone",
        str(models / "bert"),
        "--loss",
        "KL(teacher_tau=2)",
        "--steps",
        "2",
        "--batch-size",
        "2",
        "--list-size",
        "3",
        "--head-learning-rate",
        "0.001",
        "--max-length",
        "12",
        "--max-query-length",
        "6",
        *shape,
        "--out",
        out + "/student",
    )
    saved = json.loads(
        (tmp_path / "out" / "student" / "model" / "irdistill_student.json").read_text()
    )
    assert (saved["kind"], saved["max_query_length"], saved["max_document_length"]) == (kind, 6, 12)
    assert saved["split_layer"] == 1 if kind == "split-cross-encoder" else saved["dimension"] == 20
    run(
        "score",
        place,
        "--candidates",
        out + "/bm25",
        "--teacher",
        out + "/student/model",
        "--states",
        "stored",
        "--storage",
        "float16",
        "--out",
        out + "/reranked",
    )
    scored = open_run(tmp_path / "out" / "reranked")
    assert dict(scored.manifest.identity.producer)["states"] == "stored in float16"
    assert scored.num_rows == open_run(tmp_path / "out" / "bm25").num_rows >= 3
    assert all(np.isfinite(scored[query_id].scores).all() for query_id in scored.query_ids)
