"""Representations stored with a run: equal to the teacher's, complete or absent; the run does not
change.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer

from irdistill.collections import Collection
from irdistill.errors import DamagedError, IrdistillError
from irdistill.runs import MemoryRun, RankedList, RunIdentity, verify
from irdistill.runs.stored_representations import (
    FOLDER,
    Item,
    RepresentationPlan,
    Representations,
    RepresentationWriter,
)
from irdistill.students import CrossEncoderStudent
from irdistill.teachers import ScoreOptions, TeacherSpec, recording, score
from tests.training.tiny import WORDS, make_backbone

CPU: dict[str, Any] = {"precision": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording")
    make_backbone(folder / "dense")
    CrossEncoderStudent(str(folder / "dense"), device="cpu").save(folder / "cross")
    MultiVectorEncoder(str(folder / "dense-bert"), device="cpu").save(str(folder / "colbert"))
    return folder


@pytest.fixture(scope="module")
def data() -> Collection:
    """Two queries of one text, an empty document, and one that no query has."""
    random = np.random.default_rng(2)
    docs = {f"d{i}": " ".join(random.choice(WORDS, 2 + 3 * (i % 5))) for i in range(12)} | {
        "empty": " ",
        "alone": "w1",
    }
    return Collection.from_dicts(
        "small", docs, {"q0": "w1 w2", "q1": "w3", "q2": "w1 w2", "q3": "w5 w6 w7", "q4": "w8"}, {}
    )


@pytest.fixture(scope="module")
def candidates(data: Collection) -> MemoryRun:
    random = np.random.default_rng(5)
    lists = [
        RankedList(
            query,
            [*(f"d{i}" for i in random.permutation(12)[:5]), "empty"],
            np.arange(6, 0, -1).astype(np.float32),
        )
        for query in data.queries
    ]
    return MemoryRun(RunIdentity("first-stage", {}, data.describe()), lists)


def spec(place: Path, name: str) -> TeacherSpec:
    options = CPU | (
        {"backend": "torch"}
        if name == "cross"
        else {"type": "late-interaction"}
        if name == "colbert"
        else {}
    )
    return TeacherSpec(
        str(place / name),
        "cross-encoder" if name == "cross" else "retriever",
        place / "work",
        settings=options,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("journal.jsonl", ".lock")
    }


def test_a_cross_encoders_scores_are_made_of_its_states(
    place: Path, data: Collection, candidates: MemoryRun, tmp_path: Path
) -> None:
    run = score(
        data,
        candidates,
        spec(place, "cross"),
        tmp_path / "run",
        ScoreOptions(part_queries=2, representations="float32"),
    )
    plain = score(
        data, candidates, spec(place, "cross"), tmp_path / "plain", ScoreOptions(part_queries=2)
    )
    assert run.fingerprint == plain.fingerprint and verify(tmp_path / "run") == []
    states = Representations(tmp_path / "run")
    states.check_collection(data)
    assert (states.kind, states.dimension) == ("pairs", 16)
    assert states.classifier is not None and states.classifier.shape == (1, 16)
    bias = CrossEncoder(str(place / "cross"), device="cpu").model.classifier.bias.item()
    for ranked in run:
        rows = data.corpus.rows(ranked.doc_ids)
        for row, doc, value, vectors in zip(
            rows, ranked.doc_ids, ranked.scores, states.pairs(ranked.query_id, rows), strict=True
        ):
            assert vectors.shape == ((0, 0) if doc == "empty" else (1, 16)), row
            if doc != "empty":
                assert states.classifier[0] @ vectors[0] + bias == pytest.approx(value, abs=1e-6)
    missing = states.pairs("q0", np.array([data.corpus.row("alone"), 10**6]))
    assert [len(vectors) for vectors in [*missing, *states.pairs("unknown", np.array([0]))]] == [
        0,
        0,
        0,
    ]
    assert [len(vectors) for vectors in states.documents(np.array([0, 1]))] == [0, 0]
    (states.folder / "classifier.npy").unlink()
    with pytest.raises(DamagedError, match="is missing or damaged"):
        Representations(states.run)


@pytest.mark.parametrize("name", ["dense", "colbert"])
def test_a_retrievers_vectors_are_those_of_sentence_transformers(
    name: str, place: Path, data: Collection, candidates: MemoryRun, tmp_path: Path
) -> None:
    run = score(
        data,
        candidates,
        spec(place, name),
        tmp_path / "run",
        ScoreOptions(part_queries=2, representations="float32"),
    )
    states = Representations(tmp_path / "run")
    assert states.kind == ("vectors" if name == "dense" else "tokens")
    model: Any = (SentenceTransformer if name == "dense" else MultiVectorEncoder)(
        str(place / name), device="cpu"
    )
    candidate_ids = sorted({doc for ranked in run for doc in ranked.doc_ids} - {"empty"})
    rows = data.corpus.rows(candidate_ids)
    documents, queries = (
        model.encode_document(data.corpus.texts(rows)),
        model.encode_query([q.text for q in data.queries.values()]),
    )
    for mine, reference in zip(
        [*states.documents(rows), *map(states.query, data.queries)],
        [*documents, *queries],
        strict=True,
    ):
        expected = torch.as_tensor(reference)
        expected = expected / expected.norm() if name == "dense" else expected
        np.testing.assert_allclose(mine, expected.reshape(mine.shape), atol=1e-5)
    assert [len(ranked) for ranked in states.documents(data.corpus.rows(["empty", "alone"]))] == [
        0,
        0,
    ]
    # each document once, in the first part that has it
    manifest = json.loads((tmp_path / "run" / FOLDER / "manifest.json").read_text())
    assert sum(part["rows"] for part in manifest["parts"]) == len(candidate_ids) + len(data.queries)


@pytest.mark.parametrize("name", ["cross", "colbert"])
def test_a_resumed_job_ends_with_the_same_bytes(
    name: str,
    place: Path,
    data: Collection,
    candidates: MemoryRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    score(
        data,
        candidates,
        spec(place, name),
        tmp_path / "whole",
        ScoreOptions(part_queries=1, representations="float16"),
    )
    for at in (0, 3):
        write = RepresentationWriter.write

        def stopped(
            self: RepresentationWriter,
            number: int,
            queries: int,
            items: Any,
            at: int = at,
            write: Any = write,
        ) -> None:
            if number == at:
                raise KeyboardInterrupt
            write(self, number, queries, items)

        monkeypatch.setattr(RepresentationWriter, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            score(
                data,
                candidates,
                spec(place, name),
                tmp_path / "cut",
                ScoreOptions(part_queries=1, representations="float16"),
            )
        monkeypatch.undo()
        with pytest.raises(IrdistillError, match="not finished"):
            Representations(tmp_path / "cut")
    score(
        data,
        candidates,
        spec(place, name),
        tmp_path / "cut",
        ScoreOptions(part_queries=1, representations="float16"),
    )
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_they_are_added_to_a_finished_run_and_a_missing_part_is_rebuilt(
    place: Path,
    data: Collection,
    candidates: MemoryRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, late = tmp_path / "whole", tmp_path / "late"
    score(
        data,
        candidates,
        spec(place, "cross"),
        whole,
        ScoreOptions(part_queries=2, k=4, representations="float16"),
    )
    score(data, candidates, spec(place, "cross"), late, ScoreOptions(part_queries=2, k=4))
    with pytest.raises(IrdistillError, match="has no representations"):
        Representations(late)
    score(
        data,
        candidates,
        spec(place, "cross"),
        late,
        ScoreOptions(part_queries=2, k=4, representations="float16"),
    )
    assert files(late) == files(whole)
    (late / FOLDER / "part-00001.bin").unlink()
    with pytest.raises(IrdistillError, match=r"part-00001.bin is missing or damaged"):
        Representations(late)
    calls = []
    inner = recording.score_part
    monkeypatch.setattr(
        recording, "score_part", lambda *options: calls.append(options[1]) or inner(*options)
    )
    score(
        data,
        candidates,
        spec(place, "cross"),
        late,
        ScoreOptions(part_queries=2, k=4, representations="float16"),
    )
    assert [[ranked.query_id for ranked in lists] for lists in calls] == [["q2", "q3"]]
    assert files(late) == files(whole)
    path = late / FOLDER / "part-00000.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    assert [line for line in verify(late) if "part-00000.bin: is damaged" in line]
    score(
        data,
        candidates,
        spec(place, "cross"),
        late,
        ScoreOptions(part_queries=2, k=3, overwrite=True),
    )
    assert not (late / FOLDER).exists()


def test_other_representations_are_not_mixed(
    place: Path, data: Collection, candidates: MemoryRun, tmp_path: Path
) -> None:
    score(
        data,
        candidates,
        spec(place, "cross"),
        tmp_path / "run",
        ScoreOptions(representations="float16"),
    )
    assert Representations(tmp_path / "run").pairs(
        "q1", data.corpus.rows(["d0", "d1", "d2", "d3", "d4"])
    )[0].dtype in (np.float16, np.float32)
    with pytest.raises(IrdistillError, match='storage: "float16" there, "float32" here'):
        score(
            data,
            candidates,
            spec(place, "cross"),
            tmp_path / "run",
            ScoreOptions(representations="float32"),
        )
    other = Collection.from_dicts("other", {"d0": "w1"}, {"q0": "w2"}, {})
    with pytest.raises(IrdistillError, match="fingerprints of the corpus differ"):
        Representations(tmp_path / "run").check_collection(other)
    plan = RepresentationPlan("pairs", "float16", {}, {}, None, {}, "0", 64)
    writer = RepresentationWriter(tmp_path, plan)
    with pytest.raises(
        IrdistillError, match="not finite in float16; give --representations float32"
    ):
        writer.write(0, 1, [Item(0, 0, np.full((1, 3), 1e6, np.float32))])
    writer.write(0, 1, [])
    writer.finish()


def test_teachers_without_representations_are_refused(
    place: Path, data: Collection, candidates: MemoryRun, tmp_path: Path
) -> None:
    with pytest.raises(IrdistillError, match="'bm25' has no representations"):
        score(
            data,
            candidates,
            TeacherSpec("bm25", work=tmp_path / "work"),
            tmp_path / "run",
            ScoreOptions(representations="float16"),
        )
    assert not (tmp_path / "run").exists()
