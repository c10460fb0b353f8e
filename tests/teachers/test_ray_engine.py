"""Two Ray workers on this machine write the same bytes as one process, also if a worker is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill import IrdistillError
from irdistill.collections import Collection, Corpus
from irdistill.distributed.ray_cluster import share_resources
from irdistill.runs import verify
from irdistill.teachers import (
    BM25Teacher,
    ScoreOptions,
    TeacherScores,
    TeacherSpec,
    TextPair,
    score,
)
from tests.ray_here import cluster  # noqa: F401
from tests.teachers.scoring_helpers import Counting, contents, make_candidates, make_collection


class Troubled:
    """BM25 that records its process for each query, and fails if a file tells it to."""

    def __init__(self, corpus: Corpus, notes: Path) -> None:
        self.inner, self.notes = BM25Teacher(corpus), notes

    @property
    def identity(self) -> dict[str, Any]:
        return self.inner.identity

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        for query_id in dict.fromkeys(pair.query.id for pair in pairs):
            with open(self.notes / "processes", "a") as stream:
                stream.write(f"{query_id} {os.getpid()}\n")
            if (self.notes / f"kill-{query_id}").exists():
                (self.notes / f"kill-{query_id}").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            if (self.notes / f"raise-{query_id}").exists():
                raise RuntimeError(f"no luck with {query_id}")
        return self.inner.score(pairs)


@dataclass(frozen=True)
class TroubledSpec(TeacherSpec):
    notes: Path = Path()

    def load(self, corpus: Corpus) -> Any:
        return Troubled(corpus, self.notes)

    def processes(self) -> dict[str, set[str]]:
        """The processes that scored each query."""
        by_query: dict[str, set[str]] = {}
        for line in (self.notes / "processes").read_text().splitlines():
            query_id, process = line.split()
            by_query.setdefault(query_id, set()).add(process)
        return by_query


@pytest.fixture()
def spec(tmp_path: Path) -> TroubledSpec:
    (tmp_path / "notes").mkdir()
    return TroubledSpec("bm25", notes=tmp_path / "notes")


def local(data: Collection, out: Path) -> dict[str, bytes]:
    score(data, make_candidates(data), TeacherSpec("bm25"), out, ScoreOptions(part_queries=2))
    return contents(out)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_workers_write_the_bytes_of_one_process_though_one_is_killed(
    tmp_path: Path, spec: TroubledSpec
) -> None:
    data = make_collection()
    (spec.notes / "kill-q05").touch()
    run = score(
        data,
        make_candidates(data),
        spec,
        tmp_path / "ray",
        ScoreOptions(part_queries=2, engine="ray", workers=2),
    )
    assert contents(tmp_path / "ray") == local(data, tmp_path / "local")
    assert verify(tmp_path / "ray") == [] and run.num_rows == 160
    had = spec.processes()
    assert len(had) == 20 and str(os.getpid()) not in set.union(*had.values())
    assert len(had["q05"]) == 2 and len(set.union(*had.values())) >= 2


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_part_that_keeps_failing_stops_the_job_and_the_rest_stays(
    tmp_path: Path, spec: TroubledSpec
) -> None:
    data = make_collection()
    (spec.notes / "raise-q19").touch()
    with pytest.raises(
        IrdistillError, match=r"part 9 \(queries 'q18' to 'q19'\) failed 3 times.*no luck with q19"
    ):
        score(
            data,
            make_candidates(data),
            spec,
            tmp_path / "ray",
            ScoreOptions(part_queries=2, engine="ray", workers=1),
        )
    assert len(list((tmp_path / "ray").glob("part-*.parquet"))) == 9
    teacher = Troubled(data.corpus, spec.notes)
    (spec.notes / "raise-q19").unlink()
    (spec.notes / "processes").unlink()
    score(data, make_candidates(data), teacher, tmp_path / "ray", ScoreOptions(part_queries=2))
    assert set(spec.processes()) == {"q18", "q19"}
    assert contents(tmp_path / "ray") == local(data, tmp_path / "local")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_teacher_that_cannot_be_loaded_is_one_error(tmp_path: Path) -> None:
    data = make_collection()
    with pytest.raises(IrdistillError, match="has no setting k9"):
        score(
            data,
            make_candidates(data),
            TeacherSpec("bm25", settings={"k9": 1}),
            tmp_path / "ray",
            ScoreOptions(engine="ray", workers=1),
        )
    assert not (tmp_path / "ray").exists()


def text_lengths(queries: list[str], documents: list[str]) -> list[float]:
    return [float(len(document)) for document in documents]


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_function_scores_on_workers(tmp_path: Path) -> None:
    data = make_collection()
    options = ScoreOptions(part_queries=5, engine="ray", workers=2)
    score(data, make_candidates(data), text_lengths, tmp_path / "ray", options)
    local_options = ScoreOptions(part_queries=5)
    score(data, make_candidates(data), text_lengths, tmp_path / "local", local_options)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_ray_needs_a_name_and_a_worker(tmp_path: Path) -> None:
    data = make_collection()
    with pytest.raises(IrdistillError, match="Give the name of a card"):
        score(data, make_candidates(data), Counting(), tmp_path / "run", ScoreOptions(engine="ray"))
    with pytest.raises(IrdistillError, match="workers is 0"):
        ScoreOptions(engine="ray", workers=0)


@pytest.mark.parametrize(
    ("machines", "workers", "count", "resources"),
    [
        ([{"CPU": 2}], None, 1, {"num_cpus": 2}),
        ([{"CPU": 2}], 2, 2, {"num_cpus": 1}),
        ([{"CPU": 2}], 9, 2, {"num_cpus": 1}),
        ([{"CPU": 8}, {"CPU": 16}, {}], None, 2, {"num_cpus": 8}),
        ([{"CPU": 16, "GPU": 4}, {"CPU": 16, "GPU": 4}], None, 8, {"num_cpus": 1, "num_gpus": 1}),
        ([{"CPU": 16, "GPU": 1}], 3, 3, {"num_cpus": 1, "num_gpus": 1 / 3}),
    ],
)
def test_processors_and_gpus_are_shared(
    machines: list[dict[str, float]], workers: int | None, count: int, resources: dict[str, float]
) -> None:
    count_and_resources = share_resources(
        [{"Alive": True, "Resources": machine} for machine in machines], workers
    )
    assert count_and_resources[0] == count
    assert count_and_resources[1] == pytest.approx(resources)
    with pytest.raises(IrdistillError, match="no machine"):
        share_resources([{"Alive": False, "Resources": machines[0]}], workers)


def test_parts_come_back_with_the_numbers_of_one_call(tmp_path: Path) -> None:
    data = make_collection()
    score(data, make_candidates(data), TeacherSpec("bm25"), tmp_path / "one")
    run = score(
        data,
        make_candidates(data),
        TeacherSpec("bm25"),
        tmp_path / "many",
        ScoreOptions(part_queries=1),
    )
    expected = score(data, make_candidates(data), BM25Teacher(data.corpus), tmp_path / "built")
    for by_query, other in zip(run, expected, strict=True):
        assert by_query.doc_ids == other.doc_ids
        np.testing.assert_array_equal(by_query.scores, other.scores)
